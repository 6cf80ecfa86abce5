-- 01_warehouse: who owns what, and what create_warehouse() refuses.
\set VERBOSITY terse
SELECT test.begin();
SELECT * FROM dwh.create_warehouse();

-- Everything of the seed is there under its names.
SELECT n.nspname AS schema, string_agg(c.relname || CASE c.relkind WHEN 'v' THEN ' (view)' ELSE '' END, ', ' ORDER BY c.relname COLLATE "C") AS relations
  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname IN ('raw', 'staging', 'marts', 'ops') AND c.relkind IN ('r', 'p', 'v') GROUP BY n.nspname ORDER BY n.nspname;
SELECT a.attrelid::regclass AS relation, a.attname AS "column", format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS required
  FROM pg_attribute AS a
 WHERE a.attrelid IN ('raw.user_events'::regclass, 'staging.user_events'::regclass, 'marts.dim_user'::regclass,
                      'marts.dim_product'::regclass, 'marts.dim_product_price'::regclass, 'marts.fact_user_events'::regclass)
   AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY a.attrelid::regclass::text COLLATE "C", a.attnum;
-- ids compare as bytes: no text column of the warehouse depends on the database's collation
SELECT a.attrelid::regclass, a.attname FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
 WHERE a.attrelid IN ('staging.user_events'::regclass, 'marts.dim_user'::regclass, 'marts.dim_product'::regclass, 'marts.fact_user_events'::regclass)
   AND a.atttypid = 'text'::regtype AND a.attcollation <> 'pg_catalog."C"'::regcollation;
-- the fixed member for events without a product
SELECT product_key, product_id, is_inferred FROM marts.dim_product;

-- The model's constraints hold against hands.
\set VERBOSITY sqlstate
INSERT INTO marts.dim_user (user_id, valid_from, valid_to, is_current) VALUES ('u', '2025-01-01Z', '2025-01-01Z', false);
INSERT INTO marts.dim_user (user_id, valid_from, valid_to, is_current) VALUES ('u', '2025-01-01Z', NULL, false);
INSERT INTO marts.dim_user (user_id, valid_from, is_current) VALUES ('u', '2025-01-01Z', true), ('u', '2025-01-02Z', true);
INSERT INTO marts.dim_product_price VALUES (0, 1, '2025-01-01Z', '2025-01-01Z', false);
INSERT INTO marts.dim_product_price VALUES (0, 1, '2025-01-01Z', NULL, false);
INSERT INTO marts.dim_product_price VALUES (0, 1, '2025-01-01Z', NULL, true), (0, 2, '2025-01-01Z', NULL, true);
INSERT INTO staging.user_events (event_id, event_time, event_type, user_id, load_id, line_no, quantity) VALUES (gen_random_uuid(), now(), 'x', 'u', 1, 1, -1);
INSERT INTO ops.loads (path, lines, loaded, rejected, blank, status, loaded_at) VALUES ('x', 3, 1, 1, 0, 'loaded', now());
\set VERBOSITY terse

-- What is missing is added, what users added stays.
CREATE INDEX mine ON marts.fact_user_events (session_id);
ALTER TABLE marts.dim_product ADD COLUMN mine text;
UPDATE ops.quality_checks SET severity = 'warn', enabled = false WHERE name = 'referential';
DROP VIEW marts.kpi_daily;
DELETE FROM ops.quality_checks WHERE name = 'conservation';
SELECT status FROM dwh.create_warehouse();
SELECT to_regclass('marts.kpi_daily') IS NOT NULL AS view_is_back, to_regclass('marts.mine') IS NOT NULL AS index_stays;
SELECT name, severity, enabled FROM ops.quality_checks WHERE name IN ('conservation', 'referential') ORDER BY name;

-- Tables of an older or newer model.
\set VERBOSITY sqlstate
UPDATE ops.warehouse SET model_version = model_version + 1;
SELECT * FROM dwh.load_jsonl(NULL::text);
SELECT dwh.create_warehouse();
UPDATE ops.warehouse SET model_version = model_version - 2;
SELECT * FROM dwh.load_jsonl(NULL::text);
\set VERBOSITY terse
SELECT status, model_version = dwh._model_version() AS is_current_model FROM dwh.create_warehouse();
SET client_min_messages = warning;
SELECT count(*) FROM dwh.load_jsonl(NULL::text);
RESET client_min_messages;

-- Schemas, tables and views of others are refused, not adopted: whoever plants them would own the rows.
CREATE ROLE regress_dwh_owner;
CREATE ROLE regress_dwh_other;
DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO regress_dwh_owner', current_database()); END $$;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA dwh TO regress_dwh_owner;
SELECT code, has_detail, has_hint FROM test.error('SELECT dwh.create_warehouse()');   -- ours: fine
GRANT USAGE ON SCHEMA test TO regress_dwh_owner, regress_dwh_other;
SET ROLE regress_dwh_owner;
SELECT code, has_detail, has_hint FROM test.error('SELECT dwh.create_warehouse()');   -- the superuser's schemas
RESET ROLE;
SET client_min_messages = warning;
DROP SCHEMA raw, staging, marts, ops CASCADE;
CREATE SCHEMA marts AUTHORIZATION regress_dwh_other;
SELECT code, has_detail, has_hint FROM test.error('SELECT dwh.create_warehouse()');   -- also for a superuser
SET ROLE regress_dwh_owner;
SELECT code, has_detail, has_hint FROM test.error('SELECT dwh.create_warehouse()');
SELECT to_regnamespace('raw') IS NULL AS nothing_was_made;
RESET ROLE;
DROP SCHEMA marts;
-- its own schema, with objects that somebody else planted there
CREATE SCHEMA raw AUTHORIZATION regress_dwh_owner;
CREATE TABLE raw.user_events (load_id bigint, line_no bigint, byte_offset bigint, loaded_at timestamptz, payload jsonb);
ALTER TABLE raw.user_events OWNER TO regress_dwh_other;
SET ROLE regress_dwh_owner;
SELECT code, has_detail, has_hint FROM test.error('SELECT dwh.create_warehouse()');
RESET ROLE;
DROP TABLE raw.user_events;
CREATE SEQUENCE raw.user_events;
ALTER SEQUENCE raw.user_events OWNER TO regress_dwh_other;
SET ROLE regress_dwh_owner;
SELECT code, has_detail, has_hint FROM test.error('SELECT dwh.create_warehouse()');
RESET ROLE;
DROP SEQUENCE raw.user_events;
-- the owner's own left-over table of the same name, with another shape
CREATE TABLE raw.user_events (id int);
ALTER TABLE raw.user_events OWNER TO regress_dwh_owner;
SET ROLE regress_dwh_owner;
SELECT code <> 'none' AND code NOT LIKE 'XX%' AS refused FROM test.error('SELECT dwh.create_warehouse()');
SELECT to_regnamespace('ops') IS NULL AS nothing_was_made;
RESET ROLE;
DROP TABLE raw.user_events;

-- An ordinary role with CREATE on the database owns its warehouse.
SET ROLE regress_dwh_owner;
SELECT status FROM dwh.create_warehouse();
RESET ROLE;
SELECT DISTINCT relowner::regrole AS owner FROM pg_class
 WHERE relnamespace IN ('raw'::regnamespace, 'staging'::regnamespace, 'marts'::regnamespace, 'ops'::regnamespace);
-- It loads from the landing directory without any file right, and takes it to facts.
SELECT test.put('own.jsonl', test.event('{"session_id": "s"}'));
SET ROLE regress_dwh_owner;
SELECT status, loaded FROM dwh.load_jsonl('own.jsonl');
SELECT step, status FROM dwh.run_pipeline();
SELECT count(*) FROM marts.fact_user_events;
RESET ROLE;
-- Others see nothing of it: it holds personal data.
SET ROLE regress_dwh_other;
\set VERBOSITY sqlstate
SELECT * FROM raw.user_events;
SELECT * FROM ops.rejects;
SELECT * FROM dwh.run_pipeline();
\set VERBOSITY terse
RESET ROLE;
SELECT test.begin();
DROP OWNED BY regress_dwh_owner, regress_dwh_other;
DROP ROLE regress_dwh_owner, regress_dwh_other;

-- A database in another encoding cannot hold every JSON text.
CREATE DATABASE regress_dwh_latin1 ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0;
SELECT current_database() AS here \gset
\c regress_dwh_latin1
SET client_min_messages = warning;
CREATE EXTENSION dwh_ext;
\set VERBOSITY sqlstate
SELECT dwh.create_warehouse();
\set VERBOSITY terse
\c :here
DROP DATABASE regress_dwh_latin1;
