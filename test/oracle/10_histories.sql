-- The oracle of the dimensions: obvious and quadratic, from what the histories mean and nothing of the extension.
-- The value of an attribute at an instant is the one of the greatest (event_time, event_id) at or before it that is not
-- null; a version, or the interval of a price, is a run of instants with equal values.

CREATE SCHEMA oracle;
CREATE TABLE oracle.observation (
    round integer, event_id uuid, event_time timestamptz, user_id text, device text, country text,
    product_id text, category text, brand text, price numeric);
CREATE TABLE oracle.seen (LIKE oracle.observation);
CREATE INDEX ON oracle.seen (user_id);
CREATE INDEX ON oracle.seen (product_id);
CREATE TABLE oracle.state (user_id text, instant timestamptz, device text, country text);
CREATE INDEX ON oracle.state (user_id);
CREATE TABLE oracle.start (LIKE oracle.state);
CREATE INDEX ON oracle.start (user_id);
CREATE TABLE oracle.version (user_id text, device text, country text, valid_from timestamptz, valid_to timestamptz);
CREATE TABLE oracle.price_state (product_id text, instant timestamptz, price numeric);
CREATE INDEX ON oracle.price_state (product_id);
CREATE TABLE oracle.price_start (LIKE oracle.price_state);
CREATE INDEX ON oracle.price_start (product_id);
CREATE TABLE oracle.price (product_id text, price numeric, valid_from timestamptz, valid_to timestamptz);
CREATE TABLE oracle.product (product_id text, category text, brand text, price numeric, is_inferred boolean);
-- dim_user as the last step left it
CREATE TABLE oracle.kept AS SELECT * FROM marts.dim_user;

-- Computes what the marts must be after a round.
CREATE PROCEDURE oracle.compute(upto integer) LANGUAGE sql AS $$
    TRUNCATE oracle.seen, oracle.state, oracle.start, oracle.version, oracle.price_state, oracle.price_start, oracle.price, oracle.product;
    INSERT INTO oracle.seen SELECT o.* FROM oracle.observation AS o WHERE o.round <= upto;
    INSERT INTO oracle.state
    SELECT i.user_id, i.event_time,
           (SELECT o.device FROM oracle.seen AS o
             WHERE o.user_id = i.user_id AND o.event_time <= i.event_time AND o.device IS NOT NULL
             ORDER BY o.event_time DESC, o.event_id DESC LIMIT 1),
           (SELECT o.country FROM oracle.seen AS o
             WHERE o.user_id = i.user_id AND o.event_time <= i.event_time AND o.country IS NOT NULL
             ORDER BY o.event_time DESC, o.event_id DESC LIMIT 1)
      FROM (SELECT DISTINCT user_id, event_time FROM oracle.seen) AS i;
    INSERT INTO oracle.start
    SELECT s.* FROM oracle.state AS s
     WHERE NOT EXISTS (
           SELECT FROM oracle.state AS p
            WHERE p.user_id = s.user_id AND p.device IS NOT DISTINCT FROM s.device AND p.country IS NOT DISTINCT FROM s.country
              AND p.instant = (SELECT max(b.instant) FROM oracle.state AS b WHERE b.user_id = s.user_id AND b.instant < s.instant));
    INSERT INTO oracle.version
    SELECT s.user_id, s.device, s.country, s.instant,
           (SELECT min(n.instant) FROM oracle.start AS n WHERE n.user_id = s.user_id AND n.instant > s.instant)
      FROM oracle.start AS s;
    -- likewise the prices, of the instants at which one was said
    INSERT INTO oracle.price_state
    SELECT i.product_id, i.event_time,
           (SELECT o.price FROM oracle.seen AS o
             WHERE o.product_id = i.product_id AND o.event_time <= i.event_time AND o.price IS NOT NULL
             ORDER BY o.event_time DESC, o.event_id DESC LIMIT 1)
      FROM (SELECT DISTINCT product_id, event_time FROM oracle.seen WHERE product_id IS NOT NULL AND price IS NOT NULL) AS i;
    INSERT INTO oracle.price_start
    SELECT s.* FROM oracle.price_state AS s
     WHERE NOT EXISTS (
           SELECT FROM oracle.price_state AS p
            WHERE p.product_id = s.product_id AND p.price = s.price
              AND p.instant = (SELECT max(b.instant) FROM oracle.price_state AS b WHERE b.product_id = s.product_id AND b.instant < s.instant));
    INSERT INTO oracle.price
    SELECT s.product_id, s.price, s.instant,
           (SELECT min(n.instant) FROM oracle.price_start AS n WHERE n.product_id = s.product_id AND n.instant > s.instant)
      FROM oracle.price_start AS s;
    INSERT INTO oracle.product
    SELECT k.*, k.category IS NULL AND k.brand IS NULL AND k.price IS NULL
      FROM (SELECT p.product_id,
                   (SELECT o.category FROM oracle.seen AS o WHERE o.product_id = p.product_id AND o.category IS NOT NULL
                     ORDER BY o.event_time DESC, o.event_id DESC LIMIT 1) AS category,
                   (SELECT o.brand FROM oracle.seen AS o WHERE o.product_id = p.product_id AND o.brand IS NOT NULL
                     ORDER BY o.event_time DESC, o.event_id DESC LIMIT 1) AS brand,
                   (SELECT o.price FROM oracle.seen AS o WHERE o.product_id = p.product_id AND o.price IS NOT NULL
                     ORDER BY o.event_time DESC, o.event_id DESC LIMIT 1) AS price
              FROM (SELECT DISTINCT product_id FROM oracle.seen WHERE product_id IS NOT NULL) AS p) AS k
     UNION ALL
    SELECT '', NULL, NULL, NULL, false;
$$;

-- How the marts differ from the oracle: one row for each comparison, all zero where they are equal.
CREATE FUNCTION oracle.differences(OUT what text, OUT rows bigint) RETURNS SETOF record LANGUAGE sql AS $$
    SELECT 'versions missing', count(*) FROM (
        SELECT user_id, device, country, valid_from, valid_to, valid_to IS NULL FROM oracle.version EXCEPT ALL
        SELECT user_id, device, country, valid_from, valid_to, is_current FROM marts.dim_user) AS d
     UNION ALL
    SELECT 'versions too many', count(*) FROM (
        SELECT user_id, device, country, valid_from, valid_to, is_current FROM marts.dim_user EXCEPT ALL
        SELECT user_id, device, country, valid_from, valid_to, valid_to IS NULL FROM oracle.version) AS d
     UNION ALL
    SELECT 'products missing', count(*) FROM (
        SELECT * FROM oracle.product EXCEPT ALL
        SELECT product_id, category, brand, price, is_inferred FROM marts.dim_product) AS d
     UNION ALL
    SELECT 'products too many', count(*) FROM (
        SELECT product_id, category, brand, price, is_inferred FROM marts.dim_product EXCEPT ALL
        SELECT * FROM oracle.product) AS d
     UNION ALL
    SELECT 'prices missing', count(*) FROM (
        SELECT product_id, price, valid_from, valid_to, valid_to IS NULL FROM oracle.price EXCEPT ALL
        SELECT p.product_id, h.price, h.valid_from, h.valid_to, h.is_current
          FROM marts.dim_product_price AS h LEFT JOIN marts.dim_product AS p USING (product_key)) AS d
     UNION ALL
    SELECT 'prices too many', count(*) FROM (
        SELECT p.product_id, h.price, h.valid_from, h.valid_to, h.is_current
          FROM marts.dim_product_price AS h LEFT JOIN marts.dim_product AS p USING (product_key) EXCEPT ALL
        SELECT product_id, price, valid_from, valid_to, valid_to IS NULL FROM oracle.price) AS d
     UNION ALL
    SELECT 'events without a fact', count(*) FROM (
        SELECT event_id, event_time FROM oracle.seen EXCEPT ALL SELECT event_id, event_time FROM marts.fact_user_events) AS d
     UNION ALL
    SELECT 'facts without an event', count(*) FROM (
        SELECT event_id, event_time FROM marts.fact_user_events EXCEPT ALL SELECT event_id, event_time FROM oracle.seen) AS d
     UNION ALL
    -- the state of the user at the fact's own instant, and the interval around it
    SELECT 'facts with a wrong version', count(*)
      FROM marts.fact_user_events AS f
      JOIN oracle.seen AS o ON o.event_id = f.event_id
      JOIN oracle.state AS s ON s.user_id = o.user_id AND s.instant = o.event_time
      LEFT JOIN marts.dim_user AS u ON u.user_key = f.user_key
     WHERE u.user_key IS NULL OR u.user_id <> o.user_id OR f.event_time < u.valid_from OR f.event_time >= u.valid_to
        OR u.device IS DISTINCT FROM s.device OR u.country IS DISTINCT FROM s.country
     UNION ALL
    SELECT 'facts with a wrong product', count(*)
      FROM marts.fact_user_events AS f
      JOIN oracle.seen AS o ON o.event_id = f.event_id
      LEFT JOIN marts.dim_product AS p ON p.product_key = f.product_key
     WHERE p.product_id IS DISTINCT FROM coalesce(o.product_id, '')
$$;

-- What happened to the keys since the versions were last remembered, which must be one step of apply_scd2 ago: between
-- several steps a version may go and come back under a new key.
CREATE FUNCTION oracle.key_differences(OUT what text, OUT rows bigint) RETURNS SETOF record LANGUAGE sql AS $$
    SELECT 'keys lost though the start stayed', count(*)
      FROM oracle.kept AS k JOIN marts.dim_user AS d ON d.user_id = k.user_id AND d.valid_from = k.valid_from
     WHERE d.user_key <> k.user_key
     UNION ALL
    SELECT 'keys minted though only the start moved', count(*)
      FROM oracle.kept AS k
      JOIN marts.dim_user AS d ON d.user_id = k.user_id AND d.device IS NOT DISTINCT FROM k.device
       AND d.country IS NOT DISTINCT FROM k.country
       AND d.valid_from < coalesce(k.valid_to, 'infinity') AND k.valid_from < coalesce(d.valid_to, 'infinity')
     WHERE NOT EXISTS (SELECT FROM marts.dim_user AS n WHERE n.user_key = k.user_key)
       AND NOT EXISTS (SELECT FROM oracle.kept AS o WHERE o.user_key = d.user_key)
     UNION ALL
    SELECT 'keys given to another user', count(*)
      FROM oracle.kept AS k JOIN marts.dim_user AS d USING (user_key) WHERE d.user_id <> k.user_id
     UNION ALL
    SELECT 'keys that are neither the start''s nor of a version with the same values', count(*)
      FROM oracle.kept AS k JOIN marts.dim_user AS d USING (user_key)
     WHERE d.valid_from <> k.valid_from
       AND (d.device IS DISTINCT FROM k.device OR d.country IS DISTINCT FROM k.country
            OR d.valid_from >= coalesce(k.valid_to, 'infinity') OR k.valid_from >= coalesce(d.valid_to, 'infinity'))
$$;
