-- The seed's steps for one batch, one statement a step, ANALYZE between. Variables: file, batch.
-- Like the user's design it takes events in the order of their time: a late one is no part of what it can do.

-- step raw
ALTER TABLE seed.raw_user_events ALTER batch_id SET DEFAULT :batch;
COPY seed.raw_user_events (payload) FROM :'file' (FORMAT csv, DELIMITER E'\x02', QUOTE E'\x01');
ANALYZE seed.raw_user_events;

-- step staging
INSERT INTO seed.staging_user_events
SELECT coalesce((payload ->> 'event_id')::uuid, dwh.event_id(payload)), (payload ->> 'event_time')::timestamptz,
       payload ->> 'event_type', payload ->> 'user_id', payload ->> 'session_id', payload ->> 'product_id',
       payload ->> 'device', payload ->> 'country', payload ->> 'category', payload ->> 'brand',
       (payload ->> 'price')::numeric, (payload ->> 'revenue')::numeric, (payload ->> 'quantity')::integer, batch_id
  FROM seed.raw_user_events
 WHERE batch_id = :batch
 ORDER BY raw_id
    ON CONFLICT (event_id) DO NOTHING;
ANALYZE seed.staging_user_events;

-- step dim_user
WITH changed AS MATERIALIZED (
    SELECT user_id, device, country, valid_from, lead(valid_from) OVER (PARTITION BY user_id ORDER BY valid_from) AS valid_to, user_key
      FROM (SELECT user_id, device, country, valid_from, user_key,
                   user_key IS NOT NULL OR lag(device) OVER w IS DISTINCT FROM device OR lag(country) OVER w IS DISTINCT FROM country AS is_change
              FROM (SELECT user_id, device, country, event_time AS valid_from, event_id, NULL::bigint AS user_key
                      FROM seed.staging_user_events WHERE batch_id = :batch
                     UNION ALL
                    SELECT user_id, device, country, valid_from, NULL, user_key FROM seed.dim_user
                     WHERE is_current AND user_id IN (SELECT user_id FROM seed.staging_user_events WHERE batch_id = :batch)) AS observed
            WINDOW w AS (PARTITION BY user_id ORDER BY valid_from, event_id NULLS FIRST)) AS compared
     WHERE is_change),
closed AS (
    UPDATE seed.dim_user AS d SET valid_to = c.valid_to, is_current = false
      FROM changed AS c
     WHERE d.user_key = c.user_key AND c.valid_to IS NOT NULL)
INSERT INTO seed.dim_user (user_id, device, country, valid_from, valid_to, is_current)
SELECT user_id, device, country, valid_from, valid_to, valid_to IS NULL FROM changed WHERE user_key IS NULL;
ANALYZE seed.dim_user;

-- step dim_product
INSERT INTO seed.dim_product AS p (product_id, category, brand, price)
SELECT product_id,
       (array_agg(category ORDER BY event_time DESC, event_id DESC) FILTER (WHERE category IS NOT NULL))[1],
       (array_agg(brand ORDER BY event_time DESC, event_id DESC) FILTER (WHERE brand IS NOT NULL))[1],
       (array_agg(price ORDER BY event_time DESC, event_id DESC) FILTER (WHERE price IS NOT NULL))[1]
  FROM seed.staging_user_events
 WHERE batch_id = :batch AND product_id IS NOT NULL
 GROUP BY product_id
    ON CONFLICT (product_id) DO UPDATE
   SET category = coalesce(excluded.category, p.category), brand = coalesce(excluded.brand, p.brand), price = coalesce(excluded.price, p.price);
ANALYZE seed.dim_product;

-- step facts
INSERT INTO seed.fact_user_events
SELECT s.event_id, s.event_time, s.event_type, s.session_id, u.user_key, p.product_key, s.quantity, s.price, s.revenue
  FROM seed.staging_user_events AS s
  JOIN seed.dim_user AS u ON u.user_id = s.user_id AND u.valid_from <= s.event_time
   AND (u.valid_to IS NULL OR s.event_time < u.valid_to)
  LEFT JOIN seed.dim_product AS p ON p.product_id = s.product_id
 WHERE s.batch_id = :batch
    ON CONFLICT (event_id) DO NOTHING;
ANALYZE seed.fact_user_events;

-- step checks
SELECT count(*) FROM seed.staging_user_events WHERE event_time IS NULL OR event_type IS NULL;
WITH s AS (SELECT count(*) AS cnt FROM seed.staging_user_events), f AS (SELECT count(*) AS cnt FROM seed.fact_user_events)
SELECT f.cnt::float / nullif(s.cnt, 0) >= 0.9 FROM s, f;
SELECT count(*) FROM (SELECT FROM seed.fact_user_events GROUP BY event_id HAVING count(*) > 1) AS d;
SELECT count(*) FROM (SELECT FROM seed.dim_user WHERE is_current GROUP BY user_id HAVING count(*) > 1) AS d;
