-- 21_dim_product.sql: staging.user_events -> marts.dim_product: the newest known attributes of each product;
--                     staging.user_events -> marts.dim_product_price: the price that each product had at any time.
--
-- The history of prices is a table beside dim_product, not versions of dim_product: a fact's product_key stays one per
-- product and the fact keeps the price paid, while a category or brand is corrected for all time (type 1).
-- Invariants: attribute by attribute the non-null value with the greatest (event_time, event_id), where a product known by
-- its id alone is an inferred member: dwh.product_state() EXCEPT ALL the table, both ways, is empty. Prices are a function of
-- all observations, whatever order they arrived in: likewise dwh.product_prices() once no staged load waits for this step.
-- Repeats are harmless: an observation wins again against itself, and nothing is written.

-- Noun: what dim_product should hold, from the observations of these loads; NULL = all.
CREATE FUNCTION dwh.product_state(load_ids bigint[] DEFAULT NULL)
RETURNS TABLE (
    product_id text, category text, brand text, price numeric,
    category_time timestamptz, category_event_id uuid, brand_time timestamptz, brand_event_id uuid,
    price_time timestamptz, price_event_id uuid)
LANGUAGE sql STABLE AS $$
    -- an aggregate reads its input in the order of the subquery
    SELECT s.product_id, dwh.last_known(s.category), dwh.last_known(s.brand), dwh.last_known(s.price),
           dwh.last_known(CASE WHEN s.category IS NOT NULL THEN s.event_time END),
           dwh.last_known(CASE WHEN s.category IS NOT NULL THEN s.event_id END),
           dwh.last_known(CASE WHEN s.brand IS NOT NULL THEN s.event_time END),
           dwh.last_known(CASE WHEN s.brand IS NOT NULL THEN s.event_id END),
           dwh.last_known(CASE WHEN s.price IS NOT NULL THEN s.event_time END),
           dwh.last_known(CASE WHEN s.price IS NOT NULL THEN s.event_id END)
      FROM (SELECT e.* FROM staging.user_events AS e
             WHERE e.product_id IS NOT NULL
               AND (product_state.load_ids IS NULL OR e.load_id = ANY (product_state.load_ids) AND e.event_time BETWEEN
                   (SELECT pg_catalog.min(l.first_event) FROM ops.loads AS l WHERE l.load_id = ANY (product_state.load_ids)) AND
                   (SELECT pg_catalog.max(l.last_event) FROM ops.loads AS l WHERE l.load_id = ANY (product_state.load_ids)))
             ORDER BY e.product_id, e.event_time, e.event_id) AS s
     GROUP BY s.product_id
$$;
COMMENT ON FUNCTION dwh.product_state(bigint[]) IS
'What marts.dim_product should hold, computed from the staged events of these loads (NULL = all). Returns one row a product. Errors: 42P01 without a warehouse. Reads only.';

-- Noun: what dim_product_price should hold, from all observations: at one instant the price of the greatest event_id; equal
-- prices one after the other, by value, are one interval.
CREATE FUNCTION dwh.product_prices()
RETURNS TABLE (product_id text, price numeric, valid_from timestamptz, valid_to timestamptz)
LANGUAGE sql STABLE AS $$
    WITH said AS (
        SELECT DISTINCT ON (s.product_id, s.event_time) s.product_id, s.event_time, s.price
          FROM staging.user_events AS s WHERE s.product_id IS NOT NULL AND s.price IS NOT NULL
         ORDER BY s.product_id, s.event_time, s.event_id DESC),
    changes AS (
        SELECT d.product_id, d.event_time, d.price,
               pg_catalog.lag(d.price) OVER (PARTITION BY d.product_id ORDER BY d.event_time) IS DISTINCT FROM d.price AS is_change
          FROM said AS d)
    SELECT c.product_id, c.price, c.event_time,
           pg_catalog.lead(c.event_time) OVER (PARTITION BY c.product_id ORDER BY c.event_time)
      FROM changes AS c WHERE c.is_change
$$;
COMMENT ON FUNCTION dwh.product_prices() IS
'What marts.dim_product_price should hold, computed from all of staging.user_events: half-open intervals, valid_to NULL while open. Returns one row an interval. Errors: 42P01 without a warehouse. Reads only.';

-- Most batches say what is known: where one interval holds all that they say of a product, nothing is to be done.
CREATE FUNCTION dwh._repriced_products(load_ids bigint[]) RETURNS bigint[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
BEGIN
    RETURN (
    SELECT coalesce(array_agg(p.product_key), '{}')
      FROM (SELECT s.product_id, min(s.event_time) AS since, max(s.event_time) AS until, min(s.price) AS lowest, max(s.price) AS highest
              FROM staging.user_events AS s
             WHERE s.load_id = ANY (load_ids) AND s.product_id IS NOT NULL AND s.price IS NOT NULL
               AND s.event_time BETWEEN (SELECT min(l.first_event) FROM ops.loads AS l WHERE l.load_id = ANY (load_ids))
                                    AND (SELECT max(l.last_event) FROM ops.loads AS l WHERE l.load_id = ANY (load_ids))
             GROUP BY s.product_id) AS b
      JOIN marts.dim_product AS p ON p.product_id = b.product_id
      LEFT JOIN LATERAL (
           SELECT h.price, h.valid_to FROM marts.dim_product_price AS h
            WHERE h.product_key = p.product_key AND h.valid_from <= b.since ORDER BY h.valid_from DESC LIMIT 1) AS k ON true
     WHERE (k.price = b.lowest AND k.price = b.highest AND (k.valid_to IS NULL OR b.until < k.valid_to)) IS NOT TRUE);
END
$$;
COMMENT ON FUNCTION dwh._repriced_products(bigint[]) IS
'The keys of the products of which these loads say a price that marts.dim_product_price does not have all the time.';

-- A new price changes what holds from its instant to the next observation, and nothing else. Until there the table says one
-- price (each of its intervals starts with an observation), so the next observation is the end of that interval, or the next
-- new price, or, as no-op observations are remembered in staging alone, the first staged one before both that says the price
-- of the table. One that says the table's own price changes nothing and needs no look-up in staging.
-- A staged load that waits for this step may be met as well: that it said the price already is true once it is applied.
-- LIMIT keeps every look-up one by key, OFFSET 0 the events those of the loads: their cost is the batch's, never the history's.
CREATE FUNCTION dwh._collect_prices(load_ids bigint[], product_keys bigint[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    earliest timestamptz;        -- event of these loads
    latest timestamptz;
    others_until timestamptz;   -- no other load has anything later, so the table says one price from there on
BEGIN
    SELECT min(l.first_event) FILTER (WHERE l.load_id = ANY (load_ids)), max(l.last_event) FILTER (WHERE l.load_id = ANY (load_ids)),
           coalesce(max(l.last_event) FILTER (WHERE l.load_id <> ALL (load_ids) OR l.retried_at IS NOT NULL), '-infinity')
      INTO earliest, latest, others_until FROM ops.loads AS l;
    CREATE TEMPORARY TABLE dwh_new_price ON COMMIT DROP AS
    WITH said AS (
        SELECT DISTINCT ON (p.product_key, s.event_time) p.product_key, s.product_id, s.event_time, s.event_id, s.price
          FROM (SELECT e.product_id, e.event_time, e.event_id, e.price FROM staging.user_events AS e
                 WHERE e.load_id = ANY (load_ids) AND e.event_time BETWEEN earliest AND latest AND e.price IS NOT NULL OFFSET 0) AS s
          JOIN marts.dim_product AS p ON p.product_id = s.product_id
         WHERE p.product_key = ANY (product_keys)
         ORDER BY p.product_key, s.event_time, s.event_id DESC),
    told AS (   -- after others_until nothing comes in between: a price that is said again there is no news
        SELECT d.product_key, d.product_id, d.event_time, d.event_id, d.price
          FROM (SELECT a.*, lag(a.price) OVER w AS last_price, lag(a.event_time) OVER w AS last_time
                  FROM said AS a WINDOW w AS (PARTITION BY a.product_key ORDER BY a.event_time)) AS d
         WHERE (d.last_price = d.price AND d.last_time > others_until) IS NOT TRUE),
    asked AS (   -- of those after others_until the first one asks for all
        SELECT d.*, coalesce(lead(d.event_time) OVER w, 'infinity') AS next_time,
               least(d.event_time, others_until) IS DISTINCT FROM lag(least(d.event_time, others_until)) OVER w AS asks
          FROM told AS d WINDOW w AS (PARTITION BY d.product_key ORDER BY d.event_time)),
    placed AS (
        SELECT a.product_key, a.product_id, a.event_time, a.event_id, a.price,
               dwh.last_known(k.price) OVER w AS known_price, dwh.last_known(k.valid_from) OVER w AS known_from,
               coalesce(dwh.last_known(coalesce(k.valid_to, f.valid_from)) OVER w, 'infinity') AS known_until, a.next_time
          FROM asked AS a
          LEFT JOIN LATERAL (
               SELECT h.price, h.valid_from, coalesce(h.valid_to, 'infinity') AS valid_to FROM marts.dim_product_price AS h
                WHERE a.asks AND h.product_key = a.product_key AND h.valid_from <= a.event_time
                ORDER BY h.valid_from DESC LIMIT 1) AS k ON true
          LEFT JOIN LATERAL (   -- before the first interval
               SELECT h.valid_from FROM marts.dim_product_price AS h
                WHERE a.asks AND k.valid_from IS NULL AND h.product_key = a.product_key
                ORDER BY h.valid_from LIMIT 1) AS f ON true
        WINDOW w AS (PARTITION BY a.product_key ORDER BY a.event_time ROWS UNBOUNDED PRECEDING))
    SELECT n.product_key, n.price, n.event_time AS since, coalesce(o.event_time, least(n.next_time, n.known_until)) AS until,
           n.known_price, n.known_from, n.known_until
      FROM placed AS n
      LEFT JOIN LATERAL (
           SELECT e.event_time FROM staging.user_events AS e
            WHERE n.event_time <= others_until AND e.event_time <= others_until
              AND e.product_id = n.product_id AND e.price = n.known_price
              AND e.event_time >= n.event_time AND e.event_time < n.next_time AND e.event_time < n.known_until
              AND (e.event_time > n.event_time OR e.event_id > n.event_id)
            ORDER BY e.event_time LIMIT 1) AS o ON true
     WHERE n.price IS DISTINCT FROM n.known_price
       AND o.event_time IS DISTINCT FROM n.event_time;   -- not where a greater event_id said otherwise at that instant
    ANALYZE pg_temp.dwh_new_price;
END
$$;
COMMENT ON FUNCTION dwh._collect_prices(bigint[], bigint[]) IS
'Makes work table dwh_new_price of upsert_products for these loads and products: what price holds since when, until when, where marts.dim_product_price has another, and the interval that has it.';

CREATE FUNCTION dwh._compare_prices() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning AS $$
BEGIN
    CREATE TEMPORARY TABLE dwh_price_change ON COMMIT DROP AS
    WITH known AS MATERIALIZED (   -- the intervals that change, and the neighbours that they may become one with
        SELECT DISTINCT n.product_key, n.known_from AS valid_from, n.known_until AS valid_to, n.known_price AS price
          FROM pg_temp.dwh_new_price AS n WHERE n.known_from IS NOT NULL
         UNION
        SELECT n.product_key, b.valid_from, b.valid_to, b.price
          FROM pg_temp.dwh_new_price AS n
         CROSS JOIN LATERAL (
               SELECT h.* FROM marts.dim_product_price AS h
                WHERE h.product_key = n.product_key AND h.valid_from < n.since ORDER BY h.valid_from DESC LIMIT 1) AS b
         WHERE n.since = n.known_from
         UNION
        SELECT n.product_key, a.valid_from, coalesce(a.valid_to, 'infinity'), a.price
          FROM pg_temp.dwh_new_price AS n
         CROSS JOIN LATERAL (
               SELECT h.* FROM marts.dim_product_price AS h
                WHERE h.product_key = n.product_key AND h.valid_from = n.until LIMIT 1) AS a
         WHERE n.until = n.known_until AND n.until < 'infinity'),
    -- At one instant a new price goes before the start of a known interval, that before the price it goes back to, and that
    -- before the end of the known, where the price is NULL.
    points AS (
        SELECT n.product_key, n.since AS instant, n.price, 1 AS precedence FROM pg_temp.dwh_new_price AS n
         UNION ALL
        SELECT k.product_key, k.valid_from, k.price, 2 FROM known AS k
         UNION ALL
        SELECT n.product_key, n.until, n.known_price, 3 FROM pg_temp.dwh_new_price AS n WHERE n.until < n.known_until AND n.known_from IS NOT NULL
         UNION ALL
        SELECT k.product_key, k.valid_to, NULL, 4 FROM known AS k WHERE k.valid_to < 'infinity'),
    changes AS (
        SELECT d.product_key, d.instant, d.price,
               lag(d.price) OVER (PARTITION BY d.product_key ORDER BY d.instant) IS DISTINCT FROM d.price AS is_change
          FROM (SELECT DISTINCT ON (p.product_key, p.instant) p.* FROM points AS p
                 ORDER BY p.product_key, p.instant, p.precedence) AS d),
    wanted AS (
        SELECT c.product_key, c.price, c.instant AS valid_from,
               coalesce(lead(c.instant) OVER (PARTITION BY c.product_key ORDER BY c.instant), 'infinity') AS valid_to
          FROM changes AS c WHERE c.is_change)
    SELECT product_key, valid_from, w.price, nullif(w.valid_to, 'infinity') AS valid_to, k.product_key IS NOT NULL AS is_known
      FROM (SELECT a.* FROM wanted AS a WHERE a.price IS NOT NULL) AS w
      FULL JOIN known AS k USING (product_key, valid_from)
     WHERE (w.price, w.valid_to) IS DISTINCT FROM (k.price, k.valid_to);
    ANALYZE pg_temp.dwh_price_change;
END
$$;
COMMENT ON FUNCTION dwh._compare_prices() IS
'Makes work table dwh_price_change of upsert_products from dwh_new_price: the intervals to write, price NULL for those to remove.';

-- By key: other joins would read all of dim_product_price.
CREATE FUNCTION dwh._write_prices() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    DELETE FROM marts.dim_product_price AS d USING pg_temp.dwh_price_change AS c
     WHERE c.price IS NULL AND d.product_key = c.product_key AND d.valid_from = c.valid_from;
    UPDATE marts.dim_product_price AS d SET price = c.price, valid_to = c.valid_to, is_current = c.valid_to IS NULL
      FROM pg_temp.dwh_price_change AS c
     WHERE c.price IS NOT NULL AND c.is_known AND d.product_key = c.product_key AND d.valid_from = c.valid_from;
    INSERT INTO marts.dim_product_price (product_key, price, valid_from, valid_to, is_current)
    SELECT c.product_key, c.price, c.valid_from, c.valid_to, c.valid_to IS NULL
      FROM pg_temp.dwh_price_change AS c WHERE NOT c.is_known
     ORDER BY c.product_key, c.valid_from;
END
$$;
COMMENT ON FUNCTION dwh._write_prices() IS 'Writes the changed intervals of the work table into marts.dim_product_price.';

CREATE FUNCTION dwh._apply_prices(load_ids bigint[]) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    product_keys bigint[] := dwh._repriced_products(load_ids);
    changed bigint;
BEGIN
    IF cardinality(product_keys) = 0 THEN
        RETURN 0;
    END IF;
    PERFORM dwh._require_free_names(ARRAY['dwh_new_price', 'dwh_price_change']);
    PERFORM dwh._collect_prices(load_ids, product_keys);
    PERFORM dwh._compare_prices();
    PERFORM dwh._write_prices();
    SELECT count(*) INTO changed FROM pg_temp.dwh_price_change;
    DROP TABLE pg_temp.dwh_new_price, pg_temp.dwh_price_change;
    RETURN changed;
END
$$;
COMMENT ON FUNCTION dwh._apply_prices(bigint[]) IS
'Brings marts.dim_product_price up to the events of these loads, whose products are there; returns how many rows it wrote or removed.';

-- A warehouse of an earlier data model has products and no prices: the step would take the table for a history.
CREATE FUNCTION dwh._fill_prices() RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO marts.dim_product_price (product_key, price, valid_from, valid_to, is_current)
    SELECT p.product_key, n.price, n.valid_from, n.valid_to, n.valid_to IS NULL
      FROM dwh.product_prices() AS n
      JOIN marts.dim_product AS p ON p.product_id = n.product_id
     WHERE NOT EXISTS (SELECT FROM marts.dim_product_price)
       AND EXISTS (SELECT FROM marts.dim_product AS d WHERE d.price IS NOT NULL)
$$;
COMMENT ON FUNCTION dwh._fill_prices() IS 'Fills an empty marts.dim_product_price where there are products with prices already; else does nothing.';

CREATE FUNCTION dwh.upsert_products(
    load_id bigint DEFAULT NULL,
    OUT status text, OUT loads bigint, OUT rows_in bigint, OUT inserted bigint, OUT updated bigint,
    OUT prices bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET jit = off SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    load_ids bigint[];
BEGIN
    load_ids := dwh._claim_loads('products', upsert_products.load_id);
    loads := cardinality(load_ids);
    status := CASE WHEN loads = 0 THEN 'nothing_new' ELSE 'done' END;
    WITH state AS MATERIALIZED (SELECT n.* FROM dwh.product_state(load_ids) AS n),
    winners AS (   -- each attribute from the newer of what is known and what is new
        SELECT n.product_id, p.product_key,
               CASE WHEN c.is_newer THEN n.category ELSE p.category END AS category,
               CASE WHEN c.is_newer THEN n.category_time ELSE p.category_time END AS category_time,
               CASE WHEN c.is_newer THEN n.category_event_id ELSE p.category_event_id END AS category_event_id,
               CASE WHEN b.is_newer THEN n.brand ELSE p.brand END AS brand,
               CASE WHEN b.is_newer THEN n.brand_time ELSE p.brand_time END AS brand_time,
               CASE WHEN b.is_newer THEN n.brand_event_id ELSE p.brand_event_id END AS brand_event_id,
               CASE WHEN r.is_newer THEN n.price ELSE p.price END AS price,
               CASE WHEN r.is_newer THEN n.price_time ELSE p.price_time END AS price_time,
               CASE WHEN r.is_newer THEN n.price_event_id ELSE p.price_event_id END AS price_event_id,
               p.product_key IS NULL OR c.is_newer OR b.is_newer OR r.is_newer AS is_change
          FROM state AS n
          LEFT JOIN marts.dim_product AS p ON p.product_id = n.product_id
         CROSS JOIN LATERAL (SELECT n.category_time IS NOT NULL AND (p.category_time IS NULL OR
               (n.category_time, n.category_event_id) > (p.category_time, p.category_event_id)) AS is_newer) AS c
         CROSS JOIN LATERAL (SELECT n.brand_time IS NOT NULL AND (p.brand_time IS NULL OR
               (n.brand_time, n.brand_event_id) > (p.brand_time, p.brand_event_id)) AS is_newer) AS b
         CROSS JOIN LATERAL (SELECT n.price_time IS NOT NULL AND (p.price_time IS NULL OR
               (n.price_time, n.price_event_id) > (p.price_time, p.price_event_id)) AS is_newer) AS r),
    changed AS (
        UPDATE marts.dim_product AS p
           SET category = w.category, category_time = w.category_time, category_event_id = w.category_event_id,
               brand = w.brand, brand_time = w.brand_time, brand_event_id = w.brand_event_id,
               price = w.price, price_time = w.price_time, price_event_id = w.price_event_id, is_inferred = false
          FROM winners AS w WHERE p.product_key = w.product_key AND w.is_change
        RETURNING 1),
    added AS (
        INSERT INTO marts.dim_product (product_id, category, category_time, category_event_id, brand, brand_time,
               brand_event_id, price, price_time, price_event_id, is_inferred)
        SELECT w.product_id, w.category, w.category_time, w.category_event_id, w.brand, w.brand_time, w.brand_event_id,
               w.price, w.price_time, w.price_event_id,
               coalesce(w.category_time, w.brand_time, w.price_time) IS NULL
          FROM winners AS w WHERE w.product_key IS NULL ORDER BY w.product_id
        RETURNING 1)
    SELECT (SELECT count(*) FROM state), (SELECT count(*) FROM added), (SELECT count(*) FROM changed)
      INTO rows_in, inserted, updated;
    prices := CASE WHEN loads = 0 THEN 0 ELSE dwh._apply_prices(load_ids) END;
    UPDATE ops.loads AS l SET products_at = clock_timestamp() WHERE l.load_id = ANY (load_ids);
END
$$;
REVOKE EXECUTE ON FUNCTION dwh.upsert_products(bigint) FROM PUBLIC;
COMMENT ON FUNCTION dwh.upsert_products(bigint) IS
'Brings marts.dim_product and marts.dim_product_price up to the events of a load, or of every staged load not applied yet: new products, newer attributes, where an older late event never overwrites and null never erases; and the intervals of prices, which late events open, split, join and move. Returns one row of counts: products seen, inserted, updated; prices: intervals written or removed. Errors: P0002 for an unknown load, 55000 for one not staged yet, 42P07 where a temporary object of the session has the name of a work table, WH004 without a warehouse. A repeat changes nothing and says nothing_new.';
