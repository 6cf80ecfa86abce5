-- 90_quality_checks.sql: is everything there, once, and where it belongs?
--
-- A check is a row of ops.quality_checks: a query whose rows are offenders, or a built-in kind. $1 is the loads to look at.
-- Invariants: a check cannot write; of some loads it reads as much as they need (88_built_in_checks.sql); without any load
-- only timely kinds are asked. A limit is never a division: 0 of 0 is a pass, 1 of 0 a failure.
-- Repeats are harmless: verdicts are computed here and not kept.

CREATE FUNCTION dwh._limit_of(max_offenders bigint, max_percent numeric, population_query text, load_ids bigint[],
    OUT allowed bigint, OUT limits jsonb)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    population numeric;
    most constant numeric := 9223372036854775807;
BEGIN
    IF max_percent IS NOT NULL AND population_query IS NULL THEN
        SELECT sum(l.staged - l.staging_dropped) INTO population FROM ops.loads AS l
         WHERE l.load_id = ANY (load_ids) OR load_ids IS NULL AND l.status NOT IN ('quarantined', 'stopped');
    ELSIF max_percent IS NOT NULL THEN
        EXECUTE format(E'SELECT (\n%s\n)::numeric', population_query) INTO population USING load_ids;
    END IF;
    population := greatest(coalesce(nullif(population, 'NaN'), 0), 0);
    allowed := CASE WHEN max_percent IS NULL THEN coalesce(max_offenders, 0)
                    ELSE least(coalesce(max_offenders, most), floor(least(max_percent * population / 100, most))) END;
    limits := jsonb_strip_nulls(jsonb_build_object(
        'max_offenders', CASE WHEN max_percent IS NULL THEN coalesce(max_offenders, 0) ELSE max_offenders END,
        'max_percent', max_percent, 'population', CASE WHEN max_percent IS NOT NULL THEN population END));
END
$$;
COMMENT ON FUNCTION dwh._limit_of(bigint, numeric, text, bigint[]) IS
'How many offenders are a pass on these loads (NULL = all), where both limits must hold, and the limits as JSON. population_query NULL = events staged of the loads.';

CREATE FUNCTION dwh._find_offenders(query text, load_ids bigint[], OUT observed bigint, OUT offenders jsonb, OUT by_load jsonb)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- the query stands on lines of its own: it may end in a comment
    EXECUTE format(E'WITH o AS MATERIALIZED (SELECT to_jsonb(q.*) AS offender FROM (\n%s\n) AS q) '
                    'SELECT (SELECT count(*) FROM o), (SELECT jsonb_agg(f.offender) FROM (SELECT o.offender FROM o LIMIT %s) AS f), '
                    '(SELECT jsonb_object_agg(l.load_id, l.offenders) FROM (SELECT regexp_replace(o.offender ->> ''load_id'', ''[.]0+$'', '''') AS load_id, count(*) AS offenders '
                    'FROM o WHERE o.offender ->> ''load_id'' IS NOT NULL GROUP BY 1) AS l)', query, dwh._setting('kept_offenders'))
       INTO observed, offenders, by_load USING load_ids;
END
$$;
COMMENT ON FUNCTION dwh._find_offenders(text, bigint[]) IS
'Counts the rows of a check''s query on these loads (NULL = all), keeps the first dwh.kept_offenders of them, and counts them by load where they have a column load_id.';

-- Data can make a query fail, as a cast of a text that is none. Then the loads are asked one by one.
CREATE FUNCTION dwh._loads_in_error(query text, load_ids bigint[]) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    load_id bigint;
    in_error jsonb := '{}';
BEGIN
    BEGIN
        PERFORM set_config('transaction_read_only', 'on', true);   -- until the end of this block
        PERFORM dwh._find_offenders(query, '{}');
    EXCEPTION WHEN OTHERS OR assert_failure THEN
        RETURN in_error;   -- which fails without any load is wrong itself
    END;
    FOREACH load_id IN ARRAY load_ids LOOP
        BEGIN
            PERFORM set_config('transaction_read_only', 'on', true);   -- until the end of this block
            PERFORM dwh._find_offenders(query, ARRAY[load_id]);
        EXCEPTION WHEN data_exception THEN
            in_error := in_error || jsonb_build_object(load_id, 1);
        WHEN OTHERS OR assert_failure THEN
            RETURN '{}';
        END;
    END LOOP;
    RETURN in_error;
END
$$;
COMMENT ON FUNCTION dwh._loads_in_error(text, bigint[]) IS
'The loads whose data end a check''s query with an error of class 22, as by_load; none where it needs no load for that, or another error comes up.';

-- Noun: the verdicts, computed and not kept.
CREATE FUNCTION dwh._evaluate_checks(load_ids bigint[])
RETURNS TABLE (name text, severity text, status text, observed bigint, allowed bigint, offenders jsonb, elapsed interval, limits jsonb, by_load jsonb, checked_as jsonb)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET jit = off AS $$
#variable_conflict use_column
DECLARE
    quality_check record;
    began timestamptz;
    has_failed boolean;
    takes_loads boolean;
    settings jsonb := jsonb_object_agg(s.name, s.setting) FROM pg_settings AS s WHERE s.name IN ('enable_seqscan', 'enable_nestloop');
    -- Statistics of tables that grow are of yesterday, or missing, and of a load that it has not heard of the planner
    -- expects a row or so. So its rows are found by index; and where the ledger says that they are many, beside the
    -- versions that there are (about 100 bytes each), both are read once and hashed.
    is_large boolean := sum(l.staged) * 500 > pg_relation_size('marts.dim_user') FROM ops.loads AS l WHERE l.load_id = ANY (load_ids);
BEGIN
    FOR quality_check IN
        SELECT c.name, c.severity, coalesce(k.query, c.query) AS query, coalesce(k.is_timely, false) AS is_timely,
               k.parameters || c.parameters AS parameters, c.max_offenders, c.max_percent, c.population, to_jsonb(c) AS checked_as
          FROM ops.quality_checks AS c LEFT JOIN dwh.check_kinds() AS k ON k.kind = c.kind
         WHERE c.enabled AND (k.is_timely OR load_ids IS NULL OR cardinality(load_ids) > 0) ORDER BY c.position, c.name
    LOOP
        began := clock_timestamp();
        name := quality_check.name; severity := quality_check.severity;
        allowed := 0; limits := '{}'; by_load := NULL; checked_as := quality_check.checked_as;
        takes_loads := load_ids IS NOT NULL AND NOT quality_check.is_timely AND strpos(quality_check.query, '$1') > 0;
        PERFORM set_config('enable_seqscan', CASE WHEN takes_loads THEN 'off' ELSE settings ->> 'enable_seqscan' END, true),
                set_config('enable_nestloop', CASE WHEN takes_loads AND is_large THEN 'off' ELSE settings ->> 'enable_nestloop' END, true);
        BEGIN
            PERFORM set_config('transaction_read_only', 'on', true);   -- until the end of this block: a check cannot write
            IF quality_check.is_timely THEN
                EXECUTE quality_check.query INTO observed, allowed, has_failed, limits, offenders
                  USING quality_check.parameters, now(), quality_check.name;
            ELSE
                SELECT o.* INTO observed, offenders, by_load FROM dwh._find_offenders(quality_check.query, load_ids) AS o;
                SELECT l.* INTO allowed, limits
                  FROM dwh._limit_of(quality_check.max_offenders, quality_check.max_percent, quality_check.population, load_ids) AS l;
                has_failed := observed > allowed;
            END IF;
        EXCEPTION WHEN OTHERS OR assert_failure THEN
            by_load := CASE WHEN SQLSTATE LIKE '22%' AND takes_loads THEN dwh._loads_in_error(quality_check.query, load_ids) END;
            IF severity = 'warn' OR by_load <> '{}' THEN   -- only written down, as a failure
                observed := allowed + 1; has_failed := true;
                offenders := jsonb_build_array(jsonb_build_object('sqlstate', SQLSTATE, 'error', SQLERRM));
            ELSE
                RAISE EXCEPTION 'quality check "%" could not be run: %', quality_check.name, SQLERRM
                    USING ERRCODE = SQLSTATE,
                          DETAIL = 'Its query in ops.quality_checks ended with this error.',
                          HINT = format('Correct the query, or UPDATE ops.quality_checks SET enabled = false WHERE name = %L.', quality_check.name);
            END IF;
        END;
        status := CASE WHEN has_failed THEN 'fail' ELSE 'pass' END;
        elapsed := clock_timestamp() - began;
        RETURN NEXT;
    END LOOP;
    PERFORM set_config(before.key, before.value, true) FROM jsonb_each_text(settings) AS before;
END
$$;
COMMENT ON FUNCTION dwh._evaluate_checks(bigint[]) IS
'The verdicts of all enabled checks on these loads (NULL = all; none = only the timely kinds, which look at the clock), with the first dwh.kept_offenders offenders of each, their number by load where they name one, and the check as it was.';
