-- 21_dim_product.sql: staging.user_events -> marts.dim_product: the newest known attributes of each product.
--
-- Invariant: attribute by attribute the non-null value with the greatest (event_time, event_id); a product known by its
-- id alone is an inferred member. dwh.product_state() EXCEPT ALL the table, both ways, is empty.
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
               AND (product_state.load_ids IS NULL OR e.load_id = ANY (product_state.load_ids))
             ORDER BY e.product_id, e.event_time, e.event_id) AS s
     GROUP BY s.product_id
$$;
COMMENT ON FUNCTION dwh.product_state(bigint[]) IS
'What marts.dim_product should hold, computed from the staged events of these loads (NULL = all). Returns one row a product. Errors: 42P01 without a warehouse. Reads only.';

CREATE FUNCTION dwh.upsert_products(
    load_id bigint DEFAULT NULL,
    OUT status text, OUT loads bigint, OUT rows_in bigint, OUT inserted bigint, OUT updated bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
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
    UPDATE ops.loads AS l SET products_at = clock_timestamp() WHERE l.load_id = ANY (load_ids);
END
$$;
REVOKE EXECUTE ON FUNCTION dwh.upsert_products(bigint) FROM PUBLIC;
COMMENT ON FUNCTION dwh.upsert_products(bigint) IS
'Brings marts.dim_product up to the events of a load, or of every staged load not applied yet: new products, newer attributes; an older late event never overwrites, null never erases. Returns one row of counts: products seen, inserted, updated. Errors: P0002 for an unknown load, 55000 for one not staged yet, WH004 without a warehouse. A repeat changes nothing and says nothing_new.';
