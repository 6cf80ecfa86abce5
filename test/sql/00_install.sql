-- 00_install: the extension comes with code alone; tables are made by create_warehouse(), for its caller.
-- Also makes the helpers of the other files, in a schema of their own.
\set VERBOSITY terse
SET client_min_messages = warning;

-- A schema dwh of somebody else is never adopted: its functions would be called instead of ours.
CREATE SCHEMA dwh;
CREATE FUNCTION dwh.event_id(payload jsonb) RETURNS uuid LANGUAGE sql AS 'SELECT NULL::uuid';
\set VERBOSITY sqlstate
CREATE EXTENSION dwh_ext;
\set VERBOSITY terse
DROP SCHEMA dwh CASCADE;

CREATE EXTENSION dwh_ext;
SELECT count(*) FILTER (WHERE classid = 'pg_class'::regclass AND c.relkind NOT IN ('c')) AS member_tables,
       count(*) FILTER (WHERE classid = 'pg_proc'::regclass) > 0 AS has_functions
  FROM pg_depend AS d
  LEFT JOIN pg_class AS c ON classid = 'pg_class'::regclass AND c.oid = d.objid
 WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
   AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'dwh_ext');
-- a superuser's extension: its loader opens server files
SELECT extrelocatable, extconfig IS NULL AS keeps_no_table FROM pg_extension WHERE extname = 'dwh_ext';
SELECT superuser, trusted, requires FROM pg_available_extension_versions WHERE name = 'dwh_ext' AND installed;

-- Before there is a warehouse every verb says so.
\set VERBOSITY sqlstate
SELECT * FROM dwh.load_jsonl(NULL::text);
SELECT * FROM dwh.stage_events();
SELECT * FROM dwh.apply_scd2();
SELECT * FROM dwh.upsert_products();
SELECT * FROM dwh.load_facts();
SELECT * FROM dwh.run_quality_checks();
SELECT * FROM dwh.add_quality_check('mine', 'SELECT 1');
SELECT * FROM dwh.retry_rejects();
SELECT * FROM dwh.run_pipeline();
SELECT * FROM dwh.forget_user('u1');
SELECT * FROM dwh.drop_before('raw', now());
SELECT * FROM dwh.schedule_pipeline();
SELECT * FROM dwh.unschedule_pipeline();
SELECT * FROM dwh.prune_history();
SELECT * FROM dwh.grant_roles(current_user);
SELECT * FROM dwh.claim_alerts();
SELECT * FROM dwh.ack_alert(1);
SELECT * FROM dwh.fail_alert(1);
SELECT * FROM dwh.status();
SELECT * FROM dwh.explain_pipeline();
SELECT * FROM dwh.metrics();
SELECT * FROM dwh.trace(gen_random_uuid());
\set VERBOSITY terse

SELECT status, model_version = dwh._model_version() AS is_current_model FROM dwh.create_warehouse();
SELECT status FROM dwh.create_warehouse();

-- Every noun and verb once, on an empty warehouse: bodies are checked when they run, not when they are installed.
SELECT count(*) FROM dwh.load_jsonl(NULL::text);
SELECT * FROM dwh.stage_events();
SELECT * FROM dwh.apply_scd2();
SELECT * FROM dwh.upsert_products();
SELECT * FROM dwh.load_facts();
SELECT name, severity, status, observed, allowed, offenders FROM dwh.run_quality_checks();
SELECT step, status, rows_in, rows_out, rejected FROM dwh.run_pipeline();
SELECT * FROM dwh.retry_rejects();
SELECT * FROM dwh.forget_user('u1');
SELECT * FROM dwh.prune_history();
SELECT count(*), sum(g.granted + g.missing) FROM dwh.grant_roles(current_user, current_user) AS g;
SELECT d.status FROM unnest(ARRAY['raw', 'staging', 'facts']) AS l (layer), dwh.drop_before(l.layer, now()) AS d;
SELECT count(*) FROM dwh.claim_alerts();
SELECT count(*) FROM dwh.typed_events(1);
SELECT count(*) FROM dwh.user_versions();
SELECT count(*) FROM dwh.product_state();
SELECT count(*) FROM dwh.product_prices();
SELECT count(*) FROM dwh.resolved_facts(1);
SELECT count(*) FROM dwh.fact_partitions();
SELECT count(*) > 10 AS has_items FROM dwh.status();
SELECT count(*) AS steps FROM dwh.explain_pipeline();
SELECT count(*) > 10 AS has_metrics FROM dwh.metrics();
SELECT what FROM dwh.trace(gen_random_uuid());
SELECT count(*) FROM marts.kpi_daily;
SELECT count(*) FROM marts.kpi_segment;

-- a check of one's own, by call and by row
SELECT * FROM dwh.add_quality_check('by_call', 'SELECT 1 WHERE false', severity => 'warn');
-- The library may go and come back; the data stays and is known again.
INSERT INTO ops.quality_checks (name, severity, description, query) VALUES ('mine', 'warn', 'Stays.', 'SELECT 1 WHERE false');
DROP EXTENSION dwh_ext;
SELECT count(*) AS schemas FROM pg_namespace WHERE nspname IN ('dwh', 'raw', 'staging', 'marts', 'ops');
SELECT count(*) FROM marts.kpi_daily;   -- the views need nothing of the extension
CREATE EXTENSION dwh_ext;
SELECT status FROM dwh.create_warehouse();
SELECT count(*) FROM ops.quality_checks WHERE name = 'mine';
SELECT status FROM dwh.stage_events();

-- Helpers of the other files.
CREATE SCHEMA test;
CREATE FUNCTION test.sh(command text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('COPY (SELECT 1) TO PROGRAM %L', 'cat >/dev/null; ' || command);
END $$;
CREATE FUNCTION test.dir() RETURNS text LANGUAGE sql AS $$
    SELECT current_setting('data_directory') || '/dwh_test_' || (SELECT oid FROM pg_database WHERE datname = current_database()) $$;
-- An empty warehouse, and an empty directory as the landing directory.
CREATE FUNCTION test.begin() RETURNS text LANGUAGE plpgsql SET client_min_messages = error AS $$
BEGIN
    DROP SCHEMA IF EXISTS raw, staging, marts, ops CASCADE;
    PERFORM test.sh(format('rm -rf %1$s; mkdir %1$s', test.dir()));
    EXECUTE format('ALTER DATABASE %I SET dwh.landing_directory = %L', current_database(), test.dir());
    PERFORM set_config('dwh.landing_directory', test.dir(), false);
    RETURN status FROM dwh.create_warehouse();
END $$;
-- Exactly these bytes under that name in the landing directory.
CREATE FUNCTION test.put_bytes(name text, bytes bytea) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    object oid := lo_from_bytea(0, bytes);
BEGIN
    PERFORM lo_export(object, test.dir() || '/' || name), lo_unlink(object);
END $$;
-- Lines with LF after each.
CREATE FUNCTION test.put(name text, VARIADIC lines text[]) RETURNS void LANGUAGE sql AS $$
    SELECT test.put_bytes(name, convert_to(array_to_string(lines, E'\n') || E'\n', 'UTF8')) $$;
-- load_jsonl without the directory in its path.
CREATE FUNCTION test.load(name text, on_error text DEFAULT 'continue', reject_limit text DEFAULT NULL, force boolean DEFAULT false)
RETURNS TABLE (load_id bigint, file text, status text, lines bigint, loaded bigint, rejected bigint, blank bigint, held_back_bytes bigint, bytes bigint)
LANGUAGE sql AS $$
    SELECT l.load_id, regexp_replace(l.path, '^.*/', ''), l.status, l.lines, l.loaded, l.rejected, l.blank, l.held_back_bytes, l.bytes
      FROM dwh.load_jsonl(name, on_error, reject_limit, force) AS l $$;
-- An event of these fields over the defaults of a page view.
CREATE FUNCTION test.event(fields jsonb) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT ('{"event_type": "page_view", "user_id": "u1", "event_time": "2025-01-10T00:00:00Z"}'::jsonb || fields)::text $$;
-- All verbs between loading and checking.
CREATE FUNCTION test.build() RETURNS TABLE (step text, result text) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY SELECT 'stage_events', s::text FROM dwh.stage_events() AS s;
    RETURN QUERY SELECT 'apply_scd2', s::text FROM dwh.apply_scd2() AS s;
    RETURN QUERY SELECT 'upsert_products', s::text FROM dwh.upsert_products() AS s;
    RETURN QUERY SELECT 'load_facts', s::text FROM dwh.load_facts() AS s;
END $$;
-- What the nouns say against what the tables hold: no row where all is well.
CREATE FUNCTION test.differences() RETURNS TABLE (what text, row_text text) LANGUAGE sql AS $$
    (SELECT 'versions missing', v::text FROM (SELECT * FROM dwh.user_versions() EXCEPT ALL
        SELECT user_id, device, country, valid_from, valid_to FROM marts.dim_user) AS v)
    UNION ALL
    (SELECT 'versions too many', v::text FROM (SELECT user_id, device, country, valid_from, valid_to FROM marts.dim_user
        EXCEPT ALL SELECT * FROM dwh.user_versions()) AS v)
    UNION ALL
    (SELECT 'products missing', v::text FROM (SELECT product_id, category, brand, price FROM dwh.product_state() EXCEPT ALL
        SELECT product_id, category, brand, price FROM marts.dim_product) AS v)
    UNION ALL
    (SELECT 'products too many', v::text FROM (SELECT product_id, category, brand, price FROM marts.dim_product WHERE product_key <> 0
        EXCEPT ALL SELECT product_id, category, brand, price FROM dwh.product_state()) AS v)
    UNION ALL
    (SELECT 'prices missing', v::text FROM (SELECT * FROM dwh.product_prices() EXCEPT ALL
        SELECT p.product_id, d.price, d.valid_from, d.valid_to FROM marts.dim_product_price AS d LEFT JOIN marts.dim_product AS p USING (product_key)) AS v)
    UNION ALL
    (SELECT 'prices too many', v::text FROM (SELECT p.product_id, d.price, d.valid_from, d.valid_to
        FROM marts.dim_product_price AS d LEFT JOIN marts.dim_product AS p USING (product_key) EXCEPT ALL SELECT * FROM dwh.product_prices()) AS v)
    UNION ALL
    (SELECT 'inferred is wrong', p.product_id FROM marts.dim_product AS p
      WHERE product_key <> 0 AND is_inferred <> (coalesce(category, brand, price::text) IS NULL))
    UNION ALL
    (SELECT 'facts missing', v::text FROM (SELECT l.load_id, r.* FROM ops.loads AS l, dwh.resolved_facts(l.load_id) AS r EXCEPT ALL
        SELECT load_id, event_id, event_time, event_type, session_id, user_key, product_key, quantity, price, revenue, attributes, line_no
          FROM marts.fact_user_events) AS v)
    UNION ALL
    (SELECT 'facts too many', v::text FROM (
        SELECT load_id, event_id, event_time, event_type, session_id, user_key, product_key, quantity, price, revenue, attributes, line_no
          FROM marts.fact_user_events EXCEPT ALL SELECT l.load_id, r.* FROM ops.loads AS l, dwh.resolved_facts(l.load_id) AS r) AS v)
    UNION ALL
    (SELECT 'id is not recomputable', s.event_id::text FROM staging.user_events AS s
       JOIN raw.user_events AS r USING (load_id, line_no) WHERE s.event_id IS DISTINCT FROM dwh.event_id(r.payload))
    UNION ALL
    (SELECT 'not conserved', l.load_id::text FROM ops.loads AS l
      WHERE l.lines <> l.loaded + l.rejected + l.blank
         OR l.facts_at IS NOT NULL AND (l.loaded <> l.staged + l.replayed + l.conflicting + l.stage_rejected + l.forgotten OR l.staged <> l.facts)) $$;
-- What an error carries: its code, and whether it says what was found (DETAIL) and what to do (HINT).
CREATE FUNCTION test.error(statement text) RETURNS TABLE (code text, has_detail boolean, has_hint boolean) LANGUAGE plpgsql AS $$
DECLARE
    d text; h text;
BEGIN
    EXECUTE statement;
    RETURN QUERY SELECT 'none', false, false;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS d := PG_EXCEPTION_DETAIL, h := PG_EXCEPTION_HINT;
    RETURN QUERY SELECT SQLSTATE::text, d <> '', h <> '';
END $$;
