-- 10_staging.sql: raw.user_events -> staging.user_events: types, validation, identity, dedupe.
--
-- Invariants: loaded = staged + replayed + conflicting + stage_rejected + forgotten, for each load; every event_id is staged once,
-- whatever the partitions; ops.event_filter holds every event_id that was staged.
-- Repeats are harmless: a load that was staged is not staged again (ops.loads.staged_at).

CREATE TYPE dwh.parsed_event AS (
    event_id uuid,
    event_time timestamptz,
    event_type text,
    user_id text,
    session_id text,
    product_id text,
    device text,
    country text,
    category text,
    brand text,
    price numeric,
    revenue numeric,
    quantity integer,
    attributes jsonb,
    flags text[],
    reject_class text,
    reject_message text);
COMMENT ON TYPE dwh.parsed_event IS 'A typed event with revenue computed and flags set, or why the payload is none (reject_class, reject_message; all else NULL).';

CREATE FUNCTION dwh.parse_event(payload jsonb, loaded_at timestamptz DEFAULT NULL) RETURNS dwh.parsed_event
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'dwh_parse_event';
COMMENT ON FUNCTION dwh.parse_event(jsonb, timestamptz) IS
'Reads an event out of a payload, with the types of staging.user_events. loaded_at: events more than 10 minutes later are refused as future_event; NULL = none is. Returns one row; reject_class says why a payload is no event. Errors: none for any payload. Depends on its arguments alone.';

CREATE FUNCTION dwh.event_id(payload jsonb) RETURNS uuid
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'dwh_event_id';
COMMENT ON FUNCTION dwh.event_id(jsonb) IS
'The identity of an event: the UUID sent as event_id; else the version 5 UUID, in namespace 49ed8e02-15dd-5f18-bfd9-42bd0f565928, of the event_id sent or of the event''s canonical text. Returns NULL where the payload is no event. Errors: none. Depends on its argument alone.';

-- Noun: the events of a load as staging wants them, rejects included, repeats not yet sorted out. No SET clause, so that
-- it can be inlined; its operators have operands of exactly their types, so no operator of another schema can match better.
CREATE FUNCTION dwh.typed_events(load_id bigint)
RETURNS TABLE (
    line_no bigint, byte_offset bigint,
    event_id uuid, event_time timestamptz, event_type text, user_id text, session_id text, product_id text,
    device text, country text, category text, brand text, price numeric, revenue numeric, quantity integer,
    attributes jsonb, flags text[], reject_class text, reject_message text)
LANGUAGE sql STABLE AS $$
    SELECT r.line_no, r.byte_offset,
           e.event_id, e.event_time, e.event_type, e.user_id, e.session_id, e.product_id, e.device, e.country, e.category,
           e.brand, e.price, e.revenue, e.quantity, e.attributes, e.flags, e.reject_class, e.reject_message
      FROM raw.user_events AS r
     CROSS JOIN LATERAL dwh.parse_event(r.payload, r.loaded_at) AS e
     WHERE r.load_id = typed_events.load_id
$$;
COMMENT ON FUNCTION dwh.typed_events(bigint) IS
'What the lines of a load are as events: typed, or with the reason of their refusal. Returns one row for each row of the load in raw.user_events. Errors: 42P01 without a warehouse. Reads only.';

CREATE FUNCTION dwh._require_load(load_id bigint) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    IF load_id IS NOT NULL AND NOT EXISTS (SELECT FROM ops.loads AS l WHERE l.load_id = _require_load.load_id) THEN
        RAISE EXCEPTION 'load % does not exist', _require_load.load_id
            USING ERRCODE = 'no_data_found',
                  DETAIL = 'ops.loads has no such load_id.',
                  HINT = 'SELECT load_id, path, status FROM ops.loads ORDER BY load_id DESC lists the loads.';
    END IF;
END
$$;
COMMENT ON FUNCTION dwh._require_load(bigint) IS 'Raises P0002 for a load_id that is not in the ledger; NULL passes.';

-- The pipeline's lock is a row lock: only who may write the warehouse can take it, it ends with the transaction, and a
-- transaction whose snapshot is older than another's changes gets 40001 instead of working on what it cannot see.
CREATE FUNCTION dwh._lock_pipeline() RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS 'SELECT FROM ops.warehouse AS w FOR UPDATE';
COMMENT ON FUNCTION dwh._lock_pipeline() IS
'Waits until no other transaction changes staging or marts, and holds others off until commit. 40001 where the snapshot is too old.';

CREATE FUNCTION dwh._count_change() RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS 'UPDATE ops.warehouse AS w SET changes = w.changes + 1';
COMMENT ON FUNCTION dwh._count_change() IS 'Says that this transaction changes staging or marts: older snapshots are too old from then on.';

CREATE FUNCTION dwh._claim_loads(step text, load_id bigint) RETURNS bigint[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    load record;
    load_ids bigint[];
BEGIN
    PERFORM dwh._require_warehouse();
    PERFORM dwh._require_load(_claim_loads.load_id);
    PERFORM dwh._lock_pipeline();
    IF load_id IS NOT NULL THEN
        SELECT l.* INTO load FROM ops.loads AS l WHERE l.load_id = _claim_loads.load_id;
        IF load.status NOT IN ('quarantined', 'stopped') AND
           (load.staged_at IS NULL OR step = 'facts' AND (load.users_at IS NULL OR load.products_at IS NULL)) THEN
            RAISE EXCEPTION 'load % is not ready for this step', load.load_id
                USING ERRCODE = 'object_not_in_prerequisite_state',
                      DETAIL = format('staged_at is %s, users_at is %s, products_at is %s.', coalesce(load.staged_at::text, 'null'),
                                      coalesce(load.users_at::text, 'null'), coalesce(load.products_at::text, 'null')),
                      HINT = 'The order is stage_events, apply_scd2 and upsert_products, load_facts, run_quality_checks.';
        END IF;
    END IF;
    load_ids := ARRAY(
        SELECT l.load_id FROM ops.loads AS l
         WHERE l.checked_at IS NULL AND l.staged_at IS NOT NULL AND l.status NOT IN ('quarantined', 'stopped')
           AND CASE step WHEN 'users' THEN l.users_at IS NULL
                         WHEN 'products' THEN l.products_at IS NULL
                         WHEN 'facts' THEN l.facts_at IS NULL AND l.users_at IS NOT NULL AND l.products_at IS NOT NULL END
           AND (_claim_loads.load_id IS NULL OR l.load_id = _claim_loads.load_id)
         ORDER BY l.load_id);
    IF cardinality(load_ids) > 0 THEN
        PERFORM dwh._count_change();
    END IF;
    RETURN load_ids;
END
$$;
COMMENT ON FUNCTION dwh._claim_loads(text, bigint) IS
'Takes the pipeline''s lock and returns the loads that a step (users, products, facts) has to do: that load, or all. 55000 where the steps before it are missing.';

CREATE FUNCTION dwh._require_free_names(names text[]) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    taken text := (SELECT min(c.relname) FROM pg_class AS c WHERE c.relnamespace = pg_my_temp_schema() AND c.relname = ANY (names));
BEGIN
    IF taken IS NOT NULL THEN
        RAISE EXCEPTION 'a temporary object of this session has the name "%"', taken
            USING ERRCODE = 'duplicate_table',
                  DETAIL = 'The step makes a work table of that name.',
                  HINT = 'Drop or rename the object, or call in another session.';
    END IF;
END
$$;
COMMENT ON FUNCTION dwh._require_free_names(text[]) IS 'Raises 42P07 where the session has a temporary object of such a name, which a step needs for a work table.';

-- Noun: more than dwh.max_reject_share of a load's non-blank lines are refused, and at least 10 of them or all.
CREATE FUNCTION dwh._is_poisoned(refused bigint, counted bigint) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT refused > dwh._setting('max_reject_share')::float8 * counted AND (refused >= 10 OR refused = counted)
$$;
COMMENT ON FUNCTION dwh._is_poisoned(bigint, bigint) IS
'True if so many of the counted (non-blank) lines are refused that the load is to be quarantined.';

-- Noun: where the events with these ids are that were accepted before; the rest have no row. Most have the time that they
-- had, so their own partition is asked first. OFFSET 0 keeps it a look-up by key: it costs by the ids, never by the history.
CREATE FUNCTION dwh._known_events(ids uuid[], times timestamptz[])
RETURNS TABLE ("position" bigint, load_id bigint, line_no bigint)
LANGUAGE sql STABLE ROWS 1000 SET search_path = pg_catalog, pg_temp SET jit = off AS $$
    SELECT u.position, k.load_id, k.line_no
      FROM unnest(ids, times) WITH ORDINALITY AS u (id, event_time, position)
     CROSS JOIN LATERAL (
            SELECT s.load_id, s.line_no FROM staging.user_events AS s WHERE s.event_id = u.id AND s.event_time = u.event_time
             UNION ALL
            SELECT s.load_id, s.line_no FROM staging.user_events AS s WHERE s.event_id = u.id
             UNION ALL
            SELECT f.load_id, f.line_no FROM marts.fact_user_events AS f WHERE f.event_id = u.id
             UNION ALL   -- the event that stays was dropped, the other claims to its id were kept
            SELECT x.kept_load_id, x.kept_line_no FROM ops.event_conflicts AS x CROSS JOIN ops.warehouse AS w
             WHERE x.event_id = u.id AND u.event_time >= w.facts_since AND x.kept_fingerprint IS NOT NULL
             LIMIT 1 OFFSET 0) AS k
$$;
COMMENT ON FUNCTION dwh._known_events(uuid[], timestamptz[]) IS
'The load and line of the events that were accepted with these ids, by position in the array; times are those they come with now.';

CREATE FUNCTION dwh._fingerprint(payload jsonb) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT encode(sha256(convert_to(payload::text, 'UTF8')), 'hex')
$$;
COMMENT ON FUNCTION dwh._fingerprint(jsonb) IS 'SHA-256 of a payload as jsonb prints it, in hexadecimal: equal for equal payloads with numbers written alike.';

CREATE FUNCTION dwh._is_kept_event(event_id uuid, payload jsonb) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
    SELECT EXISTS (
        SELECT FROM staging.user_events AS s
         WHERE s.event_id = _is_kept_event.event_id
           AND (s.event_time, s.event_type, s.user_id, s.session_id, s.product_id, s.device, s.country, s.category, s.brand,
                s.price, s.revenue, s.quantity, s.attributes)
               IS NOT DISTINCT FROM (e.event_time, e.event_type, e.user_id, e.session_id, e.product_id, e.device, e.country,
                e.category, e.brand, e.price, e.revenue, e.quantity, e.attributes))
        OR EXISTS (
        SELECT FROM marts.fact_user_events AS f
          JOIN marts.dim_user AS d ON d.user_key = f.user_key
          JOIN marts.dim_product AS p ON p.product_key = f.product_key
         WHERE f.event_id = _is_kept_event.event_id
           AND NOT EXISTS (SELECT FROM staging.user_events AS s WHERE s.event_id = _is_kept_event.event_id)
           AND (f.event_time, f.event_type, d.user_id, f.session_id, p.product_id, f.price, f.revenue, f.quantity, f.attributes)
               IS NOT DISTINCT FROM (e.event_time, e.event_type, e.user_id, e.session_id, coalesce(e.product_id, ''), e.price,
                e.revenue, e.quantity, e.attributes))
        OR EXISTS (   -- a conflict remembers the payload of what was dropped
        SELECT FROM ops.event_conflicts AS x
         WHERE x.event_id = _is_kept_event.event_id AND x.kept_fingerprint = dwh._fingerprint(_is_kept_event.payload))
      FROM dwh.parse_event(_is_kept_event.payload) AS e
$$;
COMMENT ON FUNCTION dwh._is_kept_event(uuid, jsonb) IS
'True if the event that was accepted with that id says the same as this payload, by the columns that staging, or else the facts, hold of it: where raw was trimmed, its payload is gone.';

-- No SET clause, so that it is inlined where many are compared.
CREATE FUNCTION dwh._is_replay(event_id uuid, payload jsonb, kept_payload jsonb) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN kept_payload IS NULL THEN dwh._is_kept_event(event_id, payload)
                ELSE payload OPERATOR(pg_catalog.=) kept_payload END
$$;
COMMENT ON FUNCTION dwh._is_replay(uuid, jsonb, jsonb) IS
'True if a payload says the same as the event that was accepted with its id, of which kept_payload is what raw holds; NULL = it was trimmed there.';

CREATE FUNCTION dwh._judge_repeats(
    load_id bigint, ids uuid[], line_nos bigint[], kept_load_ids bigint[], kept_line_nos bigint[],
    OUT replayed bigint, OUT conflicting bigint)
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
    WITH compared AS MATERIALIZED (
        SELECT p.*, sent.payload, kept.payload AS kept_payload,
               dwh._is_replay(p.event_id, sent.payload, kept.payload) AS is_replay
          FROM unnest(ids, line_nos, kept_load_ids, kept_line_nos) AS p (event_id, line_no, kept_load_id, kept_line_no)
         CROSS JOIN LATERAL (SELECT r.payload FROM raw.user_events AS r
               WHERE r.load_id = _judge_repeats.load_id AND r.line_no = p.line_no OFFSET 0) AS sent
          LEFT JOIN LATERAL (SELECT r.payload FROM raw.user_events AS r
               WHERE r.load_id = p.kept_load_id AND r.line_no = p.kept_line_no OFFSET 0) AS kept ON true),
    conflicts AS (
        INSERT INTO ops.event_conflicts (load_id, line_no, event_id, kept_load_id, kept_line_no, payload, fingerprint, kept_fingerprint)
        SELECT _judge_repeats.load_id, c.line_no, c.event_id, c.kept_load_id, c.kept_line_no, c.payload,
               dwh._fingerprint(c.payload), dwh._fingerprint(c.kept_payload)
          FROM compared AS c WHERE NOT c.is_replay)
    SELECT count(*) FILTER (WHERE c.is_replay), count(*) FILTER (WHERE NOT c.is_replay) FROM compared AS c
$$;
COMMENT ON FUNCTION dwh._judge_repeats(bigint, uuid[], bigint[], bigint[], bigint[]) IS
'Tells replays from conflicts among lines of a load whose event_id was accepted before, by the payloads as jsonb values, keeps the conflicts in ops.event_conflicts, and returns the counts.';

CREATE FUNCTION dwh._forget_lines(load_id bigint, line_nos bigint[]) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM raw.user_events AS r WHERE r.load_id = _forget_lines.load_id AND r.line_no = ANY (line_nos)
$$;
COMMENT ON FUNCTION dwh._forget_lines(bigint, bigint[]) IS 'Takes lines of a load out of raw: of erased users, and older than the facts go back.';

CREATE FUNCTION dwh._reject_late(load_id bigint, line_nos bigint[]) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO, YMD' AS $$
    INSERT INTO ops.rejects (load_id, line_no, byte_offset, stage, class, message, raw, raw_bytes)
    SELECT r.load_id, r.line_no, r.byte_offset, 'stage', 'out_of_range',
           format('event_time is before %s, where the history in staging begins (drop_before)', w.staging_since),
           substring(t.bytes FOR 4096), octet_length(t.bytes)
      FROM raw.user_events AS r
     CROSS JOIN ops.warehouse AS w
     CROSS JOIN LATERAL (SELECT convert_to(r.payload::text, 'UTF8') AS bytes) AS t
     WHERE r.load_id = _reject_late.load_id AND r.line_no = ANY (line_nos)
$$;
COMMENT ON FUNCTION dwh._reject_late(bigint, bigint[]) IS
'Keeps events of a load in ops.rejects that are from before what drop_before() left of staging, as out_of_range.';

CREATE FUNCTION dwh._fill_event_filter(load_ids bigint[]) RETURNS bigint
LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'dwh_fill_event_filter';
COMMENT ON FUNCTION dwh._fill_event_filter(bigint[]) IS 'Puts every staged event_id of these loads, NULL = of staging and facts, into ops.event_filter; returns how many.';

CREATE FUNCTION dwh._begin_event_filter() RETURNS void
LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'dwh_begin_event_filter';
COMMENT ON FUNCTION dwh._begin_event_filter() IS 'What is staged from now on shares one filter in memory, as ops.event_filter has it; what an earlier one held and did not write is lost.';

CREATE FUNCTION dwh._end_event_filter() RETURNS void
LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'dwh_end_event_filter';
COMMENT ON FUNCTION dwh._end_event_filter() IS 'Writes the shared filter into ops.event_filter.';

CREATE FUNCTION dwh._rebuild_event_filter() RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM dwh._lock_pipeline();
    DELETE FROM ops.event_filter;
    RETURN dwh._fill_event_filter(NULL);
END
$$;
COMMENT ON FUNCTION dwh._rebuild_event_filter() IS
'Makes ops.event_filter anew from staging and facts, for who restored or changed them by hand; returns the number of events.';

CREATE TYPE dwh.stage_counts AS (
    staged bigint,
    replayed bigint,
    conflicting bigint,
    rejected bigint,
    forgotten bigint,
    first_event timestamptz,
    last_event timestamptz);
COMMENT ON TYPE dwh.stage_counts IS 'What became of the events that were to be staged, and the bounds of the event_time of those that were.';

CREATE FUNCTION dwh._stage_load(load_id bigint) RETURNS dwh.stage_counts
LANGUAGE c VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'dwh_stage_load';
COMMENT ON FUNCTION dwh._stage_load(bigint) IS
'Writes the events of one load into staging, refused ones into ops.rejects, conflicting ones into ops.event_conflicts, takes forgotten ones out of raw; returns the counts.';

CREATE FUNCTION dwh._stage_lines(load_id bigint, line_nos bigint[]) RETURNS dwh.stage_counts
LANGUAGE c VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'dwh_stage_lines';
COMMENT ON FUNCTION dwh._stage_lines(bigint, bigint[]) IS 'The same for these lines of a load, none of which is staged yet.';

CREATE FUNCTION dwh._reject_load(load_id bigint) RETURNS dwh.stage_counts
LANGUAGE c VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'dwh_reject_load';
COMMENT ON FUNCTION dwh._reject_load(bigint) IS
'Stages nothing of a load: keeps the events that staging refuses in ops.rejects, takes forgotten ones out of raw; returns the counts.';

CREATE FUNCTION dwh._less_erased(load_id bigint, counts dwh.stage_counts) RETURNS dwh.stage_counts
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    erased bigint := dwh._forget_refused(_less_erased.load_id);
BEGIN
    counts.rejected := counts.rejected - erased;
    counts.forgotten := counts.forgotten + erased;
    RETURN counts;
END
$$;
COMMENT ON FUNCTION dwh._less_erased(bigint, dwh.stage_counts) IS 'Forgets what staging refused of erased users as well, and returns the counts as they are then.';

CREATE FUNCTION dwh.stage_events(
    load_id bigint DEFAULT NULL,
    OUT status text, OUT loads bigint, OUT rows_in bigint, OUT staged bigint, OUT replayed bigint, OUT conflicting bigint,
    OUT rejected bigint, OUT quarantined bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
#variable_conflict use_column
DECLARE
    load record;
    counts dwh.stage_counts;
    done bigint[] := '{}';
BEGIN
    PERFORM dwh._require_warehouse();
    PERFORM dwh._require_load(stage_events.load_id);
    PERFORM dwh._lock_pipeline();
    loads := 0; rows_in := 0; staged := 0; replayed := 0; conflicting := 0; rejected := 0; quarantined := 0;
    PERFORM dwh._begin_event_filter();
    FOR load IN
        SELECT l.* FROM ops.loads AS l
         WHERE l.checked_at IS NULL AND l.staged_at IS NULL AND l.status NOT IN ('quarantined', 'stopped')
           AND (stage_events.load_id IS NULL OR l.load_id = stage_events.load_id)
         ORDER BY l.load_id
    LOOP
        loads := loads + 1;
        rows_in := rows_in + load.loaded;
        BEGIN
            counts := dwh._less_erased(load.load_id, dwh._stage_load(load.load_id));
            rejected := rejected + counts.rejected;
            IF NOT load.forced AND dwh._is_poisoned(load.rejected + counts.rejected, load.lines - load.blank) THEN
                RAISE EXCEPTION 'load % is poisoned', load.load_id
                    USING ERRCODE = 'P0W01', DETAIL = 'It has too many refused lines.', HINT = 'Caught below, where its load is undone.';
            END IF;
            staged := staged + counts.staged;
            replayed := replayed + counts.replayed;
            conflicting := conflicting + counts.conflicting;
            UPDATE ops.loads AS l
               SET staged = counts.staged, replayed = counts.replayed, conflicting = counts.conflicting,
                   stage_rejected = counts.rejected, forgotten = l.forgotten + counts.forgotten,
                   first_event = counts.first_event, last_event = counts.last_event, staged_at = clock_timestamp()
             WHERE l.load_id = load.load_id;
            done := done || load.load_id;
        EXCEPTION WHEN SQLSTATE 'P0W01' THEN   -- what was staged of it is undone, it goes no further
            PERFORM dwh._begin_event_filter();   -- it may have filled a tier, which is undone as well
            PERFORM dwh._fill_event_filter(done);
            counts := dwh._less_erased(load.load_id, dwh._reject_load(load.load_id));
            UPDATE ops.loads AS l
               SET status = 'quarantined', stage_rejected = counts.rejected, forgotten = l.forgotten + counts.forgotten
             WHERE l.load_id = load.load_id;
            quarantined := quarantined + 1;
        END;
    END LOOP;
    PERFORM dwh._end_event_filter();
    status := CASE WHEN loads = 0 THEN 'nothing_new' ELSE 'done' END;
    IF loads > 0 THEN
        PERFORM dwh._count_change();
    END IF;
END
$$;
REVOKE EXECUTE ON FUNCTION dwh.stage_events(bigint) FROM PUBLIC;
COMMENT ON FUNCTION dwh.stage_events(bigint) IS
'Turns the raw events of a load, or of every load not staged yet, into typed rows of staging.user_events, each event_id once; keeps refused ones in ops.rejects and conflicting ones in ops.event_conflicts; quarantines a load with too many refused lines. Returns one row of counts: loads, events. Errors: P0002 for an unknown load, WH004 without a warehouse. A repeat changes nothing and says nothing_new.';
