-- 95_pipeline: all steps as one transaction; what failed leaves raw, staging and marts as they were, and its evidence.
\set VERBOSITY sqlstate
SET timezone = 'UTC';
SET datestyle = 'ISO, YMD';
SELECT test.begin();
-- What a run must not have changed, or a second one: a digest of everything in raw, staging and marts.
CREATE FUNCTION test.state() RETURNS text LANGUAGE sql AS $$
    SELECT md5(string_agg(t, E'\n' ORDER BY t COLLATE "C")) FROM (
        SELECT 'r' || r::text FROM raw.user_events AS r UNION ALL SELECT 's' || s::text FROM staging.user_events AS s UNION ALL SELECT 'u' || u::text FROM marts.dim_user AS u
        UNION ALL SELECT 'p' || p::text FROM marts.dim_product AS p UNION ALL SELECT 'h' || h::text FROM marts.dim_product_price AS h UNION ALL SELECT 'f' || f::text FROM marts.fact_user_events AS f) AS x (t) $$;

-- No files: no_data, not an error.
SELECT step, status, rows_in, rows_out, rejected FROM dwh.run_pipeline();
SELECT status, source IS NULL AS landing, finished_at >= started_at AS finished, sqlstate FROM ops.runs;

-- The landing directory, a path, a pattern, a directory.
SELECT test.put('a.jsonl', test.event('{"event_id": "a1", "device": "A", "price": 3, "quantity": 2, "event_type": "purchase", "product_id": "p"}'), test.event('{"event_id": "a2"}'), 'broken', test.event('{"event_id": "a3", "user_id": ""}'),
    test.event('{"event_id": "a1"}'), test.event('{"event_id": "a2"}'), '');
SET dwh.max_reject_share = 0.5;
SELECT step, status, rows_in, rows_out, rejected, elapsed >= interval '0' AS timed FROM dwh.run_pipeline();
SELECT lines, loaded, rejected, blank, staged, replayed, conflicting, stage_rejected, facts, run_id FROM ops.loads;
SELECT test.state() AS before \gset
SELECT step, status, rows_in, rows_out, rejected FROM dwh.run_pipeline();
SELECT test.state() = :'before' AS a_second_run_changed_nothing;
SELECT test.put('b.jsonl', test.event('{"event_id": "b1", "device": "B", "event_time": "2025-02-01T00:00:00Z"}'));
SELECT step, status, rows_in, rows_out FROM dwh.run_pipeline(source => 'b.jsonl');
SELECT test.put('c1.jsonl', test.event('{"event_id": "c1"}')), test.put('c2.jsonl', test.event('{"event_id": "c2"}'));
SELECT step, status, rows_in, rows_out FROM dwh.run_pipeline('c*.jsonl') WHERE step = 'load_jsonl';
SELECT step, status, rows_in, rows_out FROM dwh.run_pipeline(test.dir()) WHERE step = 'load_jsonl';
SELECT step, status, rows_in, rows_out FROM dwh.run_pipeline('nothing-*.jsonl');
SELECT run_id, status, regexp_replace(source, '^.*/', '') <> '' AS has_source, finished_at IS NOT NULL AS finished, sqlstate FROM ops.runs ORDER BY 1;
SELECT run_id, string_agg(step || '=' || status, ' ' ORDER BY step_no) FROM ops.run_steps GROUP BY 1 ORDER BY 1;
SELECT run_id, count(*), count(*) FILTER (WHERE status = 'fail') AS failed FROM ops.quality_results GROUP BY 1 ORDER BY 1;
SELECT * FROM test.differences();
-- what was loaded or staged before by the verbs is taken along
SELECT test.put('v.jsonl', test.event('{"event_id": "v1"}'));
SELECT status FROM test.load('v.jsonl');
SELECT staged FROM dwh.stage_events();
SELECT step, status, rows_out FROM dwh.run_pipeline();
RESET dwh.max_reject_share;

-- A file with too many refused lines fails the run: nothing changes, it is quarantined, the next run goes on without it.
SELECT test.state() AS before \gset
SELECT test.put('poison.jsonl', VARIADIC (SELECT array_agg(test.event(jsonb_build_object('event_id', 'x' || i, 'event_time', CASE WHEN i <= 15 THEN 'never' ELSE '2025-01-10T00:00:00Z' END)) ORDER BY i) FROM generate_series(1, 50) AS i));
SELECT test.put('good.jsonl', test.event('{"event_id": "good"}'));
SELECT count(*) FROM dwh.run_pipeline();
\c
\set VERBOSITY sqlstate
SET timezone = 'UTC';
SET datestyle = 'ISO, YMD';
SELECT test.state() = :'before' AS as_before;
SELECT status, sqlstate, message IS NOT NULL AS has_message, detail IS NOT NULL AS has_detail, hint IS NOT NULL AS has_hint, finished_at IS NOT NULL AS finished FROM ops.runs ORDER BY run_id DESC LIMIT 1;
SELECT step, status FROM ops.run_steps WHERE run_id = (SELECT max(run_id) FROM ops.runs) ORDER BY step_no;
SELECT name, status, observed, offenders -> 0 ->> 'refused' AS refused, offenders -> 0 ->> 'load_ratio' AS load_ratio FROM ops.quality_results WHERE run_id = (SELECT max(run_id) FROM ops.runs) AND status = 'fail';
SELECT severity, title, body FROM ops.alerts ORDER BY alert_id DESC LIMIT 1;
SELECT regexp_replace(l.path, '^.*/', '') AS file, l.status, l.stage_rejected, l.run_id = (SELECT max(run_id) FROM ops.runs) AS has_its_run, count(j.*) AS rejects, min(j.class) AS class FROM ops.loads AS l LEFT JOIN ops.rejects AS j USING (load_id) WHERE l.status = 'quarantined' GROUP BY 1, 2, 3, 4;
SELECT step, status, rows_in, rows_out FROM dwh.run_pipeline();
SELECT count(*) FROM marts.fact_user_events WHERE event_id = dwh.event_id(test.event('{"event_id": "good"}')::jsonb);
SELECT step, status, rows_in, rows_out FROM dwh.run_pipeline();
SELECT file, status FROM test.load('poison.jsonl');
-- force releases it, once and for all
SELECT file, status, loaded FROM test.load('poison.jsonl', force => true);
SELECT step, status, rows_in, rows_out FROM dwh.run_pipeline();
SELECT step, status FROM dwh.run_pipeline();
SELECT * FROM test.differences();
SELECT l.file, l.status, o.forced FROM test.load('poison.jsonl') AS l JOIN ops.loads AS o USING (load_id);
-- a load that was committed before the run that quarantines it: the next run goes on without it as well
SELECT test.put('before.jsonl', '{"no": "event"}');
SELECT file, status FROM test.load('before.jsonl');
SELECT count(*) FROM dwh.run_pipeline();
SELECT l.status, l.loaded, l.stage_rejected, count(j.*) AS rejects FROM ops.loads AS l LEFT JOIN ops.rejects AS j USING (load_id) WHERE l.path LIKE '%/before.jsonl' GROUP BY l.load_id ORDER BY l.load_id;
SELECT step, status FROM dwh.run_pipeline() WHERE step = 'run_quality_checks';
SELECT count(*) AS ledger_rows FROM ops.loads WHERE path LIKE '%/before.jsonl';
-- a larger share releases too; so does a fix of the file, which is other content
SELECT test.put('poison2.jsonl', VARIADIC (SELECT array_agg(CASE WHEN i <= 15 THEN format('broken %s', i) ELSE test.event(jsonb_build_object('event_id', 'y' || i)) END ORDER BY i) FROM generate_series(1, 50) AS i));
SELECT count(*) FROM dwh.run_pipeline();
SELECT status FROM dwh.run_pipeline() WHERE step = 'stage_events';
SET dwh.max_reject_share = 0.3;
SELECT step, status, rows_in, rows_out, rejected FROM dwh.run_pipeline();
RESET dwh.max_reject_share;
SELECT test.put('poison3.jsonl', VARIADIC (SELECT array_agg(CASE WHEN i <= 15 THEN format('worse %s', i) ELSE test.event(jsonb_build_object('event_id', 'z' || i)) END ORDER BY i) FROM generate_series(1, 50) AS i));
SELECT count(*) FROM dwh.run_pipeline();
SELECT test.put('poison3.jsonl', VARIADIC (SELECT array_agg(test.event(jsonb_build_object('event_id', 'z' || i)) ORDER BY i) FROM generate_series(1, 50) AS i));
SELECT step, status, rows_in, rows_out, rejected FROM dwh.run_pipeline();
-- a large clean history does not hide a small poisoned file; 9 refused of 20 are no poison, but all of 1 are
SELECT test.put('few.jsonl', VARIADIC (SELECT array_agg(CASE WHEN i <= 9 THEN format('few %s', i) ELSE test.event(jsonb_build_object('event_id', 'few' || i)) END ORDER BY i) FROM generate_series(1, 20) AS i));
SELECT step, status, rows_out, rejected FROM dwh.run_pipeline() WHERE step IN ('load_jsonl', 'load_facts');
SELECT test.put('one.jsonl', 'the only line');
SELECT count(*) FROM dwh.run_pipeline();
-- the truth of the next file is not spoilt by it
SELECT test.put('next.jsonl', test.event('{"event_id": "next"}'));
SELECT step, status, rows_out FROM dwh.run_pipeline() WHERE step IN ('load_jsonl', 'load_facts');
SELECT * FROM test.differences();

-- A failing check of the user's own: the run's rows go, its evidence stays; once the check is right the file is loaded.
INSERT INTO ops.quality_checks (name, severity, description, query) VALUES ('no_late', 'error', 'Mine.', 'SELECT event_id FROM marts.fact_user_events WHERE event_time < ''2020-01-01 00:00:00+00''');
SELECT test.put('old.jsonl', test.event('{"event_id": "old", "event_time": "2010-05-05T00:00:00Z"}'));
SELECT test.state() AS before \gset
SELECT count(*) FROM dwh.run_pipeline();
SELECT test.state() = :'before' AS as_before, to_regclass('marts.fact_user_events_2010_05') IS NULL AS no_partition_left;
SELECT name, observed FROM ops.quality_results WHERE run_id = (SELECT max(run_id) FROM ops.runs) AND status = 'fail';
SELECT count(*) FROM ops.loads WHERE path LIKE '%/old.jsonl';
DELETE FROM ops.quality_checks WHERE name = 'no_late';
SELECT step, status, rows_out FROM dwh.run_pipeline() WHERE step IN ('load_jsonl', 'load_facts');

-- Any other error of a step ends the run likewise.
SELECT test.state() AS before \gset
SELECT count(*) FROM dwh.run_pipeline('missing.jsonl');
SELECT status, sqlstate, detail <> '' AS has_detail, hint <> '' AS has_hint FROM ops.runs ORDER BY run_id DESC LIMIT 1;
SELECT test.state() = :'before' AS as_before;
-- the caller's transaction decides over what succeeded; what failed is known all the same
SELECT test.put('tx.jsonl', test.event('{"event_id": "tx"}'));
BEGIN;
SELECT count(*) FROM dwh.run_pipeline();
ROLLBACK;
SELECT test.state() = :'before' AS as_before;
SELECT step, status, rows_out FROM dwh.run_pipeline() WHERE step IN ('load_jsonl', 'load_facts');
SELECT status FROM ops.runs ORDER BY run_id DESC LIMIT 1;
SELECT count(*) AS still_running FROM ops.runs WHERE status = 'running';
-- under other isolation levels as well
SELECT test.put('iso.jsonl', test.event('{"event_id": "iso"}'));
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT step, status FROM dwh.run_pipeline();
COMMIT;
SELECT status, finished_at IS NOT NULL AS finished FROM ops.runs ORDER BY run_id DESC LIMIT 1;

-- From a generated log with every fault: each count is what the generator says; split, shuffled and replayed lines give the same marts.
SELECT test.begin();
\c
\set VERBOSITY sqlstate
SET timezone = 'UTC';
SET datestyle = 'ISO, YMD';
SELECT faults FROM dwh.generate_events('dirty.jsonl', events => 2000, users => 40, products => 20, seed => 5, dirty_rate => 0.05) \gset
SELECT status FROM dwh.run_pipeline() WHERE step = 'run_quality_checks';
WITH injected AS (SELECT coalesce(k.outcome, 'none') AS outcome, sum(f.value::bigint) AS n FROM jsonb_each_text(:'faults') AS f LEFT JOIN dwh.dirty_kinds() AS k ON k.kind = f.key GROUP BY 1)
SELECT l.rejected = coalesce((SELECT n FROM injected WHERE outcome = 'load_reject'), 0) AS load_rejects, l.stage_rejected = coalesce((SELECT n FROM injected WHERE outcome = 'stage_reject'), 0) AS stage_rejects,
       l.replayed = coalesce((SELECT n FROM injected WHERE outcome = 'replay'), 0) AS replays, l.conflicting = coalesce((SELECT n FROM injected WHERE outcome = 'conflict'), 0) AS conflicts,
       l.blank = coalesce((SELECT n FROM injected WHERE outcome = 'blank'), 0) AS blanks, l.facts = 2000 + coalesce((SELECT n FROM injected WHERE outcome = 'fact'), 0) AS facts, (l.held_back_bytes > 0) = EXISTS (SELECT FROM injected WHERE outcome = 'held_back') AS tail
  FROM ops.loads AS l;
SELECT j.class, count(*) = (SELECT sum(f.value::bigint) FROM jsonb_each_text(:'faults') AS f JOIN dwh.dirty_kinds() AS k ON k.kind = f.key WHERE k.class = j.class) AS as_injected FROM ops.rejects AS j GROUP BY 1 ORDER BY 1;
SELECT * FROM test.differences();
-- keys are compared by identity
CREATE FUNCTION test.marts() RETURNS text LANGUAGE sql AS $$
    SELECT md5(string_agg(t, E'\n' ORDER BY t COLLATE "C")) FROM (
        SELECT concat_ws('|', 'u', user_id, device, country, valid_from, valid_to, is_current) FROM marts.dim_user
        UNION ALL SELECT concat_ws('|', 'p', product_id, category, brand, trim_scale(price), is_inferred, category_event_id, brand_event_id, price_event_id) FROM marts.dim_product
        UNION ALL SELECT concat_ws('|', 'h', p.product_id, trim_scale(h.price), h.valid_from, h.valid_to, h.is_current) FROM marts.dim_product_price AS h JOIN marts.dim_product AS p USING (product_key)
        UNION ALL SELECT concat_ws('|', 'f', f.event_id, f.event_time, f.event_type, f.session_id, u.user_id, u.valid_from, p.product_id, f.quantity, trim_scale(f.price), trim_scale(f.revenue), f.attributes)
          FROM marts.fact_user_events AS f JOIN marts.dim_user AS u USING (user_key) JOIN marts.dim_product AS p USING (product_key)) AS x (t) $$;
SELECT test.begin();
\c
\set VERBOSITY sqlstate
SET timezone = 'UTC';
SET datestyle = 'ISO, YMD';
CREATE TABLE test.line AS SELECT s AS text, n FROM dwh.sample_events(1500, 30, 20, seed => 9, dirty_rate => 0.05, dirty_kinds => (SELECT array_agg(kind) FROM dwh.dirty_kinds() WHERE outcome IN ('fact', 'replay'))) WITH ORDINALITY AS s (s, n);
SELECT test.put('clean.jsonl', VARIADIC (SELECT array_agg(text ORDER BY n) FROM test.line));
SELECT status FROM dwh.run_pipeline() WHERE step = 'run_quality_checks';
SELECT test.marts() AS clean \gset
SELECT test.begin();
\c
\set VERBOSITY sqlstate
SET timezone = 'UTC';
SET datestyle = 'ISO, YMD';
-- seven files of the shuffled lines, one of them twice over under another name and order
SELECT count(*) FROM (SELECT test.put(format('part%s.jsonl', n % 7), VARIADIC array_agg(text ORDER BY md5(n::text))) FROM test.line GROUP BY n % 7) AS files;
SELECT count(*) FROM (SELECT test.put('zagain.jsonl', VARIADIC array_agg(text ORDER BY md5(text))) FROM test.line WHERE n % 7 IN (2, 5)) AS files;
SELECT step, status FROM dwh.run_pipeline('part3.jsonl') WHERE step = 'run_quality_checks';
SELECT step, status FROM dwh.run_pipeline('part[60].jsonl') WHERE step = 'run_quality_checks';
SELECT step, status FROM dwh.run_pipeline() WHERE step = 'run_quality_checks';
SELECT test.marts() = :'clean' AS same_marts, (SELECT sum(replayed) > 0 FROM ops.loads WHERE path LIKE '%/zagain.jsonl') AS with_replays;
SELECT * FROM test.differences();
DROP TABLE test.line;
