-- 05_load.sql: lines of files -> raw.user_events, and logs to try it with.
--
-- Invariant: lines = loaded + rejected + blank, for each load.
-- Repeats are harmless: content that was loaded is recognised and left alone.

CREATE TYPE dwh.line_reject AS (
    line_no bigint,
    byte_offset bigint,
    class text,
    message text,
    raw bytea,
    raw_bytes bigint);
COMMENT ON TYPE dwh.line_reject IS
'A line that load_jsonl() would refuse: its number from 1, where it begins, why, at most 4,096 of its bytes, and how many it has.';

CREATE TYPE dwh.load_result AS (
    load_id bigint,
    path text,
    status text,
    lines bigint,
    loaded bigint,
    rejected bigint,
    blank bigint,
    held_back_bytes bigint,
    bytes bigint,
    message text,
    rejects dwh.line_reject[]);
COMMENT ON TYPE dwh.load_result IS
'The verdict on one file: loaded, appended, rewritten, partial_tail, truncated (new rows), already_loaded, empty (no line), quarantined (known to be refused), failed (see message), validated (nothing written, the first 1,000 rejects in rejects).';

CREATE FUNCTION dwh.load_jsonl(
    path text,
    on_error text DEFAULT 'continue',
    reject_limit "any" DEFAULT NULL,
    force boolean DEFAULT false,
    validate_only boolean DEFAULT false,
    workers integer DEFAULT NULL)
RETURNS SETOF dwh.load_result
LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'dwh_load_jsonl';
REVOKE EXECUTE ON FUNCTION dwh.load_jsonl(text, text, "any", boolean, boolean, integer) FROM PUBLIC;
COMMENT ON FUNCTION dwh.load_jsonl(text, text, "any", boolean, boolean, integer) IS
'Loads a server file, a directory''s .jsonl and .ndjson files, or a pattern, also gzip and zstd, into raw.user_events. Relative paths lie in the landing directory, NULL is that directory. reject_limit is a count or a share like ''1%''. validate_only reads every line by the same rules, returns the rejects and writes nothing. workers => 2 parses in a thread while the backend writes; NULL is dwh.load_workers. Returns one row a file: counts are lines, sizes decompressed bytes. Errors: 22023 for arguments out of range, 42501 without rights to the path, 58P01 where it is missing, 42809 for no regular file, 22P03 for a damaged archive, 54000 for one beyond dwh.max_archive_ratio or dwh.max_archive_size, WH002 over reject_limit or with on_error => ''abort'', WH004 without a warehouse, WH005 where the file changed meanwhile, 40P01 (retry) where two sets hold the same contents under names in another order; in a set of files an error of one is its row''s message. A repeat loads nothing and says already_loaded, unless force => true.';

CREATE FUNCTION dwh.load_jsonl(
    large_object oid,
    on_error text DEFAULT 'continue',
    reject_limit "any" DEFAULT NULL,
    force boolean DEFAULT false,
    validate_only boolean DEFAULT false,
    workers integer DEFAULT NULL)
RETURNS SETOF dwh.load_result
LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'dwh_load_jsonl_large_object';
REVOKE EXECUTE ON FUNCTION dwh.load_jsonl(oid, text, "any", boolean, boolean, integer) FROM PUBLIC;
COMMENT ON FUNCTION dwh.load_jsonl(oid, text, "any", boolean, boolean, integer) IS
'The same for the bytes of a large object (\lo_import in psql), for clients without files on the server. Returns one row. Errors: as above, 42704 where the object is missing. A repeat loads nothing, also from a file with the same content.';

CREATE FUNCTION dwh._load_for_run(path text) RETURNS SETOF dwh.load_result
LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'dwh_load_for_run';
COMMENT ON FUNCTION dwh._load_for_run(text) IS
'load_jsonl(path) for a transaction that goes on with stage_events(): the events, read by the same parse, are kept for it.';

CREATE TYPE dwh.generated_log AS (
    path text,
    events bigint,
    sessions bigint,
    purchases bigint,
    bytes bigint,
    faults jsonb);
COMMENT ON TYPE dwh.generated_log IS 'A generated log: where it is, its clean events, sessions and purchases, its size, and the faults mixed in, by kind.';

CREATE FUNCTION dwh.generate_events(
    path text DEFAULT NULL,
    events bigint DEFAULT 100000,
    users bigint DEFAULT 5000,
    products bigint DEFAULT 500,
    days bigint DEFAULT 30,
    start_at timestamptz DEFAULT '2025-01-01 00:00:00+00',
    seed bigint DEFAULT 42,
    dirty_rate float8 DEFAULT 0,
    dirty_kinds text[] DEFAULT NULL)
RETURNS dwh.generated_log
LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'dwh_generate_events';
REVOKE EXECUTE ON FUNCTION dwh.generate_events(text, bigint, bigint, bigint, bigint, timestamptz, bigint, float8, text[]) FROM PUBLIC;
COMMENT ON FUNCTION dwh.generate_events(text, bigint, bigint, bigint, bigint, timestamptz, bigint, float8, text[]) IS
'Writes a realistic JSONL log of events in the order of event_time: to path, or to a new file in the landing directory. dirty_rate adds lines with a fault, as a share of events, in turn of dirty_kinds (NULL = all of dwh.dirty_kinds()). Returns where it is and what it holds. Errors: 22023 for arguments out of range, 42501 without rights to the path. The same arguments give the same bytes on any machine; a file at path is replaced.';

CREATE FUNCTION dwh.sample_events(
    events bigint DEFAULT 100,
    users bigint DEFAULT 5000,
    products bigint DEFAULT 500,
    days bigint DEFAULT 30,
    start_at timestamptz DEFAULT '2025-01-01 00:00:00+00',
    seed bigint DEFAULT 42,
    dirty_rate float8 DEFAULT 0,
    dirty_kinds text[] DEFAULT NULL)
RETURNS SETOF text
LANGUAGE c STABLE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'dwh_sample_events';
COMMENT ON FUNCTION dwh.sample_events(bigint, bigint, bigint, bigint, timestamptz, bigint, float8, text[]) IS
'The lines that generate_events() writes for the same arguments, as rows, for roles without file rights; without the kinds of faults that text cannot hold. Returns one row a line. Errors: 22023 for arguments out of range. Reads and writes nothing.';

CREATE FUNCTION dwh.dirty_kinds(OUT kind text, OUT outcome text, OUT class text, OUT meaning text)
RETURNS SETOF record
LANGUAGE c IMMUTABLE AS 'MODULE_PATHNAME', 'dwh_dirty_kinds';
COMMENT ON FUNCTION dwh.dirty_kinds() IS
'The faults that generate_events() can mix in. Returns for each what it must become (fact, blank, held_back, load_reject, stage_reject, replay, conflict, or none: it changes no line) and the class of the reject. Errors: none.';

CREATE FUNCTION dwh.landing_directory() RETURNS text
LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'dwh_show_landing_directory';
REVOKE EXECUTE ON FUNCTION dwh.landing_directory() FROM PUBLIC;
COMMENT ON FUNCTION dwh.landing_directory() IS
'The directory that generate_events() writes to and run_pipeline() reads when no path is given: dwh.landing_directory, else one in the data directory, made on first use. Returns its path on the server. Errors: 58030 or 42501 where it cannot be made. A repeat returns the same.';
