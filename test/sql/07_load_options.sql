-- 07_load_options: validation, keys that come twice, NUL escapes, two workers.
\set VERBOSITY sqlstate
SELECT test.begin();

-- ---- validate_only: nothing is written, the rejects come back; limits are not applied
SELECT test.put('options.jsonl', '{"a": 1}', '', '{"a": 1, "a": 2}', 'no json', '{"nul": "x\u0000y"}', '[1]');
SELECT load_id, status, lines, loaded, rejected, blank, message FROM dwh.load_jsonl(test.dir() || '/options.jsonl', validate_only => true);
-- what the parser expected instead is worded by its version
SELECT r.line_no, r.byte_offset, r.class, split_part(r.message, ', expected', 1) AS message, encode(r.raw, 'escape') AS raw, r.raw_bytes
  FROM dwh.load_jsonl(test.dir() || '/options.jsonl', validate_only => true, on_error => 'abort', reject_limit => 0) AS f, unnest(f.rejects) AS r;
SELECT (SELECT count(*) FROM ops.loads) AS loads, (SELECT count(*) FROM ops.files) AS files, (SELECT count(*) FROM ops.rejects) AS rejects,
       (SELECT count(*) FROM raw.user_events) AS rows;
BEGIN READ ONLY;
SELECT status, rejected FROM dwh.load_jsonl(test.dir() || '/options.jsonl', validate_only => true);
COMMIT;
-- what was loaded is validated again
SELECT status FROM test.load('options.jsonl');
SELECT status, rejected FROM dwh.load_jsonl(test.dir() || '/options.jsonl', validate_only => true);
-- the first 1,000 rejects; none at all; a file that ends early; a set, in which one cannot be read
SELECT test.put_bytes('many.jsonl', convert_to(repeat(E'x\n', 1500), 'UTF8'));
SELECT rejected, cardinality(rejects) AS returned FROM dwh.load_jsonl(test.dir() || '/many.jsonl', validate_only => true);
SELECT test.put('good.jsonl', '{"a": 1}');
SELECT test.put_bytes('tail.jsonl', convert_to(E'{"a": 1}\n{"a": ', 'UTF8'));
SELECT test.put_bytes('broken.jsonl', '\x1f8b08000000000000030000');
SELECT regexp_replace(path, '.*/', '') AS file, status, lines, loaded, rejected, held_back_bytes, cardinality(rejects) AS returned
  FROM dwh.load_jsonl(test.dir() || '/*.jsonl', validate_only => true);

-- ---- keys that come twice: the last one counts, and the line is counted; or it is refused
SELECT test.begin();
SELECT test.put('twice.jsonl', '{"a": 1}', '{"a": 1, "a": 2}', '{"n": {"k": 1, "k": [2]}}', '{"n": [{"k": 1}, {"k": 1}]}',
    '{"long": "' || repeat('x', 300000) || '", "a": {"k": 1, "k": 1}}');
SELECT status, loaded, rejected FROM test.load('twice.jsonl');
SELECT duplicate_keys, altered FROM ops.loads;
SELECT line_no, payload - 'long' AS payload FROM raw.user_events ORDER BY line_no;
SET dwh.duplicate_keys = reject;
SELECT loaded, rejected FROM test.load('twice.jsonl', force => true);
SELECT line_no, class, left(message, 60) AS message, left(encode(raw, 'escape'), 40) AS raw FROM ops.rejects ORDER BY line_no;
SELECT duplicate_keys FROM ops.loads ORDER BY load_id;
RESET dwh.duplicate_keys;

-- an unterminated last line that is a whole object is refused, not held back
SELECT test.put_bytes('open.jsonl', convert_to(E'{"a": 1}\n{"a": 1, "a": 2}', 'UTF8'));
SET dwh.duplicate_keys = reject;
SELECT status, lines, loaded, rejected, held_back_bytes FROM test.load('open.jsonl');
RESET dwh.duplicate_keys;

-- ---- the reason of a refusal does not depend on the length of the line
SELECT test.begin();
CREATE TABLE test.refused AS SELECT n, line FROM (VALUES
    (1, '[1e999999]'), (2, '{"a": "\ud800", }'), (3, '{"a": "\u0000", }'), (4, '{"a": "\u0000", "b": "\ud800"}'), (5, '"x"'), (6, '{"a": 1e999999}'),
    (7, '{"a": "\ud800"}'), (8, '{"a": "\u0000"}'), (9, '[1, 2]'), (10, '5'), (11, '{"a": 1} x'), (12, '{"a": }'), (13, '{"a": [}]'), (14, 'null'),
    (15, '{"a": ' || repeat('[', 1001) || repeat(']', 1001) || '}'), (16, '["\ud800"]'), (17, '["\u0000"]'), (18, '{"\ud800": 1, "\udc00": "\u0000"}'),
    (19, '{"a": "' || chr(1) || '"}'), (20, ']}{'), (21, '{"a": 1e999999, "b": "\u0000"}'), (22, '{"b": "\u0000", "a": 1e999999}')) AS t (n, line);
SELECT test.put('short.jsonl', VARIADIC (SELECT array_agg(r.line ORDER BY r.n) FROM test.refused AS r));
SELECT test.put('long.jsonl', VARIADIC (SELECT array_agg(repeat(' ', 300000) || r.line ORDER BY r.n) FROM test.refused AS r));
SELECT s.line_no, s.class, l.class IS DISTINCT FROM s.class AS differs
  FROM (SELECT r.* FROM dwh.load_jsonl('short.jsonl', validate_only => true) AS f, unnest(f.rejects) AS r) AS s
  FULL JOIN (SELECT r.* FROM dwh.load_jsonl('long.jsonl', validate_only => true) AS f, unnest(f.rejects) AS r) AS l USING (line_no) ORDER BY 1;
DROP TABLE test.refused;

-- ---- \u0000: refused, or replaced and marked; an escaped backslash before u0000 is no escape
SELECT test.begin();
SELECT test.put('nul.jsonl', '{"nul": "x\u0000y"}', '{"text": "\\u0000"}', '{"both": "\\\u0000\\u0000\u0000"}', '{"\u0000key": {"deep": ["\u0000"]}}',
    '{"nul": "\u0000", "then": }', '{"long": "' || repeat('x', 300000) || '", "nul": "\\\u0000\\u0000"}', '{"long": "' || repeat('x', 300000) || '", "nul": "\u0000", }');
SELECT r.line_no, r.class FROM dwh.load_jsonl(test.dir() || '/nul.jsonl', validate_only => true) AS f, unnest(f.rejects) AS r;
SET dwh.nul_escapes = replace;
SELECT loaded, rejected FROM test.load('nul.jsonl');
SELECT line_no, altered, payload - 'long' AS payload FROM raw.user_events ORDER BY line_no;
SELECT line_no, class, encode(raw, 'escape') LIKE '%u0000%' OR raw_bytes > 4096 AS as_it_was FROM ops.rejects ORDER BY line_no;
SELECT altered, duplicate_keys FROM ops.loads;
RESET dwh.nul_escapes;

-- ---- two workers give the same rows, rejects and digest as one
SELECT test.begin();
SELECT events FROM dwh.generate_events(test.dir() || '/log.jsonl', events => 5000, dirty_rate => 0.05);
SELECT status, lines, loaded, rejected FROM dwh.load_jsonl(test.dir() || '/log.jsonl', workers => 1, force => true);
SELECT status, lines, loaded, rejected FROM dwh.load_jsonl(test.dir() || '/log.jsonl', workers => 2, force => true);
SELECT count(DISTINCT (sha256, lines, loaded, rejected, blank, held_back_bytes, ends_open, bytes)) AS ledger_rows FROM ops.loads;
SELECT count(*) AS differences FROM (SELECT line_no, byte_offset, payload::text, altered FROM raw.user_events WHERE load_id = 1
    EXCEPT ALL SELECT line_no, byte_offset, payload::text, altered FROM raw.user_events WHERE load_id = 2) AS missing;
SELECT count(*) AS differences FROM (SELECT line_no, byte_offset, class, message, raw, raw_bytes FROM ops.rejects WHERE load_id = 1
    EXCEPT ALL SELECT line_no, byte_offset, class, message, raw, raw_bytes FROM ops.rejects WHERE load_id = 2) AS missing;
SELECT load_id, count(*) FROM ops.rejects GROUP BY load_id ORDER BY load_id;
SET dwh.load_workers = 2;
SELECT status FROM test.load('log.jsonl', force => true);
SELECT * FROM dwh.load_jsonl(test.dir() || '/log.jsonl', workers => 3);
SELECT * FROM dwh.load_jsonl(test.dir() || '/log.jsonl', workers => 0);
-- a limit, a damaged archive and an empty file end the thread as well
SELECT * FROM dwh.load_jsonl(test.dir() || '/log.jsonl', force => true, reject_limit => 2);
SELECT test.put_bytes('broken.jsonl', '\x1f8b0800000000000003ffffffffffff');
SELECT * FROM dwh.load_jsonl(test.dir() || '/broken.jsonl');
SELECT test.put_bytes('empty.jsonl', '');
SELECT test.put_bytes('blank.jsonl', '\x0a200a');
SELECT status, lines FROM test.load('empty.jsonl');
SELECT status, lines FROM test.load('blank.jsonl');
RESET dwh.load_workers;
