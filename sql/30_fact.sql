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

-- Staging got its partitions when it was written; the facts get theirs before anything reads them. Where each of staging's has
-- one of the same time, there is nothing to look for.
CREATE FUNCTION dwh._make_fact_partitions(load_ids bigint[], earliest timestamptz, latest timestamptz) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET plan_cache_mode = force_custom_plan AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM dwh._partitions('staging.user_events') AS s
         WHERE s.since <= latest AND s.until > earliest
           AND NOT EXISTS (SELECT FROM dwh._partitions('marts.fact_user_events') AS f WHERE f.since <= s.since AND f.until >= s.until)) THEN
        RETURN 0;
    END IF;
    RETURN dwh._make_partitions('marts.fact_user_events', ARRAY(
        SELECT DISTINCT date_trunc('day', s.event_time) FROM staging.user_events AS s
         WHERE s.load_id = ANY (load_ids) AND s.event_time BETWEEN earliest AND latest));
END
$$;
COMMENT ON FUNCTION dwh._make_fact_partitions(bigint[], timestamptz, timestamptz) IS
'Makes the partitions of the facts that the events of these loads, between these times, need and do not have; returns how many. 53400 where the lock table cannot hold them all.';

-- Work table of one call, dwh_fact_version: the versions that the events of these loads may belong to, looked up by user, so
-- that what is read of dim_user follows the batch.
CREATE FUNCTION dwh._collect_fact_versions(load_ids bigint[], earliest timestamptz, latest timestamptz) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning SET plan_cache_mode = force_custom_plan AS $$
BEGIN
    PERFORM dwh._require_free_names(ARRAY['dwh_fact_version']);
    CREATE TEMPORARY TABLE dwh_fact_version ON COMMIT DROP AS
    SELECT v.user_key, v.user_id, v.valid_from, v.valid_to
      FROM (SELECT s.user_id, min(s.event_time) AS since FROM staging.user_events AS s
             WHERE s.load_id = ANY (load_ids) AND s.event_time BETWEEN earliest AND latest
             GROUP BY s.user_id) AS u
     CROSS JOIN LATERAL dwh._versions_from(u.user_id, u.since) AS v;
    ANALYZE pg_temp.dwh_fact_version;
END
$$;
COMMENT ON FUNCTION dwh._collect_fact_versions(bigint[], timestamptz, timestamptz) IS
'Makes the work table of load_facts for these loads, whose events are between these times.';

-- dwh.resolved_facts() of several loads, with the work table instead of all versions: the facts that they do not have yet.
CREATE FUNCTION dwh._new_facts(load_ids bigint[], earliest timestamptz, latest timestamptz)
RETURNS TABLE (
    event_id uuid, event_time timestamptz, event_type text, session_id text, user_key bigint, product_key bigint,
    quantity integer, price numeric, revenue numeric, attributes jsonb, load_id bigint, line_no bigint)
LANGUAGE sql STABLE AS $$
    SELECT s.event_id, s.event_time, s.event_type, s.session_id, v.user_key, p.product_key, s.quantity,
           s.price, s.revenue, s.attributes, s.load_id, s.line_no
      FROM staging.user_events AS s
      JOIN ops.loads AS l ON l.load_id = s.load_id
      JOIN pg_temp.dwh_fact_version AS v ON v.user_id = s.user_id AND v.valid_from <= s.event_time
       AND (v.valid_to IS NULL OR s.event_time < v.valid_to)
      JOIN marts.dim_product AS p ON p.product_id = COALESCE(s.product_id, '')
     WHERE s.load_id = ANY (_new_facts.load_ids) AND s.event_time BETWEEN _new_facts.earliest AND _new_facts.latest
       AND (l.facts = 0   -- else it has facts of an earlier call, before retry_rejects() staged more
            OR NOT EXISTS (SELECT FROM marts.fact_user_events AS f WHERE f.event_id = s.event_id AND f.event_time = s.event_time))
$$;
COMMENT ON FUNCTION dwh._new_facts(bigint[], timestamptz, timestamptz) IS
'The facts that these loads do not have yet, whose events are between these times. Needs the work table of load_facts.';

CREATE FUNCTION dwh._write_facts(load_ids bigint[], earliest timestamptz, latest timestamptz) RETURNS bigint[]
LANGUAGE c VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'dwh_write_facts';
COMMENT ON FUNCTION dwh._write_facts(bigint[], timestamptz, timestamptz) IS
'Writes dwh._new_facts() of these loads, in rising order, into marts.fact_user_events, which has the partitions by then; returns the number of facts of each load.';

CREATE FUNCTION dwh._append_facts(load_ids bigint[], OUT facts bigint, OUT partitions bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_nestloop = on AS $$
DECLARE
    batch record;
    counts bigint[] := '{}';
BEGIN
    SELECT min(l.first_event) AS earliest, max(l.last_event) AS latest, sum(l.staged) AS staged INTO batch
      FROM ops.loads AS l WHERE l.load_id = ANY (load_ids);
    facts := 0; partitions := 0;
    IF batch.earliest IS NOT NULL THEN
        partitions := dwh._make_fact_partitions(load_ids, batch.earliest, batch.latest);
        PERFORM dwh._collect_fact_versions(load_ids, batch.earliest, batch.latest);
        -- the planner has no statistics of rows that are new in this transaction, but the ledger has their number
        PERFORM set_config('enable_nestloop', CASE WHEN batch.staged < 10000 THEN 'on' ELSE 'off' END, true);
        counts := dwh._write_facts(load_ids, batch.earliest, batch.latest);
        DROP TABLE pg_temp.dwh_fact_version;
        facts := (SELECT sum(c) FROM unnest(counts) AS c);
    END IF;
    UPDATE ops.loads AS l SET facts = l.facts + coalesce(u.facts, 0), facts_at = clock_timestamp()
      FROM unnest(load_ids, counts) AS u (load_id, facts) WHERE l.load_id = u.load_id;
END
$$;
COMMENT ON FUNCTION dwh._append_facts(bigint[]) IS
'Writes the facts that these loads do not have yet, and their counts into the ledger; returns how many, and how many partitions it made.';

CREATE FUNCTION dwh._require_facts(load_ids bigint[]) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    load record;
BEGIN
    SELECT l.load_id, l.staged, l.facts INTO load FROM ops.loads AS l
     WHERE l.load_id = ANY (load_ids) AND l.facts <> l.staged ORDER BY l.load_id LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'load % has % staged events but % facts', load.load_id, load.staged, load.facts
            USING ERRCODE = 'integrity_constraint_violation',
                  DETAIL = 'Every staged event has one version of its user and one product; the dimensions or staging were changed by hand.',
                  HINT = 'Compare SELECT * FROM dwh.user_versions() with marts.dim_user.';
    END IF;
END
$$;
COMMENT ON FUNCTION dwh._require_facts(bigint[]) IS 'Raises 23000 for a load whose staged events are not all facts.';

CREATE FUNCTION dwh.load_facts(
    load_id bigint DEFAULT NULL,
    OUT status text, OUT loads bigint, OUT rows_in bigint, OUT facts bigint, OUT partitions bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
#variable_conflict use_column
DECLARE
    load_ids bigint[];
BEGIN
    load_ids := dwh._claim_loads('facts', load_facts.load_id);
    loads := cardinality(load_ids);
    rows_in := 0; facts := 0; partitions := 0;
    status := 'nothing_new';
    IF loads = 0 THEN
        RETURN;
    END IF;
    status := 'done';
    SELECT sum(l.staged) INTO rows_in FROM ops.loads AS l WHERE l.load_id = ANY (load_ids);
    SELECT a.facts, a.partitions INTO facts, partitions FROM dwh._append_facts(load_ids) AS a;
    PERFORM dwh._require_facts(load_ids);
END
$$;
REVOKE EXECUTE ON FUNCTION dwh.load_facts(bigint) FROM PUBLIC;
COMMENT ON FUNCTION dwh.load_facts(bigint) IS
'Writes the facts of a load, or of every load whose dimensions are done, into marts.fact_user_events, and makes the partitions they need. Returns one row of counts: staged events read, facts written, partitions made. Errors: P0002 for an unknown load, 55000 for one whose dimensions are not done, 23000 where an event finds no version or product, 53400 where the lock table cannot hold so many new partitions, WH004 without a warehouse. A repeat changes nothing and says nothing_new.';
