-- 07_partitions.sql: the partitions of staging.user_events and marts.fact_user_events, made on demand.
--
-- Both are partitioned by event_time, in months or days of UTC (dwh.fact_partition), so that a batch grows the indexes of its
-- own time only, whatever the history, and old time is dropped as a whole. event_id is unique in each partition; over all of
-- them by what staging asks before it writes (stage_chunk.c).
-- Invariant: partitions never overlap, and none is made for a time that has one.
-- Needs the pipeline's lock: there is one maker at a time. Partitions are made by, and belong to, the owner of the table,
-- whoever of those that may write into it needs one.

CREATE FUNCTION dwh._partitions(parent text)
RETURNS TABLE (partition regclass, since timestamptz, until timestamptz)
LANGUAGE sql STABLE ROWS 50 SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO, YMD' SET jit = off AS $$
    SELECT c.oid::regclass,
           coalesce((regexp_match(b.bound, 'FROM \(''([^'']*)''\)'))[1]::timestamptz, '-infinity'),
           coalesce((regexp_match(b.bound, 'TO \(''([^'']*)''\)'))[1]::timestamptz, 'infinity')
      FROM pg_inherits AS i
      JOIN pg_class AS c ON c.oid = i.inhrelid
     CROSS JOIN LATERAL pg_get_expr(c.relpartbound, c.oid) AS b (bound)
     WHERE i.inhparent = to_regclass(parent) AND b.bound <> 'DEFAULT'   -- one of the user's: no time is its own
     ORDER BY 2
$$;
COMMENT ON FUNCTION dwh._partitions(text) IS
'The partitions of a table with their half-open intervals, in order of time; none where the table is missing.';

-- Noun: the partitions that events on these days (any time of them) still need: a month (or day) of dwh.fact_partition where
-- nothing of it is there, the single days where some are.
CREATE FUNCTION dwh._missing_partitions(parent text, days timestamptz[]) RETURNS TABLE (unit text, since timestamptz)
LANGUAGE sql STABLE ROWS 10 SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET jit = off AS $$
    WITH present AS MATERIALIZED (SELECT p.since, p.until FROM dwh._partitions(parent) AS p),
    wanted AS (SELECT DISTINCT date_trunc('day', d) AS day FROM unnest(days) AS d),
    uncovered AS (
        SELECT w.day, date_trunc(dwh._setting('fact_partition'), w.day) AS start FROM wanted AS w
         WHERE NOT EXISTS (SELECT FROM present AS p WHERE p.since <= w.day AND w.day < p.until)),
    starts AS (
        SELECT u.start, EXISTS (SELECT FROM present AS p
               WHERE p.until > u.start AND p.since < u.start + ('1 ' || dwh._setting('fact_partition'))::interval) AS is_broken
          FROM uncovered AS u GROUP BY u.start)
    SELECT DISTINCT CASE WHEN t.is_broken THEN 'day' ELSE dwh._setting('fact_partition') END,
           CASE WHEN t.is_broken THEN u.day ELSE u.start END
      FROM uncovered AS u JOIN starts AS t ON t.start = u.start
     ORDER BY 2
$$;
COMMENT ON FUNCTION dwh._missing_partitions(text, timestamptz[]) IS
'The partitions of a table that events on these days still need: month or day, and its start.';

CREATE FUNCTION dwh._make_partition(parent text, unit text, since timestamptz) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO, YMD'
SET client_min_messages = warning SET default_tablespace = '' SET default_table_access_method = heap SET default_toast_compression = pglz AS $$
DECLARE
    until timestamptz := since + ('1 ' || unit)::interval;
    layer text := split_part(parent, '.', 1);
    name text := split_part(parent, '.', 2) || to_char(since, CASE unit WHEN 'day' THEN '_YYYY_MM_DD' ELSE '_YYYY_MM' END)
                 || CASE WHEN extract(year FROM since) < 0 THEN '_bc' ELSE '' END;
BEGIN
    IF since IS DISTINCT FROM date_trunc(unit, since) OR NOT isfinite(since) THEN
        RAISE EXCEPTION 'no % begins at %', unit, since
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = 'A partition is a month or a day of UTC.',
                  HINT = 'load_facts() and stage_events() make the partitions that they need.';
    END IF;
    IF to_regclass(format('%I.%I', layer, name)) IS NOT NULL THEN
        RAISE EXCEPTION 'table %.% is in the way of a partition', layer, name
            USING ERRCODE = 'duplicate_table',
                  DETAIL = format('%s needs a partition for %s until %s, and the table of its name is none of it.', parent, since, until),
                  HINT = 'Attach it again, rename or drop it.';
    END IF;
    -- attached, not created as a partition: that would lock out every reader of the table until commit
    EXECUTE format('CREATE TABLE %I.%I (LIKE %s INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING CONSTRAINTS, PRIMARY KEY (event_id))',
                   layer, name, parent);
    EXECUTE format('COMMENT ON TABLE %I.%I IS %L', layer, name, format('Events from %s until %s.', since, until));
    EXECUTE format('ALTER TABLE %s ATTACH PARTITION %I.%I FOR VALUES FROM (%L) TO (%L)', parent, layer, name, since, until);
END
$$;
COMMENT ON FUNCTION dwh._make_partition(text, text, timestamptz) IS
'Makes a partition of staging.user_events or marts.fact_user_events: a month or a day from then on, with the indexes of the table.';

CREATE FUNCTION dwh._make_partition_as_owner(parent text, unit text, since timestamptz) RETURNS void
LANGUAGE c VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'dwh_make_partition_as_owner';
COMMENT ON FUNCTION dwh._make_partition_as_owner(text, text, timestamptz) IS
'dwh._make_partition() as the owner of the table, for a caller who may INSERT into it: 42501 for others, 22023 for another table or unit.';

CREATE FUNCTION dwh._make_partitions(parent text, days timestamptz[]) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    missing record;
    made bigint := 0;
    -- a new partition takes locks on its table, toast table, indexes and constraints, about a dozen of them, until commit
    possible bigint := current_setting('max_locks_per_transaction')::bigint
        * (current_setting('max_connections')::bigint + current_setting('max_prepared_transactions')::bigint) / 12;
BEGIN
    FOR missing IN SELECT m.*, count(*) OVER () AS wanted FROM dwh._missing_partitions(parent, days) AS m ORDER BY m.since LOOP
        IF missing.wanted > possible THEN
            RAISE EXCEPTION 'the events of one call need too many new partitions'
                USING ERRCODE = 'configuration_limit_exceeded',
                      DETAIL = format('They need %s new partitions of %s; about %s can be made in one transaction.', missing.wanted, parent, possible),
                      HINT = 'SET dwh.fact_partition = ''month'', load fewer files at once, or raise max_locks_per_transaction.';
        END IF;
        PERFORM dwh._make_partition_as_owner(parent, missing.unit, missing.since);
        made := made + 1;
    END LOOP;
    RETURN made;
END
$$;
COMMENT ON FUNCTION dwh._make_partitions(text, timestamptz[]) IS
'Makes the partitions of a table that events on these days need; returns how many. 53400 where the lock table cannot hold them all.';
