-- 04_evidence.sql: rows of the ledgers that must outlive the transaction that fails.
--
-- Invariant: evidence is written by a background worker in a transaction of its own, as the caller, and touches nothing
-- but the ledgers in ops.
-- Repeats are harmless: runs and loads are updated in place, rejects are kept once; results and alerts are added.

CREATE FUNCTION dwh._record_evidence(evidence jsonb) RETURNS boolean
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'dwh_record_evidence';
REVOKE EXECUTE ON FUNCTION dwh._record_evidence(jsonb) FROM PUBLIC;
COMMENT ON FUNCTION dwh._record_evidence(jsonb) IS
'Has dwh._write_evidence(evidence) run and committed by a background worker, as the caller. False, with a WARNING, where that failed.';

-- Columns are named: tables may have more of them, the user's or a later model's.
CREATE FUNCTION dwh._write_load_evidence(load jsonb, files jsonb, rejects jsonb) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- a load that this one continues may have been rolled back with it
    INSERT INTO ops.loads (load_id, path, sha256, head_sha256, content_bytes, bytes, first_line, lines, loaded, rejected,
           blank, held_back_bytes, staged, replayed, conflicting, stage_rejected, forgotten, facts, status, forced,
           truncated, ends_open, continues_load_id, run_id, loaded_at, checked_at, quarantined_by, quarantine_rule)
    SELECT n.load_id, n.path, n.sha256, n.head_sha256, n.content_bytes, n.bytes, n.first_line, n.lines, n.loaded, n.rejected,
           n.blank, n.held_back_bytes, n.staged, n.replayed, n.conflicting, n.stage_rejected, n.forgotten, n.facts, n.status,
           n.forced, n.truncated, n.ends_open, b.load_id, n.run_id, n.loaded_at, n.checked_at, n.quarantined_by, n.quarantine_rule
      FROM jsonb_populate_record(NULL::ops.loads, load) AS n
      LEFT JOIN ops.loads AS b ON b.load_id = n.continues_load_id
        ON CONFLICT (load_id) DO UPDATE SET status = excluded.status, stage_rejected = excluded.stage_rejected,
           checked_at = excluded.checked_at, quarantined_by = excluded.quarantined_by, quarantine_rule = excluded.quarantine_rule;
    INSERT INTO ops.files (path, device, inode, size, mtime, ctime, settled, load_id)
    SELECT n.path, n.device, n.inode, n.size, n.mtime, n.ctime, n.settled, n.load_id
      FROM jsonb_populate_recordset(NULL::ops.files, files) AS n WHERE n.load_id = (load ->> 'load_id')::bigint
        ON CONFLICT (path) DO UPDATE SET device = excluded.device, inode = excluded.inode, size = excluded.size,
           mtime = excluded.mtime, ctime = excluded.ctime, settled = excluded.settled, load_id = excluded.load_id;
    INSERT INTO ops.rejects (load_id, line_no, byte_offset, stage, class, message, raw, raw_bytes, rejected_at)
    SELECT n.load_id, n.line_no, n.byte_offset, n.stage, n.class, n.message, n.raw, n.raw_bytes, n.rejected_at
      FROM jsonb_populate_recordset(NULL::ops.rejects, rejects) AS n WHERE n.load_id = (load ->> 'load_id')::bigint
        ON CONFLICT (load_id, line_no) DO NOTHING;
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;   -- a transaction around the caller's holds this load: it is as that one leaves it
END
$$;
COMMENT ON FUNCTION dwh._write_load_evidence(jsonb, jsonb, jsonb) IS
'Writes the row of one load, and its rows of ops.files and ops.rejects; false, and nothing written, where they are locked.';

CREATE FUNCTION dwh._write_steps(steps jsonb) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO ops.run_steps (run_id, step_no, step, status, rows_in, rows_out, rejected, elapsed, wal_bytes, sqlstate, message)
    SELECT n.run_id, n.step_no, n.step, n.status, n.rows_in, n.rows_out, n.rejected, n.elapsed, n.wal_bytes, n.sqlstate, n.message
      FROM jsonb_populate_recordset(NULL::ops.run_steps, steps) AS n
        ON CONFLICT (run_id, step_no) DO UPDATE SET status = excluded.status, rows_in = excluded.rows_in, rows_out = excluded.rows_out,
           rejected = excluded.rejected, elapsed = excluded.elapsed, wal_bytes = excluded.wal_bytes, sqlstate = excluded.sqlstate,
           message = excluded.message
$$;
COMMENT ON FUNCTION dwh._write_steps(jsonb) IS 'Writes steps of a run, over what was announced of them.';

CREATE FUNCTION dwh._bury_dead_runs(run_id bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    dead record;
BEGIN
    FOR dead IN
        UPDATE ops.runs AS r SET status = 'dead', finished_at = clock_timestamp(), message = 'it ended without a word: backend gone or transaction rolled back'
         WHERE r.run_id IN (SELECT d.run_id FROM ops.runs AS d
                             WHERE d.status = 'running' AND d.run_id <> _bury_dead_runs.run_id FOR UPDATE SKIP LOCKED)
        RETURNING r.run_id, r.source
    LOOP
        UPDATE ops.run_steps AS s SET status = 'dead' WHERE s.run_id = dead.run_id AND s.status = 'running';
        PERFORM dwh._raise_alert('run:' || coalesce(dead.source, ''), 'error', 'a run died', '{}', dead.run_id);
    END LOOP;
END
$$;
COMMENT ON FUNCTION dwh._bury_dead_runs(bigint) IS
'Marks every other run that says running as dead. For whoever holds the pipeline''s lock: no other run can be at work.';

CREATE FUNCTION dwh._write_evidence(evidence jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- only the tables that get a row are touched: the caller may hold locks on others
    IF evidence ? 'run' THEN
        INSERT INTO ops.runs (run_id, status, source, started_at, finished_at, pid, username, sqlstate, message, detail, hint,
               caller_run_id, trace_id)
        SELECT n.run_id, n.status, n.source, n.started_at, n.finished_at, n.pid, n.username, n.sqlstate, n.message, n.detail, n.hint,
               n.caller_run_id, n.trace_id
          FROM jsonb_populate_record(NULL::ops.runs, evidence -> 'run') AS n
            ON CONFLICT (run_id) DO UPDATE SET status = excluded.status, finished_at = excluded.finished_at,
               sqlstate = excluded.sqlstate, message = excluded.message, detail = excluded.detail, hint = excluded.hint;
        PERFORM dwh._bury_dead_runs((evidence -> 'run' ->> 'run_id')::bigint);
    END IF;
    IF jsonb_typeof(evidence -> 'steps') = 'array' THEN
        PERFORM dwh._write_steps(evidence -> 'steps');
    END IF;
    IF jsonb_typeof(evidence -> 'results') = 'array' THEN
        INSERT INTO ops.quality_results (run_id, load_ids, name, severity, status, observed, allowed, offenders, limits)
        SELECT n.run_id, n.load_ids, n.name, n.severity, n.status, n.observed, n.allowed, n.offenders, n.limits
          FROM jsonb_populate_recordset(NULL::ops.quality_results, evidence -> 'results') AS n;
    END IF;
    IF jsonb_typeof(evidence -> 'alerts') = 'array' THEN
        PERFORM dwh._raise_alert(n.dedupe_key, n.severity, n.title, n.body, n.run_id)
           FROM jsonb_populate_recordset(NULL::ops.alerts, evidence -> 'alerts') AS n;
    END IF;
    IF jsonb_typeof(evidence -> 'loads') = 'array' THEN
        PERFORM dwh._write_load_evidence(l, coalesce(nullif(evidence -> 'files', 'null'), '[]'), coalesce(nullif(evidence -> 'rejects', 'null'), '[]'))
           FROM jsonb_array_elements(evidence -> 'loads') AS l;
    END IF;
END
$$;
REVOKE EXECUTE ON FUNCTION dwh._write_evidence(jsonb) FROM PUBLIC;
COMMENT ON FUNCTION dwh._write_evidence(jsonb) IS
'Writes rows of the ledgers: run, steps, results, alerts, loads, files, rejects. Called by the evidence worker in a transaction of its own.';

CREATE FUNCTION dwh._stopped_load(load_id bigint, evidence_id bigint, path text, lines bigint, rejected bigint, blank bigint) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object(
        'loads', jsonb_build_array(jsonb_build_object(
            'load_id', evidence_id, 'path', path, 'bytes', 0, 'first_line', 1, 'lines', lines, 'loaded', 0, 'rejected', rejected,
            'blank', blank, 'held_back_bytes', 0, 'staged', 0, 'replayed', 0, 'conflicting', 0, 'stage_rejected', 0,
            'forgotten', 0, 'facts', 0, 'status', 'stopped', 'forced', false, 'truncated', false, 'ends_open', false,
            'loaded_at', clock_timestamp(), 'checked_at', clock_timestamp())),
        'rejects', (SELECT jsonb_agg(to_jsonb(j) || jsonb_build_object('load_id', evidence_id)
                           || CASE WHEN dwh._is_forgotten_line(j.raw) THEN '{"raw": "", "message": "erased"}' ELSE '{}' END::jsonb) FROM (
                      SELECT j.* FROM ops.rejects AS j WHERE j.load_id = _stopped_load.load_id ORDER BY j.line_no LIMIT 1000) AS j),
        'alerts', jsonb_build_array(jsonb_build_object('dedupe_key', 'load:' || path, 'severity', 'error', 'title', 'reject limit exceeded',
            'body', jsonb_build_object('sqlstate', 'WH002', 'load_id', evidence_id, 'lines', lines, 'rejected', rejected))))
$$;
COMMENT ON FUNCTION dwh._stopped_load(bigint, bigint, text, bigint, bigint, bigint) IS
'The evidence of a load that went over its reject limit, under evidence_id, as dwh._write_evidence takes it.';
