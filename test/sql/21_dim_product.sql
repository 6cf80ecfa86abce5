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
