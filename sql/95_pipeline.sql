-- 95_pipeline.sql: all steps as one run, and the evidence that outlives a failing one.
--
-- Invariants: a run changes raw, staging and marts as a whole or not at all; what it did is in ops.runs, ops.run_steps and
-- ops.quality_results either way; two runs never overlap.
-- Repeats are harmless: content that was loaded is not loaded again, steps that are done have nothing to do.

CREATE FUNCTION dwh._take_pipeline_lock() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    holder record;
BEGIN
    PERFORM FROM ops.warehouse AS w FOR UPDATE SKIP LOCKED;
    IF FOUND THEN
        RETURN;
    END IF;
    -- The locked row holds the holder's transaction id, and pg_locks whose it is; one that was taken in a subtransaction
    -- which has ended is found only by the run that was announced.
    SELECT l.pid, r.run_id, r.started_at AS since INTO holder
      FROM pg_locks AS l
      LEFT JOIN ops.runs AS r ON r.pid = l.pid AND r.status = 'running'
     WHERE l.granted AND l.pid <> pg_backend_pid() AND l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock'
       AND (r.run_id IS NOT NULL OR l.transactionid::text = (SELECT w.xmax::text FROM ops.warehouse AS w))
     ORDER BY l.transactionid::text = (SELECT w.xmax::text FROM ops.warehouse AS w) DESC, r.run_id DESC NULLS LAST LIMIT 1;
    RAISE EXCEPTION 'another run of the pipeline is at work'
        USING ERRCODE = 'WH003',
              DETAIL = CASE WHEN holder.run_id IS NOT NULL THEN format('Run %s holds the lock: backend %s, since %s.', holder.run_id, holder.pid, holder.since)
                            WHEN holder.pid IS NOT NULL THEN format('Backend %s holds the lock.', holder.pid)
                            ELSE 'A step runs on its own, or it has just ended.' END,
              HINT = 'Try again when it has ended; a schedule may simply skip this time.';
END
$$;
COMMENT ON FUNCTION dwh._take_pipeline_lock() IS 'Takes the pipeline''s lock until commit, or raises WH003 naming its holder, at once.';

CREATE FUNCTION dwh._load_step(source text, OUT status text, OUT rows_in bigint, OUT rows_out bigint, OUT rejected bigint, OUT load_ids bigint[], OUT failed text, OUT left_out text)
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN count(*) = 0 THEN 'no_data' WHEN count(*) FILTER (WHERE l.loaded + l.rejected > 0) = 0
                THEN 'nothing_new' ELSE 'done' END,
           coalesce(sum(l.lines), 0)::bigint, coalesce(sum(l.loaded), 0)::bigint, coalesce(sum(l.rejected), 0)::bigint,
           coalesce(array_agg(l.load_id) FILTER (WHERE l.loaded + l.rejected > 0), '{}'),
           string_agg(format('%s (%s)', l.path, l.message), '; ') FILTER (WHERE l.status = 'failed'),
           string_agg(format('%s (load %s)', l.path, l.load_id), '; ') FILTER (WHERE l.status = 'quarantined')
      FROM dwh._load_for_run(source) AS l
$$;
COMMENT ON FUNCTION dwh._load_step(text) IS 'Loads the source and sums up the verdicts: the new loads, the files that failed, and those that are left out as quarantined.';

-- One step of a run. Each verb returns a row whose counts are named by what it does; a run shows rows in and out.
CREATE FUNCTION dwh._run_step(step text, source text, run_id bigint,
    OUT status text, OUT rows_in bigint, OUT rows_out bigint, OUT rejected bigint, OUT evidence jsonb, OUT results jsonb, OUT message text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    loaded record;
BEGIN
    rejected := 0;
    CASE step
        WHEN 'load_jsonl' THEN
            loaded := dwh._load_step(source);
            status := loaded.status; rows_in := loaded.rows_in; rows_out := loaded.rows_out; rejected := loaded.rejected;
            UPDATE ops.loads AS l SET run_id = _run_step.run_id WHERE l.load_id = ANY (loaded.load_ids) AND l.run_id IS NULL;
            IF loaded.failed IS NOT NULL THEN
                RAISE WARNING 'some files could not be loaded: %', loaded.failed USING HINT = 'The others were.';
                PERFORM dwh._raise_alert('files:' || coalesce(source, ''), 'warn', 'some files could not be loaded',
                                         jsonb_build_object('source', source), run_id);
                message := format('some files could not be loaded: %s', loaded.failed);
            END IF;
            IF loaded.left_out IS NOT NULL THEN
                RAISE NOTICE 'quarantined files are left out: %', loaded.left_out
                    USING HINT = 'Mend them, raise dwh.max_reject_share, or load_jsonl(path, force => true).';
            END IF;
        WHEN 'stage_events' THEN
            SELECT s.status, s.rows_in, s.staged, s.rejected INTO status, rows_in, rows_out, rejected FROM dwh.stage_events() AS s;
        WHEN 'apply_scd2' THEN
            SELECT s.status, s.rows_in, s.opened + s.moved + s.closed + s.removed INTO status, rows_in, rows_out FROM dwh.apply_scd2() AS s;
        WHEN 'upsert_products' THEN
            SELECT s.status, s.rows_in, s.inserted + s.updated + s.prices INTO status, rows_in, rows_out FROM dwh.upsert_products() AS s;
        WHEN 'load_facts' THEN
            SELECT s.status, s.rows_in, s.facts INTO status, rows_in, rows_out FROM dwh.load_facts() AS s;
        WHEN 'run_quality_checks' THEN
            SELECT s.* INTO status, rows_in, rows_out, rejected, evidence, results FROM dwh._check_step(run_id) AS s;
    END CASE;
END
$$;
COMMENT ON FUNCTION dwh._run_step(text, text, bigint) IS 'Does one step of a run on all that waits for it.';

CREATE FUNCTION dwh._begin_run(source text, OUT run jsonb, OUT is_announced boolean)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    run := jsonb_build_object(
        'run_id', nextval(pg_get_serial_sequence('ops.runs', 'run_id')), 'status', 'running', 'source', source,
        'started_at', clock_timestamp(), 'pid', pg_backend_pid(), 'username', current_user);
    -- Under other isolation levels this transaction could not see the row that the worker writes.
    is_announced := current_setting('transaction_isolation') = 'read committed'
        AND dwh._record_evidence(jsonb_build_object('run', run));
END
$$;
COMMENT ON FUNCTION dwh._begin_run(text) IS
'A new run, as a row of ops.runs in JSON; announced in a transaction of its own where that is possible, so that others can see it at work.';

CREATE FUNCTION dwh._end_run(run jsonb, is_announced boolean, steps jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF is_announced THEN
        UPDATE ops.runs AS r SET status = run ->> 'status', finished_at = clock_timestamp(), message = run ->> 'message'
         WHERE r.run_id = (run ->> 'run_id')::bigint;
    ELSE
        INSERT INTO ops.runs (run_id, status, source, started_at, finished_at, pid, username, message)
        SELECT n.run_id, n.status, n.source, n.started_at, clock_timestamp(), n.pid, n.username, n.message
          FROM jsonb_populate_record(NULL::ops.runs, run) AS n;
    END IF;
    INSERT INTO ops.run_steps (run_id, step_no, step, status, rows_in, rows_out, rejected, elapsed)
    SELECT n.run_id, n.step_no, n.step, n.status, n.rows_in, n.rows_out, n.rejected, n.elapsed
      FROM jsonb_populate_recordset(NULL::ops.run_steps, steps) AS n;
END
$$;
COMMENT ON FUNCTION dwh._end_run(jsonb, boolean, jsonb) IS 'Writes the end of a run that succeeded, with its data.';

-- The run and its steps travel as JSON: a variable of a table's row type would outlive the table in a session's plans.
CREATE FUNCTION dwh.run_pipeline(source text DEFAULT NULL)
RETURNS TABLE (step text, status text, rows_in bigint, rows_out bigint, rejected bigint, elapsed interval)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
#variable_conflict use_column
DECLARE
    begun record;
    run_id bigint;
    steps jsonb := '[]';
    names text[] := ARRAY['load_jsonl', 'stage_events', 'apply_scd2', 'upsert_products', 'load_facts', 'run_quality_checks'];
    name text;
    done record;
    step_began timestamptz;
    evidence jsonb;
    note text;   -- what a run that succeeds has to say
    sql_state text;
    message text;
    detail text;
    hint text;
BEGIN
    PERFORM dwh._require_warehouse();
    PERFORM dwh._take_pipeline_lock();
    begun := dwh._begin_run(run_pipeline.source);
    run_id := (begun.run ->> 'run_id')::bigint;
    BEGIN
        FOREACH name IN ARRAY names LOOP
            step_began := clock_timestamp();
            done := dwh._run_step(name, run_pipeline.source, run_id);
            evidence := done.evidence;
            note := coalesce(note, done.message);
            PERFORM dwh._raise_failed_checks(done.results);
            steps := steps || jsonb_build_object('run_id', run_id, 'step_no', jsonb_array_length(steps) + 1, 'step', name,
                'status', done.status, 'rows_in', done.rows_in, 'rows_out', done.rows_out, 'rejected', done.rejected,
                'elapsed', clock_timestamp() - step_began);
        END LOOP;
    EXCEPTION WHEN OTHERS OR query_canceled THEN
        -- The changes are undone and their locks gone, so that the worker waits for nothing.
        GET STACKED DIAGNOSTICS sql_state := RETURNED_SQLSTATE, message := MESSAGE_TEXT,
            detail := PG_EXCEPTION_DETAIL, hint := PG_EXCEPTION_HINT;
        PERFORM dwh._record_evidence(
            jsonb_build_object('alerts', jsonb_build_array(jsonb_build_object('dedupe_key', 'run:' || coalesce(run_pipeline.source, ''),
                'run_id', run_id, 'severity', 'error', 'title', 'a run failed', 'body', jsonb_build_object('sqlstate', sql_state, 'step', name))))
            || coalesce(evidence, '{}')
            || jsonb_build_object(
                'run', begun.run || jsonb_build_object('status', 'failed', 'finished_at', clock_timestamp(),
                    'sqlstate', sql_state, 'message', message, 'detail', detail, 'hint', hint),
                'steps', steps || jsonb_build_object('run_id', run_id, 'step_no', jsonb_array_length(steps) + 1, 'step', name,
                    'status', 'failed', 'elapsed', clock_timestamp() - step_began)));
        RAISE;
    END;
    PERFORM dwh._end_run(
        begun.run || jsonb_build_object('message', note, 'status', CASE WHEN steps @? '$[*].status ? (@ == "done")' THEN 'succeeded'
                                                       ELSE steps -> 0 ->> 'status' END),
        begun.is_announced, steps);
    RETURN QUERY SELECT s.step, s.status, s.rows_in, s.rows_out, s.rejected, s.elapsed FROM jsonb_to_recordset(steps)
        AS s (step_no integer, step text, status text, rows_in bigint, rows_out bigint, rejected bigint, elapsed interval)
        ORDER BY s.step_no;
END
$$;
REVOKE EXECUTE ON FUNCTION dwh.run_pipeline(text) FROM PUBLIC;
COMMENT ON FUNCTION dwh.run_pipeline(text) IS
'Loads a file, directory or pattern (NULL = the landing directory) and takes it through all steps to checked marts, as one transaction. Returns one row a step: status (done, nothing_new, no_data), rows in and out, refused lines, clock time; for run_quality_checks the rows are checks and passed checks. Errors: WH001 if a check fails, WH003 at once while another run is at work, 40P01 (retry) where two sessions wait for each other''s files, those of the steps otherwise; then raw, staging and marts are as before, and the evidence is kept in ops. A repeat loads nothing twice and says nothing_new or no_data.';
