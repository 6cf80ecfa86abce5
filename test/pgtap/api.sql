-- The functions of schema dwh: what there is, how it is called, what it promises to the planner.
SET client_min_messages = warning;
SET search_path = public;   -- and not the schema named as the user, so that types are printed with theirs
SELECT no_plan();

SELECT has_function('dwh', f.name, f.arguments, format('dwh.%s(%s)', f.name, array_to_string(f.arguments, ', ')))
  FROM (VALUES ('create_warehouse', '{}'::text[]),
               ('generate_events', '{text,bigint,bigint,bigint,bigint,timestamptz,bigint,float8,text[]}'),
               ('sample_events', '{bigint,bigint,bigint,bigint,timestamptz,bigint,float8,text[]}'),
               ('dirty_kinds', '{}'),
               ('event_id', '{jsonb}'),
               ('stage_events', '{bigint}'),
               ('apply_scd2', '{bigint}'),
               ('upsert_products', '{bigint}'),
               ('load_facts', '{bigint}'),
               ('run_quality_checks', '{bigint,boolean}'),
               ('add_quality_check', '{text,text,text,text,text,bigint,numeric,text,jsonb,boolean,integer}'),
               ('check_kinds', '{}'),
               ('run_pipeline', '{text,boolean,text,text,boolean}'),
               ('forget_user', '{text}'),
               ('drop_before', '{text,timestamptz}'),
               ('schedule_pipeline', '{text,text,interval}'),
               ('unschedule_pipeline', '{}'),
               ('prune_history', '{interval}'),
               ('grant_roles', '{name,name}'),
               ('claim_alerts', '{integer,interval}'),
               ('ack_alert', '{bigint,text[]}'),
               ('fail_alert', '{bigint,text,text[]}'),
               ('held_loads', '{}'),
               ('status', '{}'),
               ('explain_pipeline', '{}'),
               ('metrics', '{}'),
               ('trace', '{uuid}'),
               ('help', '{}')) AS f (name, arguments);

SELECT is(pg_get_function_result(to_regprocedure(f.signature)), f.result, f.signature || ' returns ' || f.result)
  FROM (VALUES ('dwh.sample_events(bigint,bigint,bigint,bigint,timestamptz,bigint,float8,text[])', 'SETOF text'),
               ('dwh.generate_events(text,bigint,bigint,bigint,bigint,timestamptz,bigint,float8,text[])', 'dwh.generated_log'),
               ('dwh.load_jsonl(text,text,"any",boolean,boolean,integer)', 'SETOF dwh.load_result'),
               ('dwh.load_jsonl(oid,text,"any",boolean,boolean,integer)', 'SETOF dwh.load_result'),
               ('dwh.event_id(jsonb)', 'uuid'),
               ('dwh.parse_event(jsonb,timestamptz)', 'dwh.parsed_event'),
               ('dwh.create_warehouse()', 'record'),
               ('dwh.forget_user(text)', 'record'),
               ('dwh.drop_before(text,timestamptz)', 'record'),
               ('dwh.schedule_pipeline(text,text,interval)', 'SETOF dwh.scheduled_job'),
               ('dwh.unschedule_pipeline()', 'SETOF dwh.scheduled_job'),
               ('dwh.prune_history(interval)', 'record'),
               ('dwh.grant_roles(name,name)', 'TABLE(role name, part text, kind text, granted bigint, missing bigint)'),
               ('dwh.stage_events(bigint)', 'record'),
               ('dwh.ack_alert(bigint,text[])', 'record'),
               ('dwh.fail_alert(bigint,text,text[])', 'record'),
               ('dwh.status()', 'SETOF record'),
               ('dwh.explain_pipeline()', 'SETOF record'),
               ('dwh.metrics()', 'SETOF record'),
               ('dwh.help()', 'SETOF record'),
               ('dwh.trace(uuid)', 'SETOF dwh.trace_step'),
               ('dwh.product_prices()', 'TABLE(product_id text, price numeric, valid_from timestamp with time zone, valid_to timestamp with time zone)'),
               ('dwh.run_pipeline(text,boolean,text,text,boolean)', 'TABLE(step text, status text, rows_in bigint, rows_out bigint, rejected bigint, elapsed interval, message text)'),
               ('dwh.run_quality_checks(bigint,boolean)',
                'TABLE(name text, severity text, status text, observed bigint, allowed bigint, offenders jsonb, elapsed interval, limits jsonb)')) AS f (signature, result);

SELECT volatility_is('dwh', f.name::name, f.volatility, format('%s is %s', f.name, f.volatility))
  FROM (VALUES ('create_warehouse', 'volatile'), ('generate_events', 'volatile'), ('load_jsonl', 'volatile'), ('stage_events', 'volatile'),
               ('apply_scd2', 'volatile'), ('upsert_products', 'volatile'), ('load_facts', 'volatile'), ('run_quality_checks', 'volatile'), ('add_quality_check', 'volatile'), ('check_kinds', 'immutable'),
               ('run_pipeline', 'volatile'), ('forget_user', 'volatile'), ('drop_before', 'volatile'), ('schedule_pipeline', 'volatile'),
               ('unschedule_pipeline', 'volatile'), ('prune_history', 'volatile'), ('grant_roles', 'volatile'), ('claim_alerts', 'volatile'), ('ack_alert', 'volatile'), ('fail_alert', 'volatile'),
               ('event_id', 'immutable'), ('dirty_kinds', 'immutable'), ('sample_events', 'stable'),
               ('user_versions', 'stable'), ('product_state', 'stable'), ('product_prices', 'stable'), ('resolved_facts', 'stable'), ('typed_events', 'stable'),
               ('fact_partitions', 'stable'), ('status', 'stable'), ('explain_pipeline', 'stable'), ('metrics', 'stable'), ('help', 'stable'), ('trace', 'volatile')) AS f (name, volatility);

SELECT is_empty($$SELECT p.oid::regprocedure FROM pg_proc AS p WHERE p.pronamespace = 'dwh'::regnamespace AND p.prosecdef$$,
    'no function runs with its owner''s rights');

-- Aggregates aside, every argument has a name, so that every call can be read.
SELECT is_empty($$
    SELECT p.oid::regprocedure FROM pg_proc AS p
     WHERE p.pronamespace = 'dwh'::regnamespace AND p.prokind = 'f' AND NOT starts_with(p.proname::text, '_') AND p.pronargs > 0
       AND (p.proargnames IS NULL OR '' = ANY (p.proargnames[1 : p.pronargs]))$$, 'all arguments of public functions are named');
SELECT lives_ok($$SELECT * FROM dwh.sample_events(events => 3, users => 2, products => 2, days => 1, start_at => '2025-01-01Z', seed => 1,
    dirty_rate => 0, dirty_kinds => NULL)$$, 'sample_events by name');
SELECT lives_ok($$SELECT * FROM dwh.run_pipeline(source => 'none_*.jsonl')$$, 'run_pipeline by name');
SELECT lives_ok($$SELECT * FROM dwh.load_jsonl(path => 'none_*.jsonl', on_error => 'abort', reject_limit => 10, force => true)$$, 'load_jsonl by name, limit as a count');
SELECT lives_ok($$SELECT * FROM dwh.load_jsonl('none_*.jsonl', reject_limit => '1%')$$, 'load_jsonl by name, limit as a share');
SELECT lives_ok($$SELECT dwh.stage_events(load_id => NULL), dwh.apply_scd2(load_id => NULL), dwh.upsert_products(load_id => NULL), dwh.load_facts(load_id => NULL)$$,
    'the verbs by name');
SELECT throws_ok(format('SELECT * FROM dwh.%s(load_id => 4711)', verb), 'P0002', NULL, verb || ' of an unknown load')
  FROM unnest(ARRAY['stage_events', 'apply_scd2', 'upsert_products', 'load_facts', 'run_quality_checks']) AS verb;
SELECT lives_ok($$SELECT * FROM dwh.forget_user(user_id => 'nobody')$$, 'forget_user by name');
SELECT lives_ok($$SELECT * FROM dwh.drop_before(layer => 'raw', before => '2000-01-01Z')$$, 'drop_before by name');
SELECT lives_ok($$SELECT * FROM dwh.claim_alerts(n => 1, lease => '1 minute')$$, 'claim_alerts by name');
SELECT throws_ok($$SELECT * FROM dwh.ack_alert(alert_id => -1)$$, 'P0002', NULL, 'ack_alert of an unknown alert');
SELECT throws_ok($$SELECT * FROM dwh.fail_alert(alert_id => -1, error => 'x', delivered_to => '{}')$$, 'P0002', NULL, 'fail_alert of an unknown alert');
SELECT set_eq($$SELECT DISTINCT state FROM dwh.status() WHERE state NOT IN ('ok', 'info', 'warn', 'fail')$$, '{}'::text[], 'status knows four states');
SELECT set_eq($$SELECT DISTINCT type FROM dwh.metrics()$$, '{counter,gauge}'::text[], 'metrics knows two types');
SELECT lives_ok($$SELECT * FROM dwh.trace(event_id => '00000000-0000-0000-0000-000000000000')$$, 'trace by name');
SELECT throws_ok($$SELECT * FROM dwh.trace(NULL)$$, '22023', NULL, 'trace needs an id');
SELECT throws_ok($$SELECT * FROM dwh.forget_user('')$$, '22023', NULL, 'forget_user needs a user');
SELECT throws_ok($$SELECT * FROM dwh.drop_before('marts', '2000-01-01Z')$$, '22023', NULL, 'drop_before knows three layers');
SELECT throws_ok($$SELECT * FROM dwh.load_jsonl('x', on_error => 'perhaps')$$, '22023', NULL, 'on_error is one of two');
SELECT throws_ok($$SELECT * FROM dwh.load_jsonl('x', reject_limit => '200%')$$, '22023', NULL, 'a share is at most 100 %');
SELECT throws_ok($$SELECT * FROM dwh.load_jsonl(large_object => 4711)$$, '42704', NULL, 'a large object that is missing');
SELECT throws_ok($$SELECT dwh.sample_events(-1)$$, '22023', NULL, 'events from 0');
SELECT throws_ok($$SELECT dwh.sample_events(1, dirty_kinds => '{nonsense}')$$, '22023', NULL, 'only kinds that there are');

-- Every object of the extension says what it is.
SELECT is_empty($$
    SELECT d.classid::regclass, d.objid, pg_describe_object(d.classid, d.objid, 0) FROM pg_depend AS d
     WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
       AND d.refobjid = (SELECT e.oid FROM pg_extension AS e WHERE e.extname = 'dwh_ext')
       AND NOT (d.classid = 'pg_type'::regclass AND (SELECT t.typelem <> 0 OR t.typrelid = 0 FROM pg_type AS t WHERE t.oid = d.objid))
       AND NOT d.classid = 'pg_class'::regclass
       AND obj_description(d.objid, d.classid::regclass::name) IS NULL$$, 'every object of the extension has a comment');
SELECT is_empty($$
    SELECT p.oid::regprocedure FROM pg_proc AS p
     WHERE p.pronamespace = 'dwh'::regnamespace AND p.prokind = 'f' AND NOT starts_with(p.proname::text, '_')
       AND obj_description(p.oid, 'pg_proc') !~ 'Errors: '$$, 'every public function names its errors');
SELECT is_empty($$
    SELECT p.oid::regprocedure FROM pg_proc AS p
     WHERE p.pronamespace = 'dwh'::regnamespace AND p.provolatile = 'v' AND has_function_privilege('public', p.oid, 'EXECUTE')$$,
    'nothing that writes may be called by everybody');
SELECT is_empty($$SELECT c.oid::regclass FROM pg_class AS c JOIN pg_depend AS d ON d.objid = c.oid AND d.classid = 'pg_class'::regclass AND d.deptype = 'e'
    WHERE d.refobjid = (SELECT e.oid FROM pg_extension AS e WHERE e.extname = 'dwh_ext') AND c.relkind IN ('r', 'p', 'S', 'v', 'm')$$,
    'no table, sequence or view is a member of the extension');

SELECT * FROM finish();
