"""ClickHouse's engine, in this process: MergeTree in order of arrival, no key (it has none that is enforced), no fsync asked for.

Flavour: threads as there are cores. Raw is typed columns, not the line. Repeats are found by a query.
"""
import json

from chdb import session

from common import FIELDS, main

TYPES = dict.fromkeys(FIELDS, "String") | {
    "event_id": "Nullable(UUID)", "event_time": "DateTime64(6, 'UTC')", "session_id": "Nullable(String)", "product_id": "Nullable(String)",
    "device": "Nullable(String)", "country": "Nullable(String)", "category": "Nullable(String)", "brand": "Nullable(String)",
    "price": "Nullable(Decimal(18, 2))", "revenue": "Nullable(Decimal(18, 2))", "quantity": "Nullable(Int32)"}
COLUMNS = ", ".join(FIELDS)
REST = ", ".join(FIELDS[1:])
DIMS = {
    "dim_user": "user_key Int64, user_id String, device Nullable(String), country Nullable(String), valid_from DateTime64(6, 'UTC'),"
                " valid_to Nullable(DateTime64(6, 'UTC'))",
    "dim_product": "product_key Int64, product_id String, category Nullable(String), brand Nullable(String), price Nullable(Decimal(18, 2))",
}


def table(name, columns, order="tuple()"):
    return "CREATE TABLE %s (%s) ENGINE = MergeTree ORDER BY %s" % (name, columns, order)


TABLES = [
    table("raw", "batch_id Int32, " + ", ".join("%s %s" % item for item in TYPES.items())),
    table("staging", "event_id UUID, %s, batch_id Int32" % ", ".join("%s %s" % (c, TYPES[c]) for c in FIELDS[1:])),
    table("dim_user", DIMS["dim_user"]), table("dim_product", DIMS["dim_product"]),
    table("fact", "event_id UUID, event_time DateTime64(6, 'UTC'), event_type String, session_id Nullable(String), user_key Int64,"
                  " product_key Int64, quantity Nullable(Int32), price Nullable(Decimal(18, 2)), revenue Nullable(Decimal(18, 2)), batch_id Int32"),
]

# An event without an id gets one from its content; version 5, so that a comparison can tell.
CONTENT = "hex(MD5(concatWithSeparator('|', %s)))" % ", ".join("ifNull(toString(%s), '')" % c for c in FIELDS[1:])
IDENTITY = ("ifNull(event_id, toUUID(concat(substring({0}, 1, 8), '-', substring({0}, 9, 4), '-5', substring({0}, 14, 3), '-8', substring({0}, 18, 3),"
            " '-', substring({0}, 21, 12))))").format(CONTENT)


def staging(batch):
    known = " AND id NOT IN (SELECT event_id FROM staging)" if batch > 1 else ""
    return ["INSERT INTO staging SELECT id, %s, batch_id FROM (SELECT %s AS id, %s, batch_id FROM raw WHERE batch_id = %d) WHERE true%s LIMIT 1 BY id" % (
        REST, IDENTITY, REST, batch, known)]


def replaced(name, query):
    """A small table written anew."""
    return ["DROP TABLE IF EXISTS new_" + name, table("new_" + name, DIMS[name]), "INSERT INTO new_%s %s" % (name, query),
            "EXCHANGE TABLES new_%s AND %s" % (name, name), "DROP TABLE new_" + name]


def users(batch):
    return replaced("dim_user", """
        WITH observed AS (
            SELECT user_id, device, country, event_time AS valid_from, toNullable(event_id) AS event_id, 0 AS user_key FROM staging WHERE batch_id = %d
             UNION ALL
            SELECT user_id, device, country, valid_from, NULL, user_key FROM dim_user WHERE valid_to IS NULL),
        compared AS (
            SELECT *, row_number() OVER w = 1 OR lagInFrame(device) OVER w IS DISTINCT FROM device
                      OR lagInFrame(country) OVER w IS DISTINCT FROM country AS is_change
              FROM observed
            WINDOW w AS (PARTITION BY user_id ORDER BY valid_from, event_id NULLS FIRST ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)),
        versions AS (
            SELECT user_key, user_id, device, country, valid_from FROM dim_user
             UNION ALL
            SELECT (SELECT max(user_key) FROM dim_user) + row_number() OVER (), user_id, device, country, valid_from
              FROM compared WHERE is_change AND user_key = 0)
        SELECT user_key, user_id, device, country, valid_from,
               leadInFrame(toNullable(valid_from)) OVER (PARTITION BY user_id ORDER BY valid_from ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
          FROM versions""" % batch)


def products(batch):
    newest = ", ".join("argMaxIf(%s, (event_time, event_id), %s IS NOT NULL) AS new_%s" % (c, c, c) for c in ("category", "brand", "price"))
    merged = ", ".join("coalesce(new_%s, %s)" % (c, c) for c in ("category", "brand", "price"))
    return replaced("dim_product", """
        SELECT if(product_key > 0, product_key, (SELECT max(product_key) FROM dim_product) + row_number() OVER ()), id, %s
          FROM (SELECT assumeNotNull(product_id) AS id, %s FROM staging WHERE batch_id = %d AND product_id IS NOT NULL GROUP BY product_id) AS n
          FULL JOIN (SELECT *, product_id AS id FROM dim_product) AS p USING (id)""" % (merged, newest, batch))


def facts(batch):
    return ["""INSERT INTO fact
        SELECT s.event_id, s.event_time, s.event_type, s.session_id, u.user_key, p.product_key, s.quantity, s.price, s.revenue, s.batch_id
          FROM (SELECT *, ifNull(product_id, '') AS product FROM staging WHERE batch_id = %d) AS s
          ASOF JOIN dim_user AS u ON u.user_id = s.user_id AND s.event_time >= u.valid_from
          LEFT JOIN dim_product AS p ON p.product_id = s.product""" % batch]


CHECKS = [
    "SELECT count() FROM staging WHERE event_time IS NULL OR event_type IS NULL",
    "SELECT (SELECT count() FROM fact) >= 0.9 * (SELECT count() FROM staging)",
    "SELECT count() - uniqExact(event_id) FROM fact",
]

DIGEST = "SELECT count(), sum(toUInt128(bitShiftRight(reinterpretAsUInt64(reverse(substring(MD5(%s), 1, 8))), 4)))"


def text_of(*columns):
    return "concatWithSeparator('|', %s)" % ", ".join("ifNull(toString(%s), '')" % column for column in columns)


def micros(column):
    return "toUnixTimestamp64Micro(%s)" % column


def cents(column):
    return "toInt64(%s * 100)" % column


STATE = [
    DIGEST % text_of("if(substring(toString(f.event_id), 15, 1) = '5', '', toString(f.event_id))", micros("f.event_time"), "f.event_type", "f.session_id",
                     "f.quantity", cents("f.price"), cents("f.revenue"), "u.user_id", micros("u.valid_from"), "p.product_id")
    + " FROM fact AS f JOIN dim_user AS u ON u.user_key = f.user_key LEFT JOIN dim_product AS p ON p.product_key = f.product_key",
    DIGEST % text_of("user_id", "device", "country", micros("valid_from"), micros("valid_to")) + " FROM dim_user",
    DIGEST % text_of("product_id", "category", "brand", cents("price")) + " FROM dim_product",
]


def open_peer(database, flavour, batch, path):
    peer = session.Session(database)

    def run(sql):
        answer = peer.query(sql, "JSONCompactEachRowWithNames" if sql.startswith("SELECT") else "CSV").bytes().decode()
        return [json.loads(line) for line in answer.splitlines()[1:]] if sql.startswith("SELECT") else []

    run("CREATE DATABASE IF NOT EXISTS bench ENGINE = Atomic")
    run("USE bench")
    schema = ", ".join("%s %s" % item for item in TYPES.items())
    steps = [("raw", ["INSERT INTO raw SELECT %d, %s FROM file('%s', 'JSONEachRow', '%s')" % (batch, COLUMNS, path, schema.replace("'", "\\'"))]),
             ("staging", staging(batch)), ("dim_user", users(batch)), ("dim_product", products(batch)), ("facts", facts(batch)), ("checks", CHECKS)]
    return run, TABLES, steps, STATE


if __name__ == "__main__":
    main(open_peer)
