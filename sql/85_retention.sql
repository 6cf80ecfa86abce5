-- 85_retention.sql: what is old enough leaves raw, staging or the facts.
--
-- Invariants: what was dropped stays counted, for each load: raw holds loaded - forgotten - raw_dropped rows, staging
-- staged - staging_dropped, the facts facts - facts_dropped. Nothing from before ops.warehouse.staging_since is in staging,
-- nothing from before facts_since in the facts, and facts_since <= staging_since: what staging has, it has facts for.
-- Repeats are harmless: nothing is left to drop.

CREATE FUNCTION dwh._drop_raw(before timestamptz, OUT loads bigint, OUT rows_dropped bigint)
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    WITH gone AS (
        DELETE FROM raw.user_events AS r USING ops.loads AS l
         WHERE l.load_id = r.load_id AND l.loaded_at < before AND (l.checked_at IS NOT NULL OR l.status IN ('quarantined', 'stopped'))
        RETURNING r.load_id),
    counted AS (SELECT g.load_id, count(*) AS n FROM gone AS g GROUP BY g.load_id),
    moved AS (
        UPDATE ops.loads AS l SET raw_dropped = l.raw_dropped + c.n FROM counted AS c WHERE c.load_id = l.load_id
        RETURNING c.n)
    SELECT count(*), coalesce(sum(m.n), 0)::bigint FROM moved AS m
$$;
COMMENT ON FUNCTION dwh._drop_raw(timestamptz) IS 'Deletes the raw rows of loads from before that are through all steps.';

-- Whole partitions of staging or the facts only; both have the same bounds, so that either can say how far is whole.
CREATE FUNCTION dwh._drop_horizon(parent text, before timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT max(p.until) FROM (
        SELECT o.until FROM dwh._partitions(parent) AS o
         UNION ALL
        SELECT f.until FROM dwh._partitions('marts.fact_user_events') AS f) AS p
     WHERE p.until <= before
$$;
COMMENT ON FUNCTION dwh._drop_horizon(text, timestamptz) IS 'The end of the last partition that ends at or before that time; NULL = none does.';

CREATE FUNCTION dwh._drop_events(parent text, counter text, horizon timestamptz,
    OUT loads bigint, OUT partitions bigint, OUT rows_dropped bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET client_min_messages = warning AS $$
DECLARE
    leaf record;
BEGIN
    partitions := 0;
    EXECUTE format($sql$
        WITH counted AS (SELECT e.load_id, count(*) AS n FROM %s AS e WHERE e.event_time < $1 GROUP BY e.load_id),
        moved AS (UPDATE ops.loads AS l SET %2$I = l.%2$I + c.n FROM counted AS c WHERE c.load_id = l.load_id RETURNING c.n)
        SELECT count(*), coalesce(sum(m.n), 0)::bigint FROM moved AS m$sql$, parent, counter)
       INTO loads, rows_dropped USING horizon;
    FOR leaf IN SELECT p.partition FROM dwh._partitions(parent) AS p WHERE p.until <= horizon ORDER BY p.since LOOP
        EXECUTE format('DROP TABLE %s', leaf.partition);
        partitions := partitions + 1;
    END LOOP;
    -- a partition of one's own, a default one: what is left in it from before
    EXECUTE format('DELETE FROM %s AS e WHERE e.event_time < $1', parent) USING horizon;
END
$$;
COMMENT ON FUNCTION dwh._drop_events(text, text, timestamptz) IS
'Drops the partitions of a table that end at or before that time, and what else is from before; counts it for each load in that column of ops.loads.';

CREATE FUNCTION dwh._require_droppable(layer text, before timestamptz, horizon timestamptz) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    waiting bigint;
    since timestamptz;
BEGIN
    SELECT w.staging_since INTO since FROM ops.warehouse AS w;
    IF layer = 'staging' THEN
        SELECT min(l.load_id) INTO waiting FROM ops.loads AS l
         WHERE l.checked_at IS NULL AND l.status NOT IN ('quarantined', 'stopped');
        IF waiting IS NOT NULL THEN
            RAISE EXCEPTION 'load % is on its way through the steps', waiting
                USING ERRCODE = 'object_not_in_prerequisite_state',
                      DETAIL = 'It is loaded and not checked: the steps would refuse its events, or read them from staging.',
                      HINT = 'A run of the pipeline finishes it, or the steps one by one.';
        END IF;
    ELSIF horizon > coalesce(since, '-infinity') THEN
        RAISE EXCEPTION 'staging still holds events of these facts'
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  DETAIL = format('Facts would be dropped before %s, staging was %s.', horizon, coalesce('dropped before ' || since, 'never dropped')),
                  HINT = format('SELECT * FROM dwh.drop_before(''staging'', %L) first.', before);
    END IF;
END
$$;
COMMENT ON FUNCTION dwh._require_droppable(text, timestamptz, timestamptz) IS
'Raises 55000 where staging is needed by a load, or facts would go before their staging rows.';

CREATE FUNCTION dwh.drop_before(
    layer text, before timestamptz,
    OUT status text, OUT loads bigint, OUT partitions bigint, OUT rows_dropped bigint, OUT horizon timestamptz)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
#variable_conflict use_variable
DECLARE
    reached timestamptz;
BEGIN
    IF coalesce(layer, '') NOT IN ('raw', 'staging', 'facts') THEN
        RAISE EXCEPTION 'layer is %', coalesce(quote_literal(layer), 'NULL')
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = 'It is raw, staging or facts.',
                  HINT = 'SELECT * FROM dwh.drop_before(''raw'', ''2025-01-01Z'').';
    ELSIF before IS NULL OR before > clock_timestamp() THEN
        RAISE EXCEPTION 'before is %', coalesce(before::text, 'NULL')
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = 'It is a time that has passed.',
                  HINT = 'Rows from before it are dropped: SELECT * FROM dwh.drop_before(''raw'', now() - interval ''1 year'').';
    END IF;
    PERFORM dwh._require_warehouse();
    PERFORM dwh._lock_pipeline();
    loads := 0; partitions := 0; rows_dropped := 0;
    IF layer = 'raw' THEN
        SELECT d.loads, d.rows_dropped INTO loads, rows_dropped FROM dwh._drop_raw(before) AS d;
        horizon := before;
    ELSE
        SELECT CASE layer WHEN 'staging' THEN w.staging_since ELSE w.facts_since END INTO reached FROM ops.warehouse AS w;
        horizon := dwh._drop_horizon(CASE layer WHEN 'staging' THEN 'staging.user_events' ELSE 'marts.fact_user_events' END, before);
        IF horizon > coalesce(reached, '-infinity') THEN
            PERFORM dwh._require_droppable(layer, before, horizon);
            SELECT d.loads, d.partitions, d.rows_dropped INTO loads, partitions, rows_dropped
              FROM dwh._drop_events(CASE layer WHEN 'staging' THEN 'staging.user_events' ELSE 'marts.fact_user_events' END,
                                    CASE layer WHEN 'staging' THEN 'staging_dropped' ELSE 'facts_dropped' END, horizon) AS d;
            UPDATE ops.warehouse AS w
               SET staging_since = CASE layer WHEN 'staging' THEN horizon ELSE w.staging_since END,
                   facts_since = CASE layer WHEN 'facts' THEN horizon ELSE w.facts_since END;
        ELSE
            horizon := reached;   -- never back
        END IF;
    END IF;
    status := CASE WHEN CASE layer WHEN 'raw' THEN rows_dropped > 0 ELSE horizon IS DISTINCT FROM reached END THEN 'done' ELSE 'nothing_new' END;
    IF status = 'done' THEN
        PERFORM dwh._count_change();
    END IF;
END
$$;
REVOKE EXECUTE ON FUNCTION dwh.drop_before(text, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION dwh.drop_before(text, timestamptz) IS
'Drops what is older than a time. layer raw: the rows of loads that were made before it and are through all steps; given up are new types for them, retries of their refused events, and the bytes that their facts lead back to. staging: whole partitions that end at or before it; given up are late events from before: they find no history to be placed in and are refused as out_of_range, while versions, products and prices stay as they are. facts: the same for the facts, as far as staging was dropped; given up are their KPIs, and what arrives from before is counted as ops.loads.forgotten. Returns one row: status (done, nothing_new), loads that lost rows, partitions and rows dropped, and horizon: the time before which nothing is left (the end of the last partition dropped, so before rounded down; the argument itself for raw; NULL = nothing was ever dropped). One transaction; waits for a run at work; a dropped partition locks its table against readers until commit, waiting for them without a limit (SET lock_timeout sets one). Errors: 22023 for another layer, NULL, or a time to come; 55000 for staging while a load is between loading and its checks, for facts that staging still has; 2BP01 where a view of yours needs a partition; 42501 without rights to the tables, 40001 where the snapshot is too old, WH004 without a warehouse. A repeat drops nothing and says nothing_new.';
