-- The data model: what create_warehouse() makes.
SET client_min_messages = warning;
SELECT no_plan();

SELECT has_schema(s) FROM unnest(ARRAY['raw', 'staging', 'marts', 'ops']) AS s;
SELECT has_table(t.schema::name, t.name::name)
  FROM (VALUES ('raw', 'user_events'), ('staging', 'user_events'), ('marts', 'dim_user'), ('marts', 'dim_product'), ('marts', 'dim_product_price'),
               ('ops', 'loads'), ('ops', 'rejects'), ('ops', 'event_conflicts'), ('ops', 'runs'), ('ops', 'run_steps'),
               ('ops', 'quality_checks'), ('ops', 'quality_results'), ('ops', 'alerts')) AS t (schema, name);
SELECT has_view('marts', v, v) FROM unnest(ARRAY['kpi_daily', 'kpi_segment']::name[]) AS v;
SELECT is_partitioned('marts', 'fact_user_events', 'facts are partitioned');
SELECT is(pg_get_partkeydef('marts.fact_user_events'::regclass), 'RANGE (event_time)', 'by ranges of event_time');

SELECT col_type_is(c.schema::name, c.relation::name, c.name::name, c.type, format('%s.%s.%s is %s', c.schema, c.relation, c.name, c.type))
  FROM (VALUES
    ('raw', 'user_events', 'load_id', 'bigint'), ('raw', 'user_events', 'line_no', 'bigint'), ('raw', 'user_events', 'byte_offset', 'bigint'),
    ('raw', 'user_events', 'loaded_at', 'timestamp with time zone'), ('raw', 'user_events', 'payload', 'jsonb'),
    ('staging', 'user_events', 'event_id', 'uuid'), ('staging', 'user_events', 'event_time', 'timestamp with time zone'),
    ('staging', 'user_events', 'event_type', 'text'), ('staging', 'user_events', 'user_id', 'text'), ('staging', 'user_events', 'session_id', 'text'),
    ('staging', 'user_events', 'product_id', 'text'), ('staging', 'user_events', 'device', 'text'), ('staging', 'user_events', 'country', 'text'),
    ('staging', 'user_events', 'category', 'text'), ('staging', 'user_events', 'brand', 'text'), ('staging', 'user_events', 'price', 'numeric'),
    ('staging', 'user_events', 'revenue', 'numeric'), ('staging', 'user_events', 'quantity', 'integer'), ('staging', 'user_events', 'attributes', 'jsonb'),
    ('staging', 'user_events', 'load_id', 'bigint'), ('staging', 'user_events', 'line_no', 'bigint'), ('staging', 'user_events', 'flags', 'text[]'),
    ('marts', 'dim_user', 'user_key', 'bigint'), ('marts', 'dim_user', 'user_id', 'text'), ('marts', 'dim_user', 'device', 'text'),
    ('marts', 'dim_user', 'country', 'text'), ('marts', 'dim_user', 'valid_from', 'timestamp with time zone'),
    ('marts', 'dim_user', 'valid_to', 'timestamp with time zone'), ('marts', 'dim_user', 'is_current', 'boolean'),
    ('marts', 'dim_product', 'product_key', 'bigint'), ('marts', 'dim_product', 'product_id', 'text'), ('marts', 'dim_product', 'category', 'text'),
    ('marts', 'dim_product', 'brand', 'text'), ('marts', 'dim_product', 'price', 'numeric'), ('marts', 'dim_product', 'is_inferred', 'boolean'),
    ('marts', 'dim_product_price', 'product_key', 'bigint'), ('marts', 'dim_product_price', 'price', 'numeric'),
    ('marts', 'dim_product_price', 'valid_from', 'timestamp with time zone'), ('marts', 'dim_product_price', 'valid_to', 'timestamp with time zone'),
    ('marts', 'dim_product_price', 'is_current', 'boolean'),
    ('marts', 'fact_user_events', 'event_id', 'uuid'), ('marts', 'fact_user_events', 'event_time', 'timestamp with time zone'),
    ('marts', 'fact_user_events', 'event_type', 'text'), ('marts', 'fact_user_events', 'session_id', 'text'), ('marts', 'fact_user_events', 'user_key', 'bigint'),
    ('marts', 'fact_user_events', 'product_key', 'bigint'), ('marts', 'fact_user_events', 'quantity', 'integer'), ('marts', 'fact_user_events', 'price', 'numeric'),
    ('marts', 'fact_user_events', 'revenue', 'numeric'), ('marts', 'fact_user_events', 'attributes', 'jsonb'), ('marts', 'fact_user_events', 'load_id', 'bigint'),
    ('marts', 'fact_user_events', 'line_no', 'bigint'),
    ('ops', 'loads', 'load_id', 'bigint'), ('ops', 'loads', 'path', 'text'), ('ops', 'loads', 'sha256', 'text'), ('ops', 'loads', 'bytes', 'bigint'),
    ('ops', 'loads', 'lines', 'bigint'), ('ops', 'loads', 'loaded', 'bigint'), ('ops', 'loads', 'rejected', 'bigint'), ('ops', 'loads', 'blank', 'bigint'),
    ('ops', 'loads', 'held_back_bytes', 'bigint'), ('ops', 'loads', 'staged', 'bigint'), ('ops', 'loads', 'replayed', 'bigint'),
    ('ops', 'loads', 'conflicting', 'bigint'), ('ops', 'loads', 'stage_rejected', 'bigint'), ('ops', 'loads', 'forgotten', 'bigint'),
    ('ops', 'loads', 'facts', 'bigint'), ('ops', 'loads', 'status', 'text'), ('ops', 'loads', 'continues_load_id', 'bigint'),
    ('ops', 'loads', 'run_id', 'bigint'), ('ops', 'loads', 'loaded_at', 'timestamp with time zone'),
    ('ops', 'rejects', 'load_id', 'bigint'), ('ops', 'rejects', 'line_no', 'bigint'), ('ops', 'rejects', 'byte_offset', 'bigint'),
    ('ops', 'rejects', 'stage', 'text'), ('ops', 'rejects', 'class', 'text'), ('ops', 'rejects', 'message', 'text'), ('ops', 'rejects', 'raw', 'bytea'),
    ('ops', 'event_conflicts', 'event_id', 'uuid'), ('ops', 'event_conflicts', 'kept_load_id', 'bigint'),
    ('ops', 'event_conflicts', 'kept_line_no', 'bigint'), ('ops', 'event_conflicts', 'payload', 'jsonb')) AS c (schema, relation, name, type);

SELECT col_is_pk(k.schema::name, k.relation::name, k.columns, format('key of %s.%s', k.schema, k.relation))
  FROM (VALUES ('raw', 'user_events', '{load_id,line_no}'::name[]), ('marts', 'dim_user', '{user_key}'),
               ('marts', 'dim_product', '{product_key}'), ('marts', 'dim_product_price', '{product_key,valid_from}'), ('ops', 'loads', '{load_id}'), ('ops', 'rejects', '{load_id,line_no}'),
               ('ops', 'event_conflicts', '{load_id,line_no}'), ('ops', 'runs', '{run_id}'), ('ops', 'run_steps', '{run_id,step_no}'),
               ('ops', 'quality_checks', '{name}'), ('ops', 'quality_results', '{result_id}'), ('ops', 'alerts', '{alert_id}')) AS k (schema, relation, columns);
SELECT col_is_unique('marts', 'dim_user', ARRAY['user_id', 'valid_from']::name[], 'a user has one version from an instant on');
SELECT col_is_unique('marts', 'dim_product', 'product_id', 'a product is there once');
SELECT index_is_unique('marts', 'dim_user', 'dim_user_current', 'a user has one current version');
SELECT has_index('staging', 'user_events', i, i::text) FROM unnest(ARRAY['user_events_load_id', 'user_events_user_id', 'user_events_price']::name[]) AS i;
SELECT col_not_null(c.schema::name, c.relation::name, c.name::name, format('%s.%s.%s is not null', c.schema, c.relation, c.name))
  FROM (VALUES ('raw', 'user_events', 'payload'), ('raw', 'user_events', 'byte_offset'), ('staging', 'user_events', 'event_time'),
               ('staging', 'user_events', 'event_type'), ('staging', 'user_events', 'user_id'), ('marts', 'dim_user', 'user_id'),
               ('marts', 'dim_user', 'valid_from'), ('marts', 'dim_user', 'is_current'), ('marts', 'dim_product', 'product_id'), ('marts', 'dim_product_price', 'price'), ('marts', 'dim_product_price', 'valid_from'),
               ('marts', 'fact_user_events', 'event_id'), ('marts', 'fact_user_events', 'event_time'), ('marts', 'fact_user_events', 'user_key'),
               ('marts', 'fact_user_events', 'product_key'), ('marts', 'fact_user_events', 'load_id'), ('ops', 'loads', 'lines')) AS c (schema, relation, name);
SELECT col_is_null('marts', 'dim_user', 'valid_to', 'an open version has no end');

-- What the constraints refuse.
SELECT throws_ok($$INSERT INTO marts.dim_user (user_id, valid_from, valid_to, is_current) VALUES ('u', '2025-01-02', '2025-01-02', false)$$, '23514', NULL, 'no version of no length');
SELECT throws_ok($$INSERT INTO marts.dim_user (user_id, valid_from, valid_to, is_current) VALUES ('u', '2025-01-02', NULL, false)$$, '23514', NULL, 'an open version is current');
SELECT throws_ok($$INSERT INTO marts.dim_user (user_id, valid_from, valid_to, is_current) VALUES ('u', '2025-01-02', '2025-01-03', true)$$, '23514', NULL, 'a closed one is not');
SELECT throws_ok($$INSERT INTO marts.dim_product_price VALUES (0, 1, '2025-01-02', '2025-01-02', false)$$, '23514', NULL, 'no price of no length');
SELECT throws_ok($$INSERT INTO marts.dim_product_price VALUES (0, 1, '2025-01-02', NULL, false)$$, '23514', NULL, 'an open price is current');
SELECT throws_ok($$INSERT INTO ops.loads (path, lines, loaded, rejected, blank, status, loaded_at) VALUES ('x', 3, 1, 1, 0, 'loaded', now())$$, '23514', NULL, 'lines = loaded + rejected + blank');
SELECT throws_ok($$INSERT INTO ops.loads (path, lines, loaded, rejected, blank, status, loaded_at) VALUES ('x', 0, 0, 0, 0, 'nonsense', now())$$, '23514', NULL, 'a status that there is');
SELECT dwh._make_partitions('staging.user_events', ARRAY['2023-06-05Z'::timestamptz]) AS made \gset
SELECT throws_like($$INSERT INTO staging.user_events (event_id, event_time, event_type, user_id, quantity, load_id, line_no) VALUES (gen_random_uuid(), '2023-06-05Z', 'x', 'u', -1, 1, 1)$$, '%quantity_check%', 'quantity from 0');
SELECT col_is_pk('staging', 'user_events_2023_06', 'event_id', 'key of a partition of staging');
SELECT is(count(*), 0::bigint, 'a time that has a partition gets no other one') FROM dwh._missing_partitions('staging.user_events', ARRAY['2023-06-30 23:59:59.999999Z'::timestamptz]);
SELECT throws_ok($$INSERT INTO marts.fact_user_events (event_id, event_time, event_type, user_key, product_key, load_id, line_no) VALUES (gen_random_uuid(), now(), 'x', 1, 0, 1, 1)$$,
    '23514', NULL, 'there is no default partition');
SELECT results_eq('SELECT product_key, product_id, is_inferred FROM marts.dim_product', $$VALUES (0::bigint, '' COLLATE "C", false)$$, 'the member for events without a product');

-- Partitions, by month and by day.
SELECT lo_from_bytea(1001, convert_to((SELECT string_agg(line, E'\n') FROM dwh.sample_events(200, days => 60, start_at => '2024-12-15Z') AS line), 'UTF8')) AS made \gset
SELECT is(loaded, 200::bigint, 'a log is loaded') FROM dwh.load_jsonl(large_object => 1001);
SELECT is((SELECT status FROM dwh.stage_events()) || (SELECT status FROM dwh.apply_scd2()) || (SELECT status FROM dwh.upsert_products()), 'donedonedone', 'staged, applied');
SELECT is(partitions, 3::bigint, 'three months, three partitions') FROM dwh.load_facts();
SELECT results_eq('SELECT partition::text, since, until FROM dwh.fact_partitions()', $$VALUES
    ('marts.fact_user_events_2024_12', timestamptz '2024-12-01Z', timestamptz '2025-01-01Z'),
    ('marts.fact_user_events_2025_01', '2025-01-01Z', '2025-02-01Z'), ('marts.fact_user_events_2025_02', '2025-02-01Z', '2025-03-01Z')$$, 'by month in UTC');
SELECT col_is_pk('marts', 'fact_user_events_2025_01', 'event_id', 'an event_id is once in a partition');
SET dwh.fact_partition = 'day';
SELECT lo_from_bytea(1002, '{"event_time": "2025-06-05T23:59:59Z", "event_type": "x", "user_id": "u"}') AS made \gset
SELECT is(loaded, 1::bigint, 'one more event is loaded') FROM dwh.load_jsonl(large_object => 1002);
SELECT is((SELECT status FROM dwh.stage_events()) || (SELECT status FROM dwh.apply_scd2()) || (SELECT status FROM dwh.upsert_products()), 'donedonedone', 'staged, applied');
SELECT is(partitions, 1::bigint, 'one partition') FROM dwh.load_facts();
SELECT results_eq($$SELECT since, until FROM dwh.fact_partitions() WHERE partition = 'marts.fact_user_events_2025_06_05'::regclass$$,
    $$VALUES (timestamptz '2025-06-05Z', timestamptz '2025-06-06Z')$$, 'of a day');

-- Everything says what it is, and belongs to who made it.
SELECT is_empty($$SELECT c.oid::regclass FROM pg_class AS c WHERE c.relnamespace::regnamespace::text IN ('raw', 'staging', 'marts', 'ops')
    AND c.relkind IN ('r', 'p', 'v') AND obj_description(c.oid, 'pg_class') IS NULL$$, 'every table and view has a comment');
SELECT is_empty($$SELECT c.oid::regclass, a.attname FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relnamespace::regnamespace::text IN ('raw', 'staging', 'marts', 'ops') AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
      AND col_description(c.oid, a.attnum) IS NULL$$, 'every column has a comment');
SELECT is_empty($$SELECT n.nspname FROM pg_namespace AS n WHERE n.nspname IN ('raw', 'staging', 'marts', 'ops') AND obj_description(n.oid, 'pg_namespace') IS NULL$$,
    'every schema has a comment');
SELECT schema_owner_is(s, current_user) FROM unnest(ARRAY['raw', 'staging', 'marts', 'ops']::name[]) AS s;
SELECT is_empty($$SELECT c.oid::regclass FROM pg_class AS c WHERE c.relnamespace::regnamespace::text IN ('raw', 'staging', 'marts', 'ops')
    AND c.relowner <> current_user::regrole$$, 'all is the caller''s');
SELECT is_empty($$SELECT c.oid::regclass, a.attname FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0
    WHERE c.relnamespace::regnamespace::text IN ('raw', 'staging', 'marts') AND c.relkind IN ('r', 'p') AND a.atttypid = 'text'::regtype
      AND a.attcollation <> '"C"'::regcollation$$, 'texts compare as bytes');
SELECT is((SELECT status FROM dwh.create_warehouse()), 'already_there', 'a second create_warehouse() changes nothing');

SELECT * FROM finish();
