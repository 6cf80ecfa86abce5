-- 96_altered: the tables are the user's: triggers, foreign keys and columns of his own; and states that only hands or odd
-- callers bring about.
\set VERBOSITY sqlstate
SET timezone = 'UTC';
SET datestyle = 'ISO, YMD';
SELECT test.begin();

-- Columns with defaults and generated columns on every table that the library writes.
ALTER TABLE raw.user_events ADD team text NOT NULL DEFAULT 'x', ADD twice bigint GENERATED ALWAYS AS (line_no * 2) STORED;
ALTER TABLE staging.user_events ADD team text NOT NULL DEFAULT 'x', ADD twice bigint GENERATED ALWAYS AS (line_no * 2) STORED;
ALTER TABLE marts.dim_user ADD team text NOT NULL DEFAULT 'x';
ALTER TABLE marts.dim_product ADD team text NOT NULL DEFAULT 'x';
ALTER TABLE marts.dim_product_price ADD team text NOT NULL DEFAULT 'x';
ALTER TABLE marts.fact_user_events ADD team text NOT NULL DEFAULT 'x';
SELECT format('ALTER TABLE ops.%I ADD team text NOT NULL DEFAULT ''x'', ADD twice text GENERATED ALWAYS AS (''y'') STORED', t)
  FROM unnest(ARRAY['loads', 'files', 'rejects', 'event_conflicts', 'runs', 'run_steps', 'quality_checks', 'quality_results', 'alerts']) AS t \gexec
-- Triggers that count, and a foreign key: both make the rows go in one by one.
CREATE TABLE test.seen (tab text, rows bigint DEFAULT 0);
CREATE FUNCTION test.see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO test.seen VALUES (TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME, 1); RETURN NULL; END $$;
CREATE TRIGGER see AFTER INSERT ON raw.user_events FOR EACH ROW EXECUTE FUNCTION test.see();
CREATE TRIGGER see AFTER INSERT ON ops.rejects FOR EACH ROW EXECUTE FUNCTION test.see();
CREATE TRIGGER see AFTER INSERT ON staging.user_events FOR EACH ROW EXECUTE FUNCTION test.see();
ALTER TABLE staging.user_events ADD FOREIGN KEY (load_id, line_no) REFERENCES raw.user_events;
SELECT test.put('a.jsonl', VARIADIC ARRAY['no json', test.event('{"price": -1, "device": 1}'), test.event('{"device": true}')]
    || (SELECT array_agg(test.event(jsonb_build_object('event_id', g))) FROM generate_series(1, 40) AS g));
SELECT step, status, rows_in, rows_out, rejected FROM dwh.run_pipeline();
SELECT tab, sum(rows) FROM test.seen GROUP BY tab ORDER BY tab COLLATE "C";
SELECT count(*) FILTER (WHERE team = 'x' AND twice = line_no * 2) = count(*) AS raw_defaults FROM raw.user_events;
SELECT count(*) FILTER (WHERE team = 'x' AND twice = line_no * 2) = count(*) AS staging_defaults FROM staging.user_events;
SELECT count(*) FILTER (WHERE team = 'x' AND twice = 'y') AS rejects FROM ops.rejects;
-- and a failing run keeps its evidence in them
SELECT test.put('b.jsonl', VARIADIC array_fill('broken'::text, ARRAY[12]));
SELECT count(*) FROM dwh.run_pipeline();
SELECT (SELECT count(*) FROM ops.runs WHERE status = 'failed' AND team = 'x') AS runs, (SELECT count(*) FROM ops.loads WHERE status = 'quarantined') AS loads,
       (SELECT count(*) FROM ops.rejects WHERE raw = 'broken') AS rejects, (SELECT count(*) FROM ops.alerts) AS alerts;

-- A quarantined file that grows is read whole: what it held before was rolled back.
SELECT test.put('b.jsonl', VARIADIC array_fill('broken'::text, ARRAY[12]) || (SELECT array_agg(test.event(jsonb_build_object('event_id', 'g' || g))) FROM generate_series(1, 200) AS g));
SELECT status, lines, loaded, rejected FROM test.load('b.jsonl');
SELECT step, status, rows_out FROM dwh.run_pipeline() WHERE step IN ('stage_events', 'load_facts');

-- Evidence inside a transaction of the caller's that holds the load itself: the verdicts stay, the load is the caller's.
SELECT test.put('c.jsonl', VARIADIC array_fill('broken'::text, ARRAY[15]));
BEGIN;
SELECT status FROM test.load('c.jsonl');
SELECT status, quarantined FROM dwh.stage_events();
SELECT count(*) FROM dwh.run_quality_checks();
ROLLBACK;
SELECT name, status FROM ops.quality_results WHERE status = 'fail' AND severity = 'error' ORDER BY result_id DESC LIMIT 1;
SELECT count(*) AS loads FROM ops.loads WHERE path LIKE '%c.jsonl';
SELECT count(*) FROM dwh.run_pipeline();   -- finds and quarantines it
SELECT status FROM test.load('c.jsonl');

-- Only what is held is left out: another load of the same run is quarantined all the same.
SELECT test.put('h.jsonl', VARIADIC array_fill('held'::text, ARRAY[13]));
SELECT test.put('i.jsonl', VARIADIC array_fill('free'::text, ARRAY[14]));
BEGIN;
SELECT status FROM test.load('h.jsonl');
SAVEPOINT s;
SELECT count(*) FROM dwh.run_pipeline('i.jsonl');
ROLLBACK TO s;
COMMIT;
SELECT regexp_replace(path, '^.*/', '') AS file, status FROM ops.loads WHERE path ~ '[hi].jsonl$' ORDER BY lines;
SELECT count(*) FROM dwh.run_pipeline('h.jsonl');
SELECT regexp_replace(path, '^.*/', '') AS file, status FROM ops.loads WHERE path ~ '[hi].jsonl$' ORDER BY lines;

-- A SECURITY DEFINER wrapper, called by a role without any rights: the evidence is written as its owner.
SET client_min_messages = warning;
DROP ROLE IF EXISTS dwh_test_scheduler;
CREATE ROLE dwh_test_scheduler;
RESET client_min_messages;
CREATE FUNCTION test.go() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM dwh.run_pipeline()';
GRANT USAGE ON SCHEMA test TO dwh_test_scheduler;
GRANT EXECUTE ON FUNCTION test.go() TO dwh_test_scheduler;
SELECT test.put('d.jsonl', VARIADIC array_fill('broken'::text, ARRAY[16]));
SET SESSION AUTHORIZATION dwh_test_scheduler;
SET client_min_messages = warning;
SELECT test.go();
SELECT test.go();
RESET SESSION AUTHORIZATION;
SELECT status, lines FROM ops.loads WHERE path LIKE '%d.jsonl';
RESET client_min_messages;
DROP OWNED BY dwh_test_scheduler;
DROP ROLE dwh_test_scheduler;

-- A fact just at the end of its version belongs to the next one.
SELECT test.begin();
SELECT test.put('v.jsonl', test.event('{"event_id": "1", "device": "A"}'), test.event('{"event_id": "2", "device": "B", "event_time": "2025-01-11T00:00:00Z"}'));
SELECT count(*) FROM dwh.run_pipeline();
UPDATE marts.fact_user_events SET user_key = (SELECT user_key FROM marts.dim_user WHERE device = 'A') WHERE line_no = 2;
SELECT count(*) FROM dwh.run_quality_checks(1);
SELECT name, observed FROM ops.quality_results WHERE status = 'fail';

-- Checked revenue is that of purchases alone.
SELECT test.begin();
SELECT test.put('r.jsonl', test.event('{"price": 5, "quantity": 3}'), test.event('{"event_type": "purchase", "price": 2, "quantity": 2, "revenue": 4}'));
SELECT count(*) FROM dwh.run_pipeline();
SELECT purchases, gross_revenue, checked_revenue FROM marts.kpi_daily;

-- Numbers that are short to write and endless to print: a reject, and the other events go on.
SELECT test.begin();
SELECT test.put('n.jsonl', (SELECT '{"event_time": "2025-01-10T00:00:00Z", "event_type": "v", "user_id": "u", "x": [' || string_agg('1e131071', ',') || ']}' FROM generate_series(1, 1000)),
    test.event('{"event_id": "1"}'));
SELECT step, status, rows_out, rejected FROM dwh.run_pipeline() WHERE step IN ('stage_events', 'load_facts');
SELECT class, message, octet_length(raw) AS kept FROM ops.rejects;

-- More partitions than the lock table can hold: a clear error, nothing changed.
SET dwh.fact_partition = 'day';
SELECT test.begin();
SELECT test.put('p.jsonl', VARIADIC (SELECT array_agg(test.event(jsonb_build_object('event_time', to_char(timestamp '1950-01-01' + g * interval '1 day', 'YYYY-MM-DD"T"00:00:00"Z"')))) FROM generate_series(1, 20000) AS g));
SELECT count(*) FROM dwh.run_pipeline();
SELECT count(*) AS facts FROM marts.fact_user_events;
SET dwh.fact_partition = 'month';

-- Triggers of the user's that change raw: a run stages what is stored, as the verbs would.
SELECT test.begin();
CREATE FUNCTION test.scrub() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.payload := NEW.payload - 'email';
    RETURN NEW;
END $$;
CREATE TRIGGER scrub BEFORE INSERT ON raw.user_events FOR EACH ROW EXECUTE FUNCTION test.scrub();
SELECT test.put('t.jsonl', test.event('{"email": "a@b.c", "kept": 1}'));
SELECT step, status FROM dwh.run_pipeline() WHERE step = 'stage_events';
SELECT s.attributes, s.event_id = dwh.event_id(r.payload) AS is_its_own FROM staging.user_events AS s JOIN raw.user_events AS r USING (load_id, line_no);
DROP TRIGGER scrub ON raw.user_events;
CREATE FUNCTION test.scrub_load() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE raw.user_events SET payload = payload - 'email' WHERE load_id = NEW.load_id;
    RETURN NULL;
END $$;
CREATE TRIGGER scrub AFTER INSERT ON ops.loads FOR EACH ROW EXECUTE FUNCTION test.scrub_load();
SELECT test.put('t.jsonl', test.event('{"email": "d@e.f", "kept": 2}'));
SELECT step, status FROM dwh.run_pipeline() WHERE step = 'stage_events';
SELECT s.attributes, s.event_id = dwh.event_id(r.payload) AS is_its_own FROM staging.user_events AS s JOIN raw.user_events AS r USING (load_id, line_no) ORDER BY 1;
SELECT * FROM test.differences();
DROP TRIGGER scrub ON ops.loads;

-- A run keeps typed events in memory and a temporary file; with little of either the result is the same.
SELECT test.begin();
SELECT events FROM dwh.generate_events(test.dir() || '/s.jsonl', events => 3000, dirty_rate => 0.05, dirty_kinds => '{conflict,replay,text_price,missing_time,duplicate_key}');
SET work_mem = '64kB';
SELECT step, status, rows_in, rows_out, rejected FROM dwh.run_pipeline() WHERE step IN ('load_jsonl', 'stage_events');
SELECT * FROM test.differences();
SELECT test.begin();
SELECT events FROM dwh.generate_events(test.dir() || '/s.jsonl', events => 3000, dirty_rate => 0.05, dirty_kinds => '{conflict,replay,text_price,missing_time,duplicate_key}');
RESET work_mem;
SET temp_file_limit = '1MB';
SELECT step, status, rows_in, rows_out, rejected FROM dwh.run_pipeline() WHERE step IN ('load_jsonl', 'stage_events');
RESET temp_file_limit;

-- Storage and compression of the payload are the user's: long lines keep to them as short ones do.
SELECT test.begin();
ALTER TABLE raw.user_events ALTER COLUMN payload SET STORAGE EXTERNAL;
SELECT test.put('l.jsonl', '{"a": "' || repeat('x', 200000) || '"}', '{"a": "' || repeat('x', 300000) || '"}');
SELECT loaded FROM test.load('l.jsonl');
SELECT line_no, pg_column_compression(payload) FROM raw.user_events ORDER BY line_no;

-- A role that may not write to the tables: an error of the call, whatever the number of files.
SELECT test.begin();
SELECT test.put('1.jsonl', '{"a": 1}');
SELECT test.put('2.jsonl', '{"a": 2}');
CREATE ROLE dwh_test_reader;
GRANT USAGE ON SCHEMA dwh, raw, ops, test TO dwh_test_reader;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA dwh, test TO dwh_test_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA raw, ops TO dwh_test_reader;
SET ROLE dwh_test_reader;
SELECT * FROM dwh.load_jsonl('*.jsonl');
SELECT * FROM dwh.load_jsonl('1.jsonl');
RESET ROLE;
DROP OWNED BY dwh_test_reader;
DROP ROLE dwh_test_reader;

-- Generated columns of the user's, also on the facts, whose partitions are made later.
SELECT test.begin();
ALTER TABLE marts.fact_user_events ADD COLUMN twice numeric GENERATED ALWAYS AS (price * 2) STORED;
ALTER TABLE raw.user_events ADD COLUMN who text GENERATED ALWAYS AS (payload ->> 'user_id') STORED;
SELECT test.put('g.jsonl', test.event('{"price": 21}'));
SELECT step, status FROM dwh.run_pipeline() WHERE step = 'load_facts';
SELECT f.price, f.twice, r.who FROM marts.fact_user_events AS f JOIN raw.user_events AS r USING (load_id, line_no);
