-- 35_retry_rejects.sql: kept rejects -> raw.user_events, staging.user_events, once what refused them is gone.
--
-- A refused event whose time has come, or a refused line that a larger dwh.max_line_bytes or a later version accepts, goes
-- on as if it had come just now: it is judged by the clock of the retry, which raw.user_events.loaded_at holds from then
-- on, so dwh.typed_events() still says what staging should hold. The steps after staging find the load again through its
-- marks in ops.loads.
-- Invariant: the counts of each load stay conserved, as 05_load.sql and 10_staging.sql say them.
-- Repeats are harmless: what was accepted is no reject any more, what was not stays, with the reason that it has by now.

CREATE TYPE dwh.retry_result AS (
    load_id bigint,
    path text,
    status text,
    retried bigint,
    loaded bigint,
    staged bigint,
    replayed bigint,
    conflicting bigint,
    still_rejected bigint,
    not_kept bigint);
COMMENT ON TYPE dwh.retry_result IS
'What became of the rejects of one load. status: done, nothing_new (all stay). retried: rejects tried again; of a staged load they are staged, replayed, conflicting or still_rejected, of one that is not staged yet loaded or still_rejected. loaded: refused lines that are raw events now. not_kept: rejects that cannot be tried, as their line was kept in part or their raw event is gone.';

CREATE FUNCTION dwh._parse_line(line bytea, OUT payload jsonb, OUT altered boolean, OUT repeats_key boolean,
    OUT reject_class text, OUT reject_message text)
LANGUAGE c STABLE STRICT SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'dwh_parse_line';
COMMENT ON FUNCTION dwh._parse_line(bytea) IS
'The object in a line without its terminator, by the loader''s rules and settings, whether it was altered and has a key twice, or why it is refused; all NULL for a blank line.';

CREATE FUNCTION dwh._accept_lines(load_id bigint, retried_at timestamptz) RETURNS bigint[]
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    WITH judged AS MATERIALIZED (
        SELECT j.line_no, j.byte_offset, p.payload, p.altered, p.repeats_key, p.reject_class, p.reject_message
          FROM ops.rejects AS j CROSS JOIN LATERAL dwh._parse_line(j.raw) AS p
         WHERE j.load_id = _accept_lines.load_id AND j.stage = 'load' AND octet_length(j.raw) = j.raw_bytes),
    stays AS (
        UPDATE ops.rejects AS j SET class = t.reject_class, message = t.reject_message, rejected_at = _accept_lines.retried_at
          FROM judged AS t
         WHERE j.load_id = _accept_lines.load_id AND j.line_no = t.line_no AND (j.class, j.message) <> (t.reject_class, t.reject_message)),
    gone AS (
        DELETE FROM ops.rejects AS j USING judged AS t
         WHERE j.load_id = _accept_lines.load_id AND j.line_no = t.line_no AND t.reject_class IS NULL),
    added AS (
        INSERT INTO raw.user_events AS r (load_id, line_no, byte_offset, loaded_at, payload, altered)
        SELECT _accept_lines.load_id, t.line_no, t.byte_offset, _accept_lines.retried_at, t.payload, t.altered
          FROM judged AS t WHERE t.payload IS NOT NULL ORDER BY t.line_no
        RETURNING r.line_no),
    counted AS (
        UPDATE ops.loads AS l SET altered = l.altered + c.altered, duplicate_keys = l.duplicate_keys + c.repeated,
               blank = l.blank + c.blank, rejected = l.rejected - c.blank,
               checked_at = CASE WHEN c.blank = 0 THEN l.checked_at END
          FROM (SELECT count(*) FILTER (WHERE t.altered) AS altered, count(*) FILTER (WHERE t.repeats_key) AS repeated,
                       count(*) FILTER (WHERE t.payload IS NULL AND t.reject_class IS NULL) AS blank FROM judged AS t) AS c
         WHERE l.load_id = _accept_lines.load_id AND c.altered + c.repeated + c.blank > 0)
    SELECT coalesce(array_agg(a.line_no), '{}') FROM added AS a
$$;
COMMENT ON FUNCTION dwh._accept_lines(bigint, timestamptz) IS
'Moves the refused lines of a load that the loader accepts by now from ops.rejects to raw.user_events; returns their numbers. A long line of blanks counts as blank; others say why they are refused by now.';

CREATE FUNCTION dwh._accept_events(load_id bigint, retried_at timestamptz) RETURNS bigint[]
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    WITH judged AS MATERIALIZED (
        SELECT j.line_no, e.reject_class, e.reject_message
          FROM ops.rejects AS j
          JOIN raw.user_events AS r ON r.load_id = j.load_id AND r.line_no = j.line_no
         CROSS JOIN LATERAL dwh.parse_event(r.payload, _accept_events.retried_at) AS e
         WHERE j.load_id = _accept_events.load_id AND j.stage = 'stage'),
    stays AS (
        UPDATE ops.rejects AS j SET class = t.reject_class, message = t.reject_message, rejected_at = _accept_events.retried_at
          FROM judged AS t
         WHERE j.load_id = _accept_events.load_id AND j.line_no = t.line_no AND (j.class, j.message) <> (t.reject_class, t.reject_message)),
    gone AS (
        DELETE FROM ops.rejects AS j USING judged AS t
         WHERE j.load_id = _accept_events.load_id AND j.line_no = t.line_no AND t.reject_class IS NULL),
    accepted AS (
        UPDATE raw.user_events AS r SET loaded_at = _accept_events.retried_at FROM judged AS t
         WHERE r.load_id = _accept_events.load_id AND r.line_no = t.line_no AND t.reject_class IS NULL
        RETURNING r.line_no)
    SELECT coalesce(array_agg(a.line_no), '{}') FROM accepted AS a
$$;
COMMENT ON FUNCTION dwh._accept_events(bigint, timestamptz) IS
'Takes the refused events of a load that are events by now out of ops.rejects, and sets the clock that they are judged by; returns their lines. Others say why they are refused by now.';

CREATE FUNCTION dwh._require_retryable(load_id bigint) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    load record;
BEGIN
    SELECT l.status, l.path INTO load FROM ops.loads AS l WHERE l.load_id = _require_retryable.load_id;
    IF load.status IN ('quarantined', 'stopped') THEN
        RAISE EXCEPTION 'load % is %', _require_retryable.load_id, load.status
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  DETAIL = 'Such a load goes no further, and its rejects are evidence: after a failed run there are no rows that belong to them.',
                  HINT = format('Mend the file, or raise dwh.max_reject_share, and load it again; or dwh.load_jsonl(%L, force => true).', load.path);
    END IF;
END
$$;
COMMENT ON FUNCTION dwh._require_retryable(bigint) IS 'Raises 55000 for a load that is quarantined or stopped; NULL passes.';

CREATE FUNCTION dwh._retry_load(load_id bigint, is_staged boolean, retried_at timestamptz,
    OUT retried bigint, OUT loaded bigint, OUT staged bigint, OUT replayed bigint, OUT conflicting bigint,
    OUT still_rejected bigint, OUT not_kept bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    line_nos bigint[];
    event_nos bigint[];
    blank_before bigint := (SELECT l.blank FROM ops.loads AS l WHERE l.load_id = _retry_load.load_id);
    counts dwh.stage_counts;   -- of the lines that are objects now
BEGIN
    SELECT count(*) FILTER (WHERE k.is_kept), count(*) FILTER (WHERE NOT k.is_kept) INTO retried, not_kept
      FROM ops.rejects AS j
     CROSS JOIN LATERAL (SELECT CASE j.stage WHEN 'load' THEN octet_length(j.raw) = j.raw_bytes
           ELSE EXISTS (SELECT FROM raw.user_events AS r WHERE r.load_id = j.load_id AND r.line_no = j.line_no) END AS is_kept) AS k
     WHERE j.load_id = _retry_load.load_id;
    line_nos := dwh._accept_lines(_retry_load.load_id, retried_at);
    event_nos := dwh._accept_events(_retry_load.load_id, retried_at);
    loaded := cardinality(line_nos);
    staged := 0; replayed := 0; conflicting := 0;
    still_rejected := retried - loaded - cardinality(event_nos) -
        (SELECT l.blank - blank_before FROM ops.loads AS l WHERE l.load_id = _retry_load.load_id);
    IF loaded + cardinality(event_nos) = 0 THEN
        RETURN;
    ELSIF is_staged THEN   -- stage_events() does all lines of another
        counts := dwh._stage_lines(_retry_load.load_id, line_nos || event_nos);
        staged := counts.staged; replayed := counts.replayed; conflicting := counts.conflicting;
        still_rejected := still_rejected + counts.rejected;
    END IF;
    UPDATE ops.loads AS l
       SET loaded = l.loaded + _retry_load.loaded, rejected = l.rejected - _retry_load.loaded,
           staged = l.staged + _retry_load.staged, replayed = l.replayed + _retry_load.replayed,
           conflicting = l.conflicting + _retry_load.conflicting,
           stage_rejected = l.stage_rejected - cardinality(event_nos) + coalesce(counts.rejected, 0),
           forgotten = l.forgotten + coalesce(counts.forgotten, 0),
           first_event = least(l.first_event, counts.first_event), last_event = greatest(l.last_event, counts.last_event),
           retried_at = CASE WHEN _retry_load.staged = 0 THEN l.retried_at ELSE _retry_load.retried_at END,
           users_at = CASE WHEN _retry_load.staged = 0 THEN l.users_at END,
           products_at = CASE WHEN _retry_load.staged = 0 THEN l.products_at END,
           facts_at = CASE WHEN _retry_load.staged = 0 THEN l.facts_at END,
           checked_at = CASE WHEN _retry_load.loaded + _retry_load.staged + _retry_load.replayed + _retry_load.conflicting
                                  + coalesce(counts.forgotten, 0) = 0 THEN l.checked_at END   -- other counts, other verdicts
     WHERE l.load_id = _retry_load.load_id;
END
$$;
COMMENT ON FUNCTION dwh._retry_load(bigint, boolean, timestamptz) IS
'Tries the rejects of one load again, by that clock; moves its counts, and sends it back to the steps that have something to do. Returns the counts of dwh.retry_result.';

CREATE FUNCTION dwh.retry_rejects(load_id bigint DEFAULT NULL) RETURNS SETOF dwh.retry_result
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
#variable_conflict use_column
DECLARE
    load record;
    result dwh.retry_result;
    retried_at timestamptz;
    not_kept bigint := 0;
    is_changed boolean := false;
BEGIN
    PERFORM dwh._require_warehouse();
    PERFORM dwh._require_load(retry_rejects.load_id);
    PERFORM dwh._lock_pipeline();
    PERFORM dwh._require_retryable(retry_rejects.load_id);
    retried_at := clock_timestamp();
    PERFORM dwh._begin_event_filter();
    FOR load IN
        SELECT l.load_id, l.path, l.staged_at IS NOT NULL AS is_staged FROM ops.loads AS l
         WHERE CASE WHEN retry_rejects.load_id IS NULL THEN l.rejected + l.stage_rejected > 0 AND l.status NOT IN ('quarantined', 'stopped')
                    ELSE l.load_id = retry_rejects.load_id END
         ORDER BY l.load_id
    LOOP
        SELECT load.load_id, load.path,
               CASE WHEN t.loaded > 0 OR t.still_rejected < t.retried THEN 'done' ELSE 'nothing_new' END, t.*
          INTO result FROM dwh._retry_load(load.load_id, load.is_staged, retried_at) AS t;
        not_kept := not_kept + result.not_kept;
        is_changed := is_changed OR result.status = 'done';
        RETURN NEXT result;
    END LOOP;
    PERFORM dwh._end_event_filter();
    IF is_changed THEN
        PERFORM dwh._count_change();
    END IF;
    IF not_kept > 0 THEN
        RAISE NOTICE '% rejects were not kept whole and cannot be tried again', not_kept
            USING HINT = 'dwh.load_jsonl(path, force => true) reads their lines from the file again; events that are there already count as replays.';
    END IF;
END
$$;
REVOKE EXECUTE ON FUNCTION dwh.retry_rejects(bigint) FROM PUBLIC;
COMMENT ON FUNCTION dwh.retry_rejects(bigint) IS
'Tries the kept rejects of a load, or of every load that has some (quarantined and stopped ones aside), again after a fix: events whose time has come by the clock of the retry, lines within a larger dwh.max_line_bytes, whatever a later version accepts. What is accepted leaves ops.rejects and is staged, of a load not staged yet loaded; the counts of ops.loads move with it, and the next steps or run take the load up again. Returns one row a load (dwh.retry_result). Errors: P0002 for an unknown load, 55000 for one that is quarantined or stopped (force => true or a fix releases those), WH004 without a warehouse. A repeat changes nothing and says nothing_new.';
