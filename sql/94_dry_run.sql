-- 94_dry_run.sql: a source -> what run_pipeline() would make of it.
--
-- Invariants: nothing is written, no lock is taken that a run asks for, and all answers are of one snapshot; the verdicts and
-- counts are those of load_jsonl() and stage_events(), by the same code.
-- Repeats are harmless: they only read.

-- Noun: which of these events were accepted before, and whether they say the same; the rest have no row.
CREATE FUNCTION dwh._known_repeats(ids uuid[], times timestamptz[], payloads jsonb[])
RETURNS TABLE ("position" bigint, is_replay boolean)
LANGUAGE sql STABLE ROWS 1000 SET search_path = pg_catalog, pg_temp SET jit = off AS $$
    SELECT k.position, dwh._is_replay(sent.id, sent.payload, kept.payload)
      FROM dwh._known_events(ids, times) AS k
      JOIN unnest(ids, payloads) WITH ORDINALITY AS sent (id, payload, position) ON sent.position = k.position
      LEFT JOIN LATERAL (SELECT r.payload FROM raw.user_events AS r
           WHERE r.load_id = k.load_id AND r.line_no = k.line_no OFFSET 0) AS kept ON true
$$;
COMMENT ON FUNCTION dwh._known_repeats(uuid[], timestamptz[], jsonb[]) IS
'Which of these events, by position in the arrays, have an id that was accepted before, and whether they are replays: true, or conflicts: false.';

CREATE TYPE dwh.examined_file AS (
    path text,
    status text,
    load_id bigint,
    continues_load_id bigint,
    lines bigint,
    loaded bigint,
    rejected bigint,
    blank bigint,
    held_back_bytes bigint,
    bytes bigint,
    staged bigint,
    replayed bigint,
    conflicting bigint,
    stage_rejected bigint,
    forgotten bigint,
    first_event timestamptz,
    last_event timestamptz,
    users bigint,
    products bigint,
    days date[],
    day_events bigint[],
    day_late bigint[],
    is_poisoned boolean,
    message text);
COMMENT ON TYPE dwh.examined_file IS
'What a run would make of a file: the verdict of load_jsonl(), the counts of ops.loads, the bounds of what would be staged, the users and products that no row before touches, the days of UTC with their events and how many of these are older than the newest event of the facts, and whether it would be quarantined. Status waiting: a load that is not staged yet. load_id is that of a known load.';

CREATE FUNCTION dwh._examine(source text) RETURNS SETOF dwh.examined_file
LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp SET jit = off AS 'MODULE_PATHNAME', 'dwh_examine';
COMMENT ON FUNCTION dwh._examine(text) IS
'Reads a source as a run would, up to staging, and writes nothing, also in a read-only transaction and on a standby. Returns one row for each load that waits to be staged, then one a file. Counts are lines and events, sizes decompressed bytes. Errors: those of load_jsonl(path), 53400 where temp_file_limit does not let it sort the events. A repeat reads it all again.';

-- The partitions that staging or the facts lack for these days.
CREATE FUNCTION dwh._partitions_to_make(days date[]) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO, YMD' AS $$
    SELECT string_agg(format('%s: %s', t.parent, t.times), '; ' ORDER BY t.parent DESC)
      FROM (SELECT p.parent, string_agg(to_char(m.since, CASE m.unit WHEN 'day' THEN 'YYYY-MM-DD' ELSE 'YYYY-MM' END), ', ' ORDER BY m.since) AS times
              FROM (VALUES ('staging.user_events'), ('marts.fact_user_events')) AS p (parent)
             CROSS JOIN LATERAL dwh._missing_partitions(p.parent, (SELECT array_agg(d::timestamptz) FROM unnest(days) AS d)) AS m
             GROUP BY p.parent) AS t
$$;
COMMENT ON FUNCTION dwh._partitions_to_make(date[]) IS 'The partitions that events on these days of UTC still need, as text; NULL where there are all.';

-- What waits for the steps after staging, from verbs that were called one by one, or sent back by retry_rejects().
CREATE FUNCTION dwh._staged_backlog() RETURNS TABLE (step text, loads bigint, events bigint, facts bigint)
LANGUAGE sql STABLE ROWS 4 SET search_path = pg_catalog, pg_temp AS $$
    SELECT s.step, count(l.load_id), coalesce(sum(l.staged), 0)::bigint, coalesce(sum(l.facts), 0)::bigint
      FROM unnest(ARRAY['apply_scd2', 'upsert_products', 'load_facts', 'run_quality_checks']) AS s (step)
      LEFT JOIN ops.loads AS l ON l.checked_at IS NULL AND l.status <> 'stopped'
       AND CASE s.step WHEN 'apply_scd2' THEN l.users_at IS NULL WHEN 'upsert_products' THEN l.products_at IS NULL
                       WHEN 'load_facts' THEN l.facts_at IS NULL ELSE true END
       AND CASE WHEN l.status = 'quarantined' THEN s.step = 'run_quality_checks' ELSE l.staged_at IS NOT NULL END
     GROUP BY s.step
$$;
COMMENT ON FUNCTION dwh._staged_backlog() IS
'For each step after staging, the loads that wait for it, or for one before it: how many, their staged events, and the facts that they have.';

CREATE FUNCTION dwh._sum_up_files(examined dwh.examined_file[]) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('%s %s: %s', sum(k.files), CASE sum(k.files) WHEN 1 THEN 'file' ELSE 'files' END,
                  string_agg(format('%s %s', k.files, k.kind), ', ' ORDER BY k.place, k.kind))
           || (SELECT coalesce('; ' || string_agg(format('failed: %s (%s)', f.path, f.message), '; ' ORDER BY f.path), '')
                 FROM unnest(examined) AS f WHERE f.status = 'failed')
      FROM (SELECT n.kind, n.place, count(*) AS files
              FROM unnest(examined) AS e
             CROSS JOIN LATERAL (SELECT CASE e.status WHEN 'loaded' THEN 'new' WHEN 'appended' THEN 'grown' WHEN 'already_loaded' THEN 'known'
                   ELSE replace(e.status, '_', ' ') END,
                   array_position(ARRAY['loaded', 'appended', 'rewritten', 'partial_tail', 'truncated', 'already_loaded'], e.status)) AS n (kind, place)
             WHERE e.status <> 'waiting'
             GROUP BY n.kind, n.place) AS k
    HAVING count(*) > 0
$$;
COMMENT ON FUNCTION dwh._sum_up_files(dwh.examined_file[]) IS 'How many of the files are new, grown, known and so on, and why others failed, in words; NULL where there is no file.';

CREATE FUNCTION dwh._sum_up_late(examined dwh.examined_file[]) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, YMD' AS $$
    SELECT format('late: %s events on %s days, from %s to %s', sum(d.late), count(DISTINCT d.day), min(d.day), max(d.day))
      FROM unnest(examined) AS e CROSS JOIN LATERAL unnest(e.days, e.day_late) AS d (day, late)
     WHERE d.late > 0
    HAVING count(*) > 0
$$;
COMMENT ON FUNCTION dwh._sum_up_late(dwh.examined_file[]) IS 'The late events that would be staged, in words; NULL where there are none. Days are UTC.';

-- A load fails the checks where too many of its lines are refused: one of these files, or one that is quarantined and not checked yet.
CREATE FUNCTION dwh._sum_up_poisoned(examined dwh.examined_file[]) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT string_agg(p.text, '; ' ORDER BY p.path, p.text)
      FROM (SELECT e.path, format('%s %s', e.path, e.message) AS text FROM unnest(examined) AS e WHERE e.is_poisoned
             UNION ALL
            SELECT l.path, format(CASE l.status WHEN 'quarantined' THEN '%s is quarantined (load %s)' ELSE '%s is over dwh.max_reject_share (load %s)' END,
                                  l.path, l.load_id) FROM ops.loads AS l
             WHERE l.checked_at IS NULL AND (l.status = 'quarantined' OR l.staged_at IS NOT NULL AND l.status <> 'stopped') AND NOT l.forced
               AND dwh._is_poisoned(l.rejected + l.stage_rejected, l.lines - l.blank)) AS p
$$;
COMMENT ON FUNCTION dwh._sum_up_poisoned(dwh.examined_file[]) IS 'The files whose refused lines would fail the run, in words; NULL where there are none.';

-- STABLE, so that all of its statements have one snapshot.
CREATE FUNCTION dwh._dry_run(source text)
RETURNS TABLE (step text, status text, rows_in bigint, rows_out bigint, rejected bigint, elapsed interval, message text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
#variable_conflict use_column
DECLARE
    began timestamptz := clock_timestamp();
    examined dwh.examined_file[] := ARRAY(SELECT e FROM dwh._examine(_dry_run.source) AS e);
    took interval := clock_timestamp() - began;
    files record;
    loads record;   -- that would be staged: those of the files, and those that wait
    poisoned text := dwh._sum_up_poisoned(examined);
BEGIN
    SELECT count(*) AS count, count(*) FILTER (WHERE e.loaded + e.rejected > 0) AS new, coalesce(sum(e.lines), 0)::bigint AS lines,
           coalesce(sum(e.loaded), 0)::bigint AS loaded, coalesce(sum(e.rejected), 0)::bigint AS rejected
      INTO files FROM unnest(examined) AS e WHERE e.status <> 'waiting';
    SELECT count(*) AS count, count(*) FILTER (WHERE NOT e.is_poisoned) AS staged_loads, coalesce(sum(e.loaded), 0)::bigint AS loaded,
           coalesce(sum(e.staged), 0)::bigint AS staged, coalesce(sum(e.stage_rejected), 0)::bigint AS rejected,
           coalesce(sum(e.users), 0) AS users, coalesce(sum(e.products), 0)::bigint AS products,
           count(*) FILTER (WHERE e.status = 'waiting') AS waiting
      INTO loads FROM unnest(examined) AS e WHERE e.status = 'waiting' OR e.loaded + e.rejected > 0;
    RETURN QUERY VALUES
        ('load_jsonl', CASE WHEN files.count = 0 THEN 'no_data' WHEN files.new = 0 THEN 'nothing_new' ELSE 'would_do' END,
         files.lines, files.loaded, files.rejected, took, dwh._sum_up_files(examined)),
        ('stage_events', CASE WHEN loads.count = 0 THEN 'nothing_new' ELSE 'would_do' END,
         loads.loaded, loads.staged, loads.rejected, NULL,
         nullif(concat_ws('; ', CASE WHEN loads.waiting > 0 THEN format('waiting loads: %s', loads.waiting) END, dwh._sum_up_late(examined)), ''));
    RETURN QUERY
    SELECT b.step, CASE WHEN loads.count + b.loads = 0 THEN 'nothing_new'
                        WHEN b.step = 'run_quality_checks' THEN CASE WHEN poisoned IS NULL THEN 'would_do' ELSE 'would_fail' END
                        WHEN loads.staged_loads + b.loads = 0 THEN 'nothing_new' ELSE 'would_do' END,
           CASE b.step WHEN 'upsert_products' THEN CASE b.loads WHEN 0 THEN loads.products END WHEN 'run_quality_checks' THEN NULL ELSE loads.staged + b.events END,
           CASE b.step WHEN 'load_facts' THEN loads.staged + b.events - b.facts END,
           0::bigint, NULL::interval,
           CASE b.step WHEN 'apply_scd2' THEN 'users: ' || nullif(loads.users, 0)
                       WHEN 'upsert_products' THEN 'products: ' || nullif(loads.products, 0)
                       WHEN 'load_facts' THEN 'partitions to make: ' || dwh._partitions_to_make(ARRAY(
                            SELECT DISTINCT d.day FROM unnest(examined) AS e CROSS JOIN LATERAL unnest(e.days) AS d (day)))
                       ELSE poisoned END
      FROM dwh._staged_backlog() AS b
     ORDER BY array_position(ARRAY['apply_scd2', 'upsert_products', 'load_facts', 'run_quality_checks'], b.step);
END
$$;
COMMENT ON FUNCTION dwh._dry_run(text) IS
'What run_pipeline(source) would do now, as its rows; writes nothing, also in a read-only transaction, on a standby, and beside a run. Returns one row a step: status (would_do, nothing_new, no_data, would_fail), lines or events in and out as the run would say them, NULL where that is not known before, the time of the examination in the first row, in message the files by kind, late events by days of UTC, the users and products touched, partitions to make, files that would be quarantined. Errors: those of load_jsonl(path). A repeat reads it all again.';
