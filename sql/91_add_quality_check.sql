-- 91_add_quality_check.sql: checks as data: what may stand in ops.quality_checks, and the built-in rows of it.
--
-- Invariants: a row is tried when it is written, by whatever statement: a trigger asks dwh._require_valid_check(). The
-- trigger's function lies in ops and belongs to the user, so that DROP EXTENSION leaves the table as it is; without the
-- extension it asks nobody. pg_restore makes triggers after the rows, which were valid when they were dumped.
-- Repeats are harmless: what is there as it should be is not touched.

CREATE FUNCTION dwh._check_rule(quality_check jsonb) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT encode(sha256(convert_to(jsonb_build_array(
        quality_check -> 'kind', quality_check -> 'query', quality_check -> 'parameters', quality_check -> 'severity', quality_check -> 'enabled',
        quality_check -> 'max_offenders', trim_scale((quality_check ->> 'max_percent')::numeric), quality_check -> 'population')::text, 'UTF8')), 'hex')
$$;
COMMENT ON FUNCTION dwh._check_rule(jsonb) IS
'Digest of a row of ops.quality_checks as far as it decides verdicts: SHA-256 in hexadecimal.';

CREATE FUNCTION dwh._is_quarantined(quarantined_by text, quarantine_rule text, refused bigint, counted bigint) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN quarantined_by IS NULL THEN dwh._is_poisoned(refused, counted)
                ELSE EXISTS (SELECT FROM ops.quality_checks AS c WHERE c.name = quarantined_by AND c.enabled AND c.severity = 'error'
                                AND dwh._check_rule(to_jsonb(c)) = quarantine_rule) END
$$;
COMMENT ON FUNCTION dwh._is_quarantined(text, text, bigint, bigint) IS
'True while nothing released a load of status quarantined: a larger dwh.max_reject_share for refused of counted lines; for one that failed a check, any change of that check, or its end.';

CREATE FUNCTION dwh._trouble_of_parameters(kind text, parameters jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    defaults jsonb := coalesce((SELECT k.parameters FROM dwh.check_kinds() AS k WHERE k.kind = _trouble_of_parameters.kind), '{}');
    given record;
    span interval;
    amount numeric;
BEGIN
    IF jsonb_typeof(parameters) IS DISTINCT FROM 'object' THEN
        RETURN 'parameters are not a JSON object.';
    END IF;
    FOR given IN SELECT p.key, p.value FROM jsonb_each_text(defaults || parameters) AS p LOOP
        IF NOT defaults ? given.key THEN
            RETURN format('Kind %s has no parameter %s.', kind, given.key);
        ELSIF given.key IN ('max_age', 'period') THEN
            span := given.value;
            IF span IS NULL OR span <= '0' OR given.key = 'period' AND extract(month FROM span) + extract(year FROM span) <> 0 THEN
                RETURN format('%s is %s: it must be longer than 0, a period also without months.', given.key, coalesce(given.value, 'null'));
            END IF;
        ELSE
            amount := given.value;
            IF amount IS NULL OR amount <= 0 OR amount > 10000 OR given.key <> 'sensitivity' AND amount % 1 <> 0 THEN
                RETURN format('%s is %s: it must be above 0, at most 10000, and whole but for sensitivity.', given.key, coalesce(given.value, 'null'));
            END IF;
        END IF;
    END LOOP;
    defaults := defaults || parameters;
    IF (defaults ->> 'min_points')::numeric > (defaults ->> 'points')::numeric THEN
        RETURN format('min_points is %s, and points only %s.', defaults ->> 'min_points', defaults ->> 'points');
    ELSIF extract(epoch FROM (defaults ->> 'period')::interval) * (defaults ->> 'season')::numeric * (defaults ->> 'points')::numeric > 3e9 THEN
        RETURN 'period times season times points is more than 95 years.';
    END IF;
    RETURN NULL;
EXCEPTION WHEN data_exception THEN
    RETURN format('%s is %s: %s.', given.key, given.value, SQLERRM);
END
$$;
COMMENT ON FUNCTION dwh._trouble_of_parameters(text, jsonb) IS 'What is wrong with the parameters of a check of that kind; NULL = nothing.';

CREATE FUNCTION dwh._trouble_of_check(quality_check jsonb) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE
        WHEN coalesce(c.name, '') = '' THEN 'It has no name.'
        WHEN c.severity IS NULL OR c.severity NOT IN ('warn', 'error') THEN format('Its severity is %s: warn or error.', coalesce(c.severity, 'null'))
        WHEN c.kind = 'query' AND c.query IS NULL THEN 'It is of kind query and has none.'
        WHEN c.kind IS DISTINCT FROM 'query' AND k.kind IS NULL THEN format('There is no kind %s.', coalesce(c.kind, 'null'))
        WHEN c.kind <> 'query' AND c.query IS NOT NULL THEN format('Kind %s brings its own query.', c.kind)
        WHEN c.max_offenders < 0 THEN format('max_offenders is %s: 0 or more.', c.max_offenders)
        WHEN c.max_percent NOT BETWEEN 0 AND 100 THEN format('max_percent is %s: 0 to 100.', c.max_percent)
        WHEN k.is_timely AND (c.max_offenders IS NOT NULL OR c.max_percent IS NOT NULL OR c.population IS NOT NULL)
            THEN format('The limits of kind %s are its parameters.', c.kind)
        ELSE dwh._trouble_of_parameters(c.kind, c.parameters) END
      FROM jsonb_to_record(quality_check) AS c (name text, severity text, kind text, query text, max_offenders bigint, max_percent numeric,
                                                population text, parameters jsonb)
      LEFT JOIN dwh.check_kinds() AS k ON k.kind = c.kind
$$;
COMMENT ON FUNCTION dwh._trouble_of_check(jsonb) IS 'What is wrong with a row for ops.quality_checks, its queries aside; NULL = nothing.';

CREATE FUNCTION dwh._require_query(name text, place text, query text, called text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    one_query refcursor;
    found_detail text;
BEGIN
    PERFORM set_config('transaction_read_only', 'on', true);   -- until the end of this block
    OPEN one_query FOR EXECUTE query USING NULL::bigint[];   -- planned, not run: one statement, and one that returns rows
    CLOSE one_query;
    EXECUTE format(called, query) USING NULL::bigint[];
    EXECUTE format(called, query) USING '{}'::bigint[];
    RAISE EXCEPTION 'the query can be used'
        USING ERRCODE = 'P0W02', DETAIL = 'It was planned as checks call it.', HINT = 'Caught below, where whatever it did is undone.';
EXCEPTION WHEN SQLSTATE 'P0W02' THEN
    NULL;
WHEN OTHERS OR assert_failure THEN
    GET STACKED DIAGNOSTICS found_detail := PG_EXCEPTION_DETAIL;
    RAISE EXCEPTION 'the % of quality check "%" cannot be used: %', place, name,
            CASE WHEN SQLSTATE = '42P11' THEN 'it is not one query that returns rows' ELSE SQLERRM END
        USING ERRCODE = SQLSTATE,
              DETAIL = coalesce(nullif(found_detail, ''), 'It was planned as checks call it: read-only, inside a query, with search_path pg_catalog.'),
              HINT = CASE place WHEN 'population' THEN 'Write one query of one number, without a semicolon; $1 is a bigint[] of loads, NULL for all. Qualify names.'
                     ELSE 'Write one SELECT without a semicolon whose rows are the offenders; $1 is a bigint[] of loads, NULL for all. Qualify names.' END;
END
$$;
COMMENT ON FUNCTION dwh._require_query(text, text, text, text) IS
'Raises its own error for a text that is not one query that reads; called: how checks call it, for format().';

CREATE FUNCTION dwh._require_valid_check(quality_check jsonb, former jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    untried text[] := '{enabled,description,position}';
    trouble text;
BEGIN
    IF former - untried = quality_check - untried THEN   -- one that is broken by now can still be switched off
        RETURN;
    END IF;
    trouble := dwh._trouble_of_check(quality_check);
    IF trouble IS NOT NULL THEN
        RAISE EXCEPTION 'quality check "%" cannot be used', quality_check ->> 'name'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = trouble,
                  HINT = 'A check of your own is of kind query; the built-in kinds: SELECT kind, parameters FROM dwh.check_kinds();';
    END IF;
    -- rows may be restored before the tables that they speak of
    IF to_regclass('marts.fact_user_events') IS NULL OR to_regclass('ops.quality_results') IS NULL THEN
        RETURN;
    END IF;
    IF quality_check ->> 'query' IS DISTINCT FROM former ->> 'query' AND quality_check ->> 'query' IS NOT NULL THEN
        PERFORM dwh._require_query(quality_check ->> 'name', 'query', quality_check ->> 'query', E'SELECT to_jsonb(q.*) FROM (\n%s\n) AS q LIMIT 0');
    END IF;
    IF quality_check ->> 'population' IS DISTINCT FROM former ->> 'population' AND quality_check ->> 'population' IS NOT NULL THEN
        PERFORM dwh._require_query(quality_check ->> 'name', 'population', quality_check ->> 'population', E'SELECT (\n%s\n)::numeric LIMIT 0');
    END IF;
END
$$;
COMMENT ON FUNCTION dwh._require_valid_check(jsonb, jsonb) IS
'Raises 22023, or the error of its query, for a row of ops.quality_checks that could not be run. former: the row before, NULL = a new one; a query that did not change is not tried again.';

CREATE FUNCTION dwh._guard_quality_checks() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $guard$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_constraint AS c WHERE c.conrelid = 'ops.quality_checks'::regclass AND c.conname = 'quality_checks_kind') THEN
        UPDATE ops.quality_checks AS c SET kind = k.kind, query = NULL, max_offenders = nullif(c.max_offenders, 0)   -- of data model 3
          FROM dwh.check_kinds() AS k WHERE k.kind = c.name AND c.kind = 'query' AND NOT k.is_timely;
        ALTER TABLE ops.quality_checks ADD CONSTRAINT quality_checks_kind CHECK ((kind = 'query') = (query IS NOT NULL));
    END IF;
    CREATE INDEX IF NOT EXISTS runs_started_at ON ops.runs (started_at);
    CREATE INDEX IF NOT EXISTS quality_results_since ON ops.quality_results (name, (limits ->> 'since')) WHERE limits ->> 'since' IS NOT NULL;
    CREATE OR REPLACE FUNCTION ops.validate_quality_check() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
    BEGIN
        IF to_regprocedure('dwh._require_valid_check(jsonb, jsonb)') IS NOT NULL THEN   -- without the extension there is nobody to ask
            PERFORM dwh._require_valid_check(to_jsonb(NEW), CASE TG_OP WHEN 'UPDATE' THEN to_jsonb(OLD) END);
        END IF;
        RETURN NEW;
    END
    $$;
    COMMENT ON FUNCTION ops.validate_quality_check() IS 'Trigger of ops.quality_checks: a check is tried when it is written (dwh._require_valid_check).';
    IF NOT EXISTS (SELECT FROM pg_trigger AS t WHERE t.tgrelid = 'ops.quality_checks'::regclass AND t.tgname = 'validate_quality_check') THEN
        CREATE TRIGGER validate_quality_check BEFORE INSERT OR UPDATE ON ops.quality_checks
            FOR EACH ROW EXECUTE FUNCTION ops.validate_quality_check();
    END IF;
END
$guard$;
COMMENT ON FUNCTION dwh._guard_quality_checks() IS 'Makes the constraint and the trigger of ops.quality_checks, and what timely kinds look up by.';

CREATE FUNCTION dwh._add_quality_checks() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM dwh._guard_quality_checks();
    -- text comes with the version; severity, limits, parameters and the switch are the user's
    INSERT INTO ops.quality_checks AS c (position, name, kind, severity, enabled, description)
    SELECT k.position, k.kind, k.kind, k.severity, k.enabled, k.description FROM dwh.check_kinds() AS k
        ON CONFLICT (name) DO UPDATE SET position = excluded.position, description = excluded.description
        WHERE c.kind = excluded.kind AND (c.position, c.description) IS DISTINCT FROM (excluded.position, excluded.description);
END
$$;
COMMENT ON FUNCTION dwh._add_quality_checks() IS 'Adds the built-in checks that are missing to ops.quality_checks and brings their texts up to date.';

CREATE FUNCTION dwh.add_quality_check(
    INOUT name text,
    query text DEFAULT NULL,
    kind text DEFAULT 'query',
    severity text DEFAULT NULL,
    description text DEFAULT NULL,
    max_offenders bigint DEFAULT NULL,
    max_percent numeric DEFAULT NULL,
    population text DEFAULT NULL,
    parameters jsonb DEFAULT '{}',
    enabled boolean DEFAULT true,
    sort_order integer DEFAULT 1000,
    OUT status text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    was_there boolean;
    built_in record;
BEGIN
    PERFORM dwh._require_warehouse();
    SELECT k.severity, k.description INTO built_in FROM dwh.check_kinds() AS k WHERE k.kind = add_quality_check.kind;
    IF add_quality_check.name <> add_quality_check.kind AND EXISTS (SELECT FROM dwh.check_kinds() AS k WHERE k.kind = add_quality_check.name) THEN
        RAISE EXCEPTION 'quality check "%" is a built-in one', add_quality_check.name
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('It is of kind %s, not %s.', add_quality_check.name, add_quality_check.kind),
                  HINT = 'Take another name; a built-in check is switched off by UPDATE ops.quality_checks SET enabled = false WHERE name = ...';
    END IF;
    was_there := EXISTS (SELECT FROM ops.quality_checks AS c WHERE c.name = add_quality_check.name);
    INSERT INTO ops.quality_checks AS c (name, query, kind, severity, description, max_offenders, max_percent, population, parameters, enabled, position)
    VALUES (add_quality_check.name, add_quality_check.query, add_quality_check.kind, coalesce(add_quality_check.severity, built_in.severity, 'error'),
            coalesce(add_quality_check.description, built_in.description, 'The query gives no row.'), add_quality_check.max_offenders,
            add_quality_check.max_percent, add_quality_check.population, coalesce(add_quality_check.parameters, '{}'),
            coalesce(add_quality_check.enabled, true), coalesce(add_quality_check.sort_order, 1000))
        ON CONFLICT (name) DO UPDATE SET query = excluded.query, kind = excluded.kind, severity = excluded.severity, description = excluded.description,
           max_offenders = excluded.max_offenders, max_percent = excluded.max_percent, population = excluded.population,
           parameters = excluded.parameters, enabled = excluded.enabled, position = excluded.position
        WHERE (c.query, c.kind, c.severity, c.description, c.max_offenders, c.max_percent, c.population, c.parameters, c.enabled, c.position)
              IS DISTINCT FROM (excluded.query, excluded.kind, excluded.severity, excluded.description, excluded.max_offenders,
                                excluded.max_percent, excluded.population, excluded.parameters, excluded.enabled, excluded.position);
    status := CASE WHEN NOT FOUND THEN 'unchanged' WHEN was_there THEN 'changed' ELSE 'added' END;
END
$$;
REVOKE EXECUTE ON FUNCTION dwh.add_quality_check(text, text, text, text, text, bigint, numeric, text, jsonb, boolean, integer) FROM PUBLIC;
COMMENT ON FUNCTION dwh.add_quality_check(text, text, text, text, text, bigint, numeric, text, jsonb, boolean, integer) IS
'Adds a check to ops.quality_checks, or makes the one of that name as the arguments say; an INSERT does the same. query: one SELECT whose rows are the offenders ($1: bigint[] of loads, NULL = all); or kind: one of dwh.check_kinds(), with its parameters. severity and description NULL = those of the kind, of a query error. More than max_offenders fail, and more than max_percent of population (a query of one number, NULL = events staged of the loads); both NULL = any offender. sort_order is the column position. Tried at once, as a check that cannot write. Returns name and status (added, changed, unchanged). Errors: 22023 for a limit, kind, severity or parameter that is none, the query''s own for one that cannot be planned, writes, or is more than one, WH004 without a warehouse. A repeat changes nothing and says unchanged.';
