-- 85_retention: drop_before() takes old rows out of raw, staging and the facts, and the counts say so.
\set VERBOSITY sqlstate
SET timezone = 'UTC';
SET datestyle = 'ISO, YMD';
SELECT test.begin();
CREATE FUNCTION test.ledger() RETURNS TABLE (load_id bigint, loaded bigint, staged bigint, replayed bigint, conflicting bigint, refused bigint, forgotten bigint, facts bigint, raw_dropped bigint, staging_dropped bigint, facts_dropped bigint, rows text) LANGUAGE sql AS $$
    SELECT load_id, loaded, staged, replayed, conflicting, stage_rejected, forgotten, facts, raw_dropped, staging_dropped, facts_dropped,
           (SELECT count(*) FROM raw.user_events AS r WHERE r.load_id = l.load_id) || ' ' || (SELECT count(*) FROM staging.user_events AS r WHERE r.load_id = l.load_id)
           || ' ' || (SELECT count(*) FROM marts.fact_user_events AS r WHERE r.load_id = l.load_id) FROM ops.loads AS l ORDER BY load_id $$;
CREATE FUNCTION test.bounds() RETURNS TABLE (staging_since timestamptz, facts_since timestamptz, fact_partitions text) LANGUAGE sql AS $$
    SELECT w.staging_since, w.facts_since, (SELECT string_agg(p.partition::text, ' ' ORDER BY p.since) FROM dwh.fact_partitions() AS p) FROM ops.warehouse AS w $$;
CREATE FUNCTION test.failing() RETURNS TABLE (name text) LANGUAGE sql AS $$
    SELECT c.name FROM dwh.run_quality_checks("full" => true) AS c WHERE c.status = 'fail' AND c.severity = 'error' $$;
CREATE FUNCTION test.run() RETURNS text LANGUAGE sql AS $$ SELECT string_agg(DISTINCT status, ' ' ORDER BY status) FROM dwh.run_pipeline('none_*.jsonl') $$;

-- Arguments, rights, an empty warehouse.
SELECT l.layer, e.* FROM unnest(ARRAY['marts', '', 'RAW', NULL, 'raw''']) AS l (layer), test.error(format('SELECT * FROM dwh.drop_before(%L, now())', l.layer)) AS e;
SELECT b.before, e.* FROM unnest(ARRAY[NULL, 'infinity', '2999-01-01Z']) AS b (before), unnest(ARRAY['raw', 'staging', 'facts']) AS l (layer),
       test.error(format('SELECT * FROM dwh.drop_before(%L, %L)', l.layer, b.before)) AS e;
SELECT l.layer, d.* FROM unnest(ARRAY['raw', 'staging', 'facts']) AS l (layer), dwh.drop_before(l.layer, '2025-01-01Z') AS d;
SELECT d.* FROM dwh.drop_before(layer => 'raw', before => '-infinity') AS d;
CREATE ROLE dwh_test_visitor;
GRANT USAGE ON SCHEMA dwh TO dwh_test_visitor;
SET ROLE dwh_test_visitor;
SELECT * FROM dwh.drop_before('raw', now());
RESET ROLE;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA dwh TO dwh_test_visitor;
SET ROLE dwh_test_visitor;
SELECT * FROM dwh.drop_before('raw', now());
SELECT * FROM dwh.drop_before('staging', now());
RESET ROLE;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA dwh FROM dwh_test_visitor;
REVOKE ALL ON SCHEMA dwh FROM dwh_test_visitor;
DROP ROLE dwh_test_visitor;

-- Three loads over four months; the third waits.
SELECT test.begin();
SELECT test.put('a.jsonl', VARIADIC (SELECT array_agg(test.event(jsonb_build_object('event_id', 'a' || i, 'user_id', 'u' || i % 3, 'device', 'd' || i % 2, 'product_id', 'p' || i % 2, 'price', i,
    'event_time', to_char('2025-01-10'::timestamp + i * interval '10 days', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')))) FROM generate_series(0, 9) AS i));
SELECT test.put('b.jsonl', test.event('{"event_id": "a1", "user_id": "u1", "device": "another"}'), test.event('{"event_id": "b2", "event_time": "2025-02-28T23:59:59Z"}'),
    test.event('{"event_id": "b3", "event_time": "2025-03-01T00:00:00Z"}'), test.event('{"event_id": "b4", "event_time": "never"}'));
SELECT test.put('c.jsonl', test.event('{"event_id": "c1", "event_time": "2025-04-20T00:00:00Z"}'));
SELECT loaded FROM test.load('a.jsonl');
SELECT loaded FROM test.load('b.jsonl');
SELECT test.run();
SELECT loaded FROM test.load('c.jsonl');
SELECT * FROM test.ledger();
SELECT * FROM test.bounds();

-- raw: loads that are through, by the time of the load; the others are left.
SELECT status, loads, partitions, rows_dropped, horizon = (SELECT loaded_at FROM ops.loads WHERE load_id = 2) AS is_before FROM dwh.drop_before('raw', (SELECT loaded_at FROM ops.loads WHERE load_id = 2));
SELECT * FROM test.ledger();
SELECT * FROM test.failing();
SELECT status, loads, partitions, rows_dropped FROM dwh.drop_before('raw', now());
SELECT status, loads, partitions, rows_dropped FROM dwh.drop_before('raw', now());
SELECT * FROM test.ledger();
SELECT * FROM test.failing();
-- what is given up: the refused event cannot be tried again
SELECT status, retried, not_kept FROM dwh.retry_rejects(2);
-- facts and staging need staging to go first
SELECT * FROM test.error($$SELECT * FROM dwh.drop_before('facts', '2025-03-15Z')$$);
\set VERBOSITY terse
SELECT * FROM dwh.drop_before('facts', '2025-03-15Z');
\set VERBOSITY sqlstate

-- staging: whole partitions; one that straddles stays, and the result says so
SELECT staged FROM dwh.stage_events();
SELECT * FROM test.error($$SELECT * FROM dwh.drop_before('staging', '2025-03-15Z')$$);
SELECT test.run();
CREATE TABLE test.versions AS SELECT * FROM marts.dim_user;
SELECT status, loads, rows_dropped, horizon FROM dwh.drop_before('staging', '2025-03-15Z');
SELECT * FROM test.ledger();
SELECT * FROM test.bounds();
SELECT min(event_time) FROM staging.user_events;
SELECT status, loads, rows_dropped, horizon FROM dwh.drop_before('staging', '2025-03-31 23:59:59.999999Z');
SELECT status, loads, rows_dropped, horizon FROM dwh.drop_before('staging', '2025-01-31Z');
SELECT * FROM test.bounds();
SELECT * FROM test.failing();
SELECT count(*) AS changed_versions FROM (SELECT * FROM marts.dim_user EXCEPT ALL SELECT * FROM test.versions) AS d;
-- events since then go their way: a late one splits the version that reaches over the horizon
SELECT test.put('d.jsonl', test.event('{"event_id": "d1", "user_id": "u1", "device": "late", "event_time": "2025-03-02T00:00:00Z"}'), test.event('{"event_id": "d2", "user_id": "u9", "event_time": "2025-05-02T00:00:00Z"}'));
SELECT loaded FROM test.load('d.jsonl');
SELECT test.run();
SELECT device, valid_from, valid_to FROM marts.dim_user WHERE user_id = 'u1' ORDER BY valid_from;
SELECT * FROM test.failing();
SELECT count(*) AS lost_facts FROM marts.fact_user_events AS f LEFT JOIN marts.dim_user AS d ON d.user_key = f.user_key AND d.valid_from <= f.event_time AND (d.valid_to IS NULL OR f.event_time < d.valid_to) WHERE d.user_key IS NULL;

-- facts: as far as staging is gone, and no further
SELECT * FROM test.error($$SELECT * FROM dwh.drop_before('facts', '2025-04-15Z')$$);
SELECT * FROM dwh.drop_before('facts', '2025-02-15Z');
SELECT * FROM test.ledger();
SELECT * FROM test.bounds();
SELECT * FROM dwh.drop_before('facts', '2025-02-15Z');
SELECT * FROM dwh.drop_before('facts', '2025-03-01Z');
SELECT * FROM dwh.drop_before('facts', '2024-03-01Z');
SELECT * FROM test.bounds();
SELECT * FROM test.ledger();
SELECT * FROM test.failing();
SELECT min(day) FROM marts.kpi_daily;
-- a repeat writes nothing and counts no change
CREATE TABLE test.before AS SELECT changes FROM ops.warehouse;
SELECT l.layer, d.status, d.loads, d.partitions, d.rows_dropped, d.horizon FROM unnest(ARRAY['staging', 'facts']) AS l (layer), dwh.drop_before(l.layer, '2025-03-20Z') AS d;
SELECT w.changes - b.changes AS changes FROM ops.warehouse AS w, test.before AS b;
DROP TABLE test.before;
-- while a load waits, a repeat is no error: there is nothing to drop
SELECT test.put('e.jsonl', test.event('{"event_id": "e1", "user_id": "u9", "event_time": "2025-05-03T00:00:00Z"}'));
SELECT loaded FROM test.load('e.jsonl');
SELECT staged FROM dwh.stage_events();
SELECT status FROM dwh.drop_before('staging', '2025-03-20Z');
SELECT test.run();

-- In one transaction, and undone.
BEGIN;
SELECT status, loads, rows_dropped, horizon FROM dwh.drop_before('staging', '2025-05-01Z');
SELECT status, loads, partitions, rows_dropped, horizon FROM dwh.drop_before('facts', '2025-05-01Z');
SELECT status, rows_dropped FROM dwh.drop_before('raw', now());
SELECT * FROM test.ledger();
SELECT * FROM test.failing();
ROLLBACK;
SELECT * FROM test.bounds();
SELECT * FROM test.failing();

-- A partition of one's own that reaches over the horizon, and a default one: what is older leaves it row by row.
SELECT test.begin();
CREATE TABLE marts.mine PARTITION OF marts.fact_user_events FOR VALUES FROM (MINVALUE) TO ('2025-01-20Z');
CREATE TABLE marts.rest PARTITION OF marts.fact_user_events DEFAULT;
SELECT test.put('a.jsonl', test.event('{"event_id": "a1", "event_time": "2024-01-10T00:00:00Z"}'), test.event('{"event_id": "a2", "event_time": "2025-01-19T00:00:00Z"}'), test.event('{"event_id": "a3", "event_time": "2025-01-25T00:00:00Z"}'));
SELECT loaded FROM test.load('a.jsonl');
SELECT test.run();
SELECT status, rows_dropped, horizon FROM dwh.drop_before('staging', '2025-01-22Z');
SELECT status, partitions, rows_dropped, horizon FROM dwh.drop_before('facts', '2025-01-22Z');
SELECT * FROM test.ledger();
SELECT to_regclass('marts.mine') AS mine, to_regclass('marts.rest') AS rest;
SELECT * FROM test.failing();
-- a view on a partition holds it
SELECT test.begin();
SELECT test.put('a.jsonl', test.event('{"event_id": "a1", "event_time": "2024-01-10T00:00:00Z"}'), test.event('{"event_id": "a2"}'));
SELECT loaded FROM test.load('a.jsonl');
SELECT test.run();
CREATE VIEW public.of_january AS SELECT * FROM marts.fact_user_events_2025_01;
SELECT status FROM dwh.drop_before('staging', '2025-02-01Z');
SELECT * FROM test.error($$SELECT * FROM dwh.drop_before('facts', '2025-02-01Z')$$);
SELECT facts_dropped, (SELECT count(*) FROM marts.fact_user_events) AS facts FROM ops.loads;
DROP VIEW public.of_january;
SELECT status, partitions, rows_dropped FROM dwh.drop_before('facts', '2025-02-01Z');
-- a load that nothing was done with keeps its raw rows; of a quarantined one they go
SELECT test.begin();
SELECT test.put('poisoned.jsonl', VARIADIC (SELECT array_agg(test.event(jsonb_build_object('event_time', 'never', 'i', i))) FROM generate_series(1, 20) AS i));
SELECT loaded FROM test.load('poisoned.jsonl');
SELECT status, rows_dropped FROM dwh.drop_before('raw', now());
SELECT quarantined FROM dwh.stage_events();
SELECT status, loads, rows_dropped FROM dwh.drop_before('raw', now());
SELECT status, loaded, stage_rejected, raw_dropped FROM ops.loads;
-- What arrives from before the horizon: a replay is known by its fact, a new event is refused; without facts both are forgotten.
SELECT test.begin();
SET dwh.max_reject_share = 1;
SELECT test.put('a.jsonl', test.event('{"event_id": "a1", "event_time": "2025-01-10T00:00:00Z", "device": "A"}'), test.event('{"event_id": "a2", "event_time": "2025-02-10T00:00:00Z", "device": "B"}'));
SELECT loaded FROM test.load('a.jsonl');
SELECT test.run();
SELECT status, rows_dropped FROM dwh.drop_before('raw', now());
SELECT status, rows_dropped FROM dwh.drop_before('staging', '2025-02-01Z');
SELECT test.put('b.jsonl', test.event('{"event_id": "a1", "event_time": "2025-01-10T00:00:00Z", "device": "A"}'), test.event('{"event_id": "b2", "event_time": "2025-01-20T00:00:00Z", "device": "C"}'),
    test.event('{"event_id": "b3", "event_time": "2025-02-05T00:00:00Z", "device": "D"}'));
SELECT loaded FROM test.load('b.jsonl');
SELECT test.run();
SELECT class, message FROM ops.rejects;
SELECT device, valid_from, valid_to FROM marts.dim_user ORDER BY 2;
SELECT * FROM test.ledger();
SELECT status, rows_dropped FROM dwh.drop_before('facts', '2025-02-01Z');
SELECT loaded FROM test.load('b.jsonl', force => true);
SELECT test.run();
SELECT * FROM test.ledger();
SELECT * FROM test.failing();
RESET dwh.max_reject_share;
DROP TABLE test.versions;
DROP FUNCTION test.ledger, test.bounds, test.failing, test.run;

-- Late events of a load that is quarantined for them are refused all the same: the run says why, and so does every later one.
SELECT test.begin();
SELECT test.put('1.jsonl', test.event('{"event_id": "1", "event_time": "2025-01-10T00:00:00Z"}'), test.event('{"event_id": "2", "event_time": "2025-03-10T00:00:00Z"}'));
SELECT count(*) FROM dwh.run_pipeline();
SELECT status FROM dwh.drop_before('staging', '2025-02-01Z');
SELECT test.put('2.jsonl', VARIADIC (SELECT array_agg(test.event(jsonb_build_object('event_id', 'n' || g, 'event_time', format('2025-%s-11T00:00:00Z', CASE WHEN g <= 10 THEN '01' ELSE '03' END)))) FROM generate_series(1, 50) AS g));
SELECT code FROM test.error('SELECT count(*) FROM dwh.run_pipeline()');
SELECT status, stage_rejected FROM ops.loads ORDER BY load_id;
SELECT class, count(*) FROM ops.rejects GROUP BY 1;
-- A load that is not staged yet holds staging, too.
SELECT test.put('3.jsonl', test.event('{"event_id": "3", "event_time": "2025-03-11T00:00:00Z"}'));
SELECT loaded FROM test.load('3.jsonl');
SELECT code FROM test.error('SELECT dwh.drop_before(''staging'', ''2025-04-01Z'')');
-- Trying late events again changes nothing, so it holds nobody up.
SELECT test.begin();
SELECT test.put('1.jsonl', VARIADIC ARRAY[test.event('{"event_id": "1", "event_time": "2025-01-10T00:00:00Z"}')] || (SELECT array_agg(test.event(jsonb_build_object('event_id', 'm' || g, 'event_time', '2025-03-10T00:00:00Z'))) FROM generate_series(1, 20) AS g));
SELECT count(*) FROM dwh.run_pipeline();
SELECT status FROM dwh.drop_before('staging', '2025-02-01Z');
SELECT test.put('2.jsonl', VARIADIC ARRAY[test.event('{"event_id": "late", "event_time": "2025-01-11T00:00:00Z"}')] || (SELECT array_agg(test.event(jsonb_build_object('event_id', 'k' || g, 'event_time', '2025-03-10T00:00:00Z'))) FROM generate_series(1, 20) AS g));
SELECT count(*) FROM dwh.run_pipeline();
SELECT status, retried, still_rejected FROM dwh.retry_rejects();
SELECT count(*) FROM ops.loads WHERE checked_at IS NULL;
-- What claimed the id of an event that was dropped stays a conflict when it comes again.
SELECT test.begin();
SELECT test.put('1.jsonl', test.event('{"event_id": "a", "event_time": "2025-01-10T00:00:00Z"}'), test.event('{"event_id": "a", "event_time": "2025-03-10T00:00:00Z"}'));
SELECT count(*) FROM dwh.run_pipeline();
SELECT status FROM dwh.drop_before('staging', '2025-02-01Z');
SELECT status FROM dwh.drop_before('facts', '2025-02-01Z');
SELECT loaded FROM test.load('1.jsonl', force => true);
SELECT staged, replayed, conflicting FROM dwh.stage_events();
-- ... also once raw is gone, and the event itself, from before the horizon, is forgotten.
DELETE FROM raw.user_events;
SELECT test.put('2.jsonl', test.event('{"event_id": "a", "event_time": "2025-03-10T00:00:00Z"}'), test.event('{"event_id": "a", "event_time": "2025-01-10T00:00:00Z"}'));
SELECT loaded FROM test.load('2.jsonl');
SELECT staged, replayed, conflicting FROM dwh.stage_events();
SELECT replayed, conflicting, forgotten FROM ops.loads WHERE load_id = (SELECT max(load_id) FROM ops.loads);
