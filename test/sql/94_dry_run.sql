-- 94_dry_run: what a run would make of each kind of file, and of what waits. Whether it is right, and leaves no trace, is for
-- test/oracle/94_dry_run.sh and test/t/017_dry_run.pl.
SET timezone = 'UTC';
SET datestyle = 'ISO, YMD';
SELECT test.begin();
CREATE FUNCTION test.dry(pattern text) RETURNS TABLE (step text, status text, rows_in bigint, rows_out bigint, rejected bigint, message text) LANGUAGE sql AS $$
    SELECT d.step, d.status, d.rows_in, d.rows_out, d.rejected, replace(d.message, test.dir() || '/', '') FROM dwh._dry_run(test.dir() || '/' || pattern) AS d
$$;
CREATE FUNCTION test.examined(pattern text) RETURNS TABLE (file text, status text, id boolean, lines bigint, loaded bigint, rejected bigint, blank bigint,
    held bigint, staged bigint, replayed bigint, conflicting bigint, refused bigint, poisoned boolean, message text) LANGUAGE sql AS $$
    SELECT regexp_replace(e.path, '.*/', ''), e.status, e.load_id IS NOT NULL, e.lines, e.loaded, e.rejected, e.blank, e.held_back_bytes, e.staged, e.replayed, e.conflicting,
           e.stage_rejected, e.is_poisoned, replace(e.message, test.dir() || '/', '') FROM dwh._examine(test.dir() || '/' || pattern) AS e
$$;
SELECT test.put('d_1.jsonl', test.event('{"event_id": "1", "event_time": "2025-03-01T00:00:00Z"}'), test.event('{"event_id": "2", "event_time": "2025-03-02T00:00:00Z", "product_id": "p"}'));
SELECT test.put('d_2.jsonl', test.event('{"event_id": "1", "event_time": "2025-03-01T00:00:00Z"}'), test.event('{"event_id": "2", "device": "other"}'), test.event('{"event_id": "3", "event_time": "0"}'), '', '{"half');
SELECT * FROM test.examined('d_*.jsonl');
SELECT * FROM test.dry('d_*.jsonl');
SELECT count(*) FROM ops.loads;
-- one waits in raw, one is loaded and known, one goes on
SELECT status FROM dwh.load_jsonl(test.dir() || '/d_1.jsonl');
SELECT test.put('d_1.jsonl', test.event('{"event_id": "1", "event_time": "2025-03-01T00:00:00Z"}'), test.event('{"event_id": "2", "event_time": "2025-03-02T00:00:00Z", "product_id": "p"}'), test.event('{"event_id": "4", "event_time": "2025-02-01T00:00:00Z"}'));
SELECT * FROM test.examined('d_*.jsonl');
SELECT * FROM test.dry('d_*.jsonl');
SELECT step, status, rows_in, rows_out, rejected FROM dwh.run_pipeline(test.dir() || '/d_1.jsonl');
SELECT * FROM test.dry('d_1.jsonl');
-- late events; two files of one content; one that goes on after another; one with nothing but refused lines
SELECT test.put('e_1.jsonl', test.event('{"event_id": "5", "event_time": "2025-02-01T00:00:00Z"}'), test.event('{"event_id": "6", "event_time": "2025-02-03T00:00:00Z", "user_id": "u9"}'));
SELECT test.put('e_2.jsonl', test.event('{"event_id": "5", "event_time": "2025-02-01T00:00:00Z"}'), test.event('{"event_id": "6", "event_time": "2025-02-03T00:00:00Z", "user_id": "u9"}'));
SELECT test.put('e_3.jsonl', test.event('{"event_id": "5", "event_time": "2025-02-01T00:00:00Z"}'), test.event('{"event_id": "6", "event_time": "2025-02-03T00:00:00Z", "user_id": "u9"}'), test.event('{"event_id": "7", "event_time": "2026-01-01T00:00:00Z", "product_id": "q"}'));
SELECT test.put('e_4.jsonl', 'no', 'event', '');
SELECT test.put('e_5.jsonl', '', '');
SELECT * FROM test.examined('e_*.jsonl');
SELECT * FROM test.dry('e_*.jsonl');
SELECT e.path ~ 'e_3' AS is_3, e.days, e.day_events, e.day_late, e.first_event, e.last_event, e.users, e.products FROM dwh._examine(test.dir() || '/e_*.jsonl') AS e;
-- where a nesting ends makes another payload
SELECT test.put('f_1.jsonl', test.event('{"event_id": "n1", "a": {"b": 1}, "c": 2}'), test.event('{"event_id": "n1", "a": {"b": 1, "c": 2}}'),
    test.event('{"event_id": "n2", "a": [[1], 2]}'), test.event('{"event_id": "n2", "a": [[1, 2]]}'), test.event('{"event_id": "n2", "a": [[1], 2.0]}'));
SELECT staged, replayed, conflicting FROM dwh._examine(test.dir() || '/f_*.jsonl') WHERE path ~ 'f_1';
SELECT count(*) FROM dwh.load_jsonl(test.dir() || '/f_1.jsonl');
SELECT staged, replayed, conflicting FROM dwh.stage_events((SELECT max(load_id) FROM ops.loads));
-- a forced load is not judged; neither an answer nor a run for NULL
SELECT test.put('f_2.jsonl', VARIADIC (SELECT array_agg(CASE WHEN i <= 15 THEN format('broken %s', i) ELSE test.event(jsonb_build_object('event_id', 'f' || i)) END ORDER BY i) FROM generate_series(1, 20) AS i));
SELECT status FROM dwh.load_jsonl(test.dir() || '/f_2.jsonl', force => true);
SELECT status FROM test.dry('f_2.jsonl') WHERE step = 'run_quality_checks';
\set VERBOSITY sqlstate
SELECT count(*) FROM dwh.run_pipeline(dry_run => NULL);
\set VERBOSITY default
DROP FUNCTION test.dry, test.examined;
