-- 96_schedule.sql: runs on a schedule of pg_cron, and the ledgers of runs kept at a length.
--
-- Invariants: pg_cron is looked up when it is asked for, never depended on; jobs belong to who calls, and are known by their
-- names. What is pruned is finished and old, and never what the next verdict, message or answer rests on.
-- Repeats are harmless: a job that is as wanted stays untouched, and what was pruned is gone.

CREATE FUNCTION dwh._require_writable() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE ops.warehouse AS w SET changes = w.changes WHERE false;
END
$$;
COMMENT ON FUNCTION dwh._require_writable() IS
'Raises core''s 25006 on a standby and in a read-only transaction, for verbs that would find something else to complain about first.';

CREATE FUNCTION dwh._visible_setting(name text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT s.setting FROM pg_settings AS s WHERE s.name = _visible_setting.name
$$;
COMMENT ON FUNCTION dwh._visible_setting(text) IS 'A setting of the server; NULL where it is unknown, or hidden from the caller.';

-- Each case has its own way out, so each says the very statements.
CREATE FUNCTION dwh._raise_no_pg_cron(state text, way text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'pg_cron cannot schedule for this database'
        USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = state, HINT = way;
END
$$;
COMMENT ON FUNCTION dwh._raise_no_pg_cron(text, text) IS 'Raises 55000: what was found of pg_cron, and what to do.';

CREATE FUNCTION dwh._require_pg_cron(command text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    libraries text := dwh._visible_setting('shared_preload_libraries');   -- NULL: hidden from this role, as the next one
    home text := dwh._visible_setting('cron.database_name');
    is_loaded boolean := libraries ~ '(^|[,\s"/])pg_cron([,\s"]|$)';
    is_here boolean := EXISTS (SELECT FROM pg_extension AS e WHERE e.extname = 'pg_cron');
    create_it text := format('CREATE EXTENSION pg_cron; GRANT USAGE ON SCHEMA cron TO %I;', current_user);
    configure text := format('in postgresql.conf shared_preload_libraries = %L, cron.database_name = %L, cron.use_background_workers = on; then restart',
        concat_ws(',', nullif(libraries, ''), CASE WHEN is_loaded THEN NULL ELSE 'pg_cron' END), current_database());
BEGIN
    IF home <> current_database() THEN
        PERFORM dwh._raise_no_pg_cron(
            format('It works from database "%s" (cron.database_name), this is "%s".', home, current_database()),
            format('In database "%s", as a superuser: SELECT cron.schedule_in_database(%L, ''*/15 * * * *'', %L, %L, %L). Or %s.',
                   home, 'dwh_run_pipeline_' || current_database(), command, current_database(), current_user, configure));
    ELSIF NOT is_loaded THEN
        PERFORM dwh._raise_no_pg_cron(
            CASE WHEN EXISTS (SELECT FROM pg_available_extensions AS a WHERE a.name = 'pg_cron') THEN 'It is installed, and not in shared_preload_libraries.'
                 ELSE 'It is not installed on this server.' END,
            format('Install pg_cron 1.4 or later (Debian: postgresql-%s-cron); %s; here, as a superuser, %s',
                   current_setting('server_version_num')::integer / 10000, configure, create_it));
    ELSIF NOT is_here THEN
        PERFORM dwh._raise_no_pg_cron(
            CASE WHEN is_loaded THEN 'The server has loaded it for this database, where the extension is missing.'
                 ELSE format('The extension is missing here; whether the server has loaded it is hidden from role "%s".', current_user) END,
            CASE WHEN is_loaded THEN format('As a superuser: %s', create_it)
                 ELSE format('Where cron.database_name is this database, as a superuser: %s Where it is another one, there: SELECT cron.schedule_in_database(%L, ''*/15 * * * *'', %L, %L, %L). Where it is not set, first: install pg_cron 1.4 or later; %s.',
                   create_it, 'dwh_run_pipeline_' || current_database(), command, current_database(), current_user, configure) END);
    END IF;
    IF NOT has_schema_privilege('cron', 'USAGE') THEN   -- without it no name in there can be looked up
        RAISE EXCEPTION 'role "%" has no right to schedule jobs', current_user
            USING ERRCODE = 'insufficient_privilege',
                  DETAIL = 'Jobs are made with pg_cron''s functions in schema cron.',
                  HINT = format('As a superuser: GRANT USAGE ON SCHEMA cron TO %I.', current_user);
    ELSIF to_regprocedure('cron.schedule(text,text,text)') IS NULL THEN
        PERFORM dwh._raise_no_pg_cron('Extension pg_cron is older than 1.4 in this database.', 'As a superuser: ALTER EXTENSION pg_cron UPDATE.');
    END IF;
END
$$;
COMMENT ON FUNCTION dwh._require_pg_cron(text) IS
'Raises 55000 unless jobs can be scheduled from this database, saying what is missing and how it is mended; 42501 without rights in schema cron.';

CREATE FUNCTION dwh._find_job(name text, OUT job_id bigint, OUT schedule text, OUT command text, OUT is_active boolean)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    database text;
BEGIN
    EXECUTE 'SELECT j.jobid, j.schedule, j.command, j.active, j.database FROM cron.job AS j WHERE j.jobname::text = $1 AND j.username = current_user'
       INTO job_id, schedule, command, is_active, database USING name;
    IF database <> current_database() THEN
        RAISE EXCEPTION 'job % of role "%" is one of another database', name, current_user
            USING ERRCODE = 'duplicate_object',
                  DETAIL = format('Job %s works in database "%s"; pg_cron knows one job of a name for each role.', job_id, database),
                  HINT = format('SELECT cron.unschedule(%s), and schedule it under a name of its own.', job_id);
    END IF;
END
$$;
COMMENT ON FUNCTION dwh._find_job(text) IS
'The caller''s job of that name; NULLs where there is none. 42710 where it works in another database.';

CREATE TYPE dwh.scheduled_job AS (job text, job_id bigint, status text, schedule text, command text);
COMMENT ON TYPE dwh.scheduled_job IS 'A job of pg_cron: its name and number, what became of it, when it runs, and what.';

-- wanted_schedule NULL: no such job is wanted.
CREATE FUNCTION dwh._set_job(name text, wanted_schedule text, wanted_command text) RETURNS dwh.scheduled_job
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    old record;
    job dwh.scheduled_job;
BEGIN
    old := dwh._find_job(name);
    job := (name, old.job_id, NULL, wanted_schedule, wanted_command);
    IF wanted_schedule IS NULL THEN
        job.status := CASE WHEN old.job_id IS NULL THEN 'not_scheduled' ELSE 'unscheduled' END;
        job.schedule := old.schedule;
        job.command := old.command;
    ELSIF (old.schedule, old.command, old.is_active) IS NOT DISTINCT FROM (wanted_schedule, wanted_command, true) THEN
        job.status := 'unchanged';
    ELSE
        job.status := CASE WHEN old.job_id IS NULL THEN 'scheduled' ELSE 'changed' END;
    END IF;
    -- by its number, which has the same type in every version; one that was switched off would stay so when it is scheduled again
    IF job.status = 'unscheduled' OR job.status = 'changed' AND NOT old.is_active THEN
        EXECUTE 'SELECT cron.unschedule($1::bigint)' USING old.job_id;
    END IF;
    IF job.status IN ('scheduled', 'changed') THEN
        EXECUTE 'SELECT cron.schedule($1::text, $2::text, $3::text)' INTO job.job_id USING name, wanted_schedule, wanted_command;
    END IF;
    RETURN job;
END
$$;
COMMENT ON FUNCTION dwh._set_job(text, text, text) IS
'Brings one of the caller''s jobs to this schedule and command; NULL takes it away. Says scheduled, changed, unchanged, unscheduled or not_scheduled.';

CREATE FUNCTION dwh._run_command(source text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('SELECT * FROM dwh.run_pipeline(%L, skip_if_running => true)', source)
$$;
COMMENT ON FUNCTION dwh._run_command(text) IS 'What the job runs: a run that leaves its turn to one that is still at work.';

CREATE FUNCTION dwh._require_keep(keep interval) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF keep IS NULL OR keep NOT BETWEEN interval '1 day' AND interval '1000 years' THEN
        RAISE EXCEPTION 'keep is %', coalesce(quote_literal(keep), 'NULL')
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = 'It is the age from which finished runs are pruned, from a day to 1,000 years.',
                  HINT = 'SELECT * FROM dwh.prune_history(''90 days'').';
    END IF;
END
$$;
COMMENT ON FUNCTION dwh._require_keep(interval) IS 'Raises 22023 for an age that prune_history() does not take.';

CREATE FUNCTION dwh.schedule_pipeline(schedule text DEFAULT '*/15 * * * *', source text DEFAULT NULL, keep_history interval DEFAULT '90 days')
RETURNS SETOF dwh.scheduled_job
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET intervalstyle = 'postgres' AS $$
BEGIN
    PERFORM dwh._require_warehouse();
    PERFORM dwh._require_writable();
    IF coalesce(schedule_pipeline.schedule, '') = '' THEN
        RAISE EXCEPTION 'schedule is missing'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = 'It is what pg_cron takes: five fields, for minute, hour, day of month, month and day of week.',
                  HINT = 'SELECT * FROM dwh.schedule_pipeline(''*/15 * * * *''); dwh.unschedule_pipeline() takes it away.';
    END IF;
    IF keep_history IS NOT NULL THEN
        PERFORM dwh._require_keep(keep_history);
    END IF;
    PERFORM dwh._require_pg_cron(dwh._run_command(source));
    IF dwh._visible_setting('cron.use_background_workers') = 'off' THEN
        RAISE NOTICE 'pg_cron runs its jobs through connections to host "%"', dwh._visible_setting('cron.host')
            USING HINT = format('pg_hba.conf must let role "%s" in from there without a password, or ~/.pgpass of the server''s user hold it; with cron.use_background_workers = on neither is needed.', current_user);
    END IF;
    RETURN QUERY
    SELECT j.* FROM dwh._set_job('dwh_run_pipeline', schedule_pipeline.schedule, dwh._run_command(source)) AS j
     UNION ALL
    SELECT j.* FROM dwh._set_job('dwh_prune_history', CASE WHEN keep_history IS NOT NULL THEN '17 3 * * *' END,
                                 format('SELECT * FROM dwh.prune_history(%L)', keep_history)) AS j;
END
$$;
REVOKE EXECUTE ON FUNCTION dwh.schedule_pipeline(text, text, interval) FROM PUBLIC;
COMMENT ON FUNCTION dwh.schedule_pipeline(text, text, interval) IS
'Has pg_cron call run_pipeline(source, skip_if_running => true) on a schedule (five fields, in cron.timezone or UTC), and prune_history(keep_history) once a day; keep_history NULL = not. The jobs are dwh_run_pipeline and dwh_prune_history, belong to the caller and run as that role. Returns one row a job: its number, status (scheduled, changed, unchanged; unscheduled, not_scheduled for keep_history NULL), schedule and command. Errors: 55000 where pg_cron is not there for this database, with the settings and statements that are missing; 42501 without rights in schema cron; 22023 for a schedule that pg_cron does not take, or keep_history below a day; 42710 where a job of that name works in another database; WH004 without a warehouse. A repeat with the same arguments changes nothing and says unchanged.';

CREATE FUNCTION dwh.unschedule_pipeline()
RETURNS SETOF dwh.scheduled_job
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM dwh._require_warehouse();
    PERFORM dwh._require_writable();
    PERFORM dwh._require_pg_cron(dwh._run_command(NULL));
    RETURN QUERY
    SELECT j.* FROM dwh._set_job('dwh_run_pipeline', NULL, NULL) AS j
     UNION ALL
    SELECT j.* FROM dwh._set_job('dwh_prune_history', NULL, NULL) AS j;
END
$$;
REVOKE EXECUTE ON FUNCTION dwh.unschedule_pipeline() FROM PUBLIC;
COMMENT ON FUNCTION dwh.unschedule_pipeline() IS
'Takes the caller''s jobs of schedule_pipeline() away; a run at work goes on. Returns one row a job: status unscheduled or not_scheduled, and what it was. Errors: 55000 where pg_cron is not there for this database, 42501 without rights in schema cron, 42710 where a job of that name works in another database, WH004 without a warehouse. A repeat says not_scheduled.';

-- A volume that failed is left out of what later volumes are judged by, as long as its verdict is there: those stay a year, or
-- for good once they were accepted by hand.
CREATE FUNCTION dwh._old_results(before timestamptz) RETURNS SETOF bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
    SELECT q.result_id FROM ops.quality_results AS q
     WHERE q.checked_at < CASE WHEN q.status = 'fail' AND q.limits ?| '{period,since}' THEN least(before, clock_timestamp() - interval '1 year') ELSE before END
       AND NOT q.accepted
       AND EXISTS (SELECT FROM ops.quality_results AS n WHERE n.name = q.name AND n.result_id > q.result_id)
$$;
COMMENT ON FUNCTION dwh._old_results(timestamptz) IS
'Verdicts from before that time, but for the last one of each check, accepted ones, and failed volumes of the last year.';

CREATE FUNCTION dwh._old_alerts(before timestamptz) RETURNS SETOF bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT a.alert_id FROM ops.alerts AS a
     WHERE a.created_at < before AND a.last_failed_at < before AND a.delivered_at < before
       AND EXISTS (SELECT FROM ops.alerts AS n WHERE n.dedupe_key = a.dedupe_key AND n.alert_id > a.alert_id)
       AND EXISTS (SELECT FROM ops.alerts AS r WHERE r.dedupe_key = a.dedupe_key AND r.alert_id >= a.alert_id AND r.state = 'recovered')
$$;
COMMENT ON FUNCTION dwh._old_alerts(timestamptz) IS
'Delivered messages from before that time whose incident has ended, but for the last one of each dedupe_key.';

CREATE FUNCTION dwh._old_runs(before timestamptz) RETURNS SETOF bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT r.run_id FROM ops.runs AS r
     WHERE r.finished_at < before AND r.status <> 'running'
       AND EXISTS (SELECT FROM ops.runs AS n WHERE n.status = r.status AND n.run_id > r.run_id)
       AND NOT EXISTS (SELECT FROM ops.quality_results AS q WHERE q.run_id = r.run_id)
       AND NOT EXISTS (SELECT FROM ops.alerts AS a WHERE a.run_id = r.run_id)
$$;
COMMENT ON FUNCTION dwh._old_runs(timestamptz) IS
'Runs that ended before that time, but for the last one of each status, and those that a verdict or message still points to.';

CREATE FUNCTION dwh._prune_job_runs(before timestamptz) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    pruned bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_extension AS e WHERE e.extname = 'pg_cron') THEN
        RETURN NULL;
    ELSIF NOT has_schema_privilege('cron', 'USAGE') THEN   -- without it no name in there can be looked up
        RETURN NULL;
    ELSIF NOT coalesce(has_table_privilege(to_regclass('cron.job_run_details'), 'SELECT')
                       AND has_table_privilege(to_regclass('cron.job_run_details'), 'DELETE'), false) THEN
        RETURN NULL;
    END IF;
    EXECUTE $sql$
        DELETE FROM cron.job_run_details AS d
         WHERE d.database = current_database() AND starts_with(d.command, 'SELECT * FROM dwh.')
           AND coalesce(d.end_time, d.start_time) < $1 AND d.status <> 'running' $sql$ USING before;
    GET DIAGNOSTICS pruned = ROW_COUNT;
    RETURN pruned;
END
$$;
COMMENT ON FUNCTION dwh._prune_job_runs(timestamptz) IS
'Deletes what pg_cron keeps of runs of this database''s jobs that ended before that time, as far as its policies let the caller see them; NULL where it is not there, or closed.';

CREATE FUNCTION dwh.prune_history(keep interval DEFAULT '90 days',
    OUT status text, OUT runs bigint, OUT steps bigint, OUT results bigint, OUT alerts bigint, OUT job_runs bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
#variable_conflict use_variable
DECLARE
    before timestamptz;
BEGIN
    PERFORM dwh._require_keep(keep);
    PERFORM dwh._require_warehouse();
    before := clock_timestamp() - keep;
    DELETE FROM ops.quality_results AS q WHERE q.result_id IN (SELECT o.result_id FROM dwh._old_results(before) AS o (result_id));
    GET DIAGNOSTICS results = ROW_COUNT;
    DELETE FROM ops.alerts AS a WHERE a.alert_id IN (SELECT o.alert_id FROM dwh._old_alerts(before) AS o (alert_id));
    GET DIAGNOSTICS alerts = ROW_COUNT;
    WITH gone AS (
        DELETE FROM ops.runs AS r WHERE r.run_id IN (SELECT o.run_id FROM dwh._old_runs(before) AS o (run_id)) RETURNING r.run_id),
    gone_steps AS (
        DELETE FROM ops.run_steps AS s USING gone AS g WHERE s.run_id = g.run_id RETURNING s.run_id)
    SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM gone_steps) INTO runs, steps;
    job_runs := dwh._prune_job_runs(before);
    status := CASE WHEN runs + steps + results + alerts + coalesce(job_runs, 0) > 0 THEN 'done' ELSE 'nothing_new' END;
END
$$;
REVOKE EXECUTE ON FUNCTION dwh.prune_history(interval) FROM PUBLIC;
COMMENT ON FUNCTION dwh.prune_history(interval) IS
'Deletes from the ledgers of runs what is older than keep: runs with their steps, verdicts, and delivered messages of incidents that have ended; and what pg_cron keeps of the runs of this database''s jobs. Never the last run of each status, the last verdict of each check, accepted verdicts and failed volumes of a year, the last message of each dedupe_key, a message that waits, or a run that one of these points to; never loads, rejects or conflicts. A caller''s run_id that was pruned may succeed once more. Returns one row: status (done, nothing_new) and rows deleted; job_runs is NULL where pg_cron is not in this database, or closed to the caller. Errors: 22023 for NULL or less than a day, 42501 without rights to the tables, WH004 without a warehouse. A repeat deletes what has become old since.';
