-- 96_history: the ledgers of runs are kept at a length, and never lose what the next verdict, message or answer rests on;
-- a schedule needs pg_cron, which this server does not have loaded: 020_schedule.pl has.
SELECT test.begin();
SELECT * FROM dwh.prune_history();
\set VERBOSITY sqlstate
SELECT dwh.prune_history(NULL);
SELECT dwh.prune_history('23 hours');
SELECT dwh.prune_history('-1 day');
SELECT dwh.prune_history('200000 years');
\set VERBOSITY terse

-- By hand: two incidents of a check, the first one over; a failed run of it; runs that succeeded.
INSERT INTO ops.runs (run_id, status, started_at, finished_at)
SELECT i, s, clock_timestamp() - a, clock_timestamp() - a FROM (VALUES (1, 'succeeded', interval '100 days'), (2, 'failed', '99 days'),
       (3, 'failed', '98 days'), (4, 'succeeded', '97 days'), (5, 'failed', '96 days'), (6, 'nothing_new', '95 days'),
       (7, 'succeeded', '94 days'), (8, 'failed', '1 day'), (9, 'dead', '200 days')) AS r (i, s, a);
INSERT INTO ops.runs (run_id, status, started_at) VALUES (10, 'running', clock_timestamp() - interval '300 days');
INSERT INTO ops.run_steps (run_id, step_no, step, status) SELECT r.run_id, 1, 'load_jsonl', 'done' FROM ops.runs AS r;
INSERT INTO ops.quality_results (run_id, name, severity, status, observed, allowed, checked_at, limits, accepted)
SELECT r, n, 'error', s, 0, 0, clock_timestamp() - a, l, c FROM (VALUES (1, 'a', 'pass', interval '100 days', NULL::jsonb, false), (2, 'a', 'fail', '99 days', NULL, false),
       (2, 'v', 'fail', '99 days', '{"period": "2025-01-01"}', false), (4, 'v', 'fail', '400 days', '{"period": "2024-01-01"}', false),
       (4, 'v', 'fail', '400 days', '{"period": "2024-01-02"}', true), (7, 'a', 'pass', '94 days', NULL, false), (7, 'v', 'pass', '94 days', '{"period": "2025-01-05"}', false)) AS q (r, n, s, a, l, c);
INSERT INTO ops.alerts (run_id, dedupe_key, state, severity, title, body, created_at, last_failed_at, delivered_at)
SELECT r, 'check:a', s, 'error', 't', '{}', clock_timestamp() - a, clock_timestamp() - a, clock_timestamp() - d
  FROM (VALUES (2, 'first-fail', interval '99 days', interval '99 days'), (3, 'still-failing', '98 days', NULL), (4, 'recovered', '97 days', '97 days'),
       (5, 'first-fail', '96 days', '96 days')) AS x (r, s, a, d);
SELECT * FROM dwh.prune_history();
SELECT r.run_id, r.status, (SELECT count(*) FROM ops.run_steps AS s WHERE s.run_id = r.run_id) AS steps FROM ops.runs AS r ORDER BY 1;
SELECT run_id, name, status, limits ->> 'period' AS period, accepted FROM ops.quality_results ORDER BY result_id;
SELECT run_id, state, delivered_at IS NULL AS waits FROM ops.alerts ORDER BY alert_id;
SELECT * FROM dwh.prune_history();
-- under the settings of others
SET datestyle = 'German'; SET timezone = 'Asia/Seoul'; SET intervalstyle = 'sql_standard'; SET search_path = public;
SELECT status FROM dwh.prune_history(interval '1' day);
RESET ALL;
SELECT set_config('dwh.landing_directory', test.dir(), false) = test.dir() AS set;

-- The slow definition, row by row: which rows stay. An incident is what has one dedupe_key up to its recovery.
CREATE FUNCTION test.stays(before timestamptz) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    q record; a record; r record;
    is_over boolean; next_id bigint;
    results bigint[] := '{}'; alerts bigint[] := '{}';
BEGIN
    FOR q IN SELECT * FROM ops.quality_results LOOP
        IF q.checked_at >= before OR q.accepted
           OR q.status = 'fail' AND coalesce(q.limits ->> 'period', q.limits ->> 'since') IS NOT NULL AND q.checked_at >= clock_timestamp() - interval '1 year'
           OR q.result_id = (SELECT max(n.result_id) FROM ops.quality_results AS n WHERE n.name = q.name) THEN
            results := results || q.run_id;
            RETURN NEXT 'result ' || q.result_id;
        END IF;
    END LOOP;
    FOR a IN SELECT * FROM ops.alerts LOOP
        is_over := false; next_id := a.alert_id;
        FOR r IN SELECT * FROM ops.alerts AS n WHERE n.dedupe_key = a.dedupe_key AND n.alert_id >= a.alert_id ORDER BY n.alert_id LOOP
            is_over := is_over OR r.state = 'recovered';
            next_id := r.alert_id;
        END LOOP;
        IF NOT is_over OR next_id = a.alert_id OR a.delivered_at IS NULL OR greatest(a.created_at, a.last_failed_at, a.delivered_at) >= before THEN
            alerts := alerts || a.run_id;
            RETURN NEXT 'alert ' || a.alert_id;
        END IF;
    END LOOP;
    FOR r IN SELECT * FROM ops.runs LOOP
        IF r.finished_at IS NULL OR r.finished_at >= before OR r.status = 'running' OR r.run_id = ANY (results) OR r.run_id = ANY (alerts)
           OR r.run_id = (SELECT max(n.run_id) FROM ops.runs AS n WHERE n.status = r.status) THEN
            RETURN NEXT 'run ' || r.run_id;
            RETURN QUERY SELECT format('step %s %s', s.run_id, s.step_no) FROM ops.run_steps AS s WHERE s.run_id = r.run_id;
        END IF;
    END LOOP;
END $$;
CREATE FUNCTION test.ledgers() RETURNS SETOF text LANGUAGE sql AS $$
    SELECT 'result ' || q.result_id FROM ops.quality_results AS q UNION ALL SELECT 'alert ' || a.alert_id FROM ops.alerts AS a
    UNION ALL SELECT 'run ' || r.run_id FROM ops.runs AS r UNION ALL SELECT format('step %s %s', s.run_id, s.step_no) FROM ops.run_steps AS s $$;
CREATE FUNCTION test.random_ledgers(size integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    TRUNCATE ops.runs, ops.run_steps, ops.quality_results, ops.alerts;
    INSERT INTO ops.runs (run_id, status, started_at, finished_at)
    SELECT i, s.status, clock_timestamp() - s.age, CASE WHEN s.status <> 'running' THEN clock_timestamp() - s.age END
      FROM generate_series(1, size) AS i, LATERAL (SELECT (ARRAY['running', 'succeeded', 'failed', 'nothing_new', 'dead'])[1 + floor(random() * 5 + i * 0)::integer] AS status,
           interval '12 hours' + floor(random() * 200 + i * 0) * interval '1 day' AS age) AS s;
    INSERT INTO ops.run_steps (run_id, step_no, step, status) SELECT r.run_id, n, 's', 'done' FROM ops.runs AS r, generate_series(1, 2) AS n;
    INSERT INTO ops.quality_results (run_id, name, severity, status, observed, allowed, checked_at, limits, accepted)
    SELECT floor(random() * size), chr(97 + floor(random() * 3)::integer), 'warn', CASE WHEN random() < 0.5 THEN 'fail' ELSE 'pass' END, 0, 0,
           clock_timestamp() - interval '12 hours' - floor(random() * 500) * interval '1 day',
           CASE WHEN random() < 0.3 THEN jsonb_build_object(CASE WHEN random() < 0.5 THEN 'period' ELSE 'since' END, 1) END, random() < 0.1 FROM generate_series(1, size / 2);
    INSERT INTO ops.alerts (run_id, dedupe_key, state, severity, title, body, created_at, last_failed_at, delivered_at)
    SELECT floor(random() * size), chr(97 + floor(random() * 3)::integer), (ARRAY['first-fail', 'still-failing', 'recovered'])[1 + floor(random() * 3)::integer],
           'warn', 't', '{}', s.made, s.made + random() * interval '30 days', CASE WHEN random() < 0.8 THEN s.made + random() * interval '5 days' END
      FROM generate_series(1, size / 2) AS i, LATERAL (SELECT clock_timestamp() - interval '12 hours' - floor(random() * 200 + i * 0) * interval '1 day' AS made) AS s;
END $$;
DO $$
DECLARE
    expected text[];
    different bigint;
    pruned bigint := 0;
    row_count bigint;
BEGIN
    PERFORM setseed(0.5);
    FOR round IN 1 .. 60 LOOP
        PERFORM test.random_ledgers(3 + round);
        SELECT count(*) INTO row_count FROM test.ledgers();
        expected := ARRAY(SELECT test.stays(clock_timestamp() - interval '90 days'));
        PERFORM dwh.prune_history('90 days');
        SELECT count(*) INTO different FROM (
            (SELECT unnest(expected) EXCEPT ALL SELECT * FROM test.ledgers()) UNION ALL (SELECT * FROM test.ledgers() EXCEPT ALL SELECT unnest(expected))) AS d;
        IF different > 0 THEN
            RAISE EXCEPTION 'round %: % rows differ', round, different;
        END IF;
        pruned := pruned + row_count - cardinality(expected);
    END LOOP;
    RAISE NOTICE 'something was pruned: %', pruned > 1000;
END $$;

-- Without pg_cron there is no schedule, and what is missing is said.
SELECT * FROM test.error('SELECT dwh.schedule_pipeline()');
SELECT * FROM test.error('SELECT dwh.unschedule_pipeline()');
SELECT * FROM test.error('SELECT dwh.schedule_pipeline(NULL)');
SELECT * FROM test.error($$SELECT dwh.schedule_pipeline('* * * * *', keep_history => '-1 day')$$);
DROP FUNCTION test.stays, test.ledgers, test.random_ledgers;
