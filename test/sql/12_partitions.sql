-- 12_partitions: an event_id is one fact over all partitions of staging and facts, whatever time it comes with; and what
-- was one table in data model 2 goes on in partitions.
SET timezone = 'UTC';
SET client_min_messages = error;
CREATE FUNCTION test.at(id text, day text, fields jsonb DEFAULT '{}') RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT test.event(jsonb_build_object('event_id', id, 'event_time', day || 'T00:00:00Z') || fields)
$$;

-- The same id in another month: in the same chunk, in another load of the same run, in a later run; and a replay of each.
SELECT test.begin();
SELECT test.put('1.jsonl', test.at('a', '2025-01-10'), test.at('a', '2025-03-10'), test.at('b', '2025-01-31'), test.at('a', '2025-01-10'));
SELECT test.put('2.jsonl', test.at('b', '2025-02-01'), test.at('c', '2025-02-28'), test.at('b', '2025-01-31'));
SELECT step, status, rows_in, rows_out FROM dwh.run_pipeline() WHERE step IN ('stage_events', 'load_facts');
SELECT test.put('3.jsonl', test.at('c', '2019-12-31'), test.at('c', '2025-02-28'), test.at('d', '2019-12-31'));
SELECT step, status, rows_in, rows_out FROM dwh.run_pipeline() WHERE step IN ('stage_events', 'load_facts');
SELECT load_id, staged, replayed, conflicting, facts, first_event, last_event FROM ops.loads ORDER BY load_id;
SELECT tableoid::regclass AS partition, event_time, load_id, line_no FROM staging.user_events ORDER BY event_time;
SELECT tableoid::regclass AS partition, event_time, load_id, line_no FROM marts.fact_user_events ORDER BY event_time;
-- both fingerprints, which anyone can compute
SELECT load_id, line_no, kept_load_id, kept_line_no, c.fingerprint = encode(sha256(c.payload::text::bytea), 'hex') AS is_its_own,
       c.kept_fingerprint = (SELECT encode(sha256(r.payload::text::bytea), 'hex') FROM raw.user_events AS r
                              WHERE r.load_id = c.kept_load_id AND r.line_no = c.kept_line_no) AS is_the_kept_ones
  FROM ops.event_conflicts AS c ORDER BY load_id, line_no;
SELECT name, status FROM dwh.run_quality_checks("full" => true) WHERE status <> 'pass';

-- Where raw of the kept event is gone, what staging holds of it tells; where that is gone, what the facts hold.
DELETE FROM raw.user_events;
SELECT test.put('4.jsonl', test.at('d', '2019-12-31'), test.at('d', '2019-12-31', '{"device": "tv"}'), test.at('c', '2025-02-28', '{"x": 1}'));
SELECT loaded FROM test.load('4.jsonl');
SELECT staged, replayed, conflicting FROM dwh.stage_events();
DELETE FROM staging.user_events;
DELETE FROM raw.user_events;
SELECT test.put('5.jsonl', test.at('c', '2025-02-28'), test.at('d', '2019-12-31', '{"device": "tv"}'), test.at('c', '2025-02-28', '{"product_id": "p"}'), test.at('c', '2025-02-27'));
SELECT loaded FROM test.load('5.jsonl');
SELECT staged, replayed, conflicting FROM dwh.stage_events();
SELECT load_id, line_no, kept_fingerprint FROM ops.event_conflicts WHERE load_id > 3 ORDER BY load_id, line_no;

-- The filter made anew from what is there says the same.
SELECT dwh._rebuild_event_filter() AS events, (SELECT sum(ids) FROM ops.event_filter) AS ids;
-- A step that failed leaves nothing that a later call of the transaction would take for the filter.
BEGIN;
SAVEPOINT s;
ALTER TABLE staging.user_events ADD CHECK (user_id <> 'd') NOT VALID;
SELECT test.put('7.jsonl', test.event('{"user_id": "d"}'));
SELECT loaded FROM test.load('7.jsonl');
SELECT * FROM test.error('SELECT dwh.stage_events()');
ROLLBACK TO s;
SELECT dwh._rebuild_event_filter() = (SELECT sum(ids) FROM ops.event_filter) AS is_whole;
ROLLBACK;
UPDATE ops.event_filter SET bits = '\x00' WHERE segment = (SELECT min(segment) FROM ops.event_filter);
SELECT test.put('6.jsonl', test.at('e', '2025-02-28'));
SELECT loaded FROM test.load('6.jsonl');
SELECT * FROM test.error('SELECT dwh.stage_events()');

-- A filter that lacks what was staged is found by the checks of every load.
SELECT test.begin();
SELECT test.put('1.jsonl', test.at('a', '2025-01-10'));
SELECT count(*) FROM dwh.run_pipeline();
DELETE FROM ops.event_filter;
SELECT test.put('2.jsonl', test.at('b', '2025-01-10'));
SELECT * FROM test.error('SELECT count(*) FROM dwh.run_pipeline()');
SELECT dwh._rebuild_event_filter();
SELECT step, status FROM dwh.run_pipeline() WHERE step = 'run_quality_checks';

-- Indexes that a user adds, of kinds that are filled in order and of kinds that are not, hold what the table does.
SELECT test.begin();
CREATE INDEX ON staging.user_events (device DESC NULLS LAST, event_time) INCLUDE (country) WHERE country IS NOT NULL;
CREATE INDEX staging_hash ON marts.fact_user_events USING hash (event_type);
CREATE INDEX ON raw.user_events ((payload ->> 'device'));
SELECT test.put('i.jsonl', VARIADIC (SELECT array_agg(test.at(g::text, '2025-0' || 1 + g % 3 || '-1' || g % 7, jsonb_build_object('device', 'd' || g % 11, 'country', CASE WHEN g % 2 = 0 THEN 'KR' END))) FROM generate_series(1, 3000) AS g));
SELECT step, rows_out FROM dwh.run_pipeline() WHERE step IN ('stage_events', 'load_facts');
CREATE EXTENSION amcheck;
SELECT count(bt_index_check(i.indexrelid, true)) > 20 AS are_whole
  FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_am AS a ON a.oid = c.relam
 WHERE a.amname = 'btree' AND c.relkind = 'i' AND c.relnamespace::regnamespace::text IN ('raw', 'staging', 'marts', 'ops');
SET enable_seqscan = off;
SELECT count(*) FROM staging.user_events WHERE device = 'd4' AND country IS NOT NULL;
SELECT count(*) FROM marts.fact_user_events WHERE event_type = 'page_view';
SELECT count(*) FROM raw.user_events WHERE payload ->> 'device' = 'd4';
RESET enable_seqscan;
DROP EXTENSION amcheck;

-- A unique index of the user's refuses as it would for any other insert.
CREATE UNIQUE INDEX ON staging.user_events (event_time, session_id);
SELECT test.put('u.jsonl', test.at('u1', '2025-04-01', '{"session_id": "s"}'), test.at('u2', '2025-04-01', '{"session_id": "s"}'));
SELECT code FROM test.error('SELECT count(*) FROM dwh.run_pipeline()');

-- A warehouse of data model 2 is brought up to date: its staging was one table, without a filter.
SELECT test.begin();
SELECT test.put('1.jsonl', test.at('a', '2025-01-10'), test.at('b', '2025-03-10', '{"device": "tv"}'));
SELECT count(*) FROM dwh.run_pipeline();
CREATE TABLE staging.before AS SELECT * FROM staging.user_events;
DROP TABLE staging.user_events;
ALTER TABLE staging.before RENAME TO user_events;
ALTER TABLE staging.user_events ADD PRIMARY KEY (event_id);
CREATE INDEX user_events_load_id ON staging.user_events (load_id);
CREATE INDEX user_events_user_id ON staging.user_events (user_id, event_time);
DROP TABLE ops.event_filter, ops.forgotten_users, marts.dim_product_price;
ALTER TABLE ops.loads DROP first_event, DROP last_event, DROP raw_dropped, DROP staging_dropped, DROP facts_dropped;
ALTER TABLE ops.warehouse DROP staging_since, DROP facts_since, DROP salt;
ALTER TABLE ops.event_conflicts DROP fingerprint, DROP kept_fingerprint;
UPDATE ops.warehouse SET model_version = 2;
SELECT * FROM dwh.create_warehouse();
SELECT tableoid::regclass AS partition, event_time, load_id, line_no FROM staging.user_events ORDER BY event_time;
SELECT load_id, first_event, last_event FROM ops.loads;
SELECT test.put('2.jsonl', test.at('b', '2025-03-10', '{"device": "tv"}'), test.at('a', '2025-02-10'), test.at('c', '2025-02-10'));
SELECT step, status, rows_in, rows_out FROM dwh.run_pipeline() WHERE step IN ('stage_events', 'load_facts');
SELECT load_id, staged, replayed, conflicting, facts FROM ops.loads ORDER BY load_id;
SELECT * FROM test.differences();

-- ... and what is the user's on that table is not lost.
SELECT test.begin();
SELECT test.put('1.jsonl', test.at('a', '2025-01-10'));
SELECT count(*) FROM dwh.run_pipeline();
CREATE TABLE staging.before AS SELECT *, 'mine'::text AS note FROM staging.user_events;
DROP TABLE staging.user_events;
ALTER TABLE staging.before RENAME TO user_events;
CREATE VIEW test.reads_staging AS SELECT count(*) FROM staging.user_events;
UPDATE ops.warehouse SET model_version = 2;
SET client_min_messages = warning;
SELECT * FROM dwh.create_warehouse();
SET client_min_messages = error;
SELECT count(*), (SELECT note FROM staging.user_events_model_2) FROM staging.user_events;
DROP VIEW test.reads_staging;

-- Partitions of the user's: a default one gets what has no other, never what has; one that was detached is not taken for its name.
SELECT test.begin();
SELECT test.put('1.jsonl', test.at('a', '2025-01-10'));
SELECT count(*) FROM dwh.run_pipeline();
CREATE TABLE marts.rest PARTITION OF marts.fact_user_events DEFAULT;
CREATE TABLE staging.rest PARTITION OF staging.user_events DEFAULT;
SELECT test.put('2.jsonl', test.at('b', '2025-01-11'), test.at('c', '2025-02-11'));
SELECT count(*) FROM dwh.run_pipeline();
SELECT tableoid::regclass AS partition, count(*) FROM marts.fact_user_events GROUP BY 1 ORDER BY 1;
SELECT * FROM test.differences();
ALTER TABLE staging.user_events DETACH PARTITION staging.user_events_2025_02;
SELECT test.put('3.jsonl', test.at('d', '2025-02-12'));
SELECT * FROM test.error('SELECT count(*) FROM dwh.run_pipeline()');
