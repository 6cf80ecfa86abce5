-- 97_metrics.sql: the state of the warehouse as numbers, for whoever watches it (docker/exporters).
--
-- Invariants: names are those of Prometheus: base units, _total for what never falls and for nothing else; a series that is
-- there stays there with 0, and what is not known is left out; like dwh.status() it needs rights to the ledgers alone.
-- Repeats are harmless: it only reads.

CREATE FUNCTION dwh.metrics(OUT name text, OUT labels jsonb, OUT value double precision, OUT type text, OUT help text) RETURNS SETOF record
LANGUAGE plpgsql STABLE ROWS 100 SET search_path = pg_catalog, pg_temp SET jit = off AS $$
#variable_conflict use_column
BEGIN
    PERFORM FROM dwh.explain_pipeline();   -- which refuses what are no tables of a warehouse
    RETURN QUERY
    WITH ledger AS MATERIALIZED (
        SELECT count(*) AS loads, sum(l.lines) AS lines, sum(l.bytes) AS bytes, sum(l.loaded) AS loaded, sum(l.rejected) AS rejected,
               sum(l.blank) AS blank, sum(l.staged) AS staged, sum(l.replayed) AS replayed, sum(l.conflicting) AS conflicting,
               sum(l.stage_rejected) AS stage_rejected, sum(l.forgotten) AS forgotten, sum(l.facts) AS facts,
               max(l.loaded_at) FILTER (WHERE l.status NOT IN ('quarantined', 'stopped')) AS load, max(l.last_event) AS event
          FROM ops.loads AS l),
    runs AS MATERIALIZED (
        SELECT r.run_id, r.status, r.finished_at FROM ops.runs AS r),
    verdicts AS (
        SELECT c.name, c.severity, v.status, v.observed FROM ops.quality_checks AS c
         CROSS JOIN LATERAL (SELECT CASE WHEN q.accepted THEN 'pass' ELSE q.status END AS status, q.observed FROM ops.quality_results AS q
                WHERE q.name = c.name ORDER BY q.result_id DESC LIMIT 1) AS v
         WHERE c.enabled),
    messages AS MATERIALIZED (
        SELECT a.state, a.created_at, a.delivered_at, row_number() OVER (PARTITION BY a.dedupe_key ORDER BY a.alert_id DESC) = 1 AS is_last
          FROM ops.alerts AS a),
    parts AS MATERIALIZED (   -- a table, or one of its partitions; the size of what a drop or rewrite holds is not waited for
        SELECT format('%s.%s', n.nspname, t.relname) AS "table", c.oid <> t.oid AS is_partition, CASE WHEN NOT EXISTS (SELECT FROM pg_locks AS k WHERE k.database = (SELECT b.oid FROM pg_database AS b WHERE b.datname = current_database())
                    AND k.mode = 'AccessExclusiveLock' AND k.pid IS DISTINCT FROM pg_backend_pid()
                    AND (k.relation IN (c.oid, c.reltoastrelid) OR k.relation IN (SELECT x.indexrelid FROM pg_index AS x WHERE x.indrelid IN (c.oid, c.reltoastrelid)))) THEN pg_total_relation_size(c.oid) END AS bytes
          FROM pg_class AS t
          JOIN pg_namespace AS n ON n.oid = t.relnamespace
          LEFT JOIN pg_inherits AS i ON i.inhparent = t.oid
          JOIN pg_class AS c ON c.oid = coalesce(i.inhrelid, t.oid)
         WHERE n.nspname IN ('raw', 'staging', 'marts', 'ops') AND t.relkind IN ('r', 'p') AND NOT t.relispartition),
    last_run AS (
        SELECT s.step, s.elapsed, s.rows_in, s.rows_out, s.rejected, s.wal_bytes FROM ops.run_steps AS s
         WHERE s.run_id = (SELECT max(r.run_id) FROM runs AS r WHERE r.status <> 'running')),
    families (position, name, type, help) AS (VALUES
        (1, 'dwh_info', 'gauge', 'Always 1; says the version of the extension and of the data model.'),
        (2, 'dwh_loads_total', 'counter', 'Loads in the ledger.'),
        (3, 'dwh_lines_total', 'counter', 'Lines of all loads.'),
        (4, 'dwh_read_bytes_total', 'counter', 'Decompressed bytes that loads read as new.'),
        (5, 'dwh_line_outcomes', 'gauge', 'Lines of all loads by what became of them; a retry or an erasure moves them.'),
        (6, 'dwh_event_outcomes', 'gauge', 'Loaded lines by what became of them when they were staged.'),
        (7, 'dwh_facts_written', 'gauge', 'Facts of all loads, those that drop_before() took included.'),
        (8, 'dwh_backlog_loads', 'gauge', 'Loads that a step would take now.'),
        (9, 'dwh_held_loads', 'gauge', 'Loads that go no further (dwh.held_loads()).'),
        (10, 'dwh_freshness_seconds', 'gauge', 'Time since the last load was made (clock load), since the last event (clock event).'),
        (11, 'dwh_runs_kept', 'gauge', 'Runs in the history that is kept.'),
        (12, 'dwh_last_success_timestamp_seconds', 'gauge', 'When the last run that succeeded ended, also one without new data.'),
        (13, 'dwh_last_success_age_seconds', 'gauge', 'How long ago that was.'),
        (14, 'dwh_last_run_failed', 'gauge', '1 if the last run that ended failed or died.'),
        (15, 'dwh_last_run_step_seconds', 'gauge', 'Time that the steps of that run took.'),
        (16, 'dwh_last_run_step_rows', 'gauge', 'Rows that they read, made and refused.'),
        (17, 'dwh_last_run_step_wal_bytes', 'gauge', 'Write-ahead log that they wrote.'),
        (18, 'dwh_check_failed', 'gauge', '1 if the last verdict of an enabled check is fail.'),
        (19, 'dwh_check_last_observed', 'gauge', 'What that verdict counted: ops.quality_results.observed.'),
        (20, 'dwh_open_incidents', 'gauge', 'Incidents that have not recovered, by the state of their last message.'),
        (21, 'dwh_undelivered_alerts', 'gauge', 'Messages that nobody has delivered yet.'),
        (22, 'dwh_oldest_undelivered_alert_seconds', 'gauge', 'Age of the oldest of them; 0 without any.'),
        (23, 'dwh_partitions_attached', 'gauge', 'Partitions of a table.'),
        (24, 'dwh_table_bytes', 'gauge', 'Size on disk with indexes and partitions.')),
    samples (position, labels, value) AS (
        SELECT 1, jsonb_build_object('model', w.model_version::text, 'version', e.extversion), 1::numeric
          FROM ops.warehouse AS w CROSS JOIN pg_extension AS e WHERE e.extname = 'dwh_ext'
         UNION ALL SELECT v.* FROM ledger AS l CROSS JOIN LATERAL (VALUES
               (2, '{}'::jsonb, l.loads::numeric), (3, '{}', coalesce(l.lines, 0)), (4, '{}', coalesce(l.bytes, 0)),
               (5, '{"outcome": "loaded"}', coalesce(l.loaded, 0)), (5, '{"outcome": "rejected"}', coalesce(l.rejected, 0)), (5, '{"outcome": "blank"}', coalesce(l.blank, 0)),
               (6, '{"outcome": "staged"}', coalesce(l.staged, 0)), (6, '{"outcome": "replayed"}', coalesce(l.replayed, 0)),
               (6, '{"outcome": "conflicting"}', coalesce(l.conflicting, 0)), (6, '{"outcome": "stage_rejected"}', coalesce(l.stage_rejected, 0)),
               (6, '{"outcome": "forgotten"}', coalesce(l.forgotten, 0)), (7, '{}', coalesce(l.facts, 0)),
               (10, '{"clock": "load"}', extract(epoch FROM now() - l.load)), (10, '{"clock": "event"}', extract(epoch FROM now() - l.event))) AS v
         UNION ALL SELECT 9, jsonb_build_object('status', k.status), count(h.load_id)
                     FROM unnest('{quarantined,stopped}'::text[]) AS k (status) LEFT JOIN dwh.held_loads() AS h ON h.status = k.status GROUP BY k.status
         UNION ALL SELECT 8, jsonb_build_object('step', e.step), e.waiting FROM dwh.explain_pipeline() AS e
         UNION ALL SELECT 11, jsonb_build_object('status', k.status), count(r.run_id)
                     FROM unnest('{running,succeeded,nothing_new,no_data,failed,dead}'::text[]) AS k (status) LEFT JOIN runs AS r ON r.status = k.status GROUP BY k.status
         UNION ALL SELECT f.position, '{}', extract(epoch FROM CASE f.position WHEN 12 THEN s.at - 'epoch' ELSE now() - s.at END)
                     FROM (SELECT max(r.finished_at) AS at FROM runs AS r WHERE r.status IN ('succeeded', 'nothing_new', 'no_data')) AS s, unnest('{12,13}'::integer[]) AS f (position)
         UNION ALL SELECT 14, '{}', (r.status IN ('failed', 'dead'))::integer FROM runs AS r WHERE r.run_id = (SELECT max(l.run_id) FROM runs AS l WHERE l.status <> 'running')
         UNION ALL SELECT 15, jsonb_build_object('step', s.step), extract(epoch FROM s.elapsed) FROM last_run AS s
         UNION ALL SELECT 16, jsonb_build_object('step', s.step, 'direction', d.direction), d.n FROM last_run AS s
                    CROSS JOIN LATERAL (VALUES ('in', s.rows_in), ('out', s.rows_out), ('rejected', s.rejected)) AS d (direction, n)
         UNION ALL SELECT 17, jsonb_build_object('step', s.step), s.wal_bytes FROM last_run AS s
         UNION ALL SELECT 18, jsonb_build_object('check', v.name, 'severity', v.severity), (v.status = 'fail')::integer FROM verdicts AS v
         UNION ALL SELECT 19, jsonb_build_object('check', v.name, 'severity', v.severity), v.observed FROM verdicts AS v
         UNION ALL SELECT 20, jsonb_build_object('state', k.state), count(m.state) FROM unnest('{first-fail,still-failing}'::text[]) AS k (state)
                     LEFT JOIN messages AS m ON m.state = k.state AND m.is_last GROUP BY k.state
         UNION ALL SELECT 21, jsonb_build_object('state', k.state), count(m.state) FROM unnest('{first-fail,still-failing,recovered}'::text[]) AS k (state)
                     LEFT JOIN messages AS m ON m.state = k.state AND m.delivered_at IS NULL GROUP BY k.state
         UNION ALL SELECT 22, '{}', coalesce(extract(epoch FROM now() - min(m.created_at)), 0) FROM messages AS m WHERE m.delivered_at IS NULL
         UNION ALL SELECT 23, jsonb_build_object('table', k."table"), count(p."table") FROM unnest('{staging.user_events,marts.fact_user_events}'::text[]) AS k ("table")
                     LEFT JOIN parts AS p ON p."table" = k."table" AND p.is_partition GROUP BY k."table"
         UNION ALL SELECT 24, jsonb_build_object('table', p."table"), sum(p.bytes) FROM parts AS p GROUP BY p."table" HAVING bool_and(p.bytes IS NOT NULL))
    SELECT f.name, s.labels, s.value::double precision, f.type, f.help
      FROM samples AS s JOIN families AS f ON f.position = s.position
     WHERE s.value IS NOT NULL ORDER BY f.position, s.labels::text COLLATE "C";
EXCEPTION WHEN undefined_table OR undefined_column THEN
    RAISE EXCEPTION 'there is no warehouse in this database, or one of another data model'
        USING ERRCODE = 'WH004', DETAIL = format('Asked for its metrics: %s.', SQLERRM), HINT = 'SELECT * FROM dwh.create_warehouse();';
END
$$;
COMMENT ON FUNCTION dwh.metrics() IS
'The state of the warehouse as numbers, named as Prometheus wants it. Seconds, bytes, rows. Returns one row a series: name of the metric, its labels, its value, whether it is a counter or a gauge, and what it means; docker/exporters reads it. Errors: 42501 without rights to the ledgers, WH004 without a warehouse. Reads ledgers alone, also on a standby; waits for nobody.';
