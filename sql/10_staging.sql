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
    reject_class text,
    reject_message text);
COMMENT ON TYPE dwh.parsed_event IS 'A typed event as sent, or why the payload is none (reject_class, reject_message; all else NULL).';

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
           e.event_id, e.event_time, e.event_type, e.user_id, e.session_id, e.product_id,
           e.device, e.country, e.category, e.brand, e.price,
           CASE WHEN e.revenue IS NULL AND e.event_type = 'purchase'
                THEN e.price * e.quantity::pg_catalog.numeric ELSE e.revenue END,
           e.quantity, e.attributes,
           CASE WHEN e.price IS NOT NULL OR e.revenue IS NOT NULL THEN
           NULLIF(pg_catalog.array_remove(ARRAY[
               CASE WHEN e.price < 0::pg_catalog.numeric THEN 'negative_price' END,
               CASE WHEN e.revenue < 0::pg_catalog.numeric THEN 'negative_revenue' END,
               CASE WHEN e.revenue <> (e.price * e.quantity::pg_catalog.numeric)
                    THEN 'revenue_mismatch' END,
               CASE WHEN e.revenue IS NULL AND e.event_type = 'purchase'
                         AND e.price IS NOT NULL AND e.quantity IS NOT NULL THEN 'revenue_computed' END,
               CASE WHEN e.revenue IS NOT NULL AND e.event_type <> 'purchase'
                    THEN 'revenue_outside_purchase' END]::pg_catalog.text[], NULL), '{}'::pg_catalog.text[]) END,
           e.reject_class, e.reject_message
      FROM raw.user_events AS r
     CROSS JOIN LATERAL dwh.parse_event(r.payload, r.loaded_at) AS e
     WHERE r.load_id = typed_events.load_id
$$;
COMMENT ON FUNCTION dwh.typed_events(bigint) IS
'What the lines of a load are as events: typed, with revenue computed and flags set, or with the reason of their refusal. Returns one row for each row of the load in raw.user_events. Errors: 42P01 without a warehouse. Reads only.';

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

CREATE FUNCTION dwh._pipeline_lock() RETURNS bigint
LANGUAGE sql IMMUTABLE AS 'SELECT 7239369275230650369::pg_catalog.int8';
COMMENT ON FUNCTION dwh._pipeline_lock() IS
'Key of the advisory lock that every step after loading holds until commit: one writer of staging and marts at a time.';

CREATE FUNCTION dwh._claim_loads(step text, load_id bigint) RETURNS bigint[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    load ops.loads;
BEGIN
    PERFORM dwh._require_warehouse();
    PERFORM dwh._require_load(_claim_loads.load_id);
    PERFORM pg_advisory_xact_lock(dwh._pipeline_lock());
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
    RETURN ARRAY(
        SELECT l.load_id FROM ops.loads AS l
         WHERE l.checked_at IS NULL AND l.staged_at IS NOT NULL AND l.status NOT IN ('quarantined', 'stopped')
           AND CASE step WHEN 'users' THEN l.users_at IS NULL
                         WHEN 'products' THEN l.products_at IS NULL
                         WHEN 'facts' THEN l.facts_at IS NULL AND l.users_at IS NOT NULL AND l.products_at IS NOT NULL END
           AND (_claim_loads.load_id IS NULL OR l.load_id = _claim_loads.load_id)
         ORDER BY l.load_id);
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

CREATE FUNCTION dwh._keep_stage_rejects(load_id bigint) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    kept bigint;
BEGIN
    INSERT INTO ops.rejects (load_id, line_no, byte_offset, stage, class, message, raw, raw_bytes)
    SELECT r.load_id, r.line_no, r.byte_offset, 'stage', e.reject_class, e.reject_message,
           substring(convert_to(r.payload::text, 'UTF8') FOR 4096), octet_length(r.payload::text)
      FROM raw.user_events AS r
     CROSS JOIN LATERAL dwh.parse_event(r.payload, r.loaded_at) AS e
     WHERE r.load_id = _keep_stage_rejects.load_id AND e.reject_class IS NOT NULL;
    GET DIAGNOSTICS kept = ROW_COUNT;
    RETURN kept;
END
$$;
COMMENT ON FUNCTION dwh._keep_stage_rejects(bigint) IS 'Writes the events of a load that are refused into ops.rejects; returns how many.';

CREATE FUNCTION dwh._stage_load(load_id bigint, OUT staged bigint, OUT replayed bigint, OUT conflicting bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    -- One statement, so that all parts see staging as it was before. The lower line of a load wins; what an earlier load
    -- accepted stays. The window leaves the rows sorted by event_id, and so they go in: inserting random keys in arrival
    -- order is the dearest thing a btree can be asked for.
    WITH typed AS MATERIALIZED (
        SELECT t.*, min(t.line_no) OVER (PARTITION BY t.event_id) AS first_line
          FROM dwh.typed_events(_stage_load.load_id) AS t
         WHERE t.reject_class IS NULL),
    accepted AS (
        INSERT INTO staging.user_events AS s (
               event_id, event_time, event_type, user_id, session_id, product_id, device, country, category, brand,
               price, revenue, quantity, attributes, load_id, line_no, flags)
        SELECT t.event_id, t.event_time, t.event_type, t.user_id, t.session_id, t.product_id, t.device, t.country,
               t.category, t.brand, t.price, t.revenue, t.quantity, t.attributes, _stage_load.load_id, t.line_no, t.flags
          FROM typed AS t
         WHERE t.line_no = t.first_line
           AND NOT EXISTS (SELECT FROM staging.user_events AS s WHERE s.event_id = t.event_id)
        RETURNING s.event_id),
    repeated AS (
        SELECT t.event_id, t.line_no,
               coalesce(s.load_id, _stage_load.load_id) AS kept_load_id, coalesce(s.line_no, t.first_line) AS kept_line_no
          FROM typed AS t
          LEFT JOIN LATERAL (SELECT s.load_id, s.line_no FROM staging.user_events AS s
                              WHERE s.event_id = t.event_id OFFSET 0) AS s ON true
         WHERE t.line_no <> t.first_line OR NOT EXISTS (SELECT FROM accepted AS a WHERE a.event_id = t.event_id)),
    compared AS (
        SELECT p.*, sent.payload, sent.payload = kept.payload AS is_replay
          FROM repeated AS p
          JOIN raw.user_events AS sent ON sent.load_id = _stage_load.load_id AND sent.line_no = p.line_no
          JOIN raw.user_events AS kept ON kept.load_id = p.kept_load_id AND kept.line_no = p.kept_line_no),
    conflicts AS (
        INSERT INTO ops.event_conflicts (load_id, line_no, event_id, kept_load_id, kept_line_no, payload)
        SELECT _stage_load.load_id, c.line_no, c.event_id, c.kept_load_id, c.kept_line_no, c.payload
          FROM compared AS c WHERE NOT c.is_replay)
    SELECT (SELECT count(*) FROM accepted), count(*) FILTER (WHERE c.is_replay), count(*) FILTER (WHERE NOT c.is_replay)
      INTO staged, replayed, conflicting
      FROM compared AS c;
END
$$;
COMMENT ON FUNCTION dwh._stage_load(bigint) IS
'Writes the events of one load into staging, and the conflicting ones into ops.event_conflicts; returns the counts.';

CREATE FUNCTION dwh.stage_events(
    load_id bigint DEFAULT NULL,
    OUT status text, OUT loads bigint, OUT rows_in bigint, OUT staged bigint, OUT replayed bigint, OUT conflicting bigint,
    OUT rejected bigint, OUT quarantined bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    load ops.loads;
    counts record;
    refused bigint;
BEGIN
    PERFORM dwh._require_warehouse();
    PERFORM dwh._require_load(stage_events.load_id);
    PERFORM pg_advisory_xact_lock(dwh._pipeline_lock());
    loads := 0; rows_in := 0; staged := 0; replayed := 0; conflicting := 0; rejected := 0; quarantined := 0;
    FOR load IN
        SELECT l.* FROM ops.loads AS l
         WHERE l.checked_at IS NULL AND l.staged_at IS NULL AND l.status NOT IN ('quarantined', 'stopped')
           AND (stage_events.load_id IS NULL OR l.load_id = stage_events.load_id)
         ORDER BY l.load_id
    LOOP
        refused := dwh._keep_stage_rejects(load.load_id);
        loads := loads + 1;
        rows_in := rows_in + load.loaded;
        rejected := rejected + refused;
        IF NOT load.forced AND dwh._is_poisoned(load.rejected + refused, load.lines - load.blank) THEN
            quarantined := quarantined + 1;
            UPDATE ops.loads AS l SET status = 'quarantined', stage_rejected = refused WHERE l.load_id = load.load_id;
            CONTINUE;
        END IF;
        counts := dwh._stage_load(load.load_id);
        staged := staged + counts.staged;
        replayed := replayed + counts.replayed;
        conflicting := conflicting + counts.conflicting;
        UPDATE ops.loads AS l
           SET staged = counts.staged, replayed = counts.replayed, conflicting = counts.conflicting,
               stage_rejected = refused, staged_at = clock_timestamp()
         WHERE l.load_id = load.load_id;
    END LOOP;
    status := CASE WHEN loads = 0 THEN 'nothing_new' ELSE 'done' END;
END
$$;
REVOKE EXECUTE ON FUNCTION dwh.stage_events(bigint) FROM PUBLIC;
COMMENT ON FUNCTION dwh.stage_events(bigint) IS
'Turns the raw events of a load, or of every load not staged yet, into typed rows of staging.user_events, each event_id once; keeps refused ones in ops.rejects and conflicting ones in ops.event_conflicts; quarantines a load with too many refused lines. Returns one row of counts: loads, events. Errors: P0002 for an unknown load, WH004 without a warehouse. A repeat changes nothing and says nothing_new.';
