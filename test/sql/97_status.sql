-- 97_status: what dwh.status(), dwh.explain_pipeline(), dwh.metrics() and dwh.help() say is what the ledgers hold.
\set VERBOSITY terse
SET client_min_messages = error;
SET search_path = public;
SELECT test.begin();
\c
SET client_min_messages = error;
-- ages, sizes and names of roles are not those of every run
CREATE FUNCTION test.status(items text[] DEFAULT NULL) RETURNS TABLE (item text, state text, detail text) LANGUAGE sql AS $$
    SELECT s.item, s.state, regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(s.detail,
           '(\d+ days? )?\d+:\d\d:\d\d(\.\d+)?', '<time>', 'g'), 'owner \S+, [0-9]+ .B', 'owner <role>, <size>'), '^[*/0-9 ]{9,}$', '<schedule>'), 'max_worker_processes is \d+', 'max_worker_processes is <n>'), 'none of \d+ fails(, \d+ not run yet)?', 'none of <n> fails'), '(load|run|run_id =|load_id >=) \d+', '\1 <n>', 'g')
      FROM dwh.status() AS s WHERE items IS NULL OR s.item = ANY (items) $$;
SELECT * FROM test.status(NULL);
SELECT count(*) AS wide_lines FROM dwh.status() AS s, regexp_split_to_table(s.detail, '\n') AS l WHERE length(l) > 80;

-- Step by step: who waits for what.
SELECT test.put('a.jsonl', test.event('{"event_id": "a1", "user_id": "u1"}'), test.event('{"event_id": "a2", "user_id": "u2", "product_id": "p1", "price": 5}'), 'refused');
SELECT test.put('b.jsonl', test.event('{"event_id": "b1", "user_id": "u3"}'));
SELECT count(*) FROM dwh.load_jsonl('a.jsonl');
SELECT count(*) FROM dwh.load_jsonl('b.jsonl');
SELECT step, waiting FROM dwh.explain_pipeline();
SELECT status FROM dwh.stage_events(1);
SELECT step, waiting FROM dwh.explain_pipeline() WHERE waiting > 0;
SELECT status FROM dwh.apply_scd2();
SELECT status FROM dwh.upsert_products();
SELECT * FROM test.status('{last load,last run,backlog,rejects,checks}');
SELECT name, labels, value FROM dwh.metrics() WHERE name IN ('dwh_backlog_loads', 'dwh_loads_total', 'dwh_lines_total', 'dwh_line_outcomes', 'dwh_event_outcomes', 'dwh_facts_written');
-- the steps take what waits, and nothing else
SELECT r.step, r.loads IS NOT DISTINCT FROM e.waiting AS as_said
  FROM dwh.explain_pipeline() AS e
  JOIN (SELECT 'load_facts' AS step, count(*) AS loads FROM ops.loads WHERE users_at IS NOT NULL AND products_at IS NOT NULL AND facts_at IS NULL) AS r USING (step);
SELECT status, facts FROM dwh.load_facts();
SELECT step, waiting FROM dwh.explain_pipeline() WHERE waiting > 0;
SELECT count(*) AS steps FROM dwh.run_pipeline();
SELECT * FROM test.status(NULL) WHERE item NOT IN ('warehouse', 'schedule', 'evidence', 'last load');

-- What stands in the way, and that it goes away.
SELECT test.put('bad.jsonl', VARIADIC array_fill('poison'::text, ARRAY[12]));
\set VERBOSITY sqlstate
SELECT count(*) FROM dwh.run_pipeline('bad.jsonl');
SELECT count(*) FROM dwh.load_jsonl('bad.jsonl', reject_limit => 3, force => true);
\set VERBOSITY terse
SELECT * FROM test.status('{last run,backlog,quarantined,stopped,checks}');
SELECT item, state, detail ~ '^\d+ (open: .*check:reject_share|not delivered, )' AS is_said FROM dwh.status() WHERE item IN ('incidents', 'messages');
SELECT name, labels, value FROM dwh.metrics() WHERE name IN ('dwh_held_loads', 'dwh_runs_kept', 'dwh_last_run_failed', 'dwh_line_outcomes')
    OR name = 'dwh_check_failed' AND value = 1;
SELECT test.put('bad.jsonl', test.event('{"event_id": "c1"}'));
SELECT count(*) AS steps FROM dwh.run_pipeline('bad.jsonl');
SELECT * FROM test.status('{last run,quarantined,stopped,checks}');
UPDATE ops.quality_results SET status = 'fail' WHERE result_id = (SELECT max(result_id) FROM ops.quality_results WHERE name = 'event_conflicts');
SELECT * FROM test.status('{checks}');
UPDATE ops.quality_results SET accepted = true WHERE status = 'fail' AND name = 'event_conflicts';
SELECT * FROM test.status('{checks}');
UPDATE ops.quality_checks SET enabled = false WHERE name = 'event_conflicts';
SELECT count(*) FROM dwh.metrics() WHERE name = 'dwh_check_failed' AND labels ->> 'check' = 'event_conflicts';

-- A run that says running: its backend is gone, or it is this one, which could not ask in the middle of a run.
INSERT INTO ops.runs (status, started_at, pid) VALUES ('running', '2025-01-01Z', 2147483647);
SELECT item, state, detail LIKE 'run % is dead: %' AS is_dead FROM dwh.status() WHERE item = 'last run';
UPDATE ops.runs SET started_at = clock_timestamp(), pid = pg_backend_pid() WHERE status = 'running';
SELECT item, state, detail LIKE 'run % is dead: %' AS is_dead FROM dwh.status() WHERE item = 'last run';
DELETE FROM ops.runs WHERE status = 'running';
-- one at work is shown with its step, and its backlog is no cause for worry
INSERT INTO ops.runs (status, started_at, pid) SELECT 'running', clock_timestamp(), a.pid FROM pg_stat_activity AS a WHERE a.backend_type = 'checkpointer';
INSERT INTO ops.run_steps (run_id, step_no, step, status) SELECT run_id, 3, 'apply_scd2', 'running' FROM ops.runs WHERE status = 'running';
UPDATE ops.loads SET checked_at = NULL WHERE load_id = 1;
SELECT item, state, regexp_replace(detail, '^run \d+ at work for \S+,', 'run <n> at work for <time>,') AS detail FROM dwh.status() WHERE item IN ('last run', 'backlog');
DELETE FROM ops.runs WHERE status = 'running';

-- Every number by another way.
SELECT m.name, m.labels, m.value, o.value AS obvious FROM dwh.metrics() AS m JOIN (
    SELECT 'dwh_loads_total' AS name, '{}'::jsonb AS labels, count(*)::float8 AS value FROM ops.loads
     UNION ALL SELECT 'dwh_lines_total', '{}', sum(lines) FROM ops.loads
     UNION ALL SELECT 'dwh_read_bytes_total', '{}', sum(bytes) FROM ops.loads
     UNION ALL SELECT 'dwh_facts_written', '{}', count(*) FROM marts.fact_user_events
     UNION ALL SELECT 'dwh_event_outcomes', '{"outcome": "staged"}', count(*) FROM staging.user_events
     UNION ALL SELECT 'dwh_line_outcomes', '{"outcome": "loaded"}', count(*) FROM raw.user_events
     UNION ALL SELECT 'dwh_runs_kept', jsonb_build_object('status', status), count(*) FROM ops.runs GROUP BY status
     UNION ALL SELECT 'dwh_undelivered_alerts', jsonb_build_object('state', state), count(*) FROM ops.alerts WHERE delivered_at IS NULL GROUP BY state
     UNION ALL SELECT 'dwh_open_incidents', jsonb_build_object('state', state), count(*) FROM ops.alerts AS a
                WHERE state <> 'recovered' AND NOT EXISTS (SELECT FROM ops.alerts AS n WHERE n.dedupe_key = a.dedupe_key AND n.alert_id > a.alert_id) GROUP BY state
     UNION ALL SELECT 'dwh_partitions_attached', '{"table": "marts.fact_user_events"}', count(*) FROM dwh.fact_partitions()
     UNION ALL SELECT 'dwh_table_bytes', '{"table": "marts.fact_user_events"}', sum(pg_total_relation_size(partition::regclass)) FROM dwh.fact_partitions()
     UNION ALL SELECT 'dwh_table_bytes', '{"table": "ops.loads"}', pg_total_relation_size('ops.loads')) AS o USING (name, labels)
 WHERE m.value IS DISTINCT FROM o.value;
SELECT name FROM dwh.metrics() GROUP BY name, type HAVING (name LIKE '%\_total') <> (type = 'counter') OR bool_or(name !~ '^dwh_[a-z_]+$');
SELECT count(*) AS doubled FROM (SELECT FROM dwh.metrics() GROUP BY name, labels HAVING count(*) > 1) AS d;

-- A counter never falls, whatever is retried, erased or dropped.
CREATE TEMPORARY TABLE before AS SELECT * FROM dwh.metrics() WHERE type = 'counter';
SELECT status FROM dwh.forget_user('u1');
SELECT count(*) FROM dwh.retry_rejects();
SELECT status FROM dwh.drop_before('raw', now());
DELETE FROM ops.runs;
SELECT b.name FROM before AS b LEFT JOIN dwh.metrics() AS m USING (name, labels) WHERE m.value IS NULL OR m.value < b.value;

-- What a step writes is what it said. (The numbers of a transaction hold those before it until they are flushed.)
SELECT test.begin();
\c
SET client_min_messages = error;
CREATE FUNCTION test.unsaid(step text) RETURNS SETOF text LANGUAGE sql AS $$
    SELECT DISTINCT coalesce(i.inhparent::regclass, t.relid::regclass)::text AS changed
      FROM pg_stat_xact_user_tables AS t LEFT JOIN pg_inherits AS i ON i.inhrelid = t.relid
     WHERE t.n_tup_ins + t.n_tup_upd + t.n_tup_del > 0 AND t.schemaname IN ('raw', 'staging', 'marts', 'ops')
    EXCEPT SELECT unnest(e.writes) FROM dwh.explain_pipeline() AS e WHERE e.step = unsaid.step $$;
SELECT events FROM dwh.generate_events('log.jsonl', events => 300, users => 20, dirty_rate => 0.1, dirty_kinds => '{replay,conflict,truncated_json,text_price,late_event}');
SELECT pg_stat_force_next_flush() IS NULL AS x; BEGIN; SELECT count(*) FROM dwh.load_jsonl('log.jsonl'); SELECT * FROM test.unsaid('load_jsonl'); COMMIT;
SELECT pg_stat_force_next_flush() IS NULL AS x; BEGIN; SELECT status FROM dwh.stage_events(); SELECT * FROM test.unsaid('stage_events'); COMMIT;
SELECT pg_stat_force_next_flush() IS NULL AS x; BEGIN; SELECT status FROM dwh.apply_scd2(); SELECT * FROM test.unsaid('apply_scd2'); COMMIT;
SELECT pg_stat_force_next_flush() IS NULL AS x; BEGIN; SELECT status FROM dwh.upsert_products(); SELECT * FROM test.unsaid('upsert_products'); COMMIT;
SELECT pg_stat_force_next_flush() IS NULL AS x; BEGIN; SELECT status FROM dwh.load_facts(); SELECT * FROM test.unsaid('load_facts'); COMMIT;
SELECT pg_stat_force_next_flush() IS NULL AS x; BEGIN; SELECT count(*) > 0 AS checked FROM dwh.run_quality_checks(); SELECT * FROM test.unsaid('run_quality_checks'); COMMIT;
SELECT e.step, w.missing FROM dwh.explain_pipeline() AS e, unnest(e.reads || e.writes) AS w (missing) WHERE w.missing LIKE '%.%' AND w.missing NOT LIKE '%*' AND to_regclass(w.missing) IS NULL;

-- Nobody is waited for: the pipeline's lock is another's, and a partition is being dropped.
BEGIN READ ONLY;
SELECT count(*) FROM dwh.status(), dwh.explain_pipeline();
SELECT count(*) > 50 AS has_metrics FROM dwh.metrics();
COMMIT;

-- Help: every public function once, the first sentence of its comment.
SELECT name, arguments FROM dwh.help() LIMIT 4;
SELECT count(*) FROM dwh.help() WHERE does !~ '\.$' OR does ~ '\. [A-Z]';
SELECT p.oid::regprocedure AS not_in_help FROM pg_proc AS p WHERE p.pronamespace = 'dwh'::regnamespace AND p.proname NOT LIKE '\_%' AND p.proname::text NOT IN (SELECT name FROM dwh.help());
SELECT does FROM dwh.help() WHERE name = 'status';

-- What only looks like pg_cron's, or like a warehouse, is not read: its functions would run as the caller.
CREATE SCHEMA cron;
CREATE FUNCTION cron.trap() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trapped'; END $$;
CREATE VIEW cron.job AS SELECT cron.trap() AS schedule, true AS active, 'dwh_run_pipeline'::text AS jobname, current_database()::text AS database;
SELECT detail FROM dwh.status() WHERE item = 'schedule';
DROP SCHEMA cron CASCADE;
ALTER TABLE ops.alerts RENAME TO kept;
CREATE VIEW ops.alerts AS SELECT * FROM ops.kept;
\set VERBOSITY sqlstate
SELECT count(*) FROM dwh.status();
SELECT count(*) FROM dwh.metrics();
SELECT count(*) FROM dwh.explain_pipeline();
DROP VIEW ops.alerts;
ALTER TABLE ops.kept RENAME TO alerts;
\set VERBOSITY default

-- Without a warehouse, or with a column missing.
ALTER TABLE ops.loads RENAME COLUMN facts TO others;
\set VERBOSITY sqlstate
SELECT count(*) FROM dwh.metrics();
DROP SCHEMA raw, staging, marts, ops CASCADE;
SELECT count(*) FROM dwh.status();
SELECT count(*) FROM dwh.metrics();
SELECT count(*) FROM dwh.explain_pipeline();
SELECT count(*) FROM dwh.trace(gen_random_uuid());
