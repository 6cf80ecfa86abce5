-- 98_api_contract: the API as a list, so that any change of it is a visible difference; and what holds for all of it.
SET client_min_messages = warning;
SET search_path = pg_catalog;   -- types are printed with their schema, whoever runs this
SELECT test.begin();

-- Every function of schema dwh: arguments, result, volatility (i, s, v), parallel safety, settings pinned, open to PUBLIC.
SELECT p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')' AS function, pg_get_function_result(p.oid) AS result, p.provolatile AS v, p.proparallel AS p,
       array_to_string(p.proconfig, '; ') AS settings, has_function_privilege('public', p.oid, 'EXECUTE') AS public
  FROM pg_proc AS p WHERE p.pronamespace = 'dwh'::regnamespace AND p.proname NOT LIKE '\_%' ORDER BY p.proname COLLATE "C", 1;
-- with their defaults, as named notation needs them
SELECT p.proname, pg_get_function_arguments(p.oid) AS arguments FROM pg_proc AS p WHERE p.pronamespace = 'dwh'::regnamespace AND p.proname NOT LIKE '\_%' AND p.pronargdefaults > 0 ORDER BY p.proname COLLATE "C", 2;
-- types
SELECT t.typname, string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum) AS attributes
  FROM pg_type AS t JOIN pg_attribute AS a ON a.attrelid = t.typrelid AND a.attnum > 0 WHERE t.typnamespace = 'dwh'::regnamespace GROUP BY 1 ORDER BY 1;
-- settings
SELECT name, setting, unit, vartype, context, min_val, max_val, enumvals FROM pg_settings WHERE name LIKE 'dwh.%' AND name <> 'dwh.landing_directory' ORDER BY name COLLATE "C";

-- What holds for all: no security definer, no function of another schema, verbs pin their search_path, private ones are nobody's.
SELECT p.oid::regprocedure AS security_definer FROM pg_proc AS p WHERE p.pronamespace = 'dwh'::regnamespace AND p.prosecdef;
SELECT p.oid::regprocedure AS verb_without_search_path FROM pg_proc AS p
 WHERE p.pronamespace = 'dwh'::regnamespace AND p.prokind = 'f' AND (p.provolatile = 'v' OR p.prolang = (SELECT oid FROM pg_language WHERE lanname = 'plpgsql'))
   AND NOT coalesce(p.proconfig, '{}') @> ARRAY['search_path=pg_catalog, pg_temp'] AND NOT (p.proname LIKE '\_%' AND p.prolang = (SELECT oid FROM pg_language WHERE lanname = 'c'));
-- SQL nouns, which are to be inlined, have no settings; all their names are qualified instead
SELECT p.oid::regprocedure AS noun_that_cannot_be_inlined FROM pg_proc AS p JOIN pg_language AS l ON l.oid = p.prolang
 WHERE p.pronamespace = 'dwh'::regnamespace AND l.lanname = 'sql' AND p.provolatile = 's' AND p.proretset AND p.proname NOT LIKE '\_%' AND p.proname NOT IN ('fact_partitions', 'help') AND p.proconfig IS NOT NULL;
SELECT p.oid::regprocedure AS private_but_open FROM pg_proc AS p WHERE p.pronamespace = 'dwh'::regnamespace AND p.proname LIKE '\_%' AND has_function_privilege('public', p.oid, 'EXECUTE');
SELECT p.oid::regprocedure AS verb_open_to_public FROM pg_proc AS p WHERE p.pronamespace = 'dwh'::regnamespace AND p.provolatile = 'v' AND has_function_privilege('public', p.oid, 'EXECUTE');
SELECT count(*) AS functions_of_other_schemas FROM pg_depend AS d JOIN pg_proc AS p ON p.oid = d.objid
 WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'dwh_ext') AND p.pronamespace <> 'dwh'::regnamespace;
-- nothing in dwh that is not a member, no table among its members
SELECT p.oid::regprocedure AS stray FROM pg_proc AS p WHERE p.pronamespace = 'dwh'::regnamespace
   AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e');
SELECT c.oid::regclass AS relation_in_dwh FROM pg_class AS c WHERE c.relnamespace = 'dwh'::regnamespace AND c.relkind <> 'c';
-- every argument can be named
SELECT p.oid::regprocedure AS with_unnamed_arguments FROM pg_proc AS p WHERE p.pronamespace = 'dwh'::regnamespace AND p.prokind = 'f' AND p.proname NOT LIKE '\_%' AND p.pronargs > 0
   AND (p.proargnames IS NULL OR '' = ANY (p.proargnames));

-- Every object has a comment: functions, aggregates, types, schemas, tables, views, every column.
SELECT test.put('x.jsonl', test.event('{}'));
SELECT count(*) AS steps FROM dwh.run_pipeline();   -- so that there is a partition
SELECT p.oid::regprocedure AS function_without_comment FROM pg_proc AS p WHERE p.pronamespace = 'dwh'::regnamespace AND coalesce(obj_description(p.oid, 'pg_proc'), '') = '';
SELECT t.typname AS type_without_comment FROM pg_type AS t WHERE t.typnamespace = 'dwh'::regnamespace AND t.typtype <> 'b' AND coalesce(obj_description(t.oid, 'pg_type'), '') = '';
SELECT n.nspname AS schema_without_comment FROM pg_namespace AS n WHERE n.nspname IN ('dwh', 'raw', 'staging', 'marts', 'ops') AND coalesce(obj_description(n.oid, 'pg_namespace'), '') = '';
SELECT c.oid::regclass AS relation_without_comment FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname IN ('raw', 'staging', 'marts', 'ops') AND c.relkind IN ('r', 'p', 'v', 'm') AND coalesce(obj_description(c.oid, 'pg_class'), '') = '';
SELECT a.attrelid::regclass AS relation, a.attname AS column_without_comment FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname IN ('raw', 'staging', 'marts', 'ops') AND c.relkind IN ('r', 'p', 'v', 'm') AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped AND coalesce(col_description(c.oid, a.attnum), '') = '';
-- and a comment on a public verb or noun says what comes back and which errors there are
SELECT p.oid::regprocedure AS comment_without_returns_or_errors FROM pg_proc AS p WHERE p.pronamespace = 'dwh'::regnamespace AND p.prokind = 'f' AND p.proname NOT LIKE '\_%'
   AND NOT (obj_description(p.oid, 'pg_proc') LIKE '%Returns %' AND obj_description(p.oid, 'pg_proc') LIKE '%Errors: %') ORDER BY p.proname COLLATE "C";

-- The API of the manual.
SELECT f AS missing FROM unnest(ARRAY['create_warehouse', 'generate_events', 'sample_events', 'load_jsonl', 'stage_events', 'apply_scd2', 'upsert_products', 'load_facts', 'run_quality_checks', 'add_quality_check', 'check_kinds', 'run_pipeline', 'retry_rejects', 'forget_user', 'drop_before', 'claim_alerts', 'ack_alert', 'fail_alert', 'event_id', 'dirty_kinds', 'held_loads', 'status', 'explain_pipeline', 'metrics', 'trace', 'help']) AS f
 WHERE NOT EXISTS (SELECT FROM pg_proc AS p WHERE p.pronamespace = 'dwh'::regnamespace AND p.proname = f);

-- The queries that users bring along, unchanged.
SELECT test.begin();
\c
SELECT test.put('seed.jsonl',
    '{"event_time": "2025-01-10T12:30:15Z", "event_type": "purchase", "user_id": "u000123", "session_id": "uuid", "product_id": "p0045", "device": "mobile", "country": "KR", "price": 29000, "quantity": 1, "revenue": 29000}',
    '{"event_time": "2025-01-10T12:29:15Z", "event_type": "page_view", "user_id": "u000123", "session_id": "uuid", "product_id": "p0045", "device": "mobile", "country": "KR"}',
    '{"event_time": "2025-01-10T12:28:15Z", "event_type": "page_view", "user_id": "u000123", "session_id": "uuid", "device": "desktop", "country": "KR"}',
    '{"event_time": "2025-01-11T12:28:15Z", "event_type": "page_view", "user_id": "u000124", "session_id": "uuid2", "device": "desktop", "country": "US"}');
SELECT status FROM dwh.run_pipeline() WHERE step = 'run_quality_checks';
SELECT event_type, COUNT(*) FROM marts.fact_user_events GROUP BY 1 ORDER BY 2 DESC;
SELECT COUNT(*) FROM marts.dim_user WHERE is_current = true;
SELECT SUM(revenue) FROM marts.fact_user_events;
SELECT COUNT(*) FROM staging.user_events WHERE event_time IS NULL OR event_type IS NULL;
WITH s AS (SELECT COUNT(*) cnt FROM staging.user_events), f AS (SELECT COUNT(*) cnt FROM marts.fact_user_events)
SELECT f.cnt::float / s.cnt AS load_ratio FROM s, f;
