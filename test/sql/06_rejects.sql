-- 06_rejects: a line or event that cannot become a fact is kept with class, line, offset, bytes and reason.
\set VERBOSITY sqlstate
SELECT test.begin();
SET dwh.max_line_bytes = 1024;

-- Every class of loading, its neighbours unharmed.
SELECT test.put_bytes('classes.jsonl',
    convert_to('{"ok": 1}' || E'\n' || '{"too": "' || repeat('x', 1100) || '"}' || E'\n', 'UTF8')           -- 2 too_long
    || convert_to('{"a": ' || repeat('[', 10) || E'\n', 'UTF8')                                                 -- 3 invalid_json
    || '\x7b2261223a2022ff227d0a'                                                                               -- 4 invalid_utf8
    || '\x7b2261223a2022c080227d0a'                                                                             -- 5 invalid_utf8: overlong NUL
    || '\x7b2261223a2022eda080227d0a'                                                                           -- 6 invalid_utf8: surrogate
    || convert_to('{"a": "\u0000"}' || E'\n' || '{"\u0000": 1}' || E'\n' || '{"a": "\\u0000"}' || E'\n', 'UTF8')   -- 7, 8 nul_escape, 9 fine
    || convert_to('{"a": "\ud800"}' || E'\n' || '{"a": "\udc00\ud800"}' || E'\n', 'UTF8')                     -- 10, 11 lone_surrogate
    || convert_to(E'{"a": 1} x\n{"a": NaN}\n{''a'': 1}\n{"a": 01}\n{"a": 1,}\n{"a": "\x01"}\n{"a": 1e200000}\n', 'UTF8')   -- 12-18 invalid_json
    || convert_to(E'5\n"x"\n[]\nnull\n[{"a": 1}]\n', 'UTF8')                                                  -- 19-23 not_object
    || '\x7b2261223a2031000a7d0a'                                                                               -- 24, 25: a NUL byte
    || convert_to(E'{"ok": 2}\n', 'UTF8'));
SELECT lines, loaded, rejected, blank FROM test.load('classes.jsonl');
SELECT line_no, byte_offset, stage, class, raw_bytes, octet_length(raw) AS kept, load_id = 1 AND message <> '' AS has_reason FROM ops.rejects ORDER BY line_no;
SELECT line_no, payload FROM raw.user_events ORDER BY 1;
-- the bytes are those of the file
SELECT count(*) AS rejects, count(*) FILTER (WHERE j.raw = substring(f.bytes FROM j.byte_offset::int + 1 FOR octet_length(j.raw))) AS as_in_the_file
  FROM ops.rejects AS j, pg_read_binary_file(test.dir() || '/classes.jsonl') AS f (bytes);
-- accepted exactly when ::jsonb accepts it and it is an object
CREATE FUNCTION pg_temp.jsonb_accepts(line bytea) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RETURN jsonb_typeof(convert_from(line, 'UTF8')::jsonb) = 'object';
EXCEPTION WHEN data_exception OR character_not_in_repertoire OR untranslatable_character OR program_limit_exceeded THEN
    RETURN false;
END $$;
SELECT j.line_no, j.class FROM ops.rejects AS j WHERE j.class <> 'too_long' AND pg_temp.jsonb_accepts(j.raw);
RESET dwh.max_line_bytes;

-- Nesting: 1,000 levels are fine, 1,001 are not; 100,000 are a reject and no crash.
SELECT test.put('deep.jsonl', '{"a":' || repeat('[', 999) || repeat(']', 999) || '}', '{"a":' || repeat('[', 1000) || repeat(']', 1000) || '}',
    repeat('{"a":', 100000) || '1' || repeat('}', 100000), repeat('[', 100000), '{"a": "[[[["}');
SELECT lines, loaded, rejected FROM test.load('deep.jsonl');
SELECT line_no, class, raw_bytes, octet_length(raw) AS kept FROM ops.rejects WHERE load_id = 2 ORDER BY 1;

-- A line at the limit passes, one byte more does not; CR, LF and BOM are not counted.
SET dwh.max_line_bytes = 1024;
SELECT test.put_bytes('limit.jsonl', '\xEFBBBF' || convert_to(rpad('{"a": 1', 1023) || E'}\r\n' || rpad('{"a": 2', 1024) || E'}\n' || '{"a": 3}' || E'\n', 'UTF8'));
SELECT lines, loaded, rejected FROM test.load('limit.jsonl');
SELECT line_no, byte_offset, class, raw_bytes FROM ops.rejects WHERE load_id = 3;
RESET dwh.max_line_bytes;

-- abort: no row at all, but the rejects can be read, also from another session.
SELECT test.begin();
SELECT test.put('abort.jsonl', '{"n": 1}', 'broken', '{"n": 3}', 'worse');
SELECT * FROM test.load('abort.jsonl', on_error => 'abort');
\c
\set VERBOSITY sqlstate
SELECT (SELECT count(*) FROM raw.user_events) AS rows, (SELECT count(*) FROM ops.files) AS files;
SELECT status, lines, loaded, rejected, sha256 IS NULL AS has_no_identity FROM ops.loads;
SELECT j.line_no, j.byte_offset, j.class, convert_from(j.raw, 'UTF8') AS raw, l.status FROM ops.rejects AS j JOIN ops.loads AS l USING (load_id);
SELECT severity, title, body - 'load_id' AS body FROM ops.alerts;
-- in a transaction that goes on after it
BEGIN;
SAVEPOINT before;
SELECT * FROM test.load('abort.jsonl', on_error => 'abort');
ROLLBACK TO before;
SELECT count(*) FROM ops.loads;
ROLLBACK;
-- a clean file passes
SELECT test.put('clean.jsonl', '{"clean": 1}');
SELECT status, loaded FROM test.load('clean.jsonl', on_error => 'ABORT');
-- reject_limit: fails when there are more than n
SELECT * FROM test.load('abort.jsonl', reject_limit => '1');
\c
\set VERBOSITY sqlstate
SELECT status, lines, loaded, rejected FROM ops.loads ORDER BY load_id;
SELECT line_no, class FROM ops.rejects WHERE load_id = (SELECT max(load_id) FROM ops.loads) ORDER BY 1;
SELECT (SELECT count(*) FROM raw.user_events AS r JOIN ops.loads AS l USING (load_id) WHERE l.path LIKE '%/abort.jsonl') AS rows;
SELECT status, lines, rejected FROM test.load('abort.jsonl', reject_limit => '2');
-- 100 as a number and as text
SELECT test.put('number.jsonl', '{"n": 5}', 'broken');
SELECT count(*) FROM dwh.load_jsonl('number.jsonl', reject_limit => 0);
SELECT status FROM dwh.load_jsonl('number.jsonl', reject_limit => 1);
-- a share: of the lines that are not blank
SELECT test.put('share.jsonl', VARIADIC (SELECT array_agg(CASE WHEN i % 50 = 0 THEN 'broken' WHEN i % 2 = 0 THEN '' ELSE format('{"s": %s}', i) END ORDER BY i) FROM generate_series(1, 200) AS i));
SELECT * FROM test.load('share.jsonl', reject_limit => '3%');
\c
\set VERBOSITY sqlstate
SELECT status, lines, rejected, blank FROM ops.loads ORDER BY load_id DESC LIMIT 1;
SELECT count(*) FROM ops.rejects WHERE load_id = (SELECT max(load_id) FROM ops.loads);
SELECT status, lines, rejected, blank FROM test.load('share.jsonl', reject_limit => '4%');
-- over a limit that is reached the verdict stays the same call after call
SELECT status FROM test.load('abort.jsonl', reject_limit => '0');
-- a set of files with a limit: the limit is each file's, and stops the call
SELECT test.put('set1.jsonl', '{"set": 1}'), test.put('set2.jsonl', 'broken', '{"set": 2}');
SELECT * FROM test.load('set?.jsonl', reject_limit => '0');
SELECT count(*) FROM raw.user_events WHERE payload ? 'set';   -- the session goes on, outside of any transaction
\c
\set VERBOSITY sqlstate

-- Every class of staging; the first field in the model's order decides.
SELECT test.begin();
SET dwh.max_reject_share = 1;   -- this load is all refused but one line, and not to be quarantined for it
SELECT test.put('stage.jsonl',
    test.event('{}'),
    '{"event_type": "page_view", "user_id": "u1"}',
    test.event('{"event_type": ""}'),
    test.event('{"user_id": null}'),
    test.event('{"event_time": ""}'),
    test.event('{"event_time": 1736467200}'),
    test.event('{"event_time": "yesterday"}'),
    test.event('{"event_time": "9999-12-31T00:00:00Z"}'),
    test.event('{"user_id": true}'),
    test.event('{"device": {"os": "x"}}'),
    test.event('{"country": ["KR"]}'),
    test.event('{"price": "cheap"}'),
    test.event('{"price": false}'),
    test.event('{"quantity": 1.5}'),
    test.event('{"quantity": -1}'),
    test.event('{"quantity": 2147483648}'),
    test.event('{"quantity": "two"}'),
    test.event('{"price": 1e100}'),
    test.event(jsonb_build_object('user_id', repeat('u', 1025))),
    test.event('{"event_id": []}'));
SELECT lines, loaded, rejected FROM test.load('stage.jsonl');
SELECT status, rows_in, staged, rejected FROM dwh.stage_events();
SELECT line_no, byte_offset > 0 AS has_offset, stage, class, convert_from(raw, 'UTF8')::jsonb = (SELECT r.payload FROM raw.user_events AS r WHERE r.line_no = j.line_no) AS has_payload,
       raw_bytes = octet_length(raw) AS is_whole FROM ops.rejects AS j ORDER BY line_no;
SELECT message FROM ops.rejects ORDER BY line_no;
SELECT loaded, staged, replayed, conflicting, stage_rejected, forgotten FROM ops.loads;
-- a repeat changes nothing and says so
SELECT status, rejected FROM dwh.stage_events();
SELECT count(*) FROM ops.rejects;
