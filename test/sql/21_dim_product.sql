-- 21_dim_product: attribute by attribute the newest value that is not null, whatever order the events arrived in.
\set VERBOSITY sqlstate
SET timezone = 'UTC';
SET datestyle = 'ISO, YMD';
SELECT test.begin();

-- Known by its id alone: an inferred member.
SELECT test.put('1.jsonl', test.event('{"event_id": "1", "product_id": "p1"}'), test.event('{"event_id": "2"}'), test.event('{"event_id": "2e", "product_id": ""}'));
SELECT loaded FROM test.load('1.jsonl');
SELECT step, result FROM test.build();
SELECT product_id, category, brand, price, is_inferred FROM marts.dim_product ORDER BY product_key;
SELECT product_key AS p1_key FROM marts.dim_product WHERE product_id = 'p1' \gset
-- events without a product point to the fixed member
SELECT p.product_key = 0 AS is_fixed_member, count(*) FROM marts.fact_user_events AS f JOIN marts.dim_product AS p USING (product_key) GROUP BY 1 ORDER BY 1;

-- Completed later in place, under the same key; each attribute by itself.
SELECT test.put('2.jsonl', test.event('{"event_id": "3", "product_id": "p1", "category": "shoes", "price": 10.50, "event_time": "2025-01-12T00:00:00Z"}'));
SELECT loaded FROM test.load('2.jsonl');
SELECT status, rows_in, staged FROM dwh.stage_events();
SELECT status, loads, rows_in, inserted, updated FROM dwh.upsert_products();
SELECT product_key = :p1_key AS same_key, category, brand, price, is_inferred FROM marts.dim_product WHERE product_id = 'p1';

-- An older late event never overwrites; what was unknown it fills. Null never erases.
SELECT test.put('3.jsonl',
    test.event('{"event_id": "4", "product_id": "p1", "category": "old", "brand": "b-old", "price": 1, "event_time": "2025-01-11T00:00:00Z"}'),
    test.event('{"event_id": "5", "product_id": "p1", "category": null, "brand": "", "price": null, "event_time": "2025-01-20T00:00:00Z"}'));
SELECT loaded FROM test.load('3.jsonl');
SELECT count(*) FROM test.build();
SELECT product_key = :p1_key AS same_key, category, brand, price, category_time, brand_time, price_time FROM marts.dim_product WHERE product_id = 'p1';
-- A newer one does; old facts keep the price of their time.
SELECT test.put('4.jsonl', test.event('{"event_id": "6", "event_type": "purchase", "product_id": "p1", "price": 99, "quantity": 1, "event_time": "2025-01-21T00:00:00Z"}'));
SELECT loaded FROM test.load('4.jsonl');
SELECT count(*) FROM test.build();
SELECT price FROM marts.dim_product WHERE product_id = 'p1';
SELECT f.event_time, f.price, f.revenue FROM marts.fact_user_events AS f JOIN marts.dim_product AS p USING (product_key) WHERE p.product_id = 'p1' ORDER BY 1;

-- At one instant the greatest event_id wins, also across loads and in either order.
SELECT test.put('5.jsonl', test.event('{"event_id": "ff000000-0000-0000-0000-000000000000", "product_id": "tie1", "brand": "greater"}'), test.event('{"event_id": "01000000-0000-0000-0000-000000000000", "product_id": "tie2", "brand": "less"}'));
SELECT loaded FROM test.load('5.jsonl');
SELECT count(*) FROM test.build();
SELECT test.put('6.jsonl', test.event('{"event_id": "01000000-0000-0000-0000-000000000001", "product_id": "tie1", "brand": "less"}'), test.event('{"event_id": "ff000000-0000-0000-0000-000000000001", "product_id": "tie2", "brand": "greater"}'));
SELECT loaded FROM test.load('6.jsonl');
SELECT count(*) FROM test.build();
SELECT product_id, brand FROM marts.dim_product WHERE product_id LIKE 'tie%' ORDER BY 1;

-- Ids are bytes.
SELECT test.put('7.jsonl', test.event('{"event_id": "7", "product_id": "P1"}'), test.event('{"event_id": "8", "product_id": "p1 "}'), test.event('{"event_id": "9", "product_id": 1}'), test.event('{"event_id": "10", "product_id": "1"}'));
SELECT loaded FROM test.load('7.jsonl');
SELECT count(*) FROM test.build();
SELECT product_id, length(product_id) FROM marts.dim_product ORDER BY product_id;
SELECT * FROM test.differences();
-- a repeat changes nothing and says so
SELECT * FROM dwh.upsert_products();
-- where an attribute came from can be walked back
SELECT count(*) FROM marts.dim_product AS p LEFT JOIN staging.user_events AS s ON s.event_id = p.price_event_id AND s.event_time = p.price_time AND s.price = p.price
 WHERE p.price IS NOT NULL AND s.event_id IS NULL;
(SELECT * FROM dwh.product_state() EXCEPT ALL SELECT product_id, category, brand, price, category_time, category_event_id, brand_time, brand_event_id, price_time, price_event_id FROM marts.dim_product)
UNION ALL
(SELECT product_id, category, brand, price, category_time, category_event_id, brand_time, brand_event_id, price_time, price_event_id FROM marts.dim_product WHERE product_key <> 0 EXCEPT ALL SELECT * FROM dwh.product_state());

-- Prices: a function of all observations, whatever order they arrived in.
-- Observations as text: "10@1 -@2 20@4" = price 10 on day 1, none told on day 2, 20 on day 4; each word is one load, + joins
-- lines of one load. The event_id begins with the text's hash, or with what follows a colon: "10@1:ff".
CREATE FUNCTION test.priced(word text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT test.event(jsonb_build_object('product_id', 'p', 'event_id',
        rpad(CASE WHEN w LIKE '%:%' THEN split_part(w, ':', 2) ELSE left(md5(w), 2) END, 2, '0') || substr(md5(w)::uuid::text, 3),
        'event_time', format('2025-01-%sT00:00:00Z', lpad(split_part(split_part(w, ':', 1), '@', 2), 2, '0')),
        'price', CASE WHEN w NOT LIKE '-@%' THEN split_part(w, '@', 1)::numeric END)) FROM (SELECT word) AS x (w) $$;
CREATE FUNCTION test.put_prices(name text, word text) RETURNS void LANGUAGE sql AS $$
    SELECT test.put(name, VARIADIC (SELECT array_agg(test.priced(o)) FROM unnest(string_to_array(word, '+')) AS o)) $$;
-- "10[1,3) 20[3,)*"
CREATE FUNCTION test.prices() RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(format('%s[%s,%s)%s', trim_scale(d.price), extract(day FROM valid_from), extract(day FROM valid_to), CASE WHEN is_current THEN '*' END), ' ' ORDER BY valid_from)
      FROM marts.dim_product_price AS d JOIN marts.dim_product AS p USING (product_key) WHERE p.product_id = 'p' $$;
CREATE FUNCTION test.price_case(words text) RETURNS TABLE (arrival text, changed text, prices text, differences bigint) LANGUAGE plpgsql AS $$
DECLARE
    word text;
    n int := 0;
BEGIN
    -- as test.begin() does, only faster
    TRUNCATE raw.user_events, staging.user_events, marts.dim_user, marts.dim_product_price, marts.fact_user_events, ops.loads, ops.files, ops.rejects, ops.event_conflicts RESTART IDENTITY;
    DELETE FROM marts.dim_product WHERE product_key <> 0;
    FOREACH word IN ARRAY string_to_array(words, ' ') LOOP
        n := n + 1;
        PERFORM test.put_prices(format('o%s.jsonl', n), word);
        PERFORM count(*) FROM test.load(format('o%s.jsonl', n));
        PERFORM dwh.stage_events(), dwh.apply_scd2();
        changed := concat_ws(',', changed, (SELECT p.prices FROM dwh.upsert_products() AS p));
        PERFORM dwh.load_facts(), count(*) FROM dwh.run_quality_checks();
    END LOOP;
    RETURN QUERY SELECT words, changed, test.prices(), (SELECT count(*) FROM test.differences());
END $$;

SELECT c.* FROM unnest(ARRAY[
    '10@1',                         -- opens
    '-@1',                          -- no price told: none known
    '10@1 10@5',                    -- nothing changes ...
    '10@1 10@5 20@3',               -- ... but it is remembered: 10[1,3) 20[3,5) 10[5,)
    '10@1 -@5 20@3',                -- null says nothing: 10[1,3) 20[3,)
    '10@1 20@5',                    -- closes and opens
    '10@1 20@5 10@9',               -- A, B, A: three intervals
    '10@1+20@5+10@9',               -- likewise in one load ...
    '10@9+20@5+10@1',               -- ... with lines out of order
    '10@1 20@5 10@5:00 10@5:ff',    -- one instant: the greater event_id wins, and the interval before goes on
    '10@5:80 20@5:90',
    '10@5:90 20@5:80',
    '10@5:80+20@5:90',
    '10@3 20@5:80 10@7 10@5:ff',    -- a tie joins three intervals
    '10@3 20@5:80 20@6 10@7 10@5:ff',
    '10@5 20@1',                    -- before the first, another price: a new first interval
    '10@5 10@1',                    -- before the first, the same: it starts earlier
    '10@5 20@1 10@3',               -- the change was earlier than thought
    '10@5 -@1',                     -- before the first, none told: it starts where it did
    '10@1 20@5 10@3',               -- equal to the surrounding price: nothing changes ...
    '10@1 20@5 10@3 20@2',          -- ... but it is remembered
    '10@1 20@9 20@5',               -- starts earlier
    '10@1 20@9 30@5',               -- between two
    '10@1 10@3 10@5 10@7 20@2+20@6',-- two late ones, each up to the next that is remembered
    '10@1 10@3 10@5 10@7 20@2+20@4+10@3:ff',
    '10@1 10@9 20@2+30@4+20@6+10@8',
    '10@1 10@9 20@2 20@4 30@3',     -- the one after says what was there before it
    '10@1 10.0@5 10.00@9',          -- prices compare by value
    '10@1 0@3 -5@5',                -- also free of charge, and negative ones as they were sent
    '10@2 20@4 30@6 10@3 10@5 20@1'
]) WITH ORDINALITY AS w (words, n), test.price_case(w.words) AS c ORDER BY w.n;

-- Any order of arrival, in one load or in many, gives the same: all 24 orders of four observations, each also as one load
-- and as two.
CREATE TABLE test.orders AS
    SELECT array_to_string(ARRAY[a, b, c, d], ' ') AS words, p.position
      FROM unnest(ARRAY['10@1:11', '10@5:80', '20@5:90', '10@7:22']) AS a, unnest(ARRAY['10@1:11', '10@5:80', '20@5:90', '10@7:22']) AS b,
           unnest(ARRAY['10@1:11', '10@5:80', '20@5:90', '10@7:22']) AS c, unnest(ARRAY['10@1:11', '10@5:80', '20@5:90', '10@7:22']) AS d,
           LATERAL (VALUES (8), (16)) AS p (position)
     WHERE a NOT IN (b, c, d) AND b NOT IN (c, d) AND c <> d;
SELECT count(*) AS orders, string_agg(DISTINCT c.prices, ' | ') AS prices, sum(c.differences) AS differences
  FROM test.orders AS o, test.price_case(o.words) AS c WHERE o.position = 8;
SELECT count(*) AS orders, string_agg(DISTINCT c.prices, ' | ') AS prices, sum(c.differences) AS differences
  FROM test.orders AS o, test.price_case(replace(o.words, ' ', '+')) AS c WHERE o.position = 8;
SELECT count(*) AS orders, string_agg(DISTINCT c.prices, ' | ') AS prices, sum(c.differences) AS differences
  FROM test.orders AS o, test.price_case(overlay(o.words PLACING '+' FROM o.position FOR 1)) AS c;
DROP TABLE test.orders;

-- All staged first, then applied in another order: the table has what the applied loads say, and in the end all of it.
SELECT * FROM test.price_case('10@2 10@8');
SELECT count(*) FROM (SELECT test.put_prices(name, word) FROM (VALUES ('s1.jsonl', '20@4'), ('s2.jsonl', '10@6'), ('s3.jsonl', '30@5')) AS v (name, word)) AS files;
SELECT load_id FROM test.load('s[123].jsonl');
SELECT loads, staged FROM dwh.stage_events();
SELECT dwh.apply_scd2() IS NOT NULL AS applied;
SELECT loads, prices FROM dwh.upsert_products(5);
SELECT test.prices();
SELECT loads, prices FROM dwh.upsert_products(3);
SELECT test.prices();
SELECT loads, prices FROM dwh.upsert_products();
SELECT test.prices();
SELECT facts FROM dwh.load_facts();
SELECT * FROM test.differences();

-- A replay writes nothing, and a change leaves the rows of other intervals and products where they are.
SELECT test.put('q.jsonl', test.event('{"event_id": "q1", "product_id": "q", "price": 7}'));
SELECT step, status FROM dwh.run_pipeline('q.jsonl') WHERE step = 'upsert_products';
CREATE TEMPORARY TABLE stored AS SELECT d.ctid AS place, d.xmin AS writer, d.* FROM marts.dim_product_price AS d;
SELECT test.put_prices('again.jsonl', '20@4+-@9');
SELECT step, status, rows_out FROM dwh.run_pipeline('again.jsonl') WHERE step IN ('stage_events', 'upsert_products');
SELECT count(*) AS kept FROM marts.dim_product_price AS d JOIN stored AS s ON s.place = d.ctid AND s.writer = d.xmin;
SELECT test.put_prices('late.jsonl', '40@7');
SELECT step, status, rows_out FROM dwh.run_pipeline('late.jsonl') WHERE step = 'upsert_products';
SELECT test.prices();
SELECT count(*) AS kept FROM marts.dim_product_price AS d JOIN stored AS s ON s.place = d.ctid AND s.writer = d.xmin AND s.valid_from = d.valid_from;
SELECT * FROM test.differences();
-- facts keep the price paid, under the product's one key
SELECT extract(day FROM f.event_time) AS day, f.price, h.price AS valid FROM marts.fact_user_events AS f
  JOIN marts.dim_product AS p USING (product_key)
  LEFT JOIN marts.dim_product_price AS h ON h.product_key = f.product_key AND h.valid_from <= f.event_time AND (h.valid_to IS NULL OR f.event_time < h.valid_to)
 WHERE p.product_id = 'p' ORDER BY 1;

-- What drop_before() takes out of staging is not needed: the history before stays as it is.
DELETE FROM staging.user_events WHERE event_time < '2025-01-05T00:00:00Z';
SELECT test.put_prices('after.jsonl', '50@5:ff+40@8:ff');
SELECT test.prices();
SELECT loaded FROM test.load('after.jsonl');
SELECT step, result FROM test.build() WHERE step = 'upsert_products';
SELECT test.prices();

-- A warehouse of an earlier model has products and no prices: create_warehouse() fills them in, once.
SELECT * FROM test.price_case('10@1 20@5 10@3 20@2');
DELETE FROM marts.dim_product_price;
SELECT status FROM dwh.create_warehouse();
SELECT test.prices();
SELECT * FROM test.differences();
UPDATE marts.dim_product_price SET price = 11 WHERE is_current;
SELECT status FROM dwh.create_warehouse();
SELECT price FROM marts.dim_product_price WHERE is_current;
-- Work tables need their names.
CREATE TEMPORARY TABLE dwh_new_price (n int);
SELECT test.put_prices('named.jsonl', '60@9');
SELECT loaded FROM test.load('named.jsonl');
SELECT status FROM dwh.stage_events();
SELECT * FROM test.error('SELECT dwh.upsert_products()');
DROP TABLE dwh_new_price;
SELECT status, prices FROM dwh.upsert_products();
