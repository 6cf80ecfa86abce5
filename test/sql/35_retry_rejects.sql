-- 35_retry_rejects: kept rejects are tried again; the marts are then as if the events had been accepted at first.
\set VERBOSITY sqlstate
SET timezone = 'UTC';
SET datestyle = 'ISO, YMD';
SELECT test.begin();
-- Loads a file whose clock stood at that time: loaded_at is data, so events after it are from the future.
CREATE FUNCTION test.load_at(name text, clock timestamptz) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    id bigint := (SELECT l.load_id FROM dwh.load_jsonl(name) AS l);
BEGIN
    UPDATE raw.user_events SET loaded_at = clock WHERE load_id = id;
    UPDATE ops.loads SET loaded_at = clock WHERE load_id = id;
    RETURN id;
END $$;
CREATE FUNCTION test.retry(id bigint DEFAULT NULL) RETURNS TABLE (load_id bigint, file text, status text, retried bigint, loaded bigint,
    staged bigint, replayed bigint, conflicting bigint, still_rejected bigint, not_kept bigint) LANGUAGE sql AS $$
    SELECT r.load_id, regexp_replace(r.path, '^.*/', ''), r.status, r.retried, r.loaded, r.staged, r.replayed, r.conflicting, r.still_rejected, r.not_kept
      FROM dwh.retry_rejects(id) AS r $$;
CREATE FUNCTION test.ledger() RETURNS TABLE (load_id bigint, lines bigint, loaded bigint, rejected bigint, blank bigint, staged bigint, replayed bigint, conflicting bigint, refused bigint, facts bigint, done text) LANGUAGE sql AS $$
    SELECT load_id, lines, loaded, rejected, blank, staged, replayed, conflicting, stage_rejected, facts,
           concat_ws(' ', CASE WHEN staged_at IS NOT NULL THEN 'staged' END, CASE WHEN users_at IS NOT NULL THEN 'users' END, CASE WHEN products_at IS NOT NULL THEN 'products' END,
                     CASE WHEN facts_at IS NOT NULL THEN 'facts' END, CASE WHEN checked_at IS NOT NULL THEN 'checked' END) AS done
      FROM ops.loads ORDER BY load_id $$;
-- What typed_events says against what staging and rejects hold.
CREATE FUNCTION test.staging_differences() RETURNS TABLE (what text, row_text text) LANGUAGE sql AS $$
    WITH typed AS (SELECT e.*, l.load_id FROM ops.loads AS l, dwh.typed_events(l.load_id) AS e)
    SELECT 'staged, though the noun refuses it', (load_id, line_no)::text FROM typed JOIN staging.user_events USING (load_id, line_no) WHERE reject_class IS NOT NULL
    UNION ALL
    SELECT 'refused, though the noun takes it', (load_id, line_no)::text FROM typed JOIN ops.rejects USING (load_id, line_no) WHERE reject_class IS NULL
    UNION ALL
    SELECT 'another event', v::text FROM (
        SELECT event_id, event_time, user_id, device, price, revenue, quantity, attributes, flags, load_id, line_no FROM staging.user_events EXCEPT ALL
        SELECT event_id, event_time, user_id, device, price, revenue, quantity, attributes, flags, load_id, line_no FROM typed) AS v
    UNION ALL
    SELECT * FROM test.differences() $$;

-- Nothing to do.
SELECT * FROM test.retry();
SELECT * FROM test.error('SELECT dwh.retry_rejects(1)');

-- Every outcome at once. The first load is read by a clock of 2025-01-05: lines 3 to 6 are from the future, line 7 is no
-- event at any time, line 8 no object.
SELECT test.put('a.jsonl',
    test.event('{"event_id": "a1", "event_time": "2025-01-01T00:00:00Z", "device": "A", "product_id": "p1", "price": 1}'),
    test.event('{"event_id": "a2", "event_time": "2025-01-04T00:00:00Z", "device": "A"}'),
    test.event('{"event_id": "a3", "event_time": "2025-01-06T00:00:00Z", "device": "B", "product_id": "p1", "price": 2, "x": [1]}'),
    test.event('{"event_id": "a4", "event_time": "2025-01-08T00:00:00Z", "product_id": "p2"}'),
    test.event('{"event_id": "a5", "event_time": "2025-01-08T00:00:00Z", "device": "C"}'),
    test.event('{"event_id": "a6", "event_time": "2099-01-08T00:00:00Z"}'),
    test.event('{"event_id": "a7", "user_id": null}'),
    '[]', '');
SELECT test.load_at('a.jsonl', '2025-01-05Z');
-- the second load repeats one of them, and sends another payload for one
SELECT test.put('b.jsonl',
    test.event('{"event_id": "a4", "event_time": "2025-01-08T00:00:00Z", "product_id": "p2"}'),
    test.event('{"event_id": "a5", "event_time": "2025-01-08T00:00:00Z", "device": "D"}'),
    test.event('{"event_id": "b3", "event_time": "2025-01-07T00:00:00Z", "device": "A"}'));
SELECT loaded FROM test.load('b.jsonl');
SELECT step, result FROM test.build();
SELECT status, count(*) FROM dwh.run_quality_checks() GROUP BY 1;
SELECT load_id, line_no, stage, class FROM ops.rejects ORDER BY 1, 2;
SELECT * FROM test.ledger();
SELECT * FROM test.retry();
SELECT * FROM test.ledger();
SELECT load_id, line_no, stage, class FROM ops.rejects ORDER BY 1, 2;
SELECT load_id, line_no, kept_load_id, kept_line_no FROM ops.event_conflicts;
-- the clock that a line was judged by stands with it
SELECT line_no, loaded_at > '2025-02-01Z' AS by_the_retry FROM raw.user_events WHERE load_id = 1 ORDER BY 1;
-- again: nothing, and not a row is written
CREATE TABLE test.before AS SELECT 'raw' AS t, ctid AS at, xmin::text AS by FROM raw.user_events UNION ALL SELECT 'rejects', ctid AS at, xmin::text AS by FROM ops.rejects UNION ALL SELECT 'loads', ctid AS at, xmin::text AS by FROM ops.loads;
SELECT * FROM test.retry();
SELECT * FROM test.retry(1);
SELECT * FROM test.retry(2);
SELECT count(*) AS rows_written FROM (SELECT * FROM test.before EXCEPT (SELECT 'raw', ctid AS at, xmin::text AS by FROM raw.user_events UNION ALL SELECT 'rejects', ctid AS at, xmin::text AS by FROM ops.rejects UNION ALL SELECT 'loads', ctid AS at, xmin::text AS by FROM ops.loads)) AS d;
DROP TABLE test.before;
-- the next run takes the load up again without any file, and the run after it has nothing to do
SELECT step, status, rows_in, rows_out FROM dwh.run_pipeline('none_*.jsonl');
SELECT status FROM ops.runs ORDER BY run_id DESC LIMIT 1;
SELECT * FROM test.ledger();
SELECT user_id, device, valid_from, valid_to FROM marts.dim_user ORDER BY 1, 3;
SELECT product_id, price FROM marts.dim_product ORDER BY 1;
SELECT count(*), count(DISTINCT event_id) FROM marts.fact_user_events;
SELECT * FROM test.staging_differences();
SELECT name FROM dwh.run_quality_checks("full" => true) WHERE status = 'fail' AND severity = 'error';
SELECT step, status FROM dwh.run_pipeline('none_*.jsonl');
-- the file is known as before
SELECT file, status FROM test.load('a.jsonl');

-- A late acceptance cuts the version of facts that are there: those of the same load are pointed to the right one, verb by verb.
SELECT test.begin();
SELECT test.put('c.jsonl',
    test.event('{"event_id": "c1", "event_time": "2025-01-01T00:00:00Z", "device": "A"}'),
    test.event('{"event_id": "c2", "event_time": "2025-01-05T00:00:00Z", "device": "A"}'),
    test.event('{"event_id": "c3", "event_time": "2025-01-03T00:00:00Z", "device": "B"}'));
SELECT test.load_at('c.jsonl', '2025-01-06Z');
UPDATE raw.user_events SET loaded_at = '2025-01-02Z' WHERE line_no = 3;
SELECT count(*) AS steps FROM test.build();
SELECT count(*) AS checks FROM dwh.run_quality_checks();
SELECT status, staged FROM test.retry(1);
-- a step before its turn
SELECT * FROM test.error('SELECT dwh.load_facts(1)');
SELECT status, rows_in, split, repointed FROM dwh.apply_scd2(1);
SELECT * FROM test.error('SELECT dwh.load_facts(1)');
SELECT status FROM dwh.upsert_products(1);
SELECT status, rows_in, facts FROM dwh.load_facts(1);
SELECT name FROM dwh.run_quality_checks() WHERE status = 'fail' AND severity = 'error';
SELECT f.event_time, d.device, d.valid_from FROM marts.fact_user_events AS f JOIN marts.dim_user AS d USING (user_key) ORDER BY 1;
SELECT * FROM test.ledger();
SELECT * FROM test.staging_differences();
SELECT step, left(result, 13) AS result FROM test.build();
-- lost facts are not made up for silently by the next retry: the count says what should be there
BEGIN;
DELETE FROM marts.fact_user_events WHERE line_no = 1;
UPDATE ops.loads SET facts_at = NULL, checked_at = NULL;
SELECT * FROM test.error('SELECT dwh.load_facts(1)');
ROLLBACK;

-- By the clock on the wall: 10 minutes and 5 seconds ahead is too early, five seconds later it is not.
SELECT test.begin();
SELECT test.put('soon.jsonl', test.event(jsonb_build_object('event_id', 's1')),
    test.event(jsonb_build_object('event_id', 's2', 'event_time', to_char(clock_timestamp() + interval '10 minutes 5 seconds', 'YYYY-MM-DD"T"HH24:MI:SS.USOF') || ':00')));
SELECT loaded FROM test.load('soon.jsonl');
SELECT staged, rejected FROM dwh.stage_events();
SELECT status, retried, staged, still_rejected FROM test.retry();
SELECT pg_sleep(5.1);
SELECT status, retried, staged, still_rejected FROM test.retry();
SELECT status, retried, staged, still_rejected FROM test.retry();

-- Lines: what a larger dwh.max_line_bytes lets through becomes raw at its own place; what was kept in part stays.
SELECT test.begin();
SELECT test.put('long.jsonl',
    test.event('{"event_id": "l1"}'),
    test.event(jsonb_build_object('event_id', 'l2', 'x', repeat('x', 2000))),
    test.event(jsonb_build_object('event_id', 'l3', 'x', repeat('x', 5000))),
    test.event(jsonb_build_object('event_id', 'l4', 'user_id', null, 'x', repeat('x', 2000))),
    test.event(jsonb_build_object('event_id', 'l5', 'event_time', '2099-01-01T00:00:00Z', 'x', repeat('x', 1500))),
    test.event(jsonb_build_object('event_id', 'l1', 'x', repeat('x', 1200))),
    test.event(jsonb_build_object('event_id', 'l2', 'x', repeat('x', 2000))),
    '{"broken', '"text"', '{"a": "\u0000"}', '',
    '{"broken when read": "' || repeat('x', 1200),
    -- its first 4,096 bytes are an object, the line is not
    test.event('{"event_id": "l13"}') || repeat(' ', 5000) || 'x');
SET dwh.max_line_bytes = '1kB';
SELECT lines, loaded, rejected, blank FROM test.load('long.jsonl');
SET dwh.max_reject_share = 1;
SELECT line_no, byte_offset, class, octet_length(raw), raw_bytes FROM ops.rejects ORDER BY 1;
-- not staged yet: the lines become raw, stage_events() does the rest
BEGIN;
SET LOCAL dwh.max_line_bytes = '1500B';
\set VERBOSITY default
SELECT * FROM test.retry();
\set VERBOSITY sqlstate
SELECT * FROM test.ledger();
SELECT staged, replayed, conflicting, rejected FROM dwh.stage_events();
SELECT * FROM test.ledger();
SELECT status, staged, conflicting FROM test.retry();
ROLLBACK;
-- staged: they are staged, too
SELECT step FROM test.build();
SELECT status, retried, still_rejected, not_kept FROM test.retry();
RESET dwh.max_line_bytes;
SELECT * FROM test.retry();
SELECT * FROM test.ledger();
SELECT line_no, byte_offset, stage, class FROM ops.rejects ORDER BY 1;
SELECT r.line_no, r.byte_offset, length(r.payload ->> 'x') AS x, s.line_no IS NOT NULL AS is_staged FROM raw.user_events AS r LEFT JOIN staging.user_events AS s USING (load_id, line_no) ORDER BY 1;
SELECT line_no, kept_line_no FROM ops.event_conflicts;
SELECT status, retried, staged, still_rejected, not_kept FROM test.retry();
SELECT step, status, rows_in, rows_out FROM dwh.run_pipeline('none_*.jsonl');
SELECT * FROM test.staging_differences();
-- the way that is left: the whole file again, where the repeats are replays
SELECT status, loaded, rejected FROM test.load('long.jsonl', force => true);
SELECT staged, replayed, conflicting, rejected FROM dwh.stage_events();
-- an event whose raw row is gone cannot be tried again
DELETE FROM raw.user_events WHERE load_id = 1 AND line_no = 5;
SELECT load_id, status, retried, still_rejected, not_kept FROM test.retry();
RESET dwh.max_reject_share;

-- Only other counts: no step after staging has work, the checks have.
SELECT test.begin();
SELECT test.put('d.jsonl', test.event('{"event_id": "d1", "event_time": "2025-01-01T00:00:00Z"}'), test.event('{"event_id": "d2", "event_time": "2025-01-03T00:00:00Z"}'));
SELECT test.load_at('d.jsonl', '2025-01-02Z');
SELECT test.put('e.jsonl', test.event('{"event_id": "d2", "event_time": "2025-01-03T00:00:00Z"}'));
SELECT loaded FROM test.load('e.jsonl');
SELECT count(*) AS steps FROM dwh.run_pipeline('none_*.jsonl');
SELECT status, replayed FROM test.retry();
SELECT * FROM test.ledger();
SELECT step, status FROM dwh.run_pipeline('none_*.jsonl');

-- Quarantined and stopped loads are left alone: by name an error, among all left out.
SELECT test.begin();
SELECT test.put('early.jsonl', VARIADIC (SELECT array_agg(test.event(jsonb_build_object('event_id', 'q' || i))) FROM generate_series(1, 20) AS i));
SELECT test.load_at('early.jsonl', '2024-01-01Z');
SELECT status, quarantined FROM dwh.stage_events();
SELECT * FROM test.error('SELECT dwh.retry_rejects(1)');
SELECT * FROM test.retry();
SELECT count(*) AS failing FROM dwh.run_quality_checks();
SELECT * FROM test.error('SELECT dwh.retry_rejects(1)');
SELECT test.put('bad.jsonl', 'bad');
SELECT dwh.load_jsonl('bad.jsonl', on_error => 'abort');
SELECT load_id, status FROM ops.loads ORDER BY 1;
SELECT e.* FROM ops.loads AS l, test.error(format('SELECT dwh.retry_rejects(%s)', l.load_id)) AS e WHERE l.status = 'stopped';
SELECT * FROM test.retry();
-- force releases the file, and what it still refuses is tried again like any other
SELECT status FROM test.load('early.jsonl', force => true);
UPDATE raw.user_events SET loaded_at = CASE WHEN line_no > 1 THEN '2024-01-01Z' ELSE loaded_at END::timestamptz WHERE load_id = (SELECT max(load_id) FROM ops.loads);
SELECT staged, rejected, quarantined FROM dwh.stage_events();
SELECT status, retried, staged, still_rejected FROM test.retry();
SELECT step, status FROM dwh.run_pipeline('none_*.jsonl');
SELECT * FROM test.differences();
DROP FUNCTION test.load_at, test.retry, test.staging_differences, test.ledger;

-- ---- the settings of the loader hold for a retry as well
SELECT test.begin();
SELECT test.put('rules.jsonl', test.event('{"user_id": "u1"}'), '{"nul": "\u0000"}', '{"a": 1, "a": 2}');
SET dwh.duplicate_keys = reject;
SELECT loaded, rejected FROM test.load('rules.jsonl');
RESET dwh.duplicate_keys;
SET dwh.nul_escapes = replace;
SELECT status, retried, loaded, still_rejected FROM dwh.retry_rejects();
RESET dwh.nul_escapes;
SELECT line_no, payload, altered FROM raw.user_events WHERE line_no > 1 ORDER BY line_no;
SELECT loaded, rejected, altered, duplicate_keys FROM ops.loads;

-- a line of blanks that was too long, and one whose reason changes
SELECT test.begin();
SELECT test.put('blank.jsonl', test.event('{"user_id": "u1"}'), repeat(' ', 2000), '{"a": "' || repeat('x', 3000) || '"}');
SET dwh.max_line_bytes = 1024;
SELECT loaded, rejected, blank FROM test.load('blank.jsonl');
SET dwh.max_line_bytes = 2500;
SELECT status, retried, loaded, still_rejected FROM dwh.retry_rejects();
SELECT line_no, class, message FROM ops.rejects ORDER BY line_no;
SELECT loaded, rejected, blank, lines FROM ops.loads;
SELECT status, retried, loaded, still_rejected FROM dwh.retry_rejects();
RESET dwh.max_line_bytes;

-- A price that comes late by a retry, in a load whose other prices are there already.
SELECT test.begin();
SET dwh.max_line_bytes = '1kB';
SELECT test.put('p.jsonl', VARIADIC ARRAY[
    test.event(jsonb_build_object('event_id', 'a', 'event_time', '2025-01-05T00:00:00Z', 'product_id', 'p', 'price', 7, 'pad', repeat('x', 2000))),
    test.event('{"event_id": "b", "event_time": "2025-01-10T00:00:00Z", "product_id": "p", "price": 5}')]
    || (SELECT array_agg(test.event(jsonb_build_object('event_id', 'c' || g, 'event_time', '2025-01-20T00:00:00Z', 'product_id', 'p', 'price', 6))) FROM generate_series(1, 8) AS g));
SELECT count(*) FROM dwh.run_pipeline();
RESET dwh.max_line_bytes;
SELECT loaded FROM dwh.retry_rejects();
SELECT step, status, rows_out FROM dwh.run_pipeline();
SELECT price, valid_from, valid_to FROM marts.dim_product_price ORDER BY valid_from;
SELECT * FROM test.differences();
