-- 30_fact: every staged event is one fact, joined to the version valid at its time; partitions are made on demand.
\set VERBOSITY sqlstate
SET timezone = 'UTC';
SET datestyle = 'ISO, YMD';
SELECT test.begin();

-- An event exactly where a version ends joins the next one, and only that (half-open).
SELECT test.put('b.jsonl',
    test.event('{"event_id": "1", "event_time": "2025-01-31T23:59:59.999999Z", "device": "A", "product_id": "p", "price": 5, "quantity": 2, "revenue": 10, "session_id": "s", "extra": 1}'),
    test.event('{"event_id": "2", "event_time": "2025-02-01T00:00:00Z", "device": "B"}'),
    test.event('{"event_id": "3", "event_time": "2025-02-01T00:00:00Z"}'),
    test.event('{"event_id": "4", "event_time": "2025-02-01T00:00:00.000001Z"}'),
    test.event('{"event_id": "5", "event_time": "2025-02-01T08:59:59.999999+09:00"}'));
SELECT loaded FROM test.load('b.jsonl');
SELECT step, result FROM test.build();
SELECT f.event_time, d.device, f.tableoid::regclass AS partition FROM marts.fact_user_events AS f JOIN marts.dim_user AS d USING (user_key) ORDER BY 1, f.line_no;
SELECT event_type, session_id, product_key > 0 AS has_product, quantity, price, revenue, attributes, load_id, line_no FROM marts.fact_user_events WHERE line_no = 1;
-- the walk back: fact, raw line, byte, file
SELECT count(*) AS facts, count(r.payload) AS lines, count(l.path) AS files
  FROM marts.fact_user_events AS f LEFT JOIN raw.user_events AS r USING (load_id, line_no) LEFT JOIN ops.loads AS l USING (load_id);

-- Any age, and partitions of months in UTC, whatever the session's zone is.
SET timezone = 'Pacific/Kiritimati';
SELECT test.put('ages.jsonl',
    test.event('{"event_id": "a1", "event_time": "0001-01-01T00:00:00Z"}'), test.event('{"event_id": "a2", "event_time": "1969-12-31T23:59:59Z"}'),
    test.event('{"event_id": "a3", "event_time": "1970-01-01T00:00:00Z"}'), test.event('{"event_id": "a4", "event_time": "1999-12-31T23:59:59.999999Z"}'),
    test.event('{"event_id": "a5", "event_time": "2000-02-29T12:00:00Z"}'), test.event('{"event_id": "a6", "event_time": "2025-01-01T00:00:00Z"}'), test.event('{"event_id": "a7", "event_time": "0000-06-01T00:00:00Z"}'));
SELECT loaded FROM test.load('ages.jsonl');
SELECT count(*) FROM test.build();
SET timezone = 'UTC';
SELECT partition, since, until FROM dwh.fact_partitions();
SELECT count(*) FROM marts.fact_user_events;
SELECT * FROM test.differences();

-- By day from now on; a month that has some days already gets only days.
SET dwh.fact_partition = 'day';
SELECT test.put('days.jsonl', test.event('{"event_id": "d1", "event_time": "2025-03-10T00:00:00Z"}'), test.event('{"event_id": "d2", "event_time": "2025-03-10T23:59:59.999999Z"}'), test.event('{"event_id": "d3", "event_time": "2025-03-11T00:00:00Z"}'),
    test.event('{"event_id": "d4", "event_time": "2025-01-20T00:00:00Z"}'));
SELECT loaded FROM test.load('days.jsonl');
SELECT count(*) FROM test.build();
RESET dwh.fact_partition;
SELECT test.put('month.jsonl', test.event('{"event_id": "m1", "event_time": "2025-03-20T00:00:00Z"}'), test.event('{"event_id": "m2", "event_time": "2025-04-20T00:00:00Z"}'));
SELECT loaded FROM test.load('month.jsonl');
SELECT count(*) FROM test.build();
SELECT partition, since, until FROM dwh.fact_partitions() WHERE since >= '2025-01-01';
SELECT count(*) FROM pg_partition_tree('marts.fact_user_events') AS t JOIN pg_class AS c ON c.oid = t.relid WHERE c.relkind = 'r' AND pg_get_expr(c.relpartbound, c.oid) = 'DEFAULT';
-- a partition that users made by hand is used
CREATE TABLE marts.mine PARTITION OF marts.fact_user_events FOR VALUES FROM ('2030-01-01 00:00:00+00') TO ('2031-01-01 00:00:00+00');
SELECT since, until FROM dwh.fact_partitions() WHERE partition = 'marts.mine'::regclass;

-- event_id is unique over the whole table: the same id in another month is no second fact.
SELECT test.put('again.jsonl', test.event('{"event_id": "1", "event_time": "2025-06-01T00:00:00Z"}'), test.event('{"event_id": "1", "event_time": "2025-07-01T00:00:00Z"}'));
SELECT loaded FROM test.load('again.jsonl');
SELECT staged, replayed, conflicting FROM dwh.stage_events();
SELECT count(*) FROM test.build();
SELECT count(*) AS facts, count(DISTINCT event_id) AS ids FROM marts.fact_user_events;
SELECT count(*) FROM marts.fact_user_events WHERE event_id = dwh.event_id(test.event('{"event_id": "1"}')::jsonb);

-- Facts inside a changed interval are re-pointed, others untouched, in the same transaction; also across partitions.
SELECT test.begin();
SELECT test.put('r1.jsonl', VARIADIC (SELECT array_agg(test.event(jsonb_build_object('event_id', 'r' || m, 'event_time', format('2025-%s-15T00:00:00Z', lpad(m::text, 2, '0')), 'device', CASE WHEN m < 6 THEN 'A' ELSE 'B' END)) ORDER BY m) FROM generate_series(1, 8) AS m));
SELECT loaded FROM test.load('r1.jsonl');
SELECT count(*) FROM test.build();
CREATE TEMP TABLE before AS SELECT f.event_id, f.ctid AS place, f.tableoid AS partition, d.device FROM marts.fact_user_events AS f JOIN marts.dim_user AS d USING (user_key);
SELECT test.put('r2.jsonl', test.event('{"event_id": "late", "event_time": "2025-03-01T00:00:00Z", "device": "C"}'), test.event('{"event_id": "late2", "event_time": "2025-04-01T00:00:00Z", "device": "A"}'));
SELECT loaded FROM test.load('r2.jsonl');
SELECT staged FROM dwh.stage_events();
SELECT opened, closed, split, moved, removed, repointed FROM dwh.apply_scd2();
SELECT b.device AS before, d.device AS after, count(*), count(*) FILTER (WHERE b.place = f.ctid AND b.partition = f.tableoid) AS rows_not_written
  FROM before AS b JOIN marts.fact_user_events AS f USING (event_id) JOIN marts.dim_user AS d ON d.user_key = f.user_key GROUP BY 1, 2 ORDER BY 1, 2;
SELECT count(*) FROM test.build();
SELECT extract(month FROM f.event_time) AS month, d.device FROM marts.fact_user_events AS f JOIN marts.dim_user AS d USING (user_key) ORDER BY f.event_time;
SELECT * FROM test.differences();

-- A repeat changes nothing and says so, step by step, also by load.
SELECT * FROM dwh.load_facts();
SELECT * FROM dwh.load_facts(1);
SELECT * FROM dwh.stage_events(1);
SELECT * FROM dwh.apply_scd2(1);
SELECT * FROM dwh.upsert_products(1);
SELECT count(*) AS facts, count(DISTINCT event_id) AS ids FROM marts.fact_user_events;

-- The steps by load, out of order: a later load first.
SELECT test.begin();
SELECT test.put('l1.jsonl', test.event('{"event_id": "l1", "device": "A", "event_time": "2025-01-01T00:00:00Z"}')), test.put('l2.jsonl', test.event('{"event_id": "l2", "device": "B", "event_time": "2025-01-02T00:00:00Z"}'));
SELECT load_id, file FROM test.load('*.jsonl');
\set VERBOSITY sqlstate
SELECT * FROM dwh.apply_scd2(2);
SELECT status, loads, staged FROM dwh.stage_events(2);
SELECT * FROM dwh.load_facts(2);
SELECT status, opened FROM dwh.apply_scd2(2);
SELECT * FROM dwh.load_facts(2);
SELECT status, inserted FROM dwh.upsert_products(2);
SELECT status, facts FROM dwh.load_facts(2);
SELECT load_id, staged_at IS NOT NULL AS staged, users_at IS NOT NULL AS users, products_at IS NOT NULL AS products, facts_at IS NOT NULL AS facts FROM ops.loads ORDER BY 1;
SELECT step, result FROM test.build();
SELECT * FROM test.differences();
