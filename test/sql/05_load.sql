-- 05_load: what becomes of a file: content decides, not its name. Every state of load_jsonl.
\set VERBOSITY sqlstate
SELECT test.begin();

-- loaded; already_loaded under its own name, under another, and compressed with a wrong extension
SELECT test.put('a.jsonl', '{"n": 1}', '{"n": 2}', '{"n": 3}');
SELECT * FROM test.load('a.jsonl');
SELECT * FROM test.load('a.jsonl');
SELECT test.sh(format('cd %s && cp a.jsonl copy.jsonl && gzip -c a.jsonl > packed.jsonl', test.dir()));
-- (a zstd frame of the same bytes)
SELECT test.put_bytes('packed.txt', '\x28b52ffd0458ad0000687b226e223a20317d0a32337d0a020080080ee5085efce58f');
SELECT * FROM test.load('copy.jsonl');
SELECT * FROM test.load('packed.jsonl');
SELECT * FROM test.load('packed.txt');
SELECT load_id, regexp_replace(path, '^.*/', '') AS file, status, lines, loaded, bytes, content_bytes, first_line,
       sha256 = encode(sha256(E'{"n": 1}\n{"n": 2}\n{"n": 3}\n'), 'hex') AS is_sha256sum
  FROM ops.loads ORDER BY 1;
SELECT load_id, line_no, byte_offset, payload, loaded_at = (SELECT l.loaded_at FROM ops.loads AS l WHERE l.load_id = r.load_id) AS has_its_time
  FROM raw.user_events AS r ORDER BY 1, 2;

-- appended: line numbers and offsets go on, the sha256 is the whole content's
SELECT test.put('a.jsonl', '{"n": 1}', '{"n": 2}', '{"n": 3}', '{"n": 4}', 'broken', '{"n": 6}');
SELECT * FROM test.load('a.jsonl');
SELECT load_id, continues_load_id, first_line, bytes, content_bytes,
       sha256 = encode(sha256(E'{"n": 1}\n{"n": 2}\n{"n": 3}\n{"n": 4}\nbroken\n{"n": 6}\n'), 'hex') AS is_sha256sum
  FROM ops.loads WHERE status = 'appended';
SELECT load_id, line_no, byte_offset, payload FROM raw.user_events WHERE line_no > 3 ORDER BY 2;
SELECT load_id, line_no, byte_offset, class FROM ops.rejects;
-- the walk back: each row's bytes are where the ledger says
SELECT count(*) AS rows, count(*) FILTER (WHERE r.payload = convert_from(substring(f.bytes FROM r.byte_offset::int + 1 FOR 8), 'UTF8')::jsonb) AS found
  FROM raw.user_events AS r, pg_read_binary_file(test.dir() || '/a.jsonl') AS f (bytes);
-- grown again, compressed under another name: still only the new part
SELECT test.put('a2.jsonl', '{"n": 1}', '{"n": 2}', '{"n": 3}', '{"n": 4}', 'broken', '{"n": 6}', '{"n": 7}');
SELECT test.sh(format('gzip %s/a2.jsonl', test.dir()));
SELECT * FROM test.load('a2.jsonl.gz');
SELECT load_id, line_no, byte_offset, payload FROM raw.user_events WHERE line_no = 7;
-- the shorter content of before is known too
SELECT * FROM test.load('copy.jsonl');

-- rewritten: other content at a known path, also where it is a beginning of the old one
SELECT test.put('a.jsonl', '{"n": 1}', '{"n": 20}');
SELECT * FROM test.load('a.jsonl');
SELECT test.put('copy.jsonl', '{"n": 1}');
SELECT * FROM test.load('copy.jsonl');
SELECT load_id, continues_load_id, first_line FROM ops.loads ORDER BY load_id DESC LIMIT 2;

-- the law of bytes: each load counts what follows the lines of the one it continues, and line numbers go on from there
SELECT l.load_id FROM ops.loads AS l LEFT JOIN ops.loads AS b ON b.load_id = l.continues_load_id
 WHERE l.bytes <> l.content_bytes - coalesce(b.content_bytes - b.held_back_bytes, 0) OR l.first_line <> coalesce(b.first_line + b.lines, 1);

-- partial_tail: an unfinished last line is held back and read again with what follows
SELECT test.begin();
SELECT test.put_bytes('t.jsonl', E'{"n": 1}\n{"n": 2');
SELECT * FROM test.load('t.jsonl');
SELECT * FROM test.load('t.jsonl');
SELECT test.put_bytes('t.jsonl', E'{"n": 1}\n{"n": 22}\n{"n": 3');
SELECT * FROM test.load('t.jsonl');
SELECT test.put_bytes('t.jsonl', E'{"n": 1}\n{"n": 22}\n{"n": 33}\n');
SELECT * FROM test.load('t.jsonl');
SELECT load_id, line_no, byte_offset, payload FROM raw.user_events ORDER BY 1, 2;
SELECT load_id, status, lines, bytes, held_back_bytes, content_bytes, continues_load_id FROM ops.loads ORDER BY 1;
-- the law of bytes: each load counts what follows the lines of the one it continues, and line numbers go on from there
SELECT l.load_id FROM ops.loads AS l LEFT JOIN ops.loads AS b ON b.load_id = l.continues_load_id
 WHERE l.bytes <> l.content_bytes - coalesce(b.content_bytes - b.held_back_bytes, 0) OR l.first_line <> coalesce(b.first_line + b.lines, 1);
-- a tail that grew and is still one: nothing new, and not a file without lines
SELECT test.put_bytes('t.jsonl', E'{"n": 1}\n{"n": 22}\n{"n": 33}\n{"n"');
SELECT status, lines, held_back_bytes FROM test.load('t.jsonl');
SELECT test.put_bytes('t.jsonl', E'{"n": 1}\n{"n": 22}\n{"n": 33}\n{"n": 4');
SELECT status, lines, held_back_bytes FROM test.load('t.jsonl');
SELECT test.put_bytes('t.jsonl', E'{"n": 1}\n{"n": 22}\n{"n": 33}\n{"n": 44}\n');
SELECT status, lines, bytes FROM test.load('t.jsonl');
SELECT test.begin();
-- nothing but a tail: no line yet, no load
SELECT test.put_bytes('tail.jsonl', '{"alone": tr');
SELECT * FROM test.load('tail.jsonl');
SELECT count(*) FROM ops.loads WHERE path LIKE '%/tail.jsonl';
-- force takes the tail as a line
SELECT status, lines, rejected, held_back_bytes FROM test.load('tail.jsonl', force => true);
SELECT line_no, byte_offset, class, convert_from(raw, 'UTF8') AS raw FROM ops.rejects;
SELECT test.begin();
-- a tail may be refused for any reason, also in the middle of a character
SELECT test.put_bytes('utf8.jsonl', convert_to(E'{"n": "x"}\n{"n": "', 'UTF8') || '\xED95');
SELECT * FROM test.load('utf8.jsonl');
SELECT test.put('utf8.jsonl', '{"n": "x"}', '{"n": "한"}');
SELECT * FROM test.load('utf8.jsonl');

-- force loads known content again, as a load of its own
SELECT test.put('f.jsonl', '{"f": 1}', '{"f": 2}');
SELECT * FROM test.load('f.jsonl');
SELECT * FROM test.load('f.jsonl', force => true);
SELECT forced, count(*) FROM ops.loads WHERE path LIKE '%/f.jsonl' GROUP BY 1 ORDER BY 1;
SELECT * FROM test.load('f.jsonl');

-- an unterminated whole last line is loaded
SELECT test.begin();
SELECT test.put_bytes('o.jsonl', E'{"n": 1}\n{"n": 2}');
SELECT * FROM test.load('o.jsonl');
-- then its terminator comes, alone, or blank lines: nothing new, and not a file without lines
SELECT test.put_bytes('o.jsonl', E'{"n": 1}\n{"n": 2}\n');
SELECT load_id, status FROM test.load('o.jsonl');
SELECT test.put_bytes('o.jsonl', E'{"n": 1}\n{"n": 2}\n\n');
SELECT load_id, status FROM test.load('o.jsonl');
-- then lines after it
SELECT test.put_bytes('o.jsonl', E'{"n": 1}\n{"n": 2}\n\n{"n": 3}\n');
SELECT status, lines, loaded, blank, bytes FROM test.load('o.jsonl');
SELECT line_no, byte_offset, payload FROM raw.user_events ORDER BY 1, 2;
SELECT test.begin();
-- a CR LF as its terminator
SELECT test.put_bytes('cr.jsonl', '{"c": 1}');
SELECT * FROM test.load('cr.jsonl');
SELECT test.put_bytes('cr.jsonl', E'{"c": 1}\r\n{"c": 2}\r\n');
SELECT * FROM test.load('cr.jsonl');
-- the line itself goes on: another line, so a rewritten file
SELECT test.put_bytes('g.jsonl', E'{"g": 1}\n{"g": 2}');
SELECT * FROM test.load('g.jsonl');
SELECT test.put_bytes('g.jsonl', E'{"g": 1}\n{"g": 2}}\n');
SELECT * FROM test.load('g.jsonl');
SELECT l.status, r.line_no, r.payload FROM ops.loads AS l JOIN raw.user_events AS r USING (load_id) WHERE l.path LIKE '%/g.jsonl' ORDER BY l.load_id, 2;
SELECT line_no, class FROM ops.rejects;

-- empty, and blanks only: reported, no identity
SELECT test.begin();
SELECT test.put_bytes('nothing.jsonl', '');
SELECT * FROM test.load('nothing.jsonl');
SELECT test.put_bytes('blank.jsonl', E'\n \t\n\r\n');
SELECT * FROM test.load('blank.jsonl');
SELECT test.put_bytes('bom.jsonl', '\xEFBBBF');
SELECT * FROM test.load('bom.jsonl');
SELECT count(*) FROM ops.loads;
-- an empty file that comes to hold something is a plain load
SELECT test.put('nothing.jsonl', '{"n": 1}');
SELECT file, status, lines, loaded FROM test.load('nothing.jsonl');

-- line ends: LF, CR before it dropped, BOM at byte 0 alone, U+2028, U+0085 and a lone CR are no line ends
SELECT test.put_bytes('ends.jsonl', '\xEFBBBF' || convert_to(E'{"l": 1}\r\n{"l": 2}\n\r\n \t \n{"l": "a\u2028b\u0085c"}\r\n{"l": 6}\r{"l": 6}\n{"l":\r7}\n', 'UTF8') || '\xEFBBBF7B7D0A');
SELECT status, lines, loaded, rejected, blank, bytes FROM test.load('ends.jsonl');
SELECT line_no, byte_offset, payload = '{"l": 1}' OR payload = '{"l": 2}' OR payload = E'{"l": "a\u2028b\u0085c"}' OR payload = '{"l": 7}' AS as_sent
  FROM raw.user_events WHERE load_id = (SELECT max(load_id) FROM ops.loads) ORDER BY 1;
SELECT line_no, byte_offset, class FROM ops.rejects ORDER BY 1;

-- what is stored equals what ::jsonb makes of the line
SELECT test.begin();
SELECT test.put('same.jsonl', '{"b": 1.00, "a": [1e2, -0, 1E-3, 0.10, true, null, {}], "": "é\u00e9\ud83d\ude00\\u0000\/", "b": 2.50, "aa": {"z": 1, "y": 123456789012345678901234567890.12}}');
SELECT * FROM test.load('same.jsonl');
SELECT payload, payload::text = (pg_read_file(test.dir() || '/same.jsonl')::jsonb)::text AS is_the_same FROM raw.user_events;

-- archives: members after one another; one that ends early keeps its whole lines and says so
SELECT test.put('m1', '{"m": 1}', '{"m": 2}');
SELECT test.put('m2', '{"m": 3}');
SELECT test.sh(format('cd %s && (gzip -c m1; gzip -c m2) > members.jsonl', test.dir()));
SELECT test.put_bytes('frames.jsonl', '\x28b52ffd04584900007b226d223a20337d0a54c3c6aa28b52ffd04589100007b226d223a20317d0a7b226d223a20327d0adeec2176');
SELECT * FROM test.load('members.jsonl');
SELECT * FROM test.load('frames.jsonl');
SELECT test.sh(format('cd %s && seq 1 20000 | sed "s/.*/{\"t\": &}/" | gzip -nc > whole.gz && head -c 20000 whole.gz > cut.jsonl', test.dir()));
SELECT status, lines > 1000 AND lines < 20000 AS a_part, lines = loaded AS all_good FROM test.load('cut.jsonl');
SELECT count(*) AS rows_not_from_the_file FROM raw.user_events AS r JOIN ops.loads AS l USING (load_id)
 WHERE l.truncated AND r.payload <> jsonb_build_object('t', r.line_no);
-- once it is whole, the rest comes
SELECT test.sh(format('cd %s && cp whole.gz cut.jsonl', test.dir()));
SELECT status, rejected FROM test.load('cut.jsonl');
SELECT count(DISTINCT r.payload) FROM raw.user_events AS r WHERE r.payload ? 't';
SELECT count(*) AS lines_loaded_twice FROM (SELECT 1 FROM raw.user_events AS r WHERE r.payload ? 't' GROUP BY r.payload HAVING count(*) > 1) AS d;
-- bytes that are no archive after the magic are damaged
SELECT test.put_bytes('damaged.gz', '\x1F8B0800000000000003FFFFFFFFFFFFFFFF');
SELECT * FROM test.load('damaged.gz');

-- a large object, and the same content as a file
SELECT test.begin();
SELECT lo_from_bytea(0, E'{"o": 1}\n{"o": 2}\n') AS object \gset
SELECT load_id, path = 'large_object:' || :object AS named, status, lines, loaded, bytes FROM dwh.load_jsonl(large_object => :object);
SELECT load_id, status FROM dwh.load_jsonl(large_object => :object);
SELECT test.put('o.jsonl', '{"o": 1}', '{"o": 2}');
SELECT * FROM test.load('o.jsonl');
SELECT lo_put(:object, 18, E'{"o": 3}\n');
SELECT load_id, status, lines FROM dwh.load_jsonl(large_object => :object);
SELECT lo_unlink(:object);
SELECT count(*) FROM dwh.load_jsonl(large_object => :object);

-- a pattern, a directory: one row a file, by name; hidden and other files are no logs
SELECT test.begin();
SELECT test.put('p2.jsonl', '{"p": 2}'), test.put('p1.jsonl', '{"p": 1}'), test.put('p10.ndjson', '{"p": 10}'), test.put('same.jsonl', '{"p": 1}'),
       test.put('.hidden.jsonl', '{"p": 0}'), test.put('notes.txt', '{"p": 0}'), test.put('q.jsonl.bak', '{"p": 0}');
SELECT * FROM test.load('p?.jsonl');
SELECT * FROM test.load(test.dir());
SELECT * FROM test.load(NULL);
SELECT count(*) FROM test.load('no-such-*.jsonl');
SELECT * FROM test.load('notes.txt');
-- in a set the error of one file is its row's; the others are loaded
SELECT test.sh(format('cd %s && mkfifo z.jsonl && mkdir y.jsonl', test.dir()));
SELECT test.put('new.jsonl', '{"p": "new"}');
SELECT regexp_replace(path, '^.*/', '') AS file, status, loaded, message IS NOT NULL AS says_why FROM dwh.load_jsonl('*.jsonl');

-- a file whose stat is a load's is not even opened, once its times were old enough when it was read (git's index has
-- the same race); what proves it: the ledger's hash is spoilt, so that reading the file would not recognise it
SELECT test.begin();
SELECT test.put('old.jsonl', '{"n": 1}');
SELECT * FROM test.load('old.jsonl');
SELECT settled, size FROM ops.files;   -- it was just written
UPDATE ops.loads SET sha256 = repeat('0', 64);
SELECT load_id, status FROM test.load('old.jsonl');
UPDATE ops.loads SET sha256 = repeat('1', 64) WHERE load_id = 2;
UPDATE ops.files SET settled = true;
SELECT load_id, status FROM test.load('old.jsonl');
-- any change of its times has it read again
SELECT test.sh(format('touch -d 2020-01-01 %s/old.jsonl', test.dir()));
SELECT load_id, status FROM test.load('old.jsonl');
SELECT settled FROM ops.files;   -- an mtime can be set by hand, a ctime not

-- rows, rejects and ledger row commit together
SELECT test.begin();
SELECT test.put('back.jsonl', '{"n": 1}', 'broken');
BEGIN;
SELECT * FROM test.load('back.jsonl');
ROLLBACK;
SELECT (SELECT count(*) FROM raw.user_events) AS rows, (SELECT count(*) FROM ops.rejects) AS rejects, (SELECT count(*) FROM ops.loads) AS loads, (SELECT count(*) FROM ops.files) AS files;
-- and no id is given twice
SELECT load_id FROM test.load('back.jsonl');

-- the same arguments, the same log; what it says it holds is what is loaded
SELECT events, sessions, purchases, faults FROM dwh.generate_events('g1.jsonl', events => 2000, users => 50, products => 20, seed => 7) \gset
SELECT events = :events AND sessions = :sessions AND purchases = :purchases AS same_counts FROM dwh.generate_events('g2.jsonl', events => 2000, users => 50, products => 20, seed => 7);
SELECT pg_read_binary_file(test.dir() || '/g1.jsonl') = pg_read_binary_file(test.dir() || '/g2.jsonl') AS same_bytes,
       sha256(pg_read_binary_file(test.dir() || '/g1.jsonl'));
SELECT string_agg(s, E'\n') || E'\n' = pg_read_file(test.dir() || '/g1.jsonl') AS same_lines FROM dwh.sample_events(2000, 50, 20, seed => 7) AS s;
SELECT lines, rejected FROM test.load('g1.jsonl');
SELECT count(DISTINCT payload ->> 'session_id') = :sessions AS sessions, count(*) FILTER (WHERE payload ->> 'event_type' = 'purchase') = :purchases AS purchases
  FROM raw.user_events WHERE load_id = (SELECT max(load_id) FROM ops.loads);
