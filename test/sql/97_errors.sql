-- 97_errors: every error names a code, says what was found in DETAIL and what to do in HINT. No crash, no XX000.
\set VERBOSITY sqlstate
SELECT test.begin();
SELECT test.dir() AS dir \gset
SELECT test.put('x.jsonl', '{"n": 1}');
SELECT test.sh(format('cd %s && mkdir sub && mkfifo pipe && ln -s /dev/null null.jsonl && ln -s x.jsonl link.jsonl && ln -s nowhere dangling.jsonl && ln -s . loop', test.dir()));
SELECT test.put_bytes('damaged.gz', '\x1F8B0800000000000003FFFFFFFFFFFFFFFF');
SELECT test.put_bytes('damaged.zst', '\x28B52FFD' || decode(repeat('FF', 64), 'hex'));

SELECT c.what, e.* FROM (VALUES
    (1, 'a missing file', $$SELECT dwh.load_jsonl('missing.jsonl')$$),
    (2, 'in a missing directory', $$SELECT dwh.load_jsonl('nowhere/missing.jsonl')$$),
    (3, 'below a file', $$SELECT dwh.load_jsonl('x.jsonl/y')$$),
    (4, 'a link to nothing', $$SELECT dwh.load_jsonl('dangling.jsonl')$$),
    (5, 'a FIFO: refused, not waited for', $$SELECT dwh.load_jsonl('pipe')$$),
    (6, 'a device', $$SELECT dwh.load_jsonl('/dev/zero')$$),
    (7, 'a link to a device', $$SELECT dwh.load_jsonl('null.jsonl')$$),
    (8, 'a pattern below a file', $$SELECT dwh.load_jsonl('x.jsonl/*.jsonl')$$),
    (9, 'a pattern in the directory part', $$SELECT dwh.load_jsonl('s*/x.jsonl')$$),
    (10, 'an empty path', $$SELECT dwh.load_jsonl('')$$),
    (11, 'a path of a megabyte', $$SELECT dwh.load_jsonl(repeat('x', 1000000))$$),
    (12, 'a damaged gzip', $$SELECT dwh.load_jsonl('damaged.gz')$$),
    (13, 'a damaged zstd', $$SELECT dwh.load_jsonl('damaged.zst')$$),
    (14, 'a large object that is missing', $$SELECT dwh.load_jsonl(large_object => 4294967295::oid)$$),
    (15, 'no large object', $$SELECT dwh.load_jsonl(large_object => NULL)$$),
    (16, 'on_error', $$SELECT dwh.load_jsonl('x.jsonl', on_error => 'maybe')$$),
    (17, 'reject_limit', $$SELECT dwh.load_jsonl('x.jsonl', reject_limit => 'many')$$),
    (18, 'reject_limit below zero', $$SELECT dwh.load_jsonl('x.jsonl', reject_limit => -1)$$),
    (19, 'reject_limit above 100 %', $$SELECT dwh.load_jsonl('x.jsonl', reject_limit => '101%')$$),
    (20, 'reject_limit of NaN', $$SELECT dwh.load_jsonl('x.jsonl', reject_limit => 'NaN'::float8)$$),
    (21, 'reject_limit of half a line', $$SELECT dwh.load_jsonl('x.jsonl', reject_limit => 1.5)$$),
    (22, 'reject_limit that is empty', $$SELECT dwh.load_jsonl('x.jsonl', reject_limit => '')$$),
    (23, 'reject_limit in hexadecimal', $$SELECT dwh.load_jsonl('x.jsonl', reject_limit => '0x10')$$),
    (30, 'an unknown load: stage_events', $$SELECT dwh.stage_events(999)$$),
    (31, 'apply_scd2', $$SELECT dwh.apply_scd2(999)$$),
    (32, 'upsert_products', $$SELECT dwh.upsert_products(-1)$$),
    (33, 'load_facts', $$SELECT dwh.load_facts(0)$$),
    (34, 'run_quality_checks', $$SELECT dwh.run_quality_checks(9223372036854775807)$$),
    (35, 'retry_rejects', $$SELECT dwh.retry_rejects(999)$$),
    (40, 'a run on a missing file', $$SELECT dwh.run_pipeline('missing.jsonl')$$),
    (41, 'a run on a FIFO', $$SELECT dwh.run_pipeline('pipe')$$),
    (42, 'a run on an empty path', $$SELECT dwh.run_pipeline('')$$),
    (50, 'events below zero', $$SELECT dwh.generate_events('g.jsonl', events => -1)$$),
    (51, 'too many events', $$SELECT dwh.generate_events('g.jsonl', events => 9223372036854775807)$$),
    (52, 'no users', $$SELECT dwh.generate_events('g.jsonl', users => 0)$$),
    (53, 'no days', $$SELECT dwh.generate_events('g.jsonl', days => 0)$$),
    (54, 'dirty_rate', $$SELECT dwh.generate_events('g.jsonl', dirty_rate => 1.5)$$),
    (55, 'dirty_rate of NaN', $$SELECT dwh.generate_events('g.jsonl', dirty_rate => 'NaN')$$),
    (56, 'an unknown kind', $$SELECT dwh.generate_events('g.jsonl', dirty_rate => 0.1, dirty_kinds => '{no_such}')$$),
    (57, 'a kind that is null', $$SELECT dwh.generate_events('g.jsonl', dirty_rate => 0.1, dirty_kinds => ARRAY[NULL::text])$$),
    (58, 'an infinite start', $$SELECT dwh.generate_events('g.jsonl', start_at => 'infinity')$$),
    (59, 'a null argument', $$SELECT dwh.generate_events('g.jsonl', events => NULL)$$),
    (60, 'into a missing directory', $$SELECT dwh.generate_events('nowhere/g.jsonl', events => 1)$$),
    (61, 'onto a directory', $$SELECT dwh.generate_events('sub', events => 1)$$),
    (62, 'into an empty path', $$SELECT dwh.generate_events('', events => 1)$$),
    (63, 'onto a name that ends with a slash', $$SELECT dwh.generate_events('sub/', events => 1)$$),
    (64, 'a kind that text cannot hold', $$SELECT dwh.sample_events(10, dirty_rate => 1, dirty_kinds => '{invalid_utf8}')$$),
    (65, 'no kinds at all', $$SELECT dwh.sample_events(10, dirty_rate => 1, dirty_kinds => '{}')$$),
    (70, 'fine: a link to a log, for a superuser', $$SELECT dwh.load_jsonl('link.jsonl')$$),
    (71, 'fine: reject_limit of none', $$SELECT dwh.load_jsonl('x.jsonl', reject_limit => NULL::int)$$),
    (72, 'fine: reject_limit as the manual writes it', $$SELECT dwh.load_jsonl('x.jsonl', reject_limit => '1%')$$),
    (73, 'fine: reject_limit as a number', $$SELECT dwh.load_jsonl('x.jsonl', reject_limit => 100)$$)
  ) AS c (n, what, statement), test.error(c.statement) AS e ORDER BY c.n;
-- nothing of all that left a file or a row
SELECT count(*) FROM pg_ls_dir(test.dir()) AS f WHERE f LIKE 'g.jsonl%' OR f LIKE '.%.part';
SELECT lines FROM ops.loads;

-- settings say no to what cannot be
SELECT c.statement, e.code FROM (VALUES (1, 'SET dwh.landing_directory = ''relative'''), (2, 'SET dwh.report_timezone = ''Mars/Base'''), (3, 'SET dwh.max_line_bytes = 10'), (4, 'SET dwh.max_line_bytes = ''1GB'''),
    (5, 'SET dwh.max_reject_share = 2'), (6, 'SET dwh.max_reject_share = ''NaN'''), (7, 'SET dwh.fact_partition = ''year'''), (8, 'SET dwh.no_such_setting = 1')) AS c (n, statement), test.error(c.statement) AS e ORDER BY n;

-- A step before its turn.
SELECT test.put('turn.jsonl', test.event('{}'));
SELECT load_id AS turn FROM test.load('turn.jsonl') \gset
SELECT * FROM test.error(format('SELECT dwh.apply_scd2(%s)', :turn));
SELECT * FROM test.error(format('SELECT dwh.upsert_products(%s)', :turn));
SELECT * FROM test.error(format('SELECT dwh.load_facts(%s)', :turn));
-- Dimensions changed by hand: staged events without a version are not lost silently.
SELECT staged FROM dwh.stage_events(:turn);
SELECT opened FROM dwh.apply_scd2(:turn);
SELECT status FROM dwh.upsert_products(:turn);
BEGIN;
DELETE FROM marts.dim_user;
SELECT * FROM test.error(format('SELECT dwh.load_facts(%s)', :turn));
ROLLBACK;
-- WH003, at once, from a second session while this one is in the middle of a step.
SELECT setting || '/psql' AS psql, current_database() AS database FROM pg_config WHERE name = 'BINDIR' \gset
\setenv SECOND_PSQL :psql
\setenv SECOND_DATABASE :database
BEGIN;
SELECT status FROM dwh.stage_events();
\! "$SECOND_PSQL" -X -At -d "$SECOND_DATABASE" -c "SELECT * FROM test.error('SELECT dwh.run_pipeline()')"
ROLLBACK;
\! "$SECOND_PSQL" -X -At -d "$SECOND_DATABASE" -c "SELECT * FROM test.error('SELECT dwh.upsert_products()')"
-- WH001 and WH002
INSERT INTO ops.quality_checks (name, severity, description, query) VALUES ('never', 'error', 'Never.', 'SELECT 1');
SELECT * FROM test.error('SELECT dwh.run_quality_checks("full" => true)');
SELECT * FROM test.error('SELECT dwh.run_pipeline()');
DELETE FROM ops.quality_checks WHERE name = 'never';
SELECT test.put('bad.jsonl', 'broken');
SELECT * FROM test.error($$SELECT dwh.load_jsonl('bad.jsonl', on_error => 'abort')$$);
SELECT * FROM test.error($$SELECT dwh.load_jsonl('bad.jsonl', reject_limit => '0%')$$);

-- A role without rights is told so before anything is opened, whether the file exists or not.
SET client_min_messages = warning;
CREATE ROLE regress_dwh_plain;
GRANT USAGE ON SCHEMA test TO regress_dwh_plain;
SET ROLE regress_dwh_plain;
SELECT c.statement, e.code FROM (VALUES (1, $$SELECT dwh.load_jsonl('x.jsonl')$$), (2, $$SELECT dwh.generate_events()$$), (3, $$SELECT dwh.run_pipeline()$$), (4, $$SELECT dwh.create_warehouse()$$), (5, $$SELECT dwh.stage_events()$$),
    (6, $$SELECT dwh.apply_scd2()$$), (7, $$SELECT dwh.upsert_products()$$), (8, $$SELECT dwh.load_facts()$$), (9, $$SELECT dwh.run_quality_checks()$$), (12, $$SELECT dwh.retry_rejects()$$), (13, $$SELECT dwh.add_quality_check('mine', 'SELECT 1')$$), (10, $$SELECT dwh._record_evidence('{}')$$), (11, $$SELECT dwh._write_evidence('{}')$$)) AS c (n, statement), test.error(c.statement) AS e ORDER BY n;
-- what reads and writes nothing is everybody's
SELECT count(*) FROM dwh.sample_events(5);
SELECT dwh.event_id('{"event_time": "2025-01-10T12:30:15Z", "event_type": "page_view", "user_id": "u"}') IS NOT NULL AS id;
SELECT count(*) > 0 AS kinds FROM dwh.dirty_kinds();
RESET ROLE;
-- with the functions granted, but no right to server files: only the landing directory, and no telling what else exists
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA dwh TO regress_dwh_plain;
GRANT USAGE ON SCHEMA raw, ops TO regress_dwh_plain;
GRANT ALL ON ALL TABLES IN SCHEMA raw, ops TO regress_dwh_plain;
GRANT ALL ON ALL SEQUENCES IN SCHEMA ops TO regress_dwh_plain;
SELECT test.sh(format('mkdir -p %1$s.outside && cp %1$s/x.jsonl %1$s.outside/secret.jsonl && ln -sf %1$s.outside %1$s/way_out && ln -sf %1$s.outside/secret.jsonl %1$s/secret_link.jsonl', test.dir()));
SET ROLE regress_dwh_plain;
SELECT c.what, e.* FROM (VALUES
    (1, 'a file that exists', format('SELECT dwh.load_jsonl(%L)', :'dir' || '.outside/secret.jsonl')),
    (2, 'one that does not', format('SELECT dwh.load_jsonl(%L)', :'dir' || '.outside/no.jsonl')),
    (3, 'a directory', format('SELECT dwh.load_jsonl(%L)', :'dir' || '.outside')),
    (4, 'a pattern', format('SELECT dwh.load_jsonl(%L)', :'dir' || '.outside/*.jsonl')),
    (5, 'a system file', 'SELECT dwh.load_jsonl(''/etc/passwd'')'),
    (6, 'up and out', 'SELECT dwh.load_jsonl(''../postgresql.conf'')'),
    (7, 'up and in again', format('SELECT dwh.load_jsonl(%L)', 'sub/../../x.jsonl')),
    (8, 'through a link of a directory', 'SELECT dwh.load_jsonl(''way_out/secret.jsonl'')'),
    (9, 'through a link of a file', 'SELECT dwh.load_jsonl(''secret_link.jsonl'')'),
    (10, 'a run', format('SELECT dwh.run_pipeline(%L)', :'dir' || '.outside/secret.jsonl')),
    (11, 'writing', format('SELECT dwh.generate_events(%L, events => 1)', :'dir' || '.outside/new.jsonl')),
    (12, 'writing through a link', 'SELECT dwh.generate_events(''way_out/new.jsonl'', events => 1)'),
    (13, 'another landing directory', 'SET dwh.landing_directory = ''/etc'''),
    (14, 'other directories', 'SET dwh.allowed_directories = ''/etc''')) AS c (n, what, statement), test.error(c.statement) AS e ORDER BY n;
-- the landing directory works
SELECT status FROM dwh.load_jsonl('x.jsonl', force => true);
RESET ROLE;
-- so does a directory that an administrator listed, but not its neighbours by name
SELECT set_config('dwh.allowed_directories', :'dir' || '.outside', false) <> '' AS set;
SET ROLE regress_dwh_plain;
SELECT (SELECT status FROM dwh.load_jsonl(:'dir' || '.outside/secret.jsonl')) AS listed;
SELECT code FROM test.error(format('SELECT dwh.load_jsonl(%L)', :'dir' || '.outside2/x.jsonl'));
RESET ROLE;
RESET dwh.allowed_directories;
GRANT pg_read_server_files TO regress_dwh_plain;
SET ROLE regress_dwh_plain;
SELECT (SELECT status FROM dwh.load_jsonl(:'dir' || '.outside/secret.jsonl')) AS with_the_role;
SELECT code FROM test.error(format('SELECT dwh.generate_events(%L, events => 1)', :'dir' || '.outside/new.jsonl'));
RESET ROLE;
SELECT test.sh(format('test ! -e %1$s.outside/new.jsonl && rm -r %1$s.outside', :'dir'));
DROP OWNED BY regress_dwh_plain;
DROP ROLE regress_dwh_plain;

-- Hostile surroundings: a search_path with operators, functions and tables of others changes nothing.
SELECT test.begin();
CREATE SCHEMA hostile;
CREATE FUNCTION hostile.never(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT false';
CREATE FUNCTION hostile.never(bigint, bigint) RETURNS boolean LANGUAGE sql AS 'SELECT false';
CREATE FUNCTION hostile.never(uuid, uuid) RETURNS boolean LANGUAGE sql AS 'SELECT false';
CREATE FUNCTION hostile.never(timestamptz, timestamptz) RETURNS boolean LANGUAGE sql AS 'SELECT false';
CREATE FUNCTION hostile.never(numeric, numeric) RETURNS numeric LANGUAGE sql AS 'SELECT 666::numeric';
CREATE OPERATOR hostile.= (FUNCTION = hostile.never, LEFTARG = text, RIGHTARG = text);
CREATE OPERATOR hostile.= (FUNCTION = hostile.never, LEFTARG = bigint, RIGHTARG = bigint);
CREATE OPERATOR hostile.= (FUNCTION = hostile.never, LEFTARG = uuid, RIGHTARG = uuid);
CREATE OPERATOR hostile.<= (FUNCTION = hostile.never, LEFTARG = timestamptz, RIGHTARG = timestamptz);
CREATE OPERATOR hostile.* (FUNCTION = hostile.never, LEFTARG = numeric, RIGHTARG = numeric);
CREATE FUNCTION hostile.count(text) RETURNS bigint LANGUAGE sql AS 'SELECT 666::bigint';
CREATE FUNCTION hostile.nextval(regclass) RETURNS bigint LANGUAGE sql AS 'SELECT 666::bigint';
CREATE FUNCTION hostile.format(text, VARIADIC text[]) RETURNS text LANGUAGE sql AS 'SELECT NULL::text';
CREATE FUNCTION hostile.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT NULL::timestamptz';
CREATE TABLE hostile.user_events (LIKE raw.user_events);
CREATE TEMP TABLE loads (LIKE ops.loads);
CREATE TEMP TABLE user_events (LIKE raw.user_events);
CREATE TEMP TABLE dim_user (LIKE marts.dim_user);
SELECT test.put('h.jsonl', test.event('{"event_id": "1", "device": "A", "event_type": "purchase", "price": 2, "quantity": 3}'), test.event('{"event_id": "2", "device": "B", "event_time": "2025-01-12T00:00:00Z"}'));
SET search_path = hostile, pg_temp, pg_catalog, public;
SELECT step, status, rows_out FROM dwh.run_pipeline();
-- the nouns are inlined into the caller's query, and say the same there
SET search_path = hostile, public;
SELECT pg_catalog.count(*) AS versions FROM dwh.user_versions();
SELECT pg_catalog.count(*) AS facts, pg_catalog.count(*) FILTER (WHERE line_no OPERATOR(pg_catalog.=) 1 AND revenue OPERATOR(pg_catalog.=) 6) AS revenue FROM dwh.resolved_facts(1);
SET search_path = pg_catalog, public;
SELECT line_no, revenue FROM staging.user_events ORDER BY 1;
SELECT * FROM test.differences();
SELECT (SELECT pg_catalog.count(*) FROM pg_temp.loads) + (SELECT pg_catalog.count(*) FROM hostile.user_events) AS misled;
DROP SCHEMA hostile CASCADE;
DISCARD TEMP;
-- a temporary table of the caller with the name of a work table is neither used nor dropped: the step says so
CREATE TEMP TABLE dwh_changed_user AS SELECT 1 AS mine;
SELECT test.put('w.jsonl', test.event('{"event_id": "w1"}'));
SELECT count(*) FROM dwh.run_pipeline();
SELECT mine FROM dwh_changed_user;
DROP TABLE dwh_changed_user;
SELECT step, status FROM dwh.run_pipeline() WHERE step = 'apply_scd2';
RESET search_path;

-- A warehouse that was dropped and made again in the same session.
SELECT test.begin();
SELECT step, status FROM dwh.run_pipeline();
