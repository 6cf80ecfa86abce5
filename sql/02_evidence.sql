-- 02_evidence.sql: rows of the ledgers that must outlive the transaction that fails.
--
-- Invariant: evidence is written by a background worker in a transaction of its own, as the caller, and touches nothing
-- but the ledgers in ops.
-- Repeats are harmless: runs and loads are updated in place, rejects are kept once; results and alerts are added.

CREATE FUNCTION dwh._record_evidence(evidence jsonb) RETURNS boolean
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'dwh_record_evidence';
REVOKE EXECUTE ON FUNCTION dwh._record_evidence(jsonb) FROM PUBLIC;
COMMENT ON FUNCTION dwh._record_evidence(jsonb) IS
'Has dwh._write_evidence(evidence) run and committed by a background worker, as the caller. False, with a WARNING, where that failed.';

CREATE FUNCTION dwh._write_evidence(evidence jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- only the tables that get a row are touched: the caller may hold locks on others
    IF evidence ? 'run' THEN
        INSERT INTO ops.runs AS r SELECT n.* FROM jsonb_populate_record(NULL::ops.runs, evidence -> 'run') AS n
            ON CONFLICT (run_id) DO UPDATE SET status = excluded.status, finished_at = excluded.finished_at,
               sqlstate = excluded.sqlstate, message = excluded.message, detail = excluded.detail, hint = excluded.hint;
        -- The caller holds the pipeline's lock, so no other run is at work: one that says so has died or was rolled back.
        UPDATE ops.runs AS r SET status = 'failed', finished_at = clock_timestamp(), message = 'it ended without a word: backend gone or transaction rolled back'
         WHERE r.run_id IN (SELECT d.run_id FROM ops.runs AS d
                             WHERE d.status = 'running' AND d.run_id <> (evidence -> 'run' ->> 'run_id')::bigint
                               FOR UPDATE SKIP LOCKED);
    END IF;
    IF jsonb_typeof(evidence -> 'steps') = 'array' THEN
        INSERT INTO ops.run_steps SELECT n.* FROM jsonb_populate_recordset(NULL::ops.run_steps, evidence -> 'steps') AS n;
    END IF;
    IF jsonb_typeof(evidence -> 'results') = 'array' THEN
        INSERT INTO ops.quality_results (run_id, load_ids, name, severity, status, observed, allowed, offenders)
        SELECT n.run_id, n.load_ids, n.name, n.severity, n.status, n.observed, n.allowed, n.offenders
          FROM jsonb_populate_recordset(NULL::ops.quality_results, evidence -> 'results') AS n;
    END IF;
    IF jsonb_typeof(evidence -> 'loads') = 'array' THEN
        -- a load that this one continues may have been rolled back with it
        INSERT INTO ops.loads AS l
        SELECT n.* FROM jsonb_array_elements(evidence -> 'loads') AS e
         CROSS JOIN LATERAL jsonb_populate_record(NULL::ops.loads, e || jsonb_build_object('continues_load_id',
               (SELECT b.load_id FROM ops.loads AS b WHERE b.load_id = (e ->> 'continues_load_id')::bigint))) AS n
            ON CONFLICT (load_id) DO UPDATE SET status = excluded.status, stage_rejected = excluded.stage_rejected,
               checked_at = excluded.checked_at;
    END IF;
    IF jsonb_typeof(evidence -> 'files') = 'array' THEN
        INSERT INTO ops.files AS f SELECT n.* FROM jsonb_populate_recordset(NULL::ops.files, evidence -> 'files') AS n
            ON CONFLICT (path) DO UPDATE SET device = excluded.device, inode = excluded.inode, size = excluded.size,
               mtime = excluded.mtime, ctime = excluded.ctime, settled = excluded.settled, load_id = excluded.load_id;
    END IF;
    IF jsonb_typeof(evidence -> 'rejects') = 'array' THEN
        INSERT INTO ops.rejects AS j SELECT n.* FROM jsonb_populate_recordset(NULL::ops.rejects, evidence -> 'rejects') AS n
            ON CONFLICT (load_id, line_no) DO NOTHING;
    END IF;
    IF evidence ? 'alert' THEN
        INSERT INTO ops.alerts (run_id, severity, title, body)
        SELECT n.run_id, n.severity, n.title, n.body FROM jsonb_populate_record(NULL::ops.alerts, evidence -> 'alert') AS n;
    END IF;
END
$$;
REVOKE EXECUTE ON FUNCTION dwh._write_evidence(jsonb) FROM PUBLIC;
COMMENT ON FUNCTION dwh._write_evidence(jsonb) IS
'Writes rows of the ledgers: run, steps, results, loads, files, rejects, alert. Called by the evidence worker in a transaction of its own.';

CREATE FUNCTION dwh._stopped_load(load_id bigint, path text, lines bigint, rejected bigint, blank bigint) RETURNS jsonb
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    -- under an id of its own: the load's rows with the old one are still there, locked, until its transaction ends
    WITH evidence AS MATERIALIZED (SELECT nextval(pg_get_serial_sequence('ops.loads', 'load_id')) AS id)
    SELECT jsonb_build_object(
        'loads', jsonb_build_array(jsonb_build_object(
            'load_id', e.id, 'path', path, 'bytes', 0, 'first_line', 1, 'lines', lines, 'loaded', 0, 'rejected', rejected,
            'blank', blank, 'held_back_bytes', 0, 'staged', 0, 'replayed', 0, 'conflicting', 0, 'stage_rejected', 0,
            'forgotten', 0, 'facts', 0, 'status', 'stopped', 'forced', false, 'truncated', false, 'ends_open', false,
            'loaded_at', clock_timestamp(), 'checked_at', clock_timestamp())),
        'rejects', (SELECT jsonb_agg(to_jsonb(j) || jsonb_build_object('load_id', e.id)) FROM (
                      SELECT j.* FROM ops.rejects AS j WHERE j.load_id = _stopped_load.load_id ORDER BY j.line_no LIMIT 1000) AS j),
        'alert', jsonb_build_object('severity', 'error', 'title', 'reject limit exceeded',
            'body', jsonb_build_object('sqlstate', 'WH002', 'load_id', e.id, 'lines', lines, 'rejected', rejected)))
      FROM evidence AS e
$$;
COMMENT ON FUNCTION dwh._stopped_load(bigint, text, bigint, bigint, bigint) IS
'The evidence of a load that went over its reject limit, as dwh._write_evidence takes it.';
