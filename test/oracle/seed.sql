-- The seed's pipeline, written plainly: what the warehouse replaces, and what it must agree with on a clean log.
-- Variable file: the log. Everything in schema seed; the order of the tables is the seed's order of steps.

CREATE SCHEMA seed;

-- raw: one line a row, as it is
CREATE TABLE seed.raw_user_events (line_no bigint GENERATED ALWAYS AS IDENTITY, payload jsonb);
COPY seed.raw_user_events (payload) FROM :'file' (FORMAT csv, DELIMITER E'\x01', QUOTE E'\x02');

-- staging: typed, each event once, the first one stays
CREATE TABLE seed.staging_user_events (
    event_id uuid PRIMARY KEY, event_time timestamptz, event_type text, user_id text, session_id text, product_id text,
    device text, country text, category text, brand text, price numeric, revenue numeric, quantity integer);
INSERT INTO seed.staging_user_events
SELECT coalesce((payload ->> 'event_id')::uuid, dwh.event_id(payload)), (payload ->> 'event_time')::timestamptz,
       payload ->> 'event_type', payload ->> 'user_id', payload ->> 'session_id', payload ->> 'product_id',
       payload ->> 'device', payload ->> 'country', payload ->> 'category', payload ->> 'brand',
       (payload ->> 'price')::numeric, (payload ->> 'revenue')::numeric, (payload ->> 'quantity')::integer
  FROM seed.raw_user_events
 ORDER BY line_no
    ON CONFLICT (event_id) DO NOTHING;

-- dim_user, SCD2: a version begins where device or country differ from the event before
CREATE TABLE seed.dim_user (
    user_key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, user_id text, device text, country text,
    valid_from timestamptz, valid_to timestamptz, is_current boolean);
INSERT INTO seed.dim_user (user_id, device, country, valid_from, valid_to, is_current)
SELECT user_id, device, country, event_time, next_change, next_change IS NULL
  FROM (SELECT user_id, device, country, event_time,
               lead(event_time) OVER (PARTITION BY user_id ORDER BY event_time, event_id) AS next_change
          FROM (SELECT user_id, device, country, event_time, event_id,
                       lag(device) OVER w IS DISTINCT FROM device OR lag(country) OVER w IS DISTINCT FROM country AS is_change
                  FROM seed.staging_user_events
                WINDOW w AS (PARTITION BY user_id ORDER BY event_time, event_id)) AS observed
         WHERE is_change) AS changed;

-- dim_product: one row a product, upserted event by event, so the newest value stays
CREATE TABLE seed.dim_product (
    product_key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, product_id text UNIQUE, category text, brand text, price numeric);
INSERT INTO seed.dim_product (product_id, category, brand, price)
SELECT product_id,
       (array_agg(category ORDER BY event_time DESC, event_id DESC) FILTER (WHERE category IS NOT NULL))[1],
       (array_agg(brand ORDER BY event_time DESC, event_id DESC) FILTER (WHERE brand IS NOT NULL))[1],
       (array_agg(price ORDER BY event_time DESC, event_id DESC) FILTER (WHERE price IS NOT NULL))[1]
  FROM seed.staging_user_events
 WHERE product_id IS NOT NULL
 GROUP BY product_id
    ON CONFLICT (product_id) DO UPDATE
   SET category = excluded.category, brand = excluded.brand, price = excluded.price;

-- facts: point-in-time join
CREATE INDEX ON seed.dim_user (user_id, valid_from);
ANALYZE seed.dim_user, seed.staging_user_events;
CREATE TABLE seed.fact_user_events (
    event_id uuid PRIMARY KEY, event_time timestamptz, event_type text, session_id text, user_key bigint, product_key bigint,
    quantity integer, price numeric, revenue numeric);
INSERT INTO seed.fact_user_events
SELECT s.event_id, s.event_time, s.event_type, s.session_id, u.user_key, p.product_key, s.quantity, s.price, s.revenue
  FROM seed.staging_user_events AS s
  JOIN seed.dim_user AS u ON u.user_id = s.user_id AND u.valid_from <= s.event_time
   AND (u.valid_to IS NULL OR s.event_time < u.valid_to)
  LEFT JOIN seed.dim_product AS p ON p.product_id = s.product_id;

-- checks: no null keys, 90 % of staging became facts, no event twice
CREATE VIEW seed.failed_checks AS
SELECT 'null_keys' AS name FROM seed.staging_user_events WHERE event_time IS NULL OR event_type IS NULL HAVING count(*) > 0
 UNION ALL
SELECT 'ratio' WHERE (SELECT count(*) FROM seed.fact_user_events) < 0.9 * (SELECT count(*) FROM seed.staging_user_events)
 UNION ALL
SELECT 'duplicates' FROM (SELECT event_id FROM seed.fact_user_events GROUP BY 1 HAVING count(*) > 1) AS d HAVING count(*) > 0;
