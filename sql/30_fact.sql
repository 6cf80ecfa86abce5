-- 30_fact.sql: staging.user_events -> marts.fact_user_events, each event joined to the version valid at its time.
--
-- Invariant: staged = facts, for each load; every fact points to the version of its user that holds its event_time.
-- Repeats are harmless: a load that has its facts gets none again (ops.loads.facts_at); one that retry_rejects() sent back
-- gets those that are missing.

-- Noun: the facts of a load.
CREATE FUNCTION dwh.resolved_facts(load_id bigint)
RETURNS TABLE (
    event_id uuid, event_time timestamptz, event_type text, session_id text, user_key bigint, product_key bigint,
    quantity integer, price numeric, revenue numeric, attributes jsonb, line_no bigint)
LANGUAGE sql STABLE AS $$
    SELECT s.event_id, s.event_time, s.event_type, s.session_id, d.user_key, p.product_key,
           s.quantity, s.price, s.revenue, s.attributes, s.line_no
      FROM staging.user_events AS s
      JOIN marts.dim_user AS d ON d.user_id = s.user_id AND d.valid_from <= s.event_time
       AND (d.valid_to IS NULL OR s.event_time < d.valid_to)
      JOIN marts.dim_product AS p ON p.product_id = COALESCE(s.product_id, '')
     WHERE s.load_id = resolved_facts.load_id
$$;
COMMENT ON FUNCTION dwh.resolved_facts(bigint) IS
'The facts of a load: its staged events with the keys of the user''s version valid at event_time and of the product. Returns one row an event. Errors: 42P01 without a warehouse. Reads only.';

CREATE FUNCTION dwh.fact_partitions()
RETURNS TABLE (partition regclass, since timestamptz, until timestamptz)
LANGUAGE sql STABLE ROWS 50 SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO, YMD' SET jit = off AS $$
    SELECT c.oid::pg_catalog.regclass,
           COALESCE((pg_catalog.regexp_match(b.bound, 'FROM \(''([^'']*)''\)'))[1]::pg_catalog.timestamptz, '-infinity'),
           COALESCE((pg_catalog.regexp_match(b.bound, 'TO \(''([^'']*)''\)'))[1]::pg_catalog.timestamptz, 'infinity')
      FROM pg_catalog.pg_inherits AS i
      JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid
     CROSS JOIN LATERAL pg_catalog.pg_get_expr(c.relpartbound, c.oid) AS b (bound)
     WHERE i.inhparent = pg_catalog.to_regclass('marts.fact_user_events')
     ORDER BY 2
$$;
COMMENT ON FUNCTION dwh.fact_partitions() IS
'The partitions of marts.fact_user_events with their half-open intervals of event_time. Returns one row a partition, none without a warehouse. Errors: none. Reads only.';

-- Noun: the partitions that the events of these loads still need: a month (or day) of dwh.fact_partition where nothing of
-- it is there, the single days where some are.
CREATE FUNCTION dwh._missing_partitions(load_ids bigint[]) RETURNS TABLE (unit text, since timestamptz)
LANGUAGE sql STABLE ROWS 10 SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET jit = off AS $$
    WITH present AS MATERIALIZED (SELECT p.since, p.until FROM dwh.fact_partitions() AS p),
    days AS (
        SELECT DISTINCT date_trunc('day', s.event_time) AS day FROM staging.user_events AS s WHERE s.load_id = ANY (load_ids)),
    uncovered AS (
        SELECT d.day, date_trunc(dwh._setting('fact_partition'), d.day) AS start FROM days AS d
         WHERE NOT EXISTS (SELECT FROM present AS p WHERE p.since <= d.day AND d.day < p.until)),
    starts AS (
        SELECT u.start, EXISTS (SELECT FROM present AS p
               WHERE p.until > u.start AND p.since < u.start + ('1 ' || dwh._setting('fact_partition'))::interval) AS is_broken
          FROM uncovered AS u GROUP BY u.start)
    SELECT DISTINCT CASE WHEN t.is_broken THEN 'day' ELSE dwh._setting('fact_partition') END,
           CASE WHEN t.is_broken THEN u.day ELSE u.start END
      FROM uncovered AS u JOIN starts AS t ON t.start = u.start
     ORDER BY 2
$$;
COMMENT ON FUNCTION dwh._missing_partitions(bigint[]) IS 'The partitions of marts.fact_user_events that the events of these loads still need: month or day, and its start.';

CREATE FUNCTION dwh._make_fact_partition(unit text, since timestamptz) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO, YMD'
SET client_min_messages = warning AS $$
DECLARE
    until timestamptz := since + ('1 ' || unit)::interval;
    name text := 'fact_user_events_' || to_char(since, CASE unit WHEN 'day' THEN 'YYYY_MM_DD' ELSE 'YYYY_MM' END)
                 || CASE WHEN extract(year FROM since) < 0 THEN '_bc' ELSE '' END;
BEGIN
    -- attached, not created as a partition: that would lock out every reader of the facts until commit
    EXECUTE format('CREATE TABLE marts.%I (LIKE marts.fact_user_events INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING CONSTRAINTS, PRIMARY KEY (event_id))', name);
    EXECUTE format('CREATE INDEX ON marts.%I (load_id)', name);
    EXECUTE format('COMMENT ON TABLE marts.%I IS %L', name, format('Facts from %s until %s.', since, until));
    EXECUTE format('ALTER TABLE marts.fact_user_events ATTACH PARTITION marts.%I FOR VALUES FROM (%L) TO (%L)', name, since, until);
END
$$;
COMMENT ON FUNCTION dwh._make_fact_partition(text, timestamptz) IS
'Makes a partition of marts.fact_user_events: a month or a day from then on. Needs the pipeline''s lock.';

CREATE FUNCTION dwh._make_fact_partitions(load_ids bigint[]) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    missing record;
    made bigint := 0;
    wanted bigint := 0;
    -- a new partition takes locks on its table, toast table, indexes and constraints, about eight of them, until commit
    possible bigint := current_setting('max_locks_per_transaction')::bigint
        * (current_setting('max_connections')::bigint + current_setting('max_prepared_transactions')::bigint) / 8;
BEGIN
    IF cardinality(load_ids) > 0 THEN
        SELECT count(*) INTO wanted FROM dwh._missing_partitions(load_ids);
    END IF;
    IF wanted = 0 THEN
        RETURN 0;
    ELSIF wanted > possible THEN
        RAISE EXCEPTION 'the events of one call need too many new partitions'
            USING ERRCODE = 'configuration_limit_exceeded',
                  DETAIL = format('They need %s new partitions of marts.fact_user_events; about %s can be made in one transaction.', wanted, possible),
                  HINT = 'SET dwh.fact_partition = ''month'', load fewer files at once, or raise max_locks_per_transaction.';
    END IF;
    FOR missing IN SELECT m.* FROM dwh._missing_partitions(load_ids) AS m LOOP
        PERFORM dwh._make_fact_partition(missing.unit, missing.since);
        made := made + 1;
    END LOOP;
    RETURN made;
END
$$;
COMMENT ON FUNCTION dwh._make_fact_partitions(bigint[]) IS
'Makes the partitions that the events of these loads need; returns how many. 53400 where the lock table cannot hold them all.';

CREATE FUNCTION dwh._append_facts(load_id bigint) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    appended bigint;
    expected bigint;
    present bigint;   -- of an earlier call, before retry_rejects() staged more
BEGIN
    SELECT l.staged, l.facts INTO expected, present FROM ops.loads AS l WHERE l.load_id = _append_facts.load_id;
    -- sorted by event_id, as staging was: each partition's key then grows leaf by leaf
    INSERT INTO marts.fact_user_events (event_id, event_time, event_type, session_id, user_key, product_key, quantity,
           price, revenue, attributes, load_id, line_no)
    SELECT r.event_id, r.event_time, r.event_type, r.session_id, r.user_key, r.product_key, r.quantity,
           r.price, r.revenue, r.attributes, _append_facts.load_id, r.line_no
      FROM dwh.resolved_facts(_append_facts.load_id) AS r
     WHERE present = 0 OR NOT EXISTS (
           SELECT FROM marts.fact_user_events AS f WHERE f.event_id = r.event_id AND f.event_time = r.event_time)
     ORDER BY r.event_id;
    GET DIAGNOSTICS appended = ROW_COUNT;
    IF present + appended <> expected THEN
        RAISE EXCEPTION 'load % has % staged events but % facts', _append_facts.load_id, expected, present + appended
            USING ERRCODE = 'integrity_constraint_violation',
                  DETAIL = 'Every staged event has one version of its user and one product; the dimensions or staging were changed by hand.',
                  HINT = 'Compare SELECT * FROM dwh.user_versions() with marts.dim_user.';
    END IF;
    UPDATE ops.loads AS l SET facts = expected, facts_at = clock_timestamp() WHERE l.load_id = _append_facts.load_id;
    RETURN appended;
END
$$;
COMMENT ON FUNCTION dwh._append_facts(bigint) IS 'Writes the facts that a load does not have yet and its count into the ledger; 23000 where an event finds no version or product.';

CREATE FUNCTION dwh.load_facts(
    load_id bigint DEFAULT NULL,
    OUT status text, OUT loads bigint, OUT rows_in bigint, OUT facts bigint, OUT partitions bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
#variable_conflict use_column
DECLARE
    load_ids bigint[];
    id bigint;
BEGIN
    load_ids := dwh._claim_loads('facts', load_facts.load_id);
    loads := cardinality(load_ids);
    facts := 0;
    status := CASE WHEN loads = 0 THEN 'nothing_new' ELSE 'done' END;
    SELECT coalesce(sum(l.staged), 0) INTO rows_in FROM ops.loads AS l WHERE l.load_id = ANY (load_ids);
    partitions := dwh._make_fact_partitions(load_ids);
    FOREACH id IN ARRAY load_ids LOOP
        facts := facts + dwh._append_facts(id);
    END LOOP;
END
$$;
REVOKE EXECUTE ON FUNCTION dwh.load_facts(bigint) FROM PUBLIC;
COMMENT ON FUNCTION dwh.load_facts(bigint) IS
'Writes the facts of a load, or of every load whose dimensions are done, into marts.fact_user_events, and makes the partitions they need. Returns one row of counts: staged events read, facts written, partitions made. Errors: P0002 for an unknown load, 55000 for one whose dimensions are not done, 23000 where an event finds no version or product, 53400 where the lock table cannot hold so many new partitions, WH004 without a warehouse. A repeat changes nothing and says nothing_new.';
