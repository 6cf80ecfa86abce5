-- 97_trace: dwh.trace() against what it means: every line of raw with the id of the event, and the bytes of its line.
\set VERBOSITY terse
SET client_min_messages = error;
SET search_path = public;
SET timezone = 'UTC';
SELECT test.begin();
\c
SET client_min_messages = error;
SET timezone = 'UTC';
CREATE FUNCTION test.trace(id uuid) RETURNS TABLE (what text, load_id bigint, line_no bigint, file text, byte_offset bigint, note text, line text) LANGUAGE sql AS $$
    SELECT t.what, t.load_id, t.line_no, regexp_replace(t.path, '^.*/', ''), t.byte_offset, regexp_replace(t.detail ->> 'note', '"/.*"', '"<path>"'), encode(t.bytes, 'escape') FROM dwh.trace(id) AS t ORDER BY t.step_no $$;

-- One event, its replays and conflicts, in one file and the next.
\set id '11111111-1111-1111-1111-111111111111'
SELECT test.put('one.jsonl', 'refused', test.event(format('{"event_id": "%s", "product_id": "p1"}', :'id')::jsonb), test.event('{"event_id": "other"}'),
    ' ' || test.event(format('{"product_id": "p1", "event_id": "%s"}', :'id')::jsonb) || E'\r', test.event(format('{"event_id": "%s", "device": "tv"}', :'id')::jsonb));
SELECT test.put('two.jsonl', test.event('{"event_id": "third"}'), test.event(format('{"event_id": "%s", "product_id": "p1"}', :'id')::jsonb));
SELECT count(*) FROM dwh.run_pipeline();
SELECT * FROM test.trace(:'id');
SELECT step_no, what, CASE WHEN what NOT IN ('raw line', 'load') THEN at END AS at, detail - '{run_id,sha256,user_key,product_key}'::text[] AS detail FROM dwh.trace(:'id') WHERE what NOT IN ('run', 'conflict') AND detail IS NOT NULL ORDER BY step_no;
SELECT detail FROM dwh.trace(:'id') WHERE what = 'conflict';
-- nothing is written for it
BEGIN READ ONLY; SELECT count(*) FROM dwh.trace(:'id'); COMMIT;

-- The file is another one, shorter, gone, found again under another name.
SELECT test.sh(format('mv %1$s/one.jsonl %1$s/kept; printf ''{"a": 1}\n%%0999d\n'' 1 >%1$s/one.jsonl', test.dir()));
SELECT note, line FROM test.trace(:'id') WHERE what = 'file';
SELECT test.sh(format('printf x >%1$s/one.jsonl', test.dir()));
SELECT note, line FROM test.trace(:'id') WHERE what = 'file';
SELECT test.sh(format('rm %1$s/one.jsonl', test.dir()));
SELECT note, line FROM test.trace(:'id') WHERE what = 'file';
SELECT test.sh(format('mv %1$s/kept %1$s/renamed.jsonl', test.dir()));
SELECT status FROM test.load('renamed.jsonl');
SELECT file, note, line IS NOT NULL AS has_line FROM test.trace(:'id') WHERE what = 'file';
-- without rights to it
CREATE ROLE tracer;
GRANT USAGE ON SCHEMA raw, staging, marts, ops, test TO tracer;
GRANT SELECT ON ALL TABLES IN SCHEMA raw, staging, marts, ops TO tracer;
SET ROLE tracer;
SELECT test.error('SELECT * FROM dwh.trace(gen_random_uuid())');
RESET ROLE;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA dwh TO tracer;
SELECT test.sh(format('mkdir %1$s/sub', test.dir()));
SELECT set_config('dwh.landing_directory', test.dir() || '/sub', false) <> '' AS elsewhere;
SET ROLE tracer;
SELECT note, line FROM test.trace(:'id') WHERE what = 'file';
RESET ROLE;
DROP OWNED BY tracer; DROP ROLE tracer;
SELECT set_config('dwh.landing_directory', test.dir(), false) = test.dir() AS back;

-- An id that is no fact.
SELECT dwh.event_id(test.event('{"event_time": "2999-01-01T00:00:00Z"}')::jsonb) AS late \gset
SELECT test.put('three.jsonl', test.event('{"event_time": "2999-01-01T00:00:00Z"}'), test.event('{"event_id": "22222222-2222-2222-2222-22222222222A", "price": {}}'),
    '{"event_id": "33333333-3333-3333-3333-333333333333", ', test.event('{"event_id": "44444444-4444-4444-4444-444444444444", "user_id": "gone"}'), test.event('{"event_id": "5"}'));
SELECT count(*) FROM dwh.load_jsonl('three.jsonl', force => true);
SELECT * FROM test.trace('44444444-4444-4444-4444-444444444444');
SELECT count(*) FROM dwh.run_pipeline('three.jsonl');
SELECT what, load_id, line_no, file, byte_offset, note FROM test.trace(:'late');
SELECT what, load_id, line_no, file, byte_offset, note FROM test.trace('22222222-2222-2222-2222-22222222222A');
SELECT what, load_id, line_no, file, byte_offset, note, line FROM test.trace('33333333-3333-3333-3333-333333333333');
SELECT detail FROM dwh.trace('33333333-3333-3333-3333-333333333333') WHERE what = 'reject';
SELECT what FROM test.trace('44444444-4444-4444-4444-444444444444');
SELECT status FROM dwh.forget_user('gone');
SELECT what FROM test.trace('44444444-4444-4444-4444-444444444444');
SELECT test.error('SELECT * FROM dwh.trace(NULL)');

-- Any archive, a BOM, CRLF, a line without end, a large object, a grown file.
SELECT test.put_bytes('bom.jsonl', '\xefbbbf' || convert_to(test.event('{"event_id": "bom"}') || E'\r\n' || test.event('{"event_id": "end"}'), 'UTF8'));
SELECT test.sh(format('cd %1$s; { cat bom.jsonl; echo; seq -f ''{"event_time": "2025-01-01T00:00:00Z", "event_type": "x", "user_id": "u", "n": %%.0f}'' 1 50000; } | sed s/bom/zip/\;s/\"end/\"zend/ | gzip -c >big.jsonl.gz', test.dir()));
SELECT lo_from_bytea(4712, convert_to(test.event('{"event_id": "first in object"}') || E'\n' || test.event('{"event_id": "object"}') || E'\n', 'UTF8'));
SELECT count(*) FROM dwh.load_jsonl('bom.jsonl');
SELECT loaded > 50000 AS is_loaded FROM dwh.load_jsonl('big.jsonl.gz');
SELECT loaded FROM dwh.load_jsonl(4712::oid);
SELECT test.put('grown.jsonl', test.event('{"event_id": "before"}'));
SELECT status FROM test.load('grown.jsonl');
SELECT test.sh(format('echo ''{"event_id": "after", "event_time": "2025-01-01T00:00:00Z", "event_type": "x", "user_id": "u"}'' >>%1$s/grown.jsonl', test.dir()));
SELECT status FROM test.load('grown.jsonl');
SELECT test.sh(format('cd %1$s; { printf ''{"event_id": "nul", "event_time": "2025-01-01T00:00:00Z", "event_type": "x", "user_id": "u", "x": "a\u0000b"}''; } >nul.jsonl', test.dir()));
SET dwh.nul_escapes = replace;
SELECT status FROM test.load('nul.jsonl');
RESET dwh.nul_escapes;
SELECT count(*) FROM test.build();
SELECT i.id, t.file, t.note, t.line FROM unnest('{bom,end,zip,zend,first in object,object,before,after,nul}'::text[]) AS i (id),
    LATERAL (SELECT f.event_id FROM raw.user_events AS r JOIN marts.fact_user_events AS f USING (load_id, line_no) WHERE r.payload ->> 'event_id' = i.id) AS f,
    LATERAL test.trace(f.event_id) AS t WHERE t.what = 'file' ORDER BY 1;
SELECT encode(bytes, 'escape') FROM raw.user_events AS r, LATERAL dwh.trace(dwh.event_id(r.payload)) AS t WHERE r.payload @> '{"n": 50000}' AND t.what = 'file';
SELECT dwh._line_bytes(test.dir() || '/big.jsonl.gz', 1000000000) IS NULL AS beyond, dwh._line_bytes(test.dir() || '/bom.jsonl', 1000) IS NULL AS beyond_plain;
SELECT test.error(format('SELECT dwh._line_bytes(%L, -1)', test.dir() || '/bom.jsonl'));
SELECT test.error(format('SELECT dwh._line_bytes(%L, 0)', test.dir()));
SELECT test.error('SELECT dwh._line_bytes(''large_object:4713'', 0)');
SELECT lo_unlink(4712);
SELECT note FROM raw.user_events AS r, LATERAL test.trace(dwh.event_id(r.payload)) AS t WHERE r.payload ->> 'event_id' = 'object' AND t.what = 'file';
-- a line over the limit that was lowered since
SET dwh.max_line_bytes = '1kB';
SELECT test.put('long.jsonl', test.event(jsonb_build_object('event_id', 'long', 'x', repeat('x', 2000))));
SELECT test.error(format('SELECT dwh._line_bytes(%L, 0)', test.dir() || '/long.jsonl'));
RESET dwh.max_line_bytes;
-- raw was dropped: staging, marts and ledger still say what they know
SELECT count(*) > 0 AS checked FROM dwh.run_quality_checks();
SELECT status FROM dwh.drop_before('raw', now());
SELECT what, line_no, file, note FROM test.trace(:'id');

-- Random logs: all replays and conflicts of all facts, by a scan of raw.
SELECT test.begin();
\c
SET client_min_messages = error;
SELECT events FROM dwh.generate_events('x.jsonl', events => 400, users => 30, dirty_rate => 0.4, dirty_kinds => '{replay,replay_respelled,conflict,conflict_moved,future_event,truncated_json,late_event,blank_line,text_price}');
SELECT test.sh(format('cd %1$s; { tail -n 250 x.jsonl; head -n 80 x.jsonl; } >y.jsonl; { head -n 150 x.jsonl | sed ''s/mobile/tv/''; sed -n 100,300p y.jsonl; } >z.jsonl', test.dir()));
SELECT count(*) FROM dwh.load_jsonl(NULL, force => true);
SELECT count(*) FROM test.build();
CREATE TEMPORARY TABLE traced AS SELECT f.event_id, t.* FROM marts.fact_user_events AS f, LATERAL dwh.trace(f.event_id) AS t;
CREATE TEMPORARY TABLE obvious AS
SELECT f.event_id, CASE WHEN r.payload = k.payload THEN 'replay' ELSE 'conflict' END AS what, r.load_id, r.line_no, r.byte_offset
  FROM marts.fact_user_events AS f
  JOIN raw.user_events AS k ON k.load_id = f.load_id AND k.line_no = f.line_no
  JOIN raw.user_events AS r ON dwh.event_id(r.payload) = f.event_id AND (r.load_id, r.line_no) <> (f.load_id, f.line_no);
SELECT count(*) FILTER (WHERE what = 'replay') > 100 AS has_replays, count(*) FILTER (WHERE what = 'conflict') > 50 AS has_conflicts FROM obvious;
SELECT count(*) FILTER (WHERE what = 'replay') = (SELECT sum(replayed) FROM ops.loads) AS all_replays, count(*) FILTER (WHERE what = 'conflict') = (SELECT sum(conflicting) FROM ops.loads) AS all_conflicts FROM traced;
(SELECT event_id, what, load_id, line_no, byte_offset FROM traced WHERE what IN ('replay', 'conflict') EXCEPT ALL SELECT * FROM obvious)
UNION ALL
(SELECT * FROM obvious EXCEPT ALL SELECT event_id, what, load_id, line_no, byte_offset FROM traced WHERE what IN ('replay', 'conflict'));
-- and the bytes of every fact, by cutting the files into lines
CREATE TEMPORARY TABLE cut AS
SELECT l.load_id, c.line_no, rtrim(c.line, E'\r') AS line FROM ops.loads AS l,
    regexp_split_to_table(convert_from(pg_read_binary_file(l.path), 'UTF8'), '\n') WITH ORDINALITY AS c (line, line_no);
SELECT count(*) = (SELECT count(*) FROM marts.fact_user_events) AS all_have_bytes, count(*) FILTER (WHERE convert_from(t.bytes, 'UTF8') IS DISTINCT FROM c.line) AS others
  FROM traced AS t JOIN cut AS c USING (load_id, line_no) WHERE t.what = 'file' AND t.bytes IS NOT NULL;
SELECT count(*) AS facts_without_their_steps FROM (SELECT event_id FROM traced GROUP BY event_id
    HAVING NOT array_agg(what) @> '{fact,version,staged event,raw line,load,file}' OR count(DISTINCT step_no) <> max(step_no) OR count(*) <> max(step_no)) AS f;
-- the version is that of the event's time, and the user's
SELECT count(*) AS wrong FROM traced AS v JOIN traced AS s USING (event_id) WHERE v.what = 'version' AND s.what = 'staged event'
   AND (v.detail ->> 'user_id' <> s.detail ->> 'user_id' OR s.at < v.at OR s.at >= (v.detail ->> 'valid_to')::timestamptz);
-- with raw of the first load trimmed, replays are told by the id
DELETE FROM raw.user_events WHERE load_id = 1;
SELECT count(*) AS facts, sum(t.n) = (SELECT count(*) FROM obvious WHERE what = 'replay' AND load_id > 1 AND event_id IN (SELECT event_id FROM marts.fact_user_events WHERE load_id = 1)) AS as_before
  FROM marts.fact_user_events AS f, LATERAL (SELECT count(*) FILTER (WHERE what = 'replay') AS n FROM dwh.trace(f.event_id)) AS t WHERE f.load_id = 1;
