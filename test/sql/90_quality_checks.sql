-- 90_quality_checks: each check is provoked by tampering. A failing one of severity error raises WH001; its evidence can be
-- read afterwards, also from another session, and the marts are as they were.
\set VERBOSITY sqlstate
SET timezone = 'UTC';
SET datestyle = 'ISO, YMD';
SELECT test.begin();
SELECT test.put('q.jsonl', test.event('{"event_id": "1", "device": "A", "event_time": "2025-01-01T00:00:00Z"}'), test.event('{"event_id": "2", "device": "B", "event_time": "2025-01-05T00:00:00Z"}'),
    test.event('{"event_id": "3", "product_id": "p", "price": 5, "event_time": "2025-02-05T00:00:00Z"}'), test.event('{"event_id": "4", "user_id": "u2"}'), 'broken', '');
SELECT status, lines FROM test.load('q.jsonl');
SELECT count(*) FROM test.build();
SELECT name, severity, status, CASE WHEN name NOT LIKE 'freshness%' THEN observed END AS observed, allowed, offenders, limits - 'since' - 'until' AS limits FROM dwh.run_quality_checks();
SELECT checked_at IS NOT NULL AS is_checked FROM ops.loads;
SELECT count(*), count(DISTINCT name) FROM ops.quality_results WHERE status = 'pass' AND load_ids = '{1}';

-- Tampering, one statement at a time, each undone: which checks fail, of this load and of all.
CREATE FUNCTION test.tamper(statement text, load_ids bigint[]) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    failed text;
BEGIN
    BEGIN
        EXECUTE statement;
        SELECT string_agg(name || '=' || observed, ' ') INTO failed FROM dwh._evaluate_checks(load_ids) WHERE status = 'fail';
        RAISE EXCEPTION SQLSTATE 'TT000';
    EXCEPTION WHEN SQLSTATE 'TT000' THEN
        RETURN coalesce(failed, 'nothing');
    END;
END $$;
CREATE TEMP TABLE tampered AS SELECT t.n, t.statement, test.tamper(t.statement, NULL) AS failed, test.tamper(t.statement, '{1}') AS failed_of_load FROM unnest(ARRAY[
    'UPDATE ops.loads SET loaded = loaded + 1, blank = blank - 1',
    'UPDATE ops.loads SET staged = staged - 1, replayed = replayed + 1',
    'UPDATE ops.loads SET facts = facts - 1',
    'UPDATE ops.loads SET forgotten = 1',
    'DELETE FROM raw.user_events WHERE line_no = 1',
    'DELETE FROM ops.rejects',
    'INSERT INTO ops.rejects SELECT load_id, 3, 0, ''stage'', ''wrong_type'', ''m'', raw, 1 FROM ops.rejects',
    'DELETE FROM marts.fact_user_events WHERE line_no = 4',
    'DELETE FROM staging.user_events WHERE line_no = 4',
    'UPDATE ops.loads SET rejected = 40, lines = 45',
    'ALTER TABLE staging.user_events ALTER event_type DROP NOT NULL; UPDATE staging.user_events SET event_type = NULL WHERE line_no = 1',
    'ALTER TABLE staging.user_events ALTER user_id DROP NOT NULL; UPDATE staging.user_events SET user_id = NULL WHERE line_no = 4',
    'INSERT INTO marts.fact_user_events SELECT event_id, ''2025-02-06 00:00:00+00'', event_type, session_id, user_key, product_key, quantity, price, revenue, attributes, load_id, line_no FROM marts.fact_user_events WHERE line_no = 1',
    'UPDATE marts.fact_user_events SET event_id = gen_random_uuid() WHERE line_no = 4',
    'UPDATE marts.fact_user_events SET user_key = -1 WHERE line_no = 4',
    'UPDATE marts.fact_user_events SET product_key = -1 WHERE line_no = 3',
    'DELETE FROM marts.dim_user WHERE user_id = ''u2''',
    'DELETE FROM marts.dim_product WHERE product_id = ''p''',
    'UPDATE marts.dim_user SET valid_to = valid_from + interval ''1 day'', is_current = false WHERE user_id = ''u2''',
    'UPDATE marts.dim_user SET valid_to = valid_to + interval ''1 day'' WHERE NOT is_current',
    'UPDATE marts.dim_user SET valid_to = valid_to - interval ''1 day'' WHERE NOT is_current',
    'UPDATE marts.dim_product SET price = 7 WHERE product_id = ''p''',
    'INSERT INTO marts.dim_product_price SELECT product_key, 7, ''2025-02-06Z'', NULL, true FROM marts.dim_product WHERE product_id = ''p''',
    'UPDATE marts.dim_product SET price = 7 WHERE product_id = ''p''; INSERT INTO marts.dim_product_price SELECT product_key, 7, day, day + interval ''1 day'', false FROM marts.dim_product, generate_series(timestamptz ''2025-02-06Z'', ''2025-02-08Z'', ''1 day'') AS day WHERE product_id = ''p''',
    'UPDATE marts.dim_product SET price = 7 WHERE product_id = ''p''; INSERT INTO marts.dim_product_price SELECT product_key, price, since, until, until IS NULL FROM marts.dim_product AS p, (VALUES (timestamptz ''2025-02-06Z'', timestamptz ''2025-02-07Z''), (''2025-02-08Z'', NULL)) AS v (since, until) WHERE product_id = ''p''',
    'UPDATE marts.fact_user_events SET user_key = (SELECT user_key FROM marts.dim_user WHERE user_id = ''u2'') WHERE line_no = 1',
    'UPDATE marts.fact_user_events SET user_key = (SELECT user_key FROM marts.dim_user WHERE user_id = ''u1'' AND is_current) WHERE line_no = 1',
    'UPDATE marts.dim_user SET valid_from = valid_from + interval ''1 second'' WHERE user_id = ''u2''',
    'INSERT INTO ops.event_conflicts SELECT 1, 9, event_id, load_id, line_no, ''{}'' FROM staging.user_events LIMIT 1']) WITH ORDINALITY AS t (statement, n);
SELECT failed, statement FROM tampered ORDER BY n;
-- of the load alone the same ones fail
SELECT failed, failed_of_load, statement FROM tampered WHERE failed_of_load <> failed ORDER BY n;

-- Every built-in check of loads has failed at least once above: none is a check that cannot fail.
SELECT c.name AS never_failed FROM ops.quality_checks AS c JOIN dwh.check_kinds() AS k USING (kind) WHERE NOT k.is_timely AND NOT EXISTS (SELECT FROM tampered AS t WHERE t.failed LIKE '%' || c.name || '=%');

-- An event_id in two partitions, staged and written by two loads that say so: only a look at everything finds it.
BEGIN;
INSERT INTO ops.loads (load_id, path, lines, loaded, rejected, blank, staged, facts, status, loaded_at, staged_at, users_at, products_at, facts_at)
SELECT 2, 'twice', 1, 1, 0, 0, 1, 1, 'loaded', now(), now(), now(), now(), now();
INSERT INTO raw.user_events SELECT 2, 1, 0, now(), payload FROM raw.user_events WHERE line_no = 1;
INSERT INTO marts.fact_user_events SELECT event_id, '2025-02-06 00:00:00+00', event_type, session_id,
       (SELECT user_key FROM marts.dim_user WHERE user_id = 'u1' AND is_current), product_key, quantity, price, revenue, attributes, 2, 1
  FROM marts.fact_user_events WHERE line_no = 1;
SELECT name, observed FROM dwh._evaluate_checks('{2}') WHERE status = 'fail' AND name = 'duplicate_event_id' AND offenders @? '$[*].facts ? (@ > 1)';
SELECT name, observed FROM dwh._evaluate_checks(NULL) WHERE status = 'fail' AND name = 'duplicate_event_id' AND offenders @? '$[*].facts ? (@ > 1)';
ROLLBACK;
-- Of a load, versions are looked at from its first event of the user on, the one before included.
BEGIN;
INSERT INTO ops.loads (load_id, path, lines, loaded, rejected, blank, status, loaded_at) VALUES (3, 'later', 0, 0, 0, 0, 'loaded', now());
UPDATE staging.user_events SET load_id = 3 WHERE line_no = 3;
SELECT v.user_id, v.valid_from FROM dwh._versions_of('{3}') AS v;
UPDATE staging.user_events SET load_id = 3, event_time = '2025-01-04T00:00:00Z' WHERE line_no = 3;
SELECT v.user_id, v.valid_from FROM dwh._versions_of('{3}') AS v ORDER BY v.valid_from;
SELECT count(*) FROM dwh._versions_of(NULL);
ROLLBACK;
-- Rows that drop_before() took out of staging are missed only by conservation, whose counts it keeps.
BEGIN;
DELETE FROM staging.user_events WHERE event_time < '2025-02-01Z';
SELECT string_agg(name || '=' || observed, ' ') FROM dwh._evaluate_checks(NULL) WHERE status = 'fail' AND name <> 'conservation';
UPDATE ops.warehouse SET staging_since = '2025-02-01Z';
SELECT string_agg(name || '=' || observed, ' ') FROM dwh._evaluate_checks(NULL) WHERE status = 'fail' AND name <> 'conservation';
ROLLBACK;
-- How the rows of a load are found is no affair of the session.
SELECT count(*) FROM dwh._evaluate_checks('{1}');
SELECT name, setting FROM pg_settings WHERE name IN ('enable_nestloop', 'enable_seqscan') ORDER BY name;

-- A failure, for real: WH001, what was found in DETAIL, evidence and alert readable from another session.
DELETE FROM marts.dim_product WHERE product_id = 'p';
SELECT count(*) FROM dwh.run_quality_checks();   -- nothing new to check: this load was checked
SELECT count(*) FROM dwh.run_quality_checks("full" => true);
SELECT count(*) FROM dwh.run_quality_checks(load_id => 1);
\c
\set VERBOSITY sqlstate
SET timezone = 'UTC';
SET datestyle = 'ISO, YMD';
SELECT name, severity, status, observed, allowed, jsonb_array_length(offenders) AS kept, offenders -> 0 ->> 'user_key' IS NOT NULL AS names_the_fact, load_ids, run_id
  FROM ops.quality_results WHERE status = 'fail' ORDER BY result_id;
SELECT severity, title, body, run_id FROM ops.alerts ORDER BY alert_id;
SELECT count(*) AS facts_still FROM marts.fact_user_events;

-- The limit, the switch and the severity are the user's; their own checks count as any other.
UPDATE ops.quality_checks SET max_offenders = 1 WHERE name = 'referential';
SELECT name, status, observed, allowed FROM dwh.run_quality_checks(1) WHERE name = 'referential';
UPDATE ops.quality_checks SET max_offenders = 0, severity = 'warn' WHERE name = 'referential';
SELECT name, severity, status FROM dwh.run_quality_checks(1) WHERE status = 'fail';
UPDATE ops.quality_checks SET severity = 'error', enabled = false WHERE name = 'referential';
SELECT count(*) FROM dwh.run_quality_checks(1);
INSERT INTO ops.quality_checks (name, severity, description, query) VALUES ('no_tv', 'error', 'No TV.', 'SELECT user_id FROM marts.dim_user WHERE device = ''B''');
SELECT count(*) FROM dwh.run_quality_checks(1);
DELETE FROM ops.quality_checks WHERE name = 'no_tv';
-- more than ten offenders: all counted, ten kept
INSERT INTO ops.quality_checks (name, severity, description, query) VALUES ('many', 'warn', 'Many.', 'SELECT g FROM generate_series(1, 25) AS g');
SELECT observed, jsonb_array_length(offenders) AS kept FROM dwh.run_quality_checks(1) WHERE name = 'many';
DELETE FROM ops.quality_checks WHERE name = 'many';
SELECT * FROM dwh.run_quality_checks(999);
-- a check that itself is wrong says so with its own error, and nothing is written as passed; one of severity warn fails
CREATE TABLE public.fades AS SELECT 1 AS one;
INSERT INTO ops.quality_checks (name, severity, description, query) VALUES ('wrong', 'error', 'Wrong.', 'SELECT 1 FROM public.fades');
DROP TABLE public.fades;
SELECT count(*) FROM dwh.run_quality_checks(1);
UPDATE ops.quality_checks SET severity = 'warn' WHERE name = 'wrong';
SELECT status, offenders -> 0 ->> 'sqlstate' AS sqlstate FROM dwh.run_quality_checks(1) WHERE name = 'wrong';
-- columns of any name, and a comment at the end
UPDATE ops.quality_checks SET query = 'SELECT 7 AS n, 8 AS q, 9 AS position -- the end' WHERE name = 'wrong';
SELECT status, offenders FROM dwh.run_quality_checks(1) WHERE name = 'wrong';
DELETE FROM ops.quality_checks WHERE name = 'wrong';
-- a conflict is a warning: it is written down and stops nothing
SELECT test.begin();
SELECT test.put('c.jsonl', test.event('{"event_id": "1"}'), test.event('{"event_id": "1", "device": "x"}'));
SELECT step, status FROM dwh.run_pipeline();
SELECT name, severity, status, observed FROM ops.quality_results WHERE status = 'fail';
