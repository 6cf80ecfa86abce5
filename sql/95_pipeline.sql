-- 95_pipeline.sql: all steps as one run, and the evidence that outlives a failing one.
--
-- Invariants: a run changes raw, staging and marts as a whole or not at all; what it did is in ops.runs, ops.run_steps and
-- ops.quality_results either way; two runs never overlap.
-- Repeats are harmless: content that was loaded is not loaded again, steps that are done have nothing to do.

CREATE FUNCTION dwh._wal_bytes() RETURNS bigint
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'dwh_wal_bytes';
COMMENT ON FUNCTION dwh._wal_bytes() IS 'Bytes of write-ahead log that this backend has written so far.';

CREATE FUNCTION dwh._pipeline_holder() RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    holder record;
BEGIN
    PERFORM FROM ops.warehouse AS w FOR UPDATE SKIP LOCKED;
    IF FOUND THEN
        RETURN NULL;
    END IF;
    -- The locked row holds the holder's transaction id, and pg_locks whose it is; one that was taken in a subtransaction
    -- which has ended is found only by the run that was announced.
    SELECT l.pid, r.run_id, r.started_at AS since INTO holder
      FROM pg_locks AS l
      LEFT JOIN ops.runs AS r ON r.pid = l.pid AND r.status = 'running'
     WHERE l.granted AND l.pid <> pg_backend_pid() AND l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock'
       AND (r.run_id IS NOT NULL OR l.transactionid::text = (SELECT w.xmax::text FROM ops.warehouse AS w))
     ORDER BY l.transactionid::text = (SELECT w.xmax::text FROM ops.warehouse AS w) DESC, r.run_id DESC NULLS LAST LIMIT 1;
    RETURN CASE WHEN holder.run_id IS NOT NULL THEN format('Run %s holds the lock: backend %s, since %s.', holder.run_id, holder.pid, holder.since)
                WHEN holder.pid IS NOT NULL THEN format('Backend %s holds the lock.', holder.pid)
                ELSE 'A step runs on its own, or it has just ended.' END;
END
$$;
COMMENT ON FUNCTION dwh._pipeline_holder() IS
'Takes the pipeline''s lock until commit and returns NULL; or, at once, says who holds it.';

CREATE FUNCTION dwh._load_step(source text, OUT status text, OUT rows_in bigint, OUT rows_out bigint, OUT rejected bigint, OUT load_ids bigint[], OUT files text, OUT failed text, OUT left_out text)
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN count(*) = 0 THEN 'no_data' WHEN count(*) FILTER (WHERE l.loaded + l.rejected > 0) = 0
                THEN 'nothing_new' ELSE 'done' END,
           coalesce(sum(l.lines), 0)::bigint, coalesce(sum(l.loaded), 0)::bigint, coalesce(sum(l.rejected), 0)::bigint,
           coalesce(array_agg(l.load_id) FILTER (WHERE l.loaded + l.rejected > 0), '{}'),
           (SELECT string_agg(format('%s %s', c.files, c.status), ', ' ORDER BY c.status)
              FROM (SELECT f.status, count(*) AS files FROM unnest(array_agg(l.status)) AS f (status) GROUP BY f.status) AS c),
           string_agg(format('%s (%s)', l.path, l.message), '; ') FILTER (WHERE l.status = 'failed'),
           string_agg(format('%s (load %s)', l.path, l.load_id), '; ') FILTER (WHERE l.status = 'quarantined')
      FROM dwh._load_for_run(source) AS l
$$;
COMMENT ON FUNCTION dwh._load_step(text) IS 'Loads the source and sums up the verdicts: the new loads, the files by status, those that failed, and those that are left out as quarantined.';

CREATE FUNCTION dwh._run_load_step(source text, run_id bigint, OUT status text, OUT rows_in bigint, OUT rows_out bigint, OUT rejected bigint, OUT message text, OUT failed text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    loaded record := dwh._load_step(source);
BEGIN
    status := loaded.status; rows_in := loaded.rows_in; rows_out := loaded.rows_out; rejected := loaded.rejected; message := loaded.files;
    failed := 'some files could not be loaded: ' || loaded.failed;
    UPDATE ops.loads AS l SET run_id = _run_load_step.run_id WHERE l.load_id = ANY (loaded.load_ids) AND l.run_id IS NULL;
    IF failed IS NOT NULL THEN
        RAISE WARNING '%', failed USING HINT = 'The others were.';
    END IF;
    IF loaded.left_out IS NOT NULL THEN
        RAISE NOTICE 'quarantined files are left out: %', loaded.left_out
            USING HINT = 'Mend them, or change what refused them, the check of ops.quality_checks or dwh.max_reject_share: SELECT load_id, path, quarantined_by FROM dwh.held_loads();';
    END IF;
END
$$;
COMMENT ON FUNCTION dwh._run_load_step(text, bigint) IS
'The first step of a run; failed: what to say of files that could not be loaded while others were.';

CREATE FUNCTION dwh._said(counts jsonb) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT string_agg(format('%s %s', c.value, c.key), ', ' ORDER BY c.key) FROM jsonb_each_text(counts) AS c WHERE c.value <> '0'
$$;
COMMENT ON FUNCTION dwh._said(jsonb) IS 'Counts that are not zero, in words: 3 moved, 1 split; NULL where all are zero.';

-- One step of a run. Each verb returns a row whose counts are named by what it does; a run shows rows in and out, and says
-- what these do not.
CREATE FUNCTION dwh._run_step(step text, run jsonb, OUT status text, OUT rows_in bigint, OUT rows_out bigint,
    OUT rejected bigint, OUT message text, OUT failed text, OUT evidence jsonb, OUT results jsonb)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    run_id bigint := run ->> 'run_id';
BEGIN
    rejected := 0;
    CASE step
        WHEN 'load_jsonl' THEN
            SELECT s.* INTO status, rows_in, rows_out, rejected, message, failed FROM dwh._run_load_step(run ->> 'source', run_id) AS s;
        WHEN 'stage_events' THEN
            SELECT s.status, s.rows_in, s.staged, s.rejected,
                   dwh._said(jsonb_build_object('replayed', s.replayed, 'conflicting', s.conflicting, 'quarantined', s.quarantined))
              INTO status, rows_in, rows_out, rejected, message FROM dwh.stage_events() AS s;
        WHEN 'apply_scd2' THEN
            SELECT s.status, s.rows_in, s.opened + s.moved + s.closed + s.removed,
                   dwh._said(jsonb_build_object('split', s.split, 'moved', s.moved, 'removed', s.removed, 'repointed', s.repointed))
              INTO status, rows_in, rows_out, message FROM dwh.apply_scd2() AS s;
        WHEN 'upsert_products' THEN
            SELECT s.status, s.rows_in, s.inserted + s.updated + s.prices INTO status, rows_in, rows_out FROM dwh.upsert_products() AS s;
        WHEN 'load_facts' THEN
            SELECT s.status, s.rows_in, s.facts, dwh._said(jsonb_build_object('partitions made', s.partitions))
              INTO status, rows_in, rows_out, message FROM dwh.load_facts() AS s;
        WHEN 'run_quality_checks' THEN
            SELECT s.* INTO status, rows_in, rows_out, rejected, evidence, results FROM dwh._check_step(run_id, (run ->> 'started_at')::timestamptz) AS s;
            message := 'failed: ' || dwh._failed_checks(results);
    END CASE;
END
$$;
COMMENT ON FUNCTION dwh._run_step(text, jsonb) IS 'Does one step of a run on all that waits for it.';

CREATE FUNCTION dwh._running_step(step text, steps jsonb, run_id bigint) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object('run_id', run_id, 'step_no', jsonb_array_length(steps) + 1, 'step', step, 'status', 'running')
$$;
COMMENT ON FUNCTION dwh._running_step(text, jsonb, bigint) IS 'The step that follows these, at work, as a row of ops.run_steps in JSON.';

CREATE FUNCTION dwh._new_run(source text, caller_run_id text, trace_id text) RETURNS jsonb
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object(
        'run_id', nextval(pg_get_serial_sequence('ops.runs', 'run_id')), 'status', 'running', 'source', source,
        'started_at', clock_timestamp(), 'pid', pg_backend_pid(), 'username', current_user,
        'caller_run_id', caller_run_id, 'trace_id', trace_id)
$$;
COMMENT ON FUNCTION dwh._new_run(text, text, text) IS 'A new run, as a row of ops.runs in JSON.';

CREATE FUNCTION dwh._announce_run(run jsonb) RETURNS boolean
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    -- Under other isolation levels this transaction could not see the row that the worker writes.
    SELECT CASE WHEN current_setting('transaction_isolation') = 'read committed' THEN
        dwh._record_evidence(jsonb_build_object('run', run,
            'steps', jsonb_build_array(dwh._running_step('load_jsonl', '[]', (run ->> 'run_id')::bigint)))) ELSE false END
$$;
COMMENT ON FUNCTION dwh._announce_run(jsonb) IS
'Writes a run in a transaction of its own where that is possible, so that others can see it at work; says whether it did.';

CREATE FUNCTION dwh._announce_step(step text, steps jsonb, run_id bigint, is_announced boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('application_name', 'dwh: ' || step, true);
    -- The first one was announced with the run; a run that has nothing to do is over before anybody could look.
    IF is_announced AND jsonb_array_length(steps) > 0
       AND EXISTS (SELECT FROM ops.loads AS l WHERE l.checked_at IS NULL AND l.status <> 'stopped') THEN
        PERFORM dwh._record_evidence(jsonb_build_object('steps', steps || dwh._running_step(step, steps, run_id)));
    END IF;
END
$$;
COMMENT ON FUNCTION dwh._announce_step(text, jsonb, bigint, boolean) IS
'Shows others which step is at work: in application_name, and in ops.run_steps, where this also survives the death of the backend.';

CREATE FUNCTION dwh._end_run(run jsonb, is_announced boolean, steps jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF is_announced THEN
        UPDATE ops.runs AS r SET status = run ->> 'status', finished_at = clock_timestamp(), message = run ->> 'message'
         WHERE r.run_id = (run ->> 'run_id')::bigint;
    ELSE
        BEGIN
            PERFORM dwh._bury_dead_runs((run ->> 'run_id')::bigint);
        EXCEPTION WHEN serialization_failure THEN
            NULL;   -- one that has ended since this snapshot was taken
        END;
        INSERT INTO ops.runs (run_id, status, source, started_at, finished_at, pid, username, message, caller_run_id, trace_id)
        SELECT n.run_id, n.status, n.source, n.started_at, clock_timestamp(), n.pid, n.username, n.message, n.caller_run_id, n.trace_id
          FROM jsonb_populate_record(NULL::ops.runs, run) AS n;
    END IF;
    PERFORM dwh._write_steps(steps);
    -- alerts last: until commit nobody else can say anything of these
    IF run ->> 'message' IS NULL THEN
        PERFORM dwh._recover_alert('files:' || coalesce(run ->> 'source', ''), (run ->> 'run_id')::bigint);
    ELSE
        PERFORM dwh._raise_alert('files:' || coalesce(run ->> 'source', ''), 'warn', 'some files could not be loaded',
                                 jsonb_build_object('source', run -> 'source'), (run ->> 'run_id')::bigint);
    END IF;
    PERFORM dwh._recover_alert('run:' || coalesce(run ->> 'source', ''), (run ->> 'run_id')::bigint);
END
$$;
COMMENT ON FUNCTION dwh._end_run(jsonb, boolean, jsonb) IS 'Writes the end of a run that succeeded, with its data.';

-- The result of a run as it was returned first.
CREATE FUNCTION dwh._steps_of_run(run_id bigint)
RETURNS TABLE (step text, status text, rows_in bigint, rows_out bigint, rejected bigint, elapsed interval, message text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT s.step, s.status, s.rows_in, s.rows_out, s.rejected, s.elapsed, s.message
      FROM ops.run_steps AS s WHERE s.run_id = _steps_of_run.run_id ORDER BY s.step_no
$$;
COMMENT ON FUNCTION dwh._steps_of_run(bigint) IS 'The steps of a run as run_pipeline() returns them.';

CREATE FUNCTION dwh._finished_run(caller_run_id text, source text) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    first record;
BEGIN
    IF length(caller_run_id) NOT BETWEEN 1 AND 512 THEN
        RAISE EXCEPTION 'run_id has % characters', length(caller_run_id)
            USING ERRCODE = 'invalid_parameter_value', DETAIL = 'Allowed are 1 to 512.', HINT = 'Give your scheduler''s id of the run.';
    END IF;
    SELECT r.run_id, r.source, r.finished_at INTO first FROM ops.runs AS r
     WHERE r.caller_run_id = _finished_run.caller_run_id AND r.status IN ('succeeded', 'nothing_new', 'no_data');
    IF first.run_id IS NOT NULL AND first.source IS DISTINCT FROM _finished_run.source THEN
        RAISE EXCEPTION 'run_id "%" belongs to a run of another source', caller_run_id
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('Run %s had source %s, not %s.', first.run_id, coalesce(first.source, 'NULL'), coalesce(_finished_run.source, 'NULL')),
                  HINT = 'Give each run an id of its own, or repeat the call as it was.';
    END IF;
    IF first.run_id IS NOT NULL THEN
        RAISE NOTICE 'run_id "%" was done as run % at %: its result again', caller_run_id, first.run_id, first.finished_at;
    END IF;
    RETURN first.run_id;
END
$$;
COMMENT ON FUNCTION dwh._finished_run(text, text) IS
'The run that did not fail under this id of the caller; NULL where there is none yet. 22023 where its source was another.';

CREATE FUNCTION dwh._fail_run(begun jsonb, steps jsonb, evidence jsonb, step jsonb, error jsonb) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT dwh._record_evidence(
        jsonb_build_object('alerts', jsonb_build_array(jsonb_build_object('dedupe_key', 'run:' || coalesce(begun ->> 'source', ''),
            'run_id', begun -> 'run_id', 'severity', 'error', 'title', 'a run failed',
            'body', jsonb_build_object('sqlstate', error -> 'sqlstate', 'step', step -> 'step'))))
        || coalesce(evidence, '{}')
        || jsonb_build_object(
            'run', begun || jsonb_build_object('status', 'failed', 'finished_at', clock_timestamp()) || error,
            'steps', steps || (step || jsonb_build_object('status', 'failed') || (error - '{detail,hint}'::text[]))))
$$;
COMMENT ON FUNCTION dwh._fail_run(jsonb, jsonb, jsonb, jsonb, jsonb) IS
'Has the evidence of a failed run written: the run, its steps with the one that failed, and an alert, or what its checks hand out.';

-- The steps of a run, each with its evidence. The run and its steps travel as JSON: a variable of a table's row type would
-- outlive the table in a session's plans.
CREATE FUNCTION dwh._run_steps(run jsonb, OUT is_announced boolean, OUT steps jsonb, OUT failed text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    run_id bigint := run ->> 'run_id';
    name text;
    step jsonb;
    done record;
    began timestamptz := clock_timestamp();
    wal_before bigint := dwh._wal_bytes();
    caller_name text := current_setting('application_name');
    evidence jsonb;
    sql_state text;
    message text;
    detail text;
    hint text;
BEGIN
    steps := '[]';
    step := dwh._running_step('load_jsonl', steps, run_id);
    is_announced := dwh._announce_run(run);
    FOREACH name IN ARRAY ARRAY['load_jsonl', 'stage_events', 'apply_scd2', 'upsert_products', 'load_facts', 'run_quality_checks'] LOOP
        step := dwh._running_step(name, steps, run_id);
        PERFORM dwh._announce_step(name, steps, run_id, is_announced);
        began := clock_timestamp();
        wal_before := dwh._wal_bytes();
        done := dwh._run_step(name, run);
        evidence := done.evidence;
        failed := coalesce(failed, done.failed);
        PERFORM dwh._raise_failed_checks(done.results);
        step := step || jsonb_build_object('status', done.status, 'rows_in', done.rows_in, 'rows_out', done.rows_out, 'rejected', done.rejected,
            'elapsed', clock_timestamp() - began, 'wal_bytes', dwh._wal_bytes() - wal_before, 'message', done.message);
        steps := steps || step;
        IF dwh._setting('progress_notices')::boolean AND done.status NOT IN ('nothing_new', 'no_data') THEN
            RAISE NOTICE '%: %, % rows in, % out, % rejected, % ms%', name, done.status, done.rows_in, done.rows_out, done.rejected,
                round(extract(epoch FROM clock_timestamp() - began) * 1000), coalesce(', ' || done.message, '');
        END IF;
    END LOOP;
    PERFORM set_config('application_name', caller_name, true);
EXCEPTION WHEN OTHERS OR query_canceled OR assert_failure THEN
    -- The changes are undone and their locks gone, so that the worker waits for nothing.
    GET STACKED DIAGNOSTICS sql_state := RETURNED_SQLSTATE, message := MESSAGE_TEXT,
        detail := PG_EXCEPTION_DETAIL, hint := PG_EXCEPTION_HINT;
    PERFORM dwh._fail_run(run, steps, evidence,
        step || jsonb_build_object('elapsed', clock_timestamp() - began, 'wal_bytes', dwh._wal_bytes() - wal_before),
        jsonb_build_object('sqlstate', sql_state, 'message', message, 'detail', detail, 'hint', hint));
    RAISE;
END
$$;
COMMENT ON FUNCTION dwh._run_steps(jsonb) IS
'Does the steps of a run; where one fails, its changes are undone, the evidence is written and the error goes on.';

CREATE FUNCTION dwh.run_pipeline(
    source text DEFAULT NULL,
    dry_run boolean DEFAULT false,
    run_id text DEFAULT NULL,
    trace_id text DEFAULT NULL,
    skip_if_running boolean DEFAULT false)
RETURNS TABLE (step text, status text, rows_in bigint, rows_out bigint, rejected bigint, elapsed interval, message text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
#variable_conflict use_column
DECLARE
    finished bigint;
    holder text;
    run jsonb;
    done record;
BEGIN
    PERFORM dwh._require_warehouse();
    IF dry_run IS NULL THEN
        RAISE EXCEPTION 'dry_run must not be null'
            USING ERRCODE = 'invalid_parameter_value', DETAIL = 'True only says what would happen, false runs.', HINT = 'Leave it out for a run.';
    ELSIF dry_run THEN
        RETURN QUERY SELECT d.* FROM dwh._dry_run(run_pipeline.source) AS d;
        RETURN;
    END IF;
    finished := dwh._finished_run(run_pipeline.run_id, run_pipeline.source);
    IF finished IS NULL THEN
        holder := dwh._pipeline_holder();
        -- again: a run of that id may just have ended
        finished := CASE WHEN holder IS NULL THEN dwh._finished_run(run_pipeline.run_id, run_pipeline.source) END;
    END IF;
    IF finished IS NOT NULL THEN
        RETURN QUERY SELECT s.* FROM dwh._steps_of_run(finished) AS s;
        RETURN;
    ELSIF holder IS NOT NULL AND skip_if_running THEN
        RETURN QUERY VALUES ('run_pipeline', 'skipped', 0::bigint, 0::bigint, 0::bigint, interval '0', holder);
        RETURN;
    ELSIF holder IS NOT NULL THEN
        RAISE EXCEPTION 'another run of the pipeline is at work'
            USING ERRCODE = 'WH003', DETAIL = holder,
                  HINT = 'Try again when it has ended; a schedule may pass skip_if_running => true.';
    END IF;
    run := dwh._new_run(run_pipeline.source, run_pipeline.run_id, trace_id);
    done := dwh._run_steps(run);
    PERFORM dwh._end_run(
        run || jsonb_build_object('message', done.failed, 'status', CASE WHEN done.steps @? '$[*].status ? (@ == "done")' THEN 'succeeded'
                                                              ELSE done.steps -> 0 ->> 'status' END),
        done.is_announced, done.steps);
    RETURN QUERY SELECT s.* FROM dwh._steps_of_run((run ->> 'run_id')::bigint) AS s;
END
$$;
REVOKE EXECUTE ON FUNCTION dwh.run_pipeline(text, boolean, text, text, boolean) FROM PUBLIC;
COMMENT ON FUNCTION dwh.run_pipeline(text, boolean, text, text, boolean) IS
'Loads a file, directory or pattern (NULL = the landing directory) and takes it through all steps to checked marts, as one transaction. dry_run says what would happen and writes nothing. run_id is the caller''s own id of the run: once a run of that id did not fail, a repeat returns its result and does nothing; trace_id goes into ops.runs. skip_if_running returns one row with status skipped where another run is at work. Returns one row a step: status (done, nothing_new, no_data; with dry_run would_do, would_fail), rows in and out, refused lines, clock time, and what else is to say; for run_quality_checks the rows are checks and passed checks. Errors: WH001 if a check fails, WH003 at once while another run is at work, 22023 for dry_run NULL, a run_id of another source or of more than 512 characters, 40P01 (retry) where two sessions wait for each other''s files, those of the steps otherwise; then raw, staging and marts are as before, and the evidence is kept in ops. While it runs, application_name and ops.run_steps tell the step. A repeat loads nothing twice and says nothing_new or no_data.';
