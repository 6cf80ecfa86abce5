-- 98_roles.sql: the rights of who reads the marts, and of who runs the pipeline.
--
-- Invariants: rights are granted and never taken; no function runs with the rights of another role, so that what is said here
-- is all that these roles have. What can hold row data, and the warehouse's salt, stays closed to a reader; an operator can
-- change rows, but no table, check or right.
-- Repeats are harmless: what a role has already is not granted again.

-- Noun: the tables of the warehouse and what each role may do with them. Columns NULL: all, also later ones.
CREATE FUNCTION dwh._table_rights() RETURNS TABLE (role text, relation text, privileges text, columns text[])
LANGUAGE sql IMMUTABLE ROWS 50 SET search_path = pg_catalog, pg_temp AS $$
    VALUES
    ('reader', 'marts.dim_user', 'SELECT', NULL::text[]),
    ('reader', 'marts.dim_product', 'SELECT', NULL),
    ('reader', 'marts.dim_product_price', 'SELECT', NULL),
    ('reader', 'marts.fact_user_events', 'SELECT', NULL),
    ('reader', 'marts.kpi_daily', 'SELECT', NULL),
    ('reader', 'marts.kpi_segment', 'SELECT', NULL),
    ('reader', 'ops.loads', 'SELECT', NULL),
    ('reader', 'ops.quality_checks', 'SELECT', NULL),
    ('reader', 'ops.warehouse', 'SELECT', '{model_version,created_at,changes,only_row,staging_since,facts_since}'),
    ('reader', 'ops.runs', 'SELECT', '{run_id,status,started_at,finished_at,pid,username,sqlstate,caller_run_id,trace_id}'),
    ('reader', 'ops.run_steps', 'SELECT', '{run_id,step_no,step,status,rows_in,rows_out,rejected,elapsed,wal_bytes,sqlstate}'),
    ('reader', 'ops.quality_results', 'SELECT', '{result_id,run_id,load_ids,name,severity,status,observed,allowed,checked_at,limits,accepted}'),
    ('reader', 'ops.alerts', 'SELECT', '{alert_id,run_id,severity,created_at,dedupe_key,state,failures,last_failed_at,attempts,next_at,delivered_at,delivered_to}'),
    ('operator', 'raw.user_events', 'SELECT, INSERT, UPDATE, DELETE', NULL),
    ('operator', 'staging.user_events', 'SELECT, INSERT', NULL),
    ('operator', 'marts.dim_user', 'SELECT, INSERT, UPDATE, DELETE', NULL),
    ('operator', 'marts.dim_product', 'SELECT, INSERT, UPDATE', NULL),
    ('operator', 'marts.dim_product_price', 'SELECT, INSERT, UPDATE, DELETE', NULL),
    ('operator', 'marts.fact_user_events', 'SELECT, INSERT, UPDATE', NULL),
    ('operator', 'marts.kpi_daily', 'SELECT', NULL),
    ('operator', 'marts.kpi_segment', 'SELECT', NULL),
    ('operator', 'ops.warehouse', 'SELECT', NULL),
    ('operator', 'ops.warehouse', 'UPDATE', '{changes}'),
    ('operator', 'ops.forgotten_users', 'SELECT', NULL),
    ('operator', 'ops.quality_checks', 'SELECT', NULL),   -- whose queries run as whoever runs the pipeline
    ('operator', 'ops.loads', 'SELECT, INSERT, UPDATE', NULL),
    ('operator', 'ops.files', 'SELECT, INSERT, UPDATE, DELETE', NULL),
    ('operator', 'ops.rejects', 'SELECT, INSERT, UPDATE, DELETE', NULL),
    ('operator', 'ops.event_conflicts', 'SELECT, INSERT', NULL),
    ('operator', 'ops.event_filter', 'SELECT, INSERT, UPDATE, DELETE', NULL),
    ('operator', 'ops.runs', 'SELECT, INSERT, UPDATE, DELETE', NULL),
    ('operator', 'ops.run_steps', 'SELECT, INSERT, UPDATE, DELETE', NULL),
    ('operator', 'ops.quality_results', 'SELECT, INSERT, DELETE', NULL),
    ('operator', 'ops.quality_results', 'UPDATE', '{accepted}'),
    ('operator', 'ops.alerts', 'SELECT, INSERT, UPDATE, DELETE', NULL)
$$;
COMMENT ON FUNCTION dwh._table_rights() IS 'What a reader and an operator may do with the tables and views of the warehouse; partitions are reached through their table.';

-- Noun: the functions that each role may call. What everybody may call is left out.
CREATE FUNCTION dwh._function_rights() RETURNS TABLE (role text, function regprocedure)
LANGUAGE sql STABLE ROWS 200 SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE functions AS MATERIALIZED (
        SELECT p.oid::regprocedure AS function, p.proname::text AS name, p.prosrc AS body
          FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace AND n.nspname = 'dwh' WHERE p.prokind = 'f'),
    of_readers AS (   -- those that only read what a reader may see, and the private ones that they call
        SELECT f.* FROM functions AS f WHERE f.name IN ('status', 'metrics', 'explain_pipeline', 'help', 'fact_partitions')
         UNION
        SELECT f.* FROM of_readers AS r JOIN functions AS f ON starts_with(f.name, '_') AND strpos(r.body, format('dwh.%s(', f.name)) > 0)
    SELECT 'reader', r.function FROM of_readers AS r
     UNION ALL   -- all but those that change what there is to run, or take data away
    SELECT 'operator', f.function FROM functions AS f WHERE f.name NOT IN ('create_warehouse', 'forget_user', 'drop_before', 'add_quality_check', 'grant_roles')
$$;
COMMENT ON FUNCTION dwh._function_rights() IS 'The functions of schema dwh that a reader and an operator may call.';

-- Noun: a row for each right that is missing. statement: the GRANT without its TO.
CREATE FUNCTION dwh._missing_rights(role text, grantee name)
RETURNS TABLE (kind text, object text, statement text, is_grantable boolean)
LANGUAGE sql STABLE ROWS 100 SET search_path = pg_catalog, pg_temp AS $$
    SELECT 'schema', n.name, format('GRANT USAGE ON SCHEMA %I', n.name), true
      FROM (VALUES ('reader', 'marts'), ('reader', 'ops'), ('operator', 'raw'), ('operator', 'staging'), ('operator', 'marts'), ('operator', 'ops'))
        AS n (role, name)
     WHERE n.role = _missing_rights.role AND NOT has_schema_privilege(grantee, n.name, 'USAGE')
     UNION ALL
    SELECT 'table', t.relation, format('GRANT %s ON %s', string_agg(DISTINCT p.privilege, ', '), t.relation), true
      FROM dwh._table_rights() AS t CROSS JOIN regexp_split_to_table(t.privileges, ', ') AS p (privilege)
     WHERE t.role = _missing_rights.role AND t.columns IS NULL AND to_regclass(t.relation) IS NOT NULL
       AND NOT has_table_privilege(grantee, to_regclass(t.relation), p.privilege)
     GROUP BY t.relation
     UNION ALL
    SELECT 'columns', t.relation, format('GRANT %s (%s) ON %s', t.privileges, string_agg(quote_ident(c), ', '), t.relation), true
      FROM dwh._table_rights() AS t CROSS JOIN unnest(t.columns) AS c
     WHERE t.role = _missing_rights.role AND to_regclass(t.relation) IS NOT NULL
       AND NOT has_column_privilege(grantee, to_regclass(t.relation), c, t.privileges)
     GROUP BY t.relation, t.privileges
     UNION ALL
    SELECT 'sequence', s.oid::regclass::text, format('GRANT USAGE ON SEQUENCE %s', s.oid::regclass), true
      FROM pg_class AS s JOIN pg_namespace AS n ON n.oid = s.relnamespace AND n.nspname IN ('marts', 'ops')
     WHERE _missing_rights.role = 'operator'
       AND CASE WHEN s.relkind = 'S' THEN NOT has_sequence_privilege(grantee, s.oid, 'USAGE') ELSE false END
     UNION ALL
    SELECT 'function', f.function::text, format('GRANT EXECUTE ON FUNCTION %s', f.function),
           has_function_privilege(f.function, 'EXECUTE WITH GRANT OPTION')
      FROM dwh._function_rights() AS f
     WHERE f.role = _missing_rights.role AND NOT has_function_privilege(grantee, f.function, 'EXECUTE')
     UNION ALL   -- everybody has these, unless they were taken
    SELECT 'database', current_database(), format('GRANT %s ON DATABASE %I', string_agg(p, ', '), current_database()),
           bool_and(has_database_privilege(current_database(), p || ' WITH GRANT OPTION'))
      FROM unnest(CASE role WHEN 'operator' THEN ARRAY['CONNECT', 'TEMPORARY'] ELSE ARRAY['CONNECT'] END) AS p
     WHERE NOT has_database_privilege(grantee, current_database(), p)
    HAVING count(*) > 0
$$;
COMMENT ON FUNCTION dwh._missing_rights(text, name) IS
'The rights of a reader or operator that this role has not, with the statement that grants them, and whether the caller can.';

CREATE FUNCTION dwh._require_grantable(grantee name) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    owner oid := (SELECT c.relowner FROM pg_class AS c WHERE c.oid = to_regclass('ops.warehouse'));
BEGIN
    IF NOT pg_has_role(owner, 'USAGE') THEN
        RAISE EXCEPTION 'role "%" does not own the warehouse', current_user
            USING ERRCODE = 'insufficient_privilege',
                  DETAIL = format('Its owner is "%s".', pg_get_userbyid(owner)),
                  HINT = 'Call grant_roles() as its owner, or as a superuser.';
    ELSIF grantee IS NOT NULL AND NOT EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = grantee) THEN
        RAISE EXCEPTION 'there is no role "%"', grantee
            USING ERRCODE = 'undefined_object',
                  DETAIL = 'Rights are granted to a role that exists: a user, or a group of users.',
                  HINT = format('CREATE ROLE %I;', grantee);
    END IF;
END
$$;
COMMENT ON FUNCTION dwh._require_grantable(name) IS 'Raises 42501 unless the caller owns the warehouse, 42704 for an unknown role; NULL passes.';

CREATE FUNCTION dwh._grant_missing(part text, grantee name, wanted_kind text, OUT granted bigint, OUT missing bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    missing_right record;
BEGIN
    granted := 0; missing := 0;
    FOR missing_right IN SELECT m.* FROM dwh._missing_rights(part, grantee) AS m WHERE m.kind = wanted_kind LOOP
        IF missing_right.is_grantable THEN
            EXECUTE format('%s TO %I', missing_right.statement, grantee);
            granted := granted + 1;
        ELSE
            missing := missing + 1;
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION dwh._grant_missing(text, name, text) IS
'Grants what a role lacks of one kind of rights; returns how many it granted, and how many the caller cannot grant.';

CREATE FUNCTION dwh.grant_roles(reader name DEFAULT NULL, operator name DEFAULT NULL)
RETURNS TABLE (role name, part text, kind text, granted bigint, missing bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    refused bigint := 0;
BEGIN
    PERFORM dwh._require_warehouse();
    PERFORM dwh._require_grantable(reader), dwh._require_grantable(operator);
    PERFORM dwh._require_writable();
    IF reader IS NULL AND operator IS NULL THEN
        RAISE EXCEPTION 'no role is given'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = 'reader may look at marts and ledgers, operator may run the pipeline.',
                  HINT = 'SELECT * FROM dwh.grant_roles(reader => ''analyst'', operator => ''scheduler'').';
    END IF;
    FOR role, part, kind IN
        SELECT w.grantee, w.part, k.kind
          FROM (VALUES (1, 'reader', reader), (2, 'operator', operator)) AS w (position, part, grantee)
         CROSS JOIN unnest(ARRAY['database', 'schema', 'table', 'columns', 'sequence', 'function']) WITH ORDINALITY AS k (kind, position)
         WHERE w.grantee IS NOT NULL ORDER BY w.position, k.position
    LOOP
        SELECT g.granted, g.missing INTO granted, missing FROM dwh._grant_missing(part, role, kind) AS g;
        refused := refused + missing;
        RETURN NEXT;
    END LOOP;
    IF refused > 0 THEN
        RAISE WARNING '% rights could not be granted', refused
            USING DETAIL = format('Functions belong to the extension''s owner, the database to its own; role "%s" may not pass their rights on.', current_user),
                  HINT = format('As a superuser the same: SELECT * FROM dwh.grant_roles(%L, %L); or once: GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA dwh TO %I WITH GRANT OPTION.',
                                reader, operator, current_user);
    END IF;
END
$$;
REVOKE EXECUTE ON FUNCTION dwh.grant_roles(name, name) FROM PUBLIC;
COMMENT ON FUNCTION dwh.grant_roles(name, name) IS
'Grants two sets of rights, each to a role. reader: SELECT on all of marts, and on what the ledgers say of loads, runs, checks and alerts without the columns that can hold row data (messages, offenders, bodies); the functions that read just that. operator: what running the pipeline needs, loading, staging, checks, retries, pruning, alerts and the schedule; neither erasure nor retention, tables, checks or rights. Called by the owner of the warehouse, or a superuser. NULL = nobody. Returns for each role and kind of right how many were granted, and how many are missing as the caller cannot pass them on: a WARNING then says who can. DROP OWNED BY role, as a superuser, takes rights away, and drops what the role owns (REASSIGN OWNED first). Errors: 42501 for who does not own the warehouse, 42704 for an unknown role, 22023 without any, WH004 without a warehouse. A repeat grants what has become missing, as after an upgrade, and else nothing.';
