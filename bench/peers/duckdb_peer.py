"""DuckDB as fast as we know how: read_json with explicit columns, no compression, keys built after the first load.

Flavours: keys (event_id unique in staging and facts, enforced) and nokeys (repeats found by a query). Raw is typed
columns, not the line; a commit is durable, and the checkpoint after the last one is not counted, as PostgreSQL's is not.
"""
import os

import duckdb

from common import FIELDS, main

TYPES = dict.fromkeys(FIELDS, "VARCHAR") | {"event_id": "UUID", "event_time": "TIMESTAMP", "price": "DECIMAL(18,2)",
                                            "revenue": "DECIMAL(18,2)", "quantity": "INTEGER"}
COLUMNS = ", ".join(FIELDS)

TABLES = [
    "CREATE TABLE raw (batch_id INTEGER, %s)" % ", ".join("%s %s" % item for item in TYPES.items()),
    "CREATE TABLE staging (%s, batch_id INTEGER)" % ", ".join("%s %s" % item for item in TYPES.items()),
    "CREATE TABLE dim_user (user_key BIGINT, user_id VARCHAR, device VARCHAR, country VARCHAR, valid_from TIMESTAMP, valid_to TIMESTAMP, is_current BOOLEAN)",
    "CREATE TABLE dim_product (product_key BIGINT, product_id VARCHAR, category VARCHAR, brand VARCHAR, price DECIMAL(18,2))",
    "CREATE TABLE fact (event_id UUID, event_time TIMESTAMP, event_type VARCHAR, session_id VARCHAR, user_key BIGINT, product_key BIGINT,"
    " quantity INTEGER, price DECIMAL(18,2), revenue DECIMAL(18,2), batch_id INTEGER)",
]

# An event without an id gets one from its content; version 5, so that a comparison can tell.
IDENTITY = """coalesce(event_id, CAST(substr(content, 1, 12) || '5' || substr(content, 14, 3) || '8' || substr(content, 18, 15) AS UUID))"""
CONTENT = "CASE WHEN event_id IS NULL THEN md5(concat_ws('|', %s)) END AS content" % ", ".join(FIELDS[1:])


def staging(batch, keys):
    """All, and then away with the later ones of equal ids: cheaper than choosing the first of each, and no less right."""
    rest = ", ".join(FIELDS[1:])
    new = "SELECT %s AS event_id, %s, batch_id FROM (SELECT *, %s FROM raw WHERE batch_id = %d)" % (IDENTITY, rest, CONTENT, batch)
    if batch > 1 and keys:
        return ["INSERT INTO staging %s ON CONFLICT DO NOTHING" % new]
    if batch > 1:
        new = "SELECT n.* FROM (%s) AS n ANTI JOIN staging AS s ON s.event_id = n.event_id" % new
    repeated = "SELECT event_id FROM staging WHERE batch_id = %d GROUP BY event_id HAVING count(*) > 1" % batch
    return ["INSERT INTO staging " + new,
            "DELETE FROM staging WHERE rowid IN (SELECT unnest(ids[2:]) FROM (SELECT list(rowid ORDER BY rowid) AS ids"
            " FROM staging WHERE event_id IN (%s) GROUP BY event_id))" % repeated] + ["ALTER TABLE staging ADD PRIMARY KEY (event_id)"] * keys


def users(batch):
    """The versions of a batch behind the current ones, and dim_user with their ends anew."""
    return ["""CREATE OR REPLACE TABLE dim_user AS
        WITH observed AS (
            SELECT user_id, device, country, event_time, event_id, true AS is_new FROM staging WHERE batch_id = %d
             UNION ALL
            SELECT user_id, device, country, valid_from, NULL, false FROM dim_user WHERE is_current),
        changed AS (
            SELECT user_id, device, country, event_time AS valid_from, is_new FROM (
                SELECT *, lag(device) OVER w IS DISTINCT FROM device OR lag(country) OVER w IS DISTINCT FROM country AS is_change
                  FROM observed WINDOW w AS (PARTITION BY user_id ORDER BY event_time, event_id NULLS FIRST))
             WHERE is_change),
        versions AS (
            SELECT user_key, user_id, device, country, valid_from FROM dim_user
             UNION ALL
            SELECT (SELECT coalesce(max(user_key), 0) FROM dim_user) + row_number() OVER (), user_id, device, country, valid_from FROM changed WHERE is_new)
        SELECT *, lead(valid_from) OVER (PARTITION BY user_id ORDER BY valid_from) AS valid_to, valid_to IS NULL AS is_current FROM versions""" % batch]


def products(batch):
    newest = ", ".join("arg_max(%s, (event_time, event_id)) FILTER (WHERE %s IS NOT NULL) AS %s" % (c, c, c) for c in ("category", "brand", "price"))
    merged = ", ".join("coalesce(n.%s, p.%s) AS %s" % (c, c, c) for c in ("category", "brand", "price"))
    return ["""CREATE OR REPLACE TABLE dim_product AS
        SELECT coalesce(p.product_key, (SELECT coalesce(max(product_key), 0) FROM dim_product) + row_number() OVER ()) AS product_key, product_id, %s
          FROM dim_product AS p FULL JOIN (SELECT product_id, %s FROM staging WHERE batch_id = %d AND product_id IS NOT NULL GROUP BY product_id) AS n
         USING (product_id)""" % (merged, newest, batch)]


def facts(batch, keys):
    return ["""INSERT INTO fact
        SELECT s.event_id, s.event_time, s.event_type, s.session_id, u.user_key, coalesce(p.product_key, 0), s.quantity, s.price, s.revenue, s.batch_id
          FROM (SELECT * FROM staging WHERE batch_id = %d) AS s
          JOIN dim_user AS u ON u.user_id = s.user_id AND u.valid_from <= s.event_time
           AND s.event_time < coalesce(u.valid_to, TIMESTAMP '9999-01-01')
          LEFT JOIN dim_product AS p ON p.product_id = s.product_id""" % batch] + \
        ["ALTER TABLE fact ADD PRIMARY KEY (event_id)"] * (keys and batch == 1)


CHECKS = [
    "SELECT count(*) FROM staging WHERE event_time IS NULL OR event_type IS NULL",
    "SELECT (SELECT count(*) FROM fact) >= 0.9 * (SELECT count(*) FROM staging)",
    "SELECT count(*) - count(DISTINCT event_id) FROM fact",
]

DIGEST = "count(*), coalesce(sum(CAST('0x' || substr(md5(%s), 1, 15) AS BIGINT)), 0)"


def text_of(*columns):
    return "concat_ws('|', %s)" % ", ".join("coalesce(CAST(%s AS VARCHAR), '')" % column for column in columns)


def cents(column):
    return "CAST(%s * 100 AS BIGINT)" % column


STATE = [
    "SELECT %s FROM fact AS f JOIN dim_user AS u USING (user_key) LEFT JOIN dim_product AS p USING (product_key)" % DIGEST % text_of(
        "CASE WHEN substr(CAST(f.event_id AS VARCHAR), 15, 1) <> '5' THEN f.event_id END", "epoch_us(f.event_time)", "f.event_type", "f.session_id",
        "f.quantity", cents("f.price"), cents("f.revenue"), "u.user_id", "epoch_us(u.valid_from)", "p.product_id"),
    "SELECT %s FROM dim_user AS u" % DIGEST % text_of("u.user_id", "u.device", "u.country", "epoch_us(u.valid_from)", "epoch_us(u.valid_to)"),
    "SELECT %s FROM dim_product AS p" % DIGEST % text_of("p.product_id", "p.category", "p.brand", cents("p.price")),
]


def open_peer(database, flavour, batch, path):
    connection = duckdb.connect(database, config={"threads": os.cpu_count()})
    connection.execute("SET force_compression = 'uncompressed'")
    keys = flavour == "keys"
    columns = "{%s}" % ", ".join("'%s': '%s'" % item for item in TYPES.items())
    steps = [("raw", ["INSERT INTO raw SELECT %d, %s FROM read_json('%s', format = 'newline_delimited', columns = %s)" % (batch, COLUMNS, path, columns)]),
             ("staging", staging(batch, keys)), ("dim_user", users(batch)), ("dim_product", products(batch)), ("facts", facts(batch, keys)),
             ("checks", CHECKS)]
    return (lambda sql: connection.execute(sql).fetchall()), TABLES, steps, STATE


if __name__ == "__main__":
    main(open_peer)
