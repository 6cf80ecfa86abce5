-- 80_erasure: forget_user() takes a person out of every layer and ledger, and keeps the person out.
\set VERBOSITY sqlstate
SET timezone = 'UTC';
SET datestyle = 'ISO, YMD';
SELECT test.begin();
CREATE FUNCTION test.ledger() RETURNS TABLE (load_id bigint, status text, lines bigint, loaded bigint, rejected bigint, staged bigint, replayed bigint, conflicting bigint, refused bigint, forgotten bigint, facts bigint, is_checked boolean) LANGUAGE sql AS $$
    SELECT load_id, status, lines, loaded, rejected, staged, replayed, conflicting, stage_rejected, forgotten, facts, checked_at IS NOT NULL FROM ops.loads ORDER BY load_id $$;
-- Every table of the warehouse, as the catalog has it, searched for a word: where it is found.
CREATE FUNCTION test.traces(word text) RETURNS TABLE (found_in text, rows bigint) LANGUAGE plpgsql AS $$
DECLARE
    t record;
BEGIN
    FOR t IN SELECT c.oid::regclass AS name, c.relkind FROM pg_class AS c
              WHERE c.relnamespace::regnamespace::text IN ('raw', 'staging', 'marts', 'ops') AND c.relkind IN ('r', 'p', 'm') AND NOT c.relispartition
              ORDER BY c.oid::regclass::text COLLATE "C" LOOP
        found_in := t.name;
        -- bytes are searched as text, too
        EXECUTE format($q$SELECT count(*) FROM %s AS r WHERE r::text ~ $1 %s$q$, t.name,
            CASE t.name::text WHEN 'ops.rejects' THEN $q$ OR encode(r.raw, 'escape') ~ $1$q$ ELSE '' END) INTO rows USING '\m' || word || '\M';
        IF rows > 0 THEN RETURN NEXT; END IF;
    END LOOP;
END $$;
-- The marts as they are meant: keys replaced by what they stand for.
CREATE FUNCTION test.marts() RETURNS TABLE (mart text, meaning text) LANGUAGE sql AS $$
    SELECT 'user', ROW(user_id, device, country, valid_from, valid_to, is_current)::text FROM marts.dim_user
    UNION ALL
    SELECT 'product', ROW(product_id, category, brand, price, is_inferred, category_time, category_event_id, brand_time, brand_event_id, price_time, price_event_id)::text FROM marts.dim_product
    UNION ALL
    SELECT 'price', ROW(p.product_id, c.price, c.valid_from, c.valid_to, c.is_current)::text FROM marts.dim_product_price AS c JOIN marts.dim_product AS p USING (product_key)
    UNION ALL
    SELECT 'fact', ROW(f.event_id, f.event_time, f.event_type, f.session_id, f.quantity, f.price, f.revenue, f.attributes, u.user_id, u.valid_from, p.product_id)::text
      FROM marts.fact_user_events AS f LEFT JOIN marts.dim_user AS u USING (user_key) LEFT JOIN marts.dim_product AS p USING (product_key) $$;
CREATE TABLE test.kept_marts (mart text, meaning text);
-- The marts against those of a warehouse that never saw the user: no row where all is well.
CREATE FUNCTION test.compare_marts() RETURNS TABLE (what text, row_text text) LANGUAGE sql AS $$
    (SELECT 'too many', m::text FROM (SELECT * FROM test.marts() EXCEPT ALL SELECT * FROM test.kept_marts) AS m)
    UNION ALL
    (SELECT 'missing', m::text FROM (SELECT * FROM test.kept_marts EXCEPT ALL SELECT * FROM test.marts()) AS m) $$;
CREATE FUNCTION test.failing() RETURNS TABLE (name text) LANGUAGE sql AS $$
    SELECT c.name FROM dwh.run_quality_checks("full" => true) AS c WHERE c.status = 'fail' AND c.severity = 'error' $$;
CREATE FUNCTION test.run() RETURNS text LANGUAGE sql AS $$ SELECT string_agg(DISTINCT status, ' ' ORDER BY status) FROM dwh.run_pipeline('none_*.jsonl') $$;

-- Arguments, rights, and a warehouse in which nobody is.
SELECT * FROM test.error('SELECT * FROM dwh.forget_user(NULL)');
SELECT * FROM test.error($$SELECT * FROM dwh.forget_user('')$$);
SELECT * FROM dwh.forget_user('nobody');
SELECT * FROM dwh.forget_user(user_id => 'nobody');
SELECT count(*) AS remembered, bool_and(user_digest = dwh._user_digest('nobody')) AS as_documented, bool_or(user_digest = sha256('nobody')) AS without_salt FROM ops.forgotten_users;
SELECT dwh._forgotten(ARRAY['a', 'nobody', NULL, 'Nobody', 'nobody']), dwh._forgotten('{}'), dwh._forgotten(NULL);
CREATE ROLE dwh_test_visitor;
GRANT USAGE ON SCHEMA dwh TO dwh_test_visitor;
SET ROLE dwh_test_visitor;
SELECT * FROM dwh.forget_user('u1');
RESET ROLE;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA dwh TO dwh_test_visitor;
SET ROLE dwh_test_visitor;
SELECT * FROM dwh.forget_user('u1');
RESET ROLE;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA dwh FROM dwh_test_visitor;
REVOKE ALL ON SCHEMA dwh FROM dwh_test_visitor;
DROP ROLE dwh_test_visitor;
BEGIN;
CREATE TEMPORARY TABLE dwh_erased ();
SELECT * FROM dwh.forget_user('u1');
ROLLBACK;

-- A person in two files: events, a replay, a conflict, refused events, refused lines; beside somebody with a longer name.
SELECT test.begin();
SET dwh.max_reject_share = 1;
CREATE TABLE test.files (name text, line_no int, line text);
INSERT INTO test.files SELECT 'a.jsonl', l.n, l.line FROM unnest(ARRAY[
    test.event('{"event_id": "a1", "user_id": "u1", "device": "A", "product_id": "p1", "brand": "b1", "price": 1}'),
    test.event('{"event_id": "a2", "user_id": "u1", "device": "B", "product_id": "p1", "price": 3, "event_time": "2025-03-01T00:00:00Z", "session_id": "s", "x": {"y": 1}}'),
    test.event('{"event_id": "a3", "user_id": "u10", "device": "A", "product_id": "p1", "price": 2, "event_time": "2025-02-01T00:00:00Z"}'),
    test.event('{"event_id": "a4", "user_id": "u10", "product_id": "p3"}'),
    test.event('{"event_id": "a5", "user_id": "u1", "product_id": "p2", "category": "c", "event_type": "purchase", "quantity": 2, "price": 5}'),
    test.event('{"event_id": "a6", "user_id": "u1", "event_time": "yesterday", "product_id": "p4"}'),
    test.event('{"event_id": "a7", "user_id": "u10", "event_time": "yesterday"}'),
    '{"user_id": "u1", "broken', '{"user_id": "u10", "broken', '{"user_id": "\u0075\u0031", "broken',
    '["u1"]', E'{"user_id": "u1", "nul": "\\u0000"}', 'u10,u11,xu1,u1x,u_1', '',
    test.event('{"event_id": "a15", "user_id": "u2", "product_id": "p1", "brand": "b2", "event_time": "2025-01-01T00:00:00Z"}')]) WITH ORDINALITY AS l (line, n);
INSERT INTO test.files SELECT 'b.jsonl', l.n, l.line FROM unnest(ARRAY[
    test.event('{"event_id": "a1", "user_id": "u1", "device": "A", "product_id": "p1", "brand": "b1", "price": 1}'),
    test.event('{"event_id": "a2", "user_id": "u1", "device": "another"}'),
    test.event('{"event_id": "a3", "user_id": "u1", "device": "claims the event of u10"}'),
    test.event('{"event_id": "b4", "user_id": "u10", "device": "B", "event_time": "2025-04-01T00:00:00Z"}'),
    test.event('{"event_id": "b5", "user_id": "u1", "country": "KR", "event_time": "2025-04-01T00:00:00Z"}'),
    test.event('{"event_id": "a3", "user_id": "u10", "device": "A", "product_id": "p1", "price": 2, "event_time": "2025-02-01T00:00:00Z"}')]) WITH ORDINALITY AS l (line, n);
CREATE FUNCTION test.write(hidden text DEFAULT NULL) RETURNS bigint LANGUAGE sql AS $$
    SELECT count(*) FROM (SELECT test.put(name, VARIADIC array_agg(line ORDER BY line_no)) FROM test.files
     WHERE hidden IS NULL OR line !~ ('"' || hidden || '"|\\u0075\\u0031') GROUP BY name) AS f $$;
-- What it is without the person.
SELECT test.write('u1');
SELECT loaded, rejected FROM test.load('a.jsonl');
SELECT loaded, rejected FROM test.load('b.jsonl');
SELECT test.run();
INSERT INTO test.kept_marts SELECT * FROM test.marts();
-- And with.
SELECT test.begin();
SELECT test.write();
SELECT lines, loaded, rejected FROM test.load('a.jsonl');
SELECT lines, loaded, rejected FROM test.load('b.jsonl');
SELECT test.run();
SELECT * FROM test.ledger();
SELECT * FROM test.traces('u1');
SELECT count(*) > 0 AS other_marts FROM test.compare_marts();
SELECT changes AS before FROM ops.warehouse \gset
SELECT * FROM dwh.forget_user('u1');
SELECT changes - :before AS changes FROM ops.warehouse;
SELECT * FROM test.ledger();
SELECT * FROM test.traces('u1');
SELECT * FROM test.traces('u10');
SELECT * FROM test.compare_marts();
SELECT * FROM test.differences();
SELECT * FROM test.failing();
-- a product of the person alone is gone, an older word on the others counts again
SELECT product_key <> 0 AS is_product, product_id, brand, price, price_time FROM marts.dim_product ORDER BY product_id;
-- refused lines stay for the counts, and are not tried again
SELECT line_no, stage, class, message, encode(raw, 'escape') AS raw, raw_bytes > 0 AS has_length FROM ops.rejects ORDER BY load_id, line_no;
SELECT status, retried, loaded, still_rejected, not_kept FROM dwh.retry_rejects();
SELECT test.run();
SELECT * FROM test.failing();
-- again: nothing, and not a row is written
CREATE TABLE test.before AS SELECT 'loads' AS t, ctid AS at, xmin::text AS by FROM ops.loads UNION ALL SELECT 'warehouse', ctid, xmin::text FROM ops.warehouse
 UNION ALL SELECT 'rejects', ctid, xmin::text FROM ops.rejects UNION ALL SELECT 'products', ctid, xmin::text FROM marts.dim_product;
SELECT * FROM dwh.forget_user('u1');
SELECT count(*) AS rows_written FROM (SELECT 'loads', ctid, xmin::text FROM ops.loads UNION ALL SELECT 'warehouse', ctid, xmin::text FROM ops.warehouse
 UNION ALL SELECT 'rejects', ctid, xmin::text FROM ops.rejects UNION ALL SELECT 'products', ctid, xmin::text FROM marts.dim_product EXCEPT SELECT * FROM test.before) AS d
 WHERE d IS DISTINCT FROM (SELECT ('warehouse', w.ctid, w.xmin::text) FROM ops.warehouse AS w);   -- its row was locked
DROP TABLE test.before;

-- The person does not come back: the old file, read again by force, the same events in another file, a grown file, new events.
SELECT status FROM test.load('a.jsonl');
SELECT status, loaded FROM test.load('b.jsonl', force => true);
SELECT test.put('c.jsonl', VARIADIC (SELECT array_agg(line ORDER BY name DESC, line_no) FROM test.files WHERE line LIKE '%"event_id"%'));
SELECT status, loaded FROM test.load('c.jsonl');
INSERT INTO test.files VALUES ('a.jsonl', 100, test.event('{"event_id": "d1", "user_id": "u1", "event_time": "2024-01-01T00:00:00Z", "device": "Z"}')),
    ('a.jsonl', 101, test.event('{"event_id": "d2", "user_id": "u2", "product_id": "p1", "brand": "b2", "event_time": "2025-01-01T00:00:00Z"}')),
    ('a.jsonl', 102, test.event('{"event_id": "d3", "user_id": "u1", "event_time": "never"}'));
SELECT test.write();
SELECT status, lines, loaded FROM test.load('a.jsonl');
SELECT test.run();
-- also in lines that are refused again
SELECT status, loaded, rejected FROM test.load('a.jsonl', force => true);
SELECT test.run();
SELECT load_id, line_no, class, message, encode(raw, 'escape') AS raw FROM ops.rejects WHERE stage = 'load' AND load_id > 1 ORDER BY 1, 2;
SELECT * FROM test.ledger();
SELECT * FROM test.traces('u1');
SELECT * FROM test.differences();
SELECT * FROM test.failing();
SELECT user_id, count(*) FROM staging.user_events GROUP BY 1 ORDER BY 1;
-- until the entry is taken away
DELETE FROM ops.forgotten_users WHERE user_digest = dwh._user_digest('u1');
SELECT status FROM test.load('b.jsonl', force => true);
SELECT test.run();
SELECT user_id, count(*) FROM staging.user_events GROUP BY 1 ORDER BY 1;
SELECT * FROM test.failing();

-- At any moment: not staged, staged, before the facts, with rejects sent back; and a load that is quarantined.
SELECT test.begin();
SELECT test.write('no one');
SELECT loaded FROM test.load('a.jsonl');
SELECT status, raw, rejects, staging FROM dwh.forget_user('u2');
SELECT * FROM test.ledger();
SELECT status, staged, rejected FROM dwh.stage_events();
SELECT status, raw, rejects, staging, facts, versions FROM dwh.forget_user('u1');
SELECT * FROM test.ledger();
SELECT loaded FROM test.load('b.jsonl');
SELECT count(*) AS steps FROM test.build();
SELECT status, raw, staging, facts, versions FROM dwh.forget_user('u10');
SELECT * FROM test.ledger();
SELECT test.run();
SELECT * FROM test.failing();
SELECT (SELECT count(*) FROM marts.dim_user) AS versions, (SELECT count(*) FROM marts.dim_product) AS products, (SELECT count(*) FROM raw.user_events) AS raw_rows;
RESET dwh.max_reject_share;
SELECT test.begin();
SELECT test.put('poisoned.jsonl', VARIADIC (SELECT array_agg(test.event(jsonb_build_object('user_id', 'u' || i % 2, 'event_time', 'never'))) FROM generate_series(1, 20) AS i));
SELECT loaded FROM test.load('poisoned.jsonl');
SELECT quarantined FROM dwh.stage_events();
SELECT status, raw, rejects FROM dwh.forget_user('u1');
SELECT load_id, status, loaded, stage_rejected, forgotten FROM ops.loads;
SELECT * FROM test.traces('u1');
-- by force it is read again; the run before it stops once more at what was quarantined
SELECT count(*) AS checks FROM dwh.run_quality_checks();
SELECT status FROM test.load('poisoned.jsonl', force => true);
SELECT test.run();
SELECT * FROM test.traces('u1');
-- what a failed run quarantined: rejects alone, without rows
SELECT test.begin();
SELECT test.put('bad.jsonl', VARIADIC (SELECT array_agg(test.event(jsonb_build_object('user_id', 'u' || i % 2, 'event_time', 'never'))) || array_agg('u' || i % 2) FROM generate_series(1, 20) AS i));
SELECT * FROM test.error('SELECT * FROM dwh.run_pipeline()');
SELECT count(*) > 0 AS has_traces FROM test.traces('u1');
SELECT status, raw, rejects FROM dwh.forget_user('u1');
SELECT status, loaded, rejected, stage_rejected, forgotten FROM ops.loads;
SELECT * FROM test.traces('u1');

-- Texts that a user_id can be: numbers, other scripts, characters that JSON or a pattern has a meaning for.
SELECT test.begin();
SET dwh.max_reject_share = 1;
CREATE TABLE test.names (name text);
INSERT INTO test.names VALUES ('42'), ('김'), ('a.b+c@x.org'), ('say "hi"'), ('back\slash/'), (E'tab\there'), ('😀'), ('.*'), ('É'), ('x'' OR true --');
SELECT test.put('names.jsonl', VARIADIC (
    SELECT array_agg(line) FROM (
        SELECT test.event(jsonb_build_object('user_id', name)) AS line FROM test.names
        UNION ALL SELECT test.event(jsonb_build_object('user_id', name || '1')) FROM test.names WHERE name <> '42'
        UNION ALL SELECT test.event('{"user_id": 42, "event_time": "2025-01-11T00:00:00Z"}')
        UNION ALL SELECT test.event('{"user_id": 42, "event_time": "x"}')
        UNION ALL SELECT '{"user_id": ' || to_jsonb(name)::text || ', ' FROM test.names
        UNION ALL SELECT '{"user_id": "\uae40", ' UNION ALL SELECT '{"user_id": "\uAE40\ucca0", ' UNION ALL SELECT '{"user_id": "김철", ' UNION ALL SELECT '{"user_id": "\uD83D\ude00", '
        UNION ALL SELECT '{"user_id": 420, ' UNION ALL SELECT '{"user_id": "aab+c@x.org", ') AS l));
SELECT loaded, rejected FROM test.load('names.jsonl');
SELECT test.run();
SELECT n.name, f.* FROM test.names AS n CROSS JOIN LATERAL dwh.forget_user(n.name) AS f ORDER BY n.name COLLATE "C";
SELECT user_id FROM staging.user_events ORDER BY 1;
SELECT class, encode(raw, 'escape') AS raw, count(*) FROM ops.rejects GROUP BY 1, 2 ORDER BY 1, 2;
SELECT * FROM test.failing();
-- two in one transaction, and undone
BEGIN;
SELECT status, staging FROM dwh.forget_user('É1');
SELECT status, staging FROM dwh.forget_user('.*1');
SELECT count(*) FROM staging.user_events;
ROLLBACK;
SELECT count(*) FROM staging.user_events;
-- read again by force: the same lines are emptied, and those of the others are not
SELECT loaded, rejected FROM test.load('names.jsonl', force => true);
SELECT test.run();
SELECT class, encode(raw, 'escape') AS raw, count(*) FROM ops.rejects WHERE load_id = 2 GROUP BY 1, 2 ORDER BY 1, 2;
SELECT staged, replayed, forgotten FROM ops.loads WHERE load_id = 2;
SELECT * FROM test.failing();
-- lines that are no text
SELECT test.begin();
SELECT test.put_bytes('bytes.jsonl', '\xff7531ff0a7b227531223a00e90a7531300aff0a'::bytea || convert_to(E'김', 'UTF8') || '\xff0aff'::bytea || convert_to(E' "\\uAE40" ', 'UTF8') || '\x0aff5c5c30303020750a'::bytea);
SELECT loaded, rejected FROM test.load('bytes.jsonl');
SELECT rejects FROM dwh.forget_user('u1');
SELECT rejects FROM dwh.forget_user('김');
SELECT line_no, class, message, encode(raw, 'escape') AS raw, raw_bytes FROM ops.rejects ORDER BY 1;
SELECT rejected FROM test.load('bytes.jsonl', force => true);
SELECT status FROM dwh.stage_events();
SELECT line_no, encode(raw, 'escape') AS raw FROM ops.rejects WHERE load_id = 2 ORDER BY 1;
RESET dwh.max_reject_share;

-- A conflict with an event that is erased: what it was told by goes, the verdict stays.
SELECT test.begin();
SELECT test.put('x.jsonl', test.event('{"event_id": "x1", "user_id": "u1"}'), test.event('{"event_id": "x1", "user_id": "u2"}'));
SELECT loaded FROM test.load('x.jsonl');
SELECT test.run();
UPDATE ops.event_conflicts SET fingerprint = 'of u2', kept_fingerprint = 'of u1';
SELECT status, raw, conflicts FROM dwh.forget_user('u1');
SELECT payload ->> 'user_id' AS user_id, fingerprint, kept_fingerprint FROM ops.event_conflicts;
SELECT * FROM test.ledger();
SELECT * FROM test.failing();
-- who comes again is accepted
SELECT test.put('y.jsonl', test.event('{"event_id": "x1", "user_id": "u2"}'));
SELECT loaded FROM test.load('y.jsonl');
SELECT test.run();
SELECT user_id FROM staging.user_events;

-- Verdicts, runs and alerts that name the person.
SELECT test.begin();
INSERT INTO ops.quality_results (name, severity, status, observed, allowed, offenders) VALUES ('mine', 'warn', 'fail', 1, 0, '[{"user_id": "u1"}]'), ('mine', 'warn', 'fail', 1, 0, '[{"user_id": "u10"}]');
INSERT INTO ops.runs (status, started_at, message, detail, hint) VALUES ('failed', now(), 'it failed', 'The first: {"user_id": "u1"}.', NULL), ('failed', now(), 'u10', NULL, NULL), ('succeeded', now(), NULL, NULL, 'u1');
INSERT INTO ops.run_steps (run_id, step_no, step, status, message) SELECT run_id, 1, 'load_facts', 'failed', message || coalesce(': ' || detail, '') FROM ops.runs;
INSERT INTO ops.alerts (dedupe_key, severity, title, body)
VALUES ('run:', 'error', 'a run failed', '{"sqlstate": "WH001", "first": "u1"}'), ('run:', 'error', 'u1', '{}'), ('run:', 'error', 'u10', '{"sqlstate": "WH002"}');
SELECT * FROM dwh.forget_user('u1');
SELECT offenders FROM ops.quality_results ORDER BY result_id;
SELECT status, message, detail, hint FROM ops.runs ORDER BY run_id;
SELECT message FROM ops.run_steps ORDER BY run_id;
SELECT title, body FROM ops.alerts ORDER BY alert_id;
SELECT * FROM test.traces('u1');

-- When old partitions are gone: facts without staging rows, lines without raw rows, rejects without either.
SELECT test.begin();
SET dwh.max_reject_share = 1;
SELECT test.put('old.jsonl',
    test.event('{"event_id": "o1", "user_id": "u1", "event_time": "2024-12-10T00:00:00Z", "device": "A", "product_id": "p1", "price": 1}'),
    test.event('{"event_id": "o2", "user_id": "u2", "event_time": "2024-12-11T00:00:00Z", "device": "A", "product_id": "p2", "brand": "b"}'),
    test.event('{"event_id": "o3", "user_id": "u1", "event_time": "2025-01-12T00:00:00Z", "device": "B", "product_id": "p2", "price": 2, "brand": "newer"}'),
    test.event('{"event_id": "o4", "user_id": "u1", "event_time": "2025-01-12T00:00:00Z", "product_id": "p3", "price": 3}'),
    test.event('{"event_id": "o5", "user_id": "u2", "event_time": "2025-01-13T00:00:00Z", "product_id": "p2", "price": 4}'),
    test.event('{"event_id": "o6", "user_id": "u1", "event_time": "never"}'), test.event('{"event_id": "o7", "user_id": "u2", "event_time": "never"}'),
    test.event(jsonb_build_object('event_id', 'o8', 'user_id', 'u1', 'event_time', 'never', 'a', repeat('long ', 1000))));
SELECT test.put('more.jsonl', test.event('{"event_id": "o1", "user_id": "u1", "event_time": "2024-12-10T00:00:00Z", "device": "A", "product_id": "p1", "price": 1}'),
    test.event('{"event_id": "o3", "user_id": "u1", "device": "conflict"}'), test.event('{"event_id": "o2", "user_id": "u1", "device": "conflict with u2"}'));
SELECT loaded FROM test.load('old.jsonl');
SELECT test.run();
SELECT loaded FROM test.load('more.jsonl');
SELECT test.run();
SELECT status, rows_dropped FROM dwh.drop_before('raw', now());
SELECT status, rows_dropped, horizon FROM dwh.drop_before('staging', '2025-01-01Z');
SELECT load_id, loaded, staged, replayed, conflicting, stage_rejected, forgotten, facts, raw_dropped, staging_dropped, facts_dropped FROM ops.loads ORDER BY 1;
SELECT * FROM test.failing();
BEGIN;
SELECT * FROM dwh.forget_user('u1');
SELECT load_id, loaded, staged, replayed, conflicting, stage_rejected, forgotten, facts, raw_dropped, staging_dropped, facts_dropped FROM ops.loads ORDER BY 1;
SELECT product_id, brand, price, brand_time, brand_event_id = '00000000-0000-0000-0000-000000000000' AS brand_by_nobody, price_time, is_inferred FROM marts.dim_product ORDER BY 1;
SELECT * FROM test.traces('u1');
SELECT * FROM test.failing();
SELECT d.user_id, f.event_time FROM marts.fact_user_events AS f JOIN marts.dim_user AS d USING (user_key) ORDER BY 2;
ROLLBACK;
-- facts too: which of a person's old lines was the event and which a replay is told by their order
SELECT status, rows_dropped FROM dwh.drop_before('facts', '2025-01-01Z');
SELECT * FROM dwh.forget_user('u1');
SELECT load_id, loaded, staged, replayed, conflicting, stage_rejected, forgotten, facts, raw_dropped, staging_dropped, facts_dropped FROM ops.loads ORDER BY 1;
SELECT product_id, price FROM marts.dim_product ORDER BY 1;
SELECT * FROM test.traces('u1');
SELECT * FROM test.failing();
SELECT test.begin();
SELECT loaded FROM test.load('none_*.jsonl');
SELECT test.put('old.jsonl', test.event('{"event_id": "o1", "user_id": "u1", "event_time": "2024-12-10T00:00:00Z"}'), test.event('{"event_id": "o1", "user_id": "u1", "event_time": "2024-12-10T00:00:00Z"}'), test.event('{"event_id": "o3", "user_id": "u2"}'));
SELECT test.put('more.jsonl', test.event('{"event_id": "o1", "user_id": "u1", "event_time": "2024-12-10T00:00:00Z"}'), test.event('{"event_id": "o4", "user_id": "u1", "event_time": "2024-12-10T00:00:00Z"}'));
SELECT loaded FROM test.load('old.jsonl');
SELECT loaded FROM test.load('more.jsonl');
SELECT test.run();
SELECT status, rows_dropped FROM dwh.drop_before('staging', '2025-01-01Z');
SELECT status, rows_dropped FROM dwh.drop_before('facts', '2025-01-01Z');
SELECT status, raw, staging, facts FROM dwh.forget_user('u1');
SELECT load_id, loaded, staged, replayed, forgotten, facts, raw_dropped, staging_dropped, facts_dropped FROM ops.loads ORDER BY 1;
SELECT * FROM test.failing();
RESET dwh.max_reject_share;

DROP TABLE test.files, test.kept_marts, test.names;
DROP FUNCTION test.ledger, test.traces, test.marts, test.compare_marts, test.failing, test.run, test.write;

-- A refused line says whose it is: another one's is kept whole, and goes on once what refused it is gone.
SELECT test.begin();
SELECT test.put('1.jsonl', test.event('{"user_id": "17"}'), test.event('{"user_id": "bob", "event_id": "e26-17", "quantity": 17}'),
    '{"event_id": "n", "event_time": "2025-01-10T00:00:00Z", "event_type": "x", "user_id": "bob", "quantity": 17, "note": "\u0000"}',
    '{"event_time": "2025-01-10T00:00:00Z", "event_type": "x", "user_id": 17, "note": "\u0000"}', '{"user_id": "17', '17;x');
SELECT status, lines, rejected FROM test.load('1.jsonl');
SELECT status, rejects FROM dwh.forget_user('17');
SELECT line_no, message = 'erased' AS is_erased, raw = '' AS is_empty FROM ops.rejects ORDER BY line_no;
SET dwh.nul_escapes = 'replace';
SELECT retried, loaded, not_kept FROM dwh.retry_rejects();
RESET dwh.nul_escapes;
SELECT payload ->> 'user_id' AS user_id, payload ->> 'event_id' AS event_id FROM raw.user_events ORDER BY line_no;
-- ... and what is found once is found again when it comes back, also cut, escaped, in no text at all, and in a load that stops
SELECT status FROM dwh.forget_user('Ann Kim');
SELECT status FROM dwh.forget_user('김철수');
SELECT test.put_bytes('2.jsonl', convert_to('{"event_type":"x","user_id":"Ann Kim' || E'\n' || '{"a":"b"c","user_id":"Ann Kim"}' || E'\n' || '1,Ann Kim,KR' || E'\n'
    || '{"user_id":"\uae40\ucca0\uc218' || E'\n' || '{"user_id":"Ann Kimball' || E'\n', 'UTF8') || convert_to('{"user_id":"김철수","note":"', 'UTF8') || '\xff220a'
    || convert_to('{"user_id":"김철', 'UTF8') || '\xec0a');
SELECT status, lines, rejected FROM test.load('2.jsonl', force => true);
SELECT status, quarantined FROM dwh.stage_events();
SELECT line_no, raw = '' AS is_empty FROM ops.rejects WHERE load_id = (SELECT max(load_id) FROM ops.loads) ORDER BY line_no;
SELECT test.put('3.jsonl', '{"user_id": "Ann Kim", "broken', '{"user_id": "bob", "broken');
\set VERBOSITY sqlstate
SELECT * FROM dwh.load_jsonl('3.jsonl', on_error => 'abort');
\set VERBOSITY default
SELECT line_no, raw = '' AS is_empty, message = 'erased' AS is_erased FROM ops.rejects WHERE load_id = (SELECT max(load_id) FROM ops.loads) ORDER BY line_no;
-- where the value of the key does not end, any word may be the user
SELECT dwh._line_users('{"user_id":"victim,"event_type":"view"}'), dwh._line_users('{"user_id":123abc}'), dwh._line_users('{"user_id" : 123 }'), dwh._line_users('{"user_id":"a\\"b","x":1}'), dwh._line_users('{"user_id":"cut');
SELECT test.put('4.jsonl', '{"user_id":"victim,"event_type":"view"}');
SELECT rejected FROM test.load('4.jsonl');
SELECT status, rejects FROM dwh.forget_user('victim');
