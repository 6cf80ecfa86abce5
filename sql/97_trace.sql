-- 97_trace.sql: a fact back to its version, load, file, line and byte, with whatever else claimed its event_id.
--
-- Invariants: what is given as bytes is the line that the event came from, compared as a jsonb value, never another one;
-- replays are looked for in loads that have some, by load, conflicts by index: not in all of raw.
-- Repeats are harmless: it only reads.

CREATE TYPE dwh.trace_step AS (
    step_no integer,
    what text,
    load_id bigint,
    line_no bigint,
    path text,
    byte_offset bigint,
    at timestamptz,
    detail jsonb,
    bytes bytea);
COMMENT ON TYPE dwh.trace_step IS
'A place where dwh.trace() found an event: fact, version, product, staged event, raw line, load, run, file (bytes: the line itself), replay, conflict, reject (bytes: what was kept of it), waiting (in raw, not staged), unknown. at: event_time of fact and staged event, valid_from of the version, else when it was written down.';

CREATE FUNCTION dwh._line_bytes(path text, byte_offset bigint) RETURNS bytea
LANGUAGE c VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'dwh_line_bytes';
COMMENT ON FUNCTION dwh._line_bytes(text, bigint) IS
'The line that begins at that byte of the decompressed content of a server file or large_object:<oid>, without its terminator; NULL where the content ends before. Errors as of load_jsonl(path).';

CREATE FUNCTION dwh._trace_layers(event_id uuid)
RETURNS TABLE (what text, load_id bigint, line_no bigint, at timestamptz, detail jsonb)
LANGUAGE sql STABLE ROWS 4 SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET jit = off AS $$
    WITH fact AS MATERIALIZED (SELECT f.* FROM marts.fact_user_events AS f WHERE f.event_id = _trace_layers.event_id)
    SELECT 'fact', f.load_id, f.line_no, f.event_time, to_jsonb(f) - '{event_id,load_id,line_no}'::text[] FROM fact AS f
     UNION ALL
    SELECT 'version', NULL, NULL, d.valid_from, to_jsonb(d) FROM fact AS f JOIN marts.dim_user AS d ON d.user_key = f.user_key
     UNION ALL
    SELECT 'product', NULL, NULL, NULL, to_jsonb(p) FROM fact AS f JOIN marts.dim_product AS p ON p.product_key = f.product_key WHERE p.product_key <> 0
     UNION ALL
    SELECT 'staged event', s.load_id, s.line_no, s.event_time, to_jsonb(s) - '{event_id,load_id,line_no}'::text[]
      FROM staging.user_events AS s WHERE s.event_id = _trace_layers.event_id
$$;
COMMENT ON FUNCTION dwh._trace_layers(uuid) IS 'An event in the marts and in staging.';

-- The file may have been renamed since: what has the same beginning is asked as well.
CREATE FUNCTION dwh._trace_file(load_id bigint, payload jsonb, altered boolean, byte_offset bigint,
    OUT path text, OUT bytes bytea, OUT note text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
#variable_conflict use_column
DECLARE
    candidate text;
    found_bytes bytea;
    line text;
BEGIN
    FOR candidate IN
        SELECT c.path FROM (
            SELECT l.path, true AS is_first FROM ops.loads AS l WHERE l.load_id = _trace_file.load_id
             UNION
            SELECT f.path, false FROM ops.files AS f WHERE f.load_id IN (
                SELECT _trace_file.load_id UNION ALL SELECT o.load_id FROM ops.loads AS o
                 WHERE o.head_sha256 = (SELECT l.head_sha256 FROM ops.loads AS l WHERE l.load_id = _trace_file.load_id))
             EXCEPT SELECT l.path, false FROM ops.loads AS l WHERE l.load_id = _trace_file.load_id) AS c
         ORDER BY c.is_first DESC, c.path LIMIT 10
    LOOP
        BEGIN
            found_bytes := dwh._line_bytes(candidate, byte_offset);
            line := convert_from(found_bytes, 'UTF8');
            IF altered THEN   -- dwh.nul_escapes was replace
                line := regexp_replace(line, '(?<!\\)((?:\\\\)*)\\u0000', '\1\\ufffd', 'g');
            END IF;
            IF line::jsonb = _trace_file.payload THEN
                path := candidate; bytes := found_bytes; note := NULL;
                RETURN;
            END IF;
            note := coalesce(note, CASE WHEN found_bytes IS NULL THEN 'the file ends before' ELSE 'the file has changed: another line is there' END);
        EXCEPTION
            WHEN invalid_text_representation OR character_not_in_repertoire OR untranslatable_character OR statement_too_complex THEN
                note := coalesce(note, 'the file has changed: another line is there');
            WHEN OTHERS THEN   -- no file, no right, no archive any more
                note := coalesce(note, format('%s: %s', SQLSTATE, SQLERRM));
        END;
        path := coalesce(path, candidate);
    END LOOP;
END
$$;
COMMENT ON FUNCTION dwh._trace_file(bigint, jsonb, boolean, bigint) IS
'The bytes of a line of a load, read again from its file, or why they are not to be had.';

CREATE FUNCTION dwh._trace_repeats(event_id uuid, kept_load_id bigint, kept_line_no bigint, kept_payload jsonb)
RETURNS TABLE (what text, load_id bigint, line_no bigint, path text, byte_offset bigint, at timestamptz, detail jsonb)
LANGUAGE sql STABLE ROWS 10 SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET jit = off AS $$
    (SELECT 'replay', r.load_id, r.line_no, l.path, r.byte_offset, r.loaded_at, NULL::jsonb
       FROM ops.loads AS l
      CROSS JOIN LATERAL (SELECT e.* FROM raw.user_events AS e WHERE e.load_id = l.load_id OFFSET 0) AS r   -- by key, load by load
      WHERE l.replayed > 0 AND kept_load_id IS NOT NULL AND (r.load_id, r.line_no) <> (kept_load_id, kept_line_no)
        AND CASE WHEN kept_payload IS NULL THEN dwh.event_id(r.payload) = _trace_repeats.event_id ELSE r.payload = kept_payload END
        AND NOT EXISTS (SELECT FROM ops.event_conflicts AS x WHERE x.load_id = r.load_id AND x.line_no = r.line_no)
        AND NOT EXISTS (SELECT FROM ops.rejects AS j WHERE j.load_id = r.load_id AND j.line_no = r.line_no)
      ORDER BY r.load_id, r.line_no)
     UNION ALL
    (SELECT 'conflict', x.load_id, x.line_no, l.path, r.byte_offset, x.detected_at,
            jsonb_build_object('kept_load_id', x.kept_load_id, 'kept_line_no', x.kept_line_no, 'payload', x.payload)
       FROM ops.event_conflicts AS x
       LEFT JOIN ops.loads AS l ON l.load_id = x.load_id
       LEFT JOIN raw.user_events AS r ON r.load_id = x.load_id AND r.line_no = x.line_no
      WHERE x.event_id = _trace_repeats.event_id ORDER BY x.load_id, x.line_no)
$$;
COMMENT ON FUNCTION dwh._trace_repeats(uuid, bigint, bigint, jsonb) IS
'The replays of the event that was accepted from that line, and the conflicts about its event_id.';

-- Of an event that is in no layer: all rejects are read, and raw of the loads that are not staged.
CREATE FUNCTION dwh._trace_elsewhere(event_id uuid)
RETURNS TABLE (what text, load_id bigint, line_no bigint, path text, byte_offset bigint, at timestamptz, detail jsonb, bytes bytea)
LANGUAGE sql STABLE ROWS 10 SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET jit = off AS $$
    (SELECT 'reject', j.load_id, j.line_no, l.path, j.byte_offset, j.rejected_at,
            jsonb_build_object('stage', j.stage, 'class', j.class, 'message', j.message), j.raw
       FROM ops.rejects AS j
       LEFT JOIN ops.loads AS l ON l.load_id = j.load_id
       LEFT JOIN raw.user_events AS r ON r.load_id = j.load_id AND r.line_no = j.line_no AND j.stage = 'stage'
      WHERE CASE WHEN r.payload IS NULL THEN strpos(lower(encode(j.raw, 'escape')), _trace_elsewhere.event_id::text) > 0
                 ELSE dwh.event_id(r.payload) = _trace_elsewhere.event_id OR lower(r.payload ->> 'event_id') = _trace_elsewhere.event_id::text END
      ORDER BY j.load_id, j.line_no)
     UNION ALL
    (SELECT 'waiting', r.load_id, r.line_no, l.path, r.byte_offset, r.loaded_at, jsonb_build_object('status', l.status, 'payload', r.payload), NULL
       FROM ops.loads AS l
      CROSS JOIN LATERAL (SELECT e.* FROM raw.user_events AS e WHERE e.load_id = l.load_id OFFSET 0) AS r
      WHERE l.staged_at IS NULL AND dwh.event_id(r.payload) = _trace_elsewhere.event_id
        AND NOT EXISTS (SELECT FROM ops.rejects AS j WHERE j.load_id = r.load_id AND j.line_no = r.line_no)
      ORDER BY r.load_id, r.line_no)
$$;
COMMENT ON FUNCTION dwh._trace_elsewhere(uuid) IS 'Where an event is that was not accepted: among the rejects, or in raw and not staged.';

-- The way of an accepted event from raw to its file.
CREATE FUNCTION dwh._trace_source(load_id bigint, line_no bigint)
RETURNS TABLE (what text, path text, byte_offset bigint, at timestamptz, detail jsonb, bytes bytea)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
#variable_conflict use_column
DECLARE
    line record;
    load record;
    file record;
BEGIN
    SELECT r.* INTO line FROM raw.user_events AS r WHERE r.load_id = _trace_source.load_id AND r.line_no = _trace_source.line_no;
    SELECT l.* INTO load FROM ops.loads AS l WHERE l.load_id = _trace_source.load_id;
    IF line.load_id IS NOT NULL THEN
        RETURN QUERY SELECT 'raw line', load.path, line.byte_offset, line.loaded_at, line.payload, NULL::bytea;
    END IF;
    RETURN QUERY SELECT 'load', load.path, NULL::bigint, load.loaded_at,
        jsonb_build_object('status', load.status, 'sha256', load.sha256, 'first_line', load.first_line, 'lines', load.lines, 'bytes', load.bytes,
                           'content_bytes', load.content_bytes, 'continues_load_id', load.continues_load_id, 'run_id', load.run_id), NULL::bytea;
    RETURN QUERY SELECT 'run', r.source, NULL::bigint, r.started_at, jsonb_build_object('run_id', r.run_id, 'status', r.status,
        'caller_run_id', r.caller_run_id, 'trace_id', r.trace_id, 'username', r.username), NULL::bytea FROM ops.runs AS r WHERE r.run_id = load.run_id;
    IF line.load_id IS NULL THEN
        RETURN QUERY SELECT 'file', load.path, NULL::bigint, NULL::timestamptz,
            jsonb_build_object('note', 'its row of raw was dropped: the line is known, not its byte'), NULL::bytea;
        RETURN;
    END IF;
    file := dwh._trace_file(_trace_source.load_id, line.payload, line.altered, line.byte_offset);
    RETURN QUERY SELECT 'file', file.path, line.byte_offset, NULL::timestamptz, jsonb_build_object('note', file.note), file.bytes;
END
$$;
COMMENT ON FUNCTION dwh._trace_source(bigint, bigint) IS 'The way of an accepted event from its line in raw to the bytes in the file.';

CREATE FUNCTION dwh.trace(event_id uuid) RETURNS SETOF dwh.trace_step
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
#variable_conflict use_column
DECLARE
    step dwh.trace_step;
    kept_load_id bigint;
    kept_line_no bigint;
    found record;
BEGIN
    PERFORM dwh._require_warehouse();
    IF trace.event_id IS NULL THEN
        RAISE EXCEPTION 'event_id must not be null'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = 'It is the identity of an event.',
                  HINT = 'Take it from marts.fact_user_events, or compute it: dwh.event_id(payload).';
    END IF;
    step.step_no := 0;
    FOR found IN SELECT t.*, NULL::text AS path, NULL::bigint AS byte_offset FROM dwh._trace_layers(trace.event_id) AS t LOOP
        kept_load_id := coalesce(kept_load_id, found.load_id);
        kept_line_no := coalesce(kept_line_no, found.line_no);
        step := (step.step_no + 1, found.what, found.load_id, found.line_no, NULL, NULL, found.at, found.detail, NULL);
        RETURN NEXT step;
    END LOOP;
    IF kept_load_id IS NOT NULL THEN
        FOR found IN SELECT * FROM dwh._trace_source(kept_load_id, kept_line_no) LOOP
            step := (step.step_no + 1, found.what, kept_load_id, CASE WHEN found.what IN ('raw line', 'file') THEN kept_line_no END, found.path,
                     found.byte_offset, found.at, found.detail, found.bytes);
            RETURN NEXT step;
        END LOOP;
    ELSE
        FOR found IN SELECT * FROM dwh._trace_elsewhere(trace.event_id) LOOP
            step := (step.step_no + 1, found.what, found.load_id, found.line_no, found.path, found.byte_offset, found.at, found.detail, found.bytes);
            RETURN NEXT step;
        END LOOP;
    END IF;
    FOR found IN
        SELECT t.* FROM dwh._trace_repeats(trace.event_id, kept_load_id, kept_line_no,
               (SELECT r.payload FROM raw.user_events AS r WHERE r.load_id = kept_load_id AND r.line_no = kept_line_no)) AS t
    LOOP
        step := (step.step_no + 1, found.what, found.load_id, found.line_no, found.path, found.byte_offset, found.at, found.detail, NULL);
        RETURN NEXT step;
    END LOOP;
    IF kept_load_id IS NULL THEN
        step := (step.step_no + 1, 'unknown', NULL, NULL, NULL, NULL, NULL, jsonb_build_object('note', CASE step.step_no
            WHEN 0 THEN 'nothing has this event_id: it never came, or it was of an erased user or before what drop_before() left of the facts, and is in no layer'
            ELSE 'no fact and no staged event has this event_id' END), NULL);
        RETURN NEXT step;
    END IF;
END
$$;
REVOKE EXECUTE ON FUNCTION dwh.trace(uuid) FROM PUBLIC;
COMMENT ON FUNCTION dwh.trace(uuid) IS
'Walks a fact back: to its version and product, its staged event, its line in raw, load, run, and the bytes of the line, read again from the file where the caller may read it and it still has that line (else detail says why not); then its replays and the conflicts about its event_id. Of an id that is no fact, where else it is: among the rejects, in raw and not staged, or unknown. Byte offsets are those of the decompressed content. Returns one row a place (dwh.trace_step). Errors: 22023 for NULL, 42501 without rights to the tables, WH004 without a warehouse. Reads only; personal data.';
