-- 10_staging.sql: raw.user_events -> staging.user_events: types, validation, identity, dedupe.
--
-- Invariant: loaded = staged + replayed + conflicting + stage_rejected + forgotten, for each load.
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

-- Noun: more than dwh.max_reject_share of a load's non-blank lines are refused, and at least 10 of them or all.
CREATE FUNCTION dwh._is_poisoned(refused bigint, counted bigint) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT refused > dwh._setting('max_reject_share')::float8 * counted AND (refused >= 10 OR refused = counted)
$$;
COMMENT ON FUNCTION dwh._is_poisoned(bigint, bigint) IS
'True if so many of the counted (non-blank) lines are refused that the load is to be quarantined.';

CREATE FUNCTION dwh._stage_load(
    load_id bigint, OUT staged bigint, OUT replayed bigint, OUT conflicting bigint, OUT rejected bigint)
LANGUAGE c VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'dwh_stage_load';
COMMENT ON FUNCTION dwh._stage_load(bigint) IS
'Writes the events of one load into staging, refused ones into ops.rejects, conflicting ones into ops.event_conflicts; returns the counts.';

CREATE FUNCTION dwh._stage_lines(
    load_id bigint, line_nos bigint[], OUT staged bigint, OUT replayed bigint, OUT conflicting bigint, OUT rejected bigint)
LANGUAGE c VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'dwh_stage_lines';
COMMENT ON FUNCTION dwh._stage_lines(bigint, bigint[]) IS 'The same for these lines of a load, none of which is staged yet.';

CREATE FUNCTION dwh._reject_load(load_id bigint) RETURNS bigint
LANGUAGE c VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'dwh_reject_load';
COMMENT ON FUNCTION dwh._reject_load(bigint) IS
'Keeps the events of a load that staging refuses in ops.rejects, and stages nothing; returns how many there are.';

-- temporary: until _stage_load() refuses them itself
CREATE FUNCTION dwh._drop_forgotten(load_id bigint, OUT staged bigint, OUT replayed bigint, OUT conflicting bigint, OUT rejected bigint, OUT forgotten bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    lines bigint[];
    users text[];
    place integer;
    gone bigint[] := '{}';
BEGIN
    SELECT array_agg(r.line_no ORDER BY r.line_no), array_agg(r.payload ->> 'user_id' ORDER BY r.line_no) INTO lines, users
      FROM raw.user_events AS r WHERE r.load_id = _drop_forgotten.load_id AND jsonb_typeof(r.payload -> 'user_id') IN ('string', 'number');
    FOREACH place IN ARRAY dwh._forgotten(users) LOOP
        gone := gone || lines[place];
    END LOOP;
    DELETE FROM staging.user_events AS s WHERE s.load_id = _drop_forgotten.load_id AND s.line_no = ANY (gone);
    GET DIAGNOSTICS staged = ROW_COUNT;
    DELETE FROM ops.event_conflicts AS s WHERE s.load_id = _drop_forgotten.load_id AND s.line_no = ANY (gone);
    GET DIAGNOSTICS conflicting = ROW_COUNT;
    DELETE FROM ops.rejects AS s WHERE s.load_id = _drop_forgotten.load_id AND s.line_no = ANY (gone) AND s.stage = 'stage';
    GET DIAGNOSTICS rejected = ROW_COUNT;
    DELETE FROM raw.user_events AS s WHERE s.load_id = _drop_forgotten.load_id AND s.line_no = ANY (gone);
    GET DIAGNOSTICS forgotten = ROW_COUNT;
    replayed := forgotten - staged - conflicting - rejected;
    PERFORM dwh._forget_refused(_drop_forgotten.load_id);
END
$$;
COMMENT ON FUNCTION dwh._drop_forgotten(bigint) IS 'Takes what a load holds of erased users out of staging, conflicts, rejects and raw again; returns the counts.';

CREATE FUNCTION dwh.stage_events(
    load_id bigint DEFAULT NULL,
    OUT status text, OUT loads bigint, OUT rows_in bigint, OUT staged bigint, OUT replayed bigint, OUT conflicting bigint,
    OUT rejected bigint, OUT quarantined bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    load record;
    counts record;
    erased record;
BEGIN
    PERFORM dwh._require_warehouse();
    PERFORM dwh._require_load(stage_events.load_id);
    PERFORM dwh._lock_pipeline();
    loads := 0; rows_in := 0; staged := 0; replayed := 0; conflicting := 0; rejected := 0; quarantined := 0;
    FOR load IN
        SELECT l.* FROM ops.loads AS l
         WHERE l.checked_at IS NULL AND l.staged_at IS NULL AND l.status NOT IN ('quarantined', 'stopped')
           AND (stage_events.load_id IS NULL OR l.load_id = stage_events.load_id)
         ORDER BY l.load_id
    LOOP
        loads := loads + 1;
        rows_in := rows_in + load.loaded;
        BEGIN
            counts := dwh._stage_load(load.load_id);
            erased := dwh._drop_forgotten(load.load_id);
            SELECT counts.staged - erased.staged AS staged, counts.replayed - erased.replayed AS replayed,
                   counts.conflicting - erased.conflicting AS conflicting, counts.rejected - erased.rejected AS rejected INTO counts;
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
                   stage_rejected = counts.rejected, forgotten = l.forgotten + erased.forgotten, staged_at = clock_timestamp()
             WHERE l.load_id = load.load_id;
        EXCEPTION WHEN SQLSTATE 'P0W01' THEN   -- what was staged of it is undone, it goes no further
            counts := ROW (dwh._reject_load(load.load_id));
            erased := dwh._drop_forgotten(load.load_id);
            UPDATE ops.loads AS l SET status = 'quarantined', stage_rejected = counts.f1 - erased.rejected, forgotten = l.forgotten + erased.forgotten
             WHERE l.load_id = load.load_id;
            quarantined := quarantined + 1;
        END;
    END LOOP;
    status := CASE WHEN loads = 0 THEN 'nothing_new' ELSE 'done' END;
    IF loads > 0 THEN
        PERFORM dwh._count_change();
    END IF;
END
$$;
REVOKE EXECUTE ON FUNCTION dwh.stage_events(bigint) FROM PUBLIC;
COMMENT ON FUNCTION dwh.stage_events(bigint) IS
'Turns the raw events of a load, or of every load not staged yet, into typed rows of staging.user_events, each event_id once; keeps refused ones in ops.rejects and conflicting ones in ops.event_conflicts; quarantines a load with too many refused lines. Returns one row of counts: loads, events. Errors: P0002 for an unknown load, WH004 without a warehouse. A repeat changes nothing and says nothing_new.';
