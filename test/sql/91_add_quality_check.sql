-- 91_add_quality_check: checks as data. What is added is tried at once, by call or by row; limits by count and by percent; the
-- kinds that look at the clock; a check cannot write.
\set VERBOSITY sqlstate
SET timezone = 'Asia/Seoul';
SET datestyle = 'German, DMY';
SET client_min_messages = error;
SELECT test.begin();
SELECT kind, position, severity, enabled, is_timely, parameters, query IS NOT NULL AS brings_query FROM dwh.check_kinds() ORDER BY position;
SELECT count(*) AS not_as_the_kind_says FROM ops.quality_checks AS c JOIN dwh.check_kinds() AS k ON k.kind = c.name
 WHERE (c.kind, c.severity, c.enabled, c.description, c.position) IS DISTINCT FROM (k.kind, k.severity, k.enabled, k.description, k.position) OR c.query IS NOT NULL OR c.parameters <> '{}';

-- Added, changed, unchanged; the query keeps a comment at its end.
SELECT * FROM dwh.add_quality_check('no_tv', 'SELECT s.user_id, s.load_id FROM staging.user_events AS s WHERE s.device = ''tv'' AND ($1 IS NULL OR s.load_id = ANY ($1)) -- no semicolon');
SELECT * FROM dwh.add_quality_check('no_tv', 'SELECT s.user_id, s.load_id FROM staging.user_events AS s WHERE s.device = ''tv'' AND ($1 IS NULL OR s.load_id = ANY ($1)) -- no semicolon');
SELECT * FROM dwh.add_quality_check('no_tv', 'SELECT s.user_id, s.load_id FROM staging.user_events AS s WHERE s.device = ''tv'' AND ($1 IS NULL OR s.load_id = ANY ($1)) -- no semicolon', max_percent => 10);
SELECT * FROM dwh.add_quality_check('fresh_week', kind => 'freshness_load', parameters => '{"max_age": "7 days"}', severity => 'error');
SELECT * FROM dwh.add_quality_check('few_conflicts', kind => 'event_conflicts', max_percent => 20, severity => 'error', population => 'SELECT sum(l.loaded) FROM ops.loads AS l WHERE $1 IS NULL OR l.load_id = ANY ($1)');
SELECT name, kind, severity, description, max_offenders, max_percent, population IS NOT NULL AS own_population, parameters, enabled, position FROM ops.quality_checks
 WHERE name IN ('no_tv', 'fresh_week', 'few_conflicts') ORDER BY name;

-- What cannot be used is refused, by call and by row alike, and nothing of it stays.
CREATE TABLE public.written (n integer);
CREATE FUNCTION public.writes() RETURNS integer LANGUAGE sql AS 'INSERT INTO public.written VALUES (1) RETURNING n';
CREATE FUNCTION test.tried(statement text, new ops.quality_checks, OUT code text, OUT said text, OUT detail text, OUT hint text) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement USING new;
    code := 'accepted';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS said := MESSAGE_TEXT, detail := PG_EXCEPTION_DETAIL, hint := PG_EXCEPTION_HINT;
    code := SQLSTATE;
END $$;
CREATE FUNCTION test.refused(new ops.quality_checks) RETURNS TABLE (by_call text, same_by_row boolean, has_detail_and_hint boolean, said text) LANGUAGE sql AS $$
    SELECT c.code, c = r, c.hint <> '' AND c.detail <> '', CASE WHEN c.code IN ('22023', '42P11') THEN regexp_replace(c.said, '^.*(cannot be used)', '\1') || CASE c.code WHEN '22023' THEN ': ' || c.detail ELSE '' END END
      FROM test.tried('SELECT dwh.add_quality_check($1.name, $1.query, $1.kind, $1.severity, $1.description, $1.max_offenders, $1.max_percent, $1.population, $1.parameters)', new) AS c,
           test.tried('INSERT INTO ops.quality_checks SELECT $1.*', new) AS r $$;
SELECT b.n, r.* FROM (VALUES
    (1, '{"query": "SELEC 1"}'), (2, '{"query": "SELECT 1 FROM no_such.table_"}'), (3, '{"query": "SELECT 1; SELECT 2"}'), (4, '{"query": "SELECT 1;"}'), (5, '{"query": ""}'),
    (6, '{"query": "INSERT INTO public.written VALUES (1)"}'), (7, '{"query": "INSERT INTO public.written VALUES (1) RETURNING n"}'),
    (8, '{"query": "WITH w AS (DELETE FROM public.written RETURNING n) SELECT * FROM w"}'), (9, '{"query": "DROP TABLE public.written"}'),
    (10, '{"query": "SELECT 1) AS q; DROP TABLE public.written; SELECT * FROM (SELECT 2"}'), (11, '{"query": "SELECT n FROM public.written FOR UPDATE"}'),
    (12, '{"query": "SELECT $2"}'), (13, '{"query": "SELECT 1 WHERE $1 = 5"}'), (14, '{"query": "SELECT count(*) FROM written"}'), (15, '{"query": "SELECT 1 / 0"}'),
    (16, '{"query": null}'), (17, '{"kind": "no_such_kind", "query": null}'), (18, '{"kind": "conservation"}'), (19, '{"severity": "fatal"}'), (20, '{"name": ""}'),
    (21, '{"max_offenders": -1}'), (22, '{"max_percent": 101}'), (23, '{"max_percent": "NaN"}'), (24, '{"max_percent": 5, "population": "SELECT 1, 2"}'),
    (25, '{"max_percent": 5, "population": "SELECT now()"}'), (26, '{"max_percent": 5, "population": "SELECT 1) ; SELECT (2"}'), (27, '{"parameters": {"max_age": "1 day"}}'), (28, '{"parameters": []}'),
    (30, '{"kind": "freshness_load", "query": null, "parameters": {"max_age": "soon"}}'), (31, '{"kind": "freshness_load", "query": null, "parameters": {"max_age": "-1 day"}}'),
    (32, '{"kind": "freshness_load", "query": null, "parameters": {"max_age": null}}'), (33, '{"kind": "freshness_load", "query": null, "parameters": {"age": "1 day"}}'),
    (34, '{"kind": "freshness_event", "query": null, "max_offenders": 5}'), (35, '{"kind": "volume", "query": null, "parameters": {"period": "1 month"}}'),
    (36, '{"kind": "volume", "query": null, "parameters": {"points": 3}}'), (37, '{"kind": "volume", "query": null, "parameters": {"points": 5.5}}'),
    (38, '{"kind": "volume", "query": null, "parameters": {"sensitivity": 0}}'), (39, '{"kind": "volume", "query": null, "parameters": {"season": "many"}}'),
    (40, '{"kind": "volume", "query": null, "parameters": {"season": 10000, "points": 10000}}')) AS b (n, fields),
    test.refused(jsonb_populate_record(NULL::ops.quality_checks, '{"name": "bad", "severity": "error", "description": "Bad.", "kind": "query", "query": "SELECT 1", "parameters": {}, "enabled": true, "position": 1}' || b.fields::jsonb)) AS r
 ORDER BY b.n;
SELECT count(*) AS stayed FROM ops.quality_checks WHERE name IN ('bad', '');
SELECT count(*) AS written FROM public.written;

-- A change is tried as well; a broken check can be switched off.
UPDATE ops.quality_checks SET query = 'SELECT nothing' WHERE name = 'no_tv';
UPDATE ops.quality_checks SET parameters = '{"max_age": "x"}' WHERE name = 'freshness_load';
CREATE TABLE public.fades AS SELECT 1 AS one;
SELECT status FROM dwh.add_quality_check('fades', 'SELECT one FROM public.fades WHERE one > 1');
DROP TABLE public.fades;
UPDATE ops.quality_checks SET query = query || ' AND true' WHERE name = 'fades';
UPDATE ops.quality_checks SET max_offenders = 3, severity = 'warn' WHERE name = 'fades';
UPDATE ops.quality_checks SET max_offenders = -3 WHERE name = 'fades';
UPDATE ops.quality_checks SET max_percent = 3 WHERE name = 'freshness_load';
UPDATE ops.quality_checks SET enabled = false WHERE name = 'fades';

-- Limits: 20 events, 3 of them offend. Of 10 % of 20 there may be 2.
SELECT test.put('tv.jsonl', VARIADIC ARRAY(SELECT test.event(jsonb_build_object('event_id', n::text, 'device', CASE WHEN n <= 3 THEN 'tv' ELSE 'pc' END)) FROM generate_series(1, 20) AS n));
SELECT status FROM test.load('tv.jsonl');
SELECT count(*) FROM test.build();
CREATE FUNCTION test.verdict(max_offenders bigint, max_percent numeric, population text, load_ids bigint[]) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM dwh.add_quality_check('no_tv', 'SELECT s.user_id, s.load_id FROM staging.user_events AS s WHERE s.device = ''tv'' AND ($1 IS NULL OR s.load_id = ANY ($1))',
        max_offenders => max_offenders, max_percent => max_percent, population => population);
    RETURN (SELECT format('%s: %s of %s %s', status, observed, allowed, limits) FROM dwh._evaluate_checks(load_ids) WHERE name = 'no_tv');
END $$;
SELECT v.*, test.verdict(v.max_offenders, v.max_percent, v.population, v.load_ids::bigint[]) FROM (VALUES
    (1, NULL::bigint, NULL::numeric, NULL, '{1}'), (2, 2, NULL, NULL, '{1}'), (3, 3, NULL, NULL, '{1}'), (4, NULL, 10, NULL, '{1}'), (5, NULL, 14.99, NULL, '{1}'), (6, NULL, 15, NULL, '{1}'),
    (7, 2, 50, NULL, '{1}'), (8, 3, 10, NULL, '{1}'), (9, 3, 15, NULL, NULL), (10, NULL, 100, 'SELECT 2', '{1}'), (11, NULL, 100, 'SELECT NULL::integer', '{1}'), (12, NULL, 100, 'SELECT -5', '{1}'),
    (13, NULL, 0, NULL, '{1}'), (14, NULL, 100, 'SELECT 0', '{99}'), (15, NULL, NULL, NULL, '{}')) AS v (n, max_offenders, max_percent, population, load_ids) ORDER BY v.n;
SELECT status FROM dwh.add_quality_check('no_tv', 'SELECT 1 WHERE false');
-- how many offenders are kept is a setting
SELECT status FROM dwh.add_quality_check('many', 'SELECT n FROM generate_series(1, 25) AS n', severity => 'warn');
SET dwh.kept_offenders = 3;
SELECT observed, offenders FROM dwh.run_quality_checks(1) WHERE name = 'many';
RESET dwh.kept_offenders;
DELETE FROM ops.quality_checks WHERE name = 'many';

-- A check that writes ends with an error and wrote nothing; the transaction around it goes on writing.
SELECT status FROM dwh.add_quality_check('sly', 'SELECT public.writes() AS n');
BEGIN;
SAVEPOINT before;
SELECT count(*) FROM dwh.run_quality_checks(1);
ROLLBACK TO before;
UPDATE ops.quality_checks SET severity = 'warn' WHERE name = 'sly';
SELECT status, offenders -> 0 ->> 'sqlstate' AS sqlstate FROM dwh.run_quality_checks(1) WHERE name = 'sly';
SELECT count(*) AS written FROM public.written;
INSERT INTO public.written VALUES (2);
SHOW transaction_read_only;
COMMIT;
SELECT count(*) AS written FROM public.written;
DELETE FROM ops.quality_checks WHERE name = 'sly';

-- Freshness, at the times that are given; in whole seconds, rounded up.
CREATE FUNCTION test.freshness(kind text, parameters jsonb, at timestamptz) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v record;
BEGIN
    EXECUTE (SELECT k.query FROM dwh.check_kinds() AS k WHERE k.kind = freshness.kind) INTO v USING parameters, at, kind;
    RETURN format('%s of %s %s %s', v.observed, v.allowed, CASE WHEN v.has_failed THEN 'fail' ELSE 'pass' END, v.limits);
END $$;
UPDATE ops.loads SET loaded_at = '2025-03-01Z', last_event = '2025-02-01Z';
SELECT k.kind, a.at AT TIME ZONE 'UTC' AS utc, test.freshness(k.kind, '{"max_age": "1 day"}', a.at)
  FROM (VALUES ('freshness_load'), ('freshness_event')) AS k (kind), unnest('{2025-02-28Z,2025-03-01Z,2025-03-02Z,2025-03-02 00:00:00.1Z,2025-03-03Z}'::timestamptz[]) AS a (at) ORDER BY 1, 2;
SELECT k.kind, test.freshness(k.kind, '{"max_age": "40 days"}', '2025-03-02Z') FROM (VALUES ('freshness_load'), ('freshness_event')) AS k (kind) ORDER BY 1;
BEGIN;
UPDATE ops.loads SET status = 'quarantined';
SELECT k.kind, test.freshness(k.kind, '{"max_age": "1 day"}', '2025-03-02Z') FROM (VALUES ('freshness_load'), ('freshness_event')) AS k (kind) ORDER BY 1;
ROLLBACK;

-- Without a load to look at only the clock is asked, and its verdict is kept when it is news. Error: a run without files fails.
UPDATE ops.quality_checks SET severity = 'warn', parameters = '{"max_age": "7 days"}' WHERE name = 'fresh_week';
SELECT count(*) FROM dwh.run_quality_checks(1);
DELETE FROM ops.quality_results;
SELECT name, status FROM dwh.run_quality_checks();
SELECT name, status FROM dwh.run_quality_checks() WHERE name = 'fresh_week';
SELECT name, status, load_ids FROM ops.quality_results ORDER BY name;
UPDATE ops.loads SET loaded_at = now();
SELECT name, status FROM dwh.run_quality_checks() WHERE name = 'fresh_week';
SELECT step, status, rows_in, rows_out FROM dwh.run_pipeline('none_*.jsonl') WHERE step = 'run_quality_checks';
SELECT name, status FROM ops.quality_results WHERE name = 'fresh_week' ORDER BY result_id;
UPDATE ops.quality_checks SET severity = 'error' WHERE name = 'fresh_week';
UPDATE ops.loads SET loaded_at = '2025-03-01Z';
SELECT count(*) FROM dwh.run_pipeline('none_*.jsonl');
SELECT r.status, r.sqlstate, q.name, q.status AS verdict, q.load_ids FROM ops.runs AS r JOIN ops.quality_results AS q USING (run_id) WHERE q.severity = 'error' ORDER BY q.result_id DESC LIMIT 1;
SELECT state, severity FROM ops.alerts WHERE dedupe_key = 'check:fresh_week' ORDER BY alert_id;

-- A model 3 table becomes one of kinds; what the user set stays, also a check that has the name of a newer kind.
BEGIN;
ALTER TABLE ops.quality_checks DROP CONSTRAINT quality_checks_kind;
DROP TRIGGER validate_quality_check ON ops.quality_checks;
UPDATE ops.quality_checks SET kind = 'query', query = 'SELECT 1', max_offenders = 0;
UPDATE ops.quality_checks SET max_offenders = 4, severity = 'warn' WHERE name = 'referential';
SELECT status FROM dwh.create_warehouse();
SELECT name, kind, query, max_offenders, severity FROM ops.quality_checks WHERE name IN ('conservation', 'referential', 'no_tv', 'volume') ORDER BY name;
ROLLBACK;
-- without the extension the table takes rows as any other
BEGIN;
SET LOCAL search_path = pg_catalog;
DROP EXTENSION dwh_ext;
INSERT INTO ops.quality_checks (name, severity, description, query) VALUES ('untried', 'warn', 'Untried.', 'SELECT nothing');
ROLLBACK;
DROP FUNCTION public.writes();
DROP TABLE public.written;
SELECT test.begin();
