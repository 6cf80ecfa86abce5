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
LANGUAGE sql STABLE ROWS 50 SET search_path = pg_catalog, pg_temp AS $$
    SELECT p.* FROM dwh._partitions('marts.fact_user_events') AS p
$$;
COMMENT ON FUNCTION dwh.fact_partitions() IS
'The partitions of marts.fact_user_events with their half-open intervals of event_time. Returns one row a partition, none without a warehouse. Errors: none. Reads only.';

-- Staging has its partitions by then, but the facts' may have been dropped by hand, or be days where staging has months.
CREATE FUNCTION dwh._make_fact_partitions(load_ids bigint[]) RETURNS bigint
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
    SELECT dwh._make_partitions('marts.fact_user_events', ARRAY(
        SELECT DISTINCT date_trunc('day', s.event_time) FROM staging.user_events AS s WHERE s.load_id = ANY (load_ids)))
$$;
COMMENT ON FUNCTION dwh._make_fact_partitions(bigint[]) IS
'Makes the partitions of the facts that the events of these loads need and do not have; returns how many. 53400 where the lock table cannot hold them all.';

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
