-- 97_status.sql: is all well, what waits, and what to do next: dwh.status(), dwh.explain_pipeline(), dwh.help().
--
-- Invariants: they read the ledgers' columns that hold no personal data and call no private function, so that a role with
-- rights to those alone can ask; they take no lock that a run holds, and write nothing.
-- Repeats are harmless: they only read.

CREATE FUNCTION dwh._index_loads() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    CREATE INDEX IF NOT EXISTS loads_held ON ops.loads (load_id) WHERE status IN ('quarantined', 'stopped');
    CREATE INDEX IF NOT EXISTS loads_replayed ON ops.loads (load_id) WHERE replayed > 0;
    CREATE INDEX IF NOT EXISTS loads_path ON ops.loads USING hash (path);
    CREATE INDEX IF NOT EXISTS loads_loaded_at ON ops.loads (loaded_at);
    CREATE INDEX IF NOT EXISTS loads_last_event ON ops.loads (last_event);
END
$$;
COMMENT ON FUNCTION dwh._index_loads() IS 'Makes the indexes that are missing by which ops.loads is asked without being read: what stands still, what is newest, what has replays, what has that path.';

-- NULL is never shown: a fixed order, one row an item, whatever the warehouse holds. One block, so that it sees one state.
CREATE FUNCTION dwh.status(OUT item text, OUT state text, OUT detail text) RETURNS SETOF record
LANGUAGE plpgsql STABLE ROWS 15 SET search_path = pg_catalog, pg_temp SET intervalstyle = 'postgres' SET jit = off AS $$
#variable_conflict use_column
DECLARE
    w record;
    r record;
    backlog record;
    is_at_work boolean;
    held text;
BEGIN
    SELECT string_agg(format('%s for %s', e.waiting, e.step), ', ' ORDER BY e.step_no) AS list INTO backlog   -- first: refuses what is no warehouse
      FROM dwh.explain_pipeline() AS e WHERE e.waiting > 0;
    SELECT w.model_version, n.nspowner::regrole::text AS owner INTO STRICT w
      FROM ops.warehouse AS w CROSS JOIN pg_namespace AS n WHERE n.nspname = 'ops';
    RETURN QUERY SELECT 'warehouse', 'ok', format('model %s, owner %s, %s', w.model_version, w.owner, pg_size_pretty(coalesce(sum(pg_total_relation_size(c.oid)), 0)))
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE n.nspname IN ('raw', 'staging', 'marts', 'ops') AND c.relkind IN ('r', 'm')
       -- to look at a size takes a lock: what a drop or rewrite holds is left out, not waited for
       AND NOT EXISTS (SELECT FROM pg_locks AS k WHERE k.database = (SELECT b.oid FROM pg_database AS b WHERE b.datname = current_database())
               AND k.mode = 'AccessExclusiveLock' AND k.pid IS DISTINCT FROM pg_backend_pid()
               AND (k.relation IN (c.oid, c.reltoastrelid) OR k.relation IN (SELECT x.indexrelid FROM pg_index AS x WHERE x.indrelid IN (c.oid, c.reltoastrelid))));

    SELECT l.load_id, l.status, l.lines, l.loaded, l.rejected, l.loaded_at, regexp_replace(l.path, '^.*/', '') AS file INTO r
      FROM ops.loads AS l WHERE l.status NOT IN ('quarantined', 'stopped') ORDER BY l.loaded_at DESC, l.load_id DESC LIMIT 1;
    RETURN QUERY SELECT 'last load', CASE WHEN r IS NULL THEN 'info' ELSE 'ok' END, CASE WHEN r IS NULL
        THEN E'none yet\nSELECT * FROM dwh.run_pipeline(); reads the landing directory' ELSE
        format(E'load %s, %s, %s ago: %s\n%s of %s lines loaded, %s refused', r.load_id, r.status, date_trunc('second', now() - r.loaded_at),
               r.file, r.loaded, r.lines, r.rejected) END;

    SELECT r.run_id, r.status, r.started_at, r.finished_at, r.sqlstate, s.step_no, s.step, a.pid,
           r.status = 'running' AND (pg_is_in_recovery() OR a.pid IS NOT NULL) AS is_at_work INTO r
      FROM ops.runs AS r
      LEFT JOIN LATERAL (SELECT s.step_no, s.step FROM ops.run_steps AS s WHERE s.run_id = r.run_id AND s.status IN ('running', 'failed')
                          ORDER BY s.step_no DESC LIMIT 1) AS s ON true
      -- backend_start and state are NULL for who may not see them; a run cannot ask this, and an idle backend has ended it
      LEFT JOIN pg_stat_activity AS a ON a.pid = r.pid AND a.pid <> pg_backend_pid()
           AND coalesce(a.backend_start <= r.started_at, true) AND coalesce(a.state <> 'idle', true)
     ORDER BY r.run_id DESC LIMIT 1;
    is_at_work := coalesce(r.is_at_work, false);
    RETURN QUERY SELECT 'last run', CASE WHEN r IS NULL OR is_at_work THEN 'info' WHEN r.status = 'running' THEN 'warn'
                                         WHEN r.status IN ('failed', 'dead') THEN 'fail' ELSE 'ok' END,
        CASE WHEN r IS NULL THEN E'none yet\nSELECT * FROM dwh.run_pipeline();'
             WHEN is_at_work THEN format('run %s at work for %s%s', r.run_id, date_trunc('second', now() - r.started_at), format(', step %s', r.step_no || ' ' || r.step))
             WHEN r.status = 'running' THEN format(E'run %s is dead: its backend or transaction is gone; the next run marks it\nSELECT * FROM dwh.run_pipeline();', r.run_id)
             WHEN r.status IN ('failed', 'dead') THEN format(E'run %s %s%s%s, %s ago\nSELECT run_id, status, sqlstate, started_at FROM ops.runs WHERE run_id = %s;', r.run_id, r.status,
                  ' in ' || r.step, ': ' || r.sqlstate, date_trunc('second', now() - coalesce(r.finished_at, r.started_at)), r.run_id)
             ELSE format('run %s, %s, %s ago, took %s', r.run_id, r.status, date_trunc('second', now() - r.finished_at),
                         date_trunc('milliseconds', r.finished_at - r.started_at)) END;

    RETURN QUERY SELECT 'backlog', CASE WHEN backlog.list IS NULL THEN 'ok' WHEN is_at_work THEN 'info' ELSE 'warn' END,
        coalesce('loads that wait: ' || backlog.list || E'\nSELECT * FROM dwh.run_pipeline();', 'no load waits for a step');

    FOREACH held IN ARRAY ARRAY['quarantined', 'stopped'] LOOP
        SELECT h.load_id, h.quarantined_by, regexp_replace(h.path, '^.*/', '') AS file, count(*) OVER () AS n INTO r
          FROM dwh.held_loads() AS h WHERE h.status = held ORDER BY h.load_id DESC LIMIT 1;
        RETURN QUERY SELECT held, CASE WHEN r IS NULL THEN 'ok' ELSE 'warn' END, CASE WHEN r IS NULL THEN 'no load' ELSE
            format(E'%s, the last is load %s: %s\n%s\nSELECT load_id, path, quarantined_by FROM dwh.held_loads();', r.n, r.load_id, r.file,
                   CASE WHEN r.quarantined_by IS NULL THEN 'mend the file, or dwh.load_jsonl(path, force => true)'
                        ELSE format('mend the file, or change the check %s (not force)', r.quarantined_by) END) END;
    END LOOP;

    SELECT coalesce(sum(l.rejected + l.stage_rejected), 0) AS refused, coalesce(sum(l.lines - l.blank), 0) AS lines, min(l.load_id) AS first INTO r
      FROM ops.loads AS l WHERE l.loaded_at > now() - interval '1 day';
    RETURN QUERY SELECT 'rejects', CASE r.refused WHEN 0 THEN 'ok' ELSE 'info' END, format('%s of %s lines refused in a day', r.refused, r.lines)
        || CASE r.refused WHEN 0 THEN '' ELSE format(E'\nSELECT load_id, path, rejected, stage_rejected FROM ops.loads WHERE load_id >= %s;', r.first) END;

    SELECT (SELECT max(l.loaded_at) FROM ops.loads AS l WHERE l.status NOT IN ('quarantined', 'stopped')) AS load,
           (SELECT max(l.last_event) FROM ops.loads AS l) AS event INTO r;
    RETURN QUERY SELECT 'freshness', 'info', format('last load %s, last event %s', coalesce(date_trunc('second', now() - r.load) || ' ago', 'never'),
        coalesce(date_trunc('second', now() - r.event) || ' ago', 'never'));

    SELECT count(*) AS n, count(v.status) AS judged, string_agg(c.name, ', ' ORDER BY c.position, c.name) FILTER (WHERE v.status = 'fail') AS failing,
           bool_or(v.status = 'fail' AND c.severity = 'error') AS is_error INTO r
      FROM ops.quality_checks AS c
      LEFT JOIN LATERAL (SELECT CASE WHEN q.accepted THEN 'pass' ELSE q.status END AS status FROM ops.quality_results AS q
                          WHERE q.name = c.name ORDER BY q.result_id DESC LIMIT 1) AS v ON true
     WHERE c.enabled;
    RETURN QUERY SELECT 'checks', CASE WHEN r.is_error THEN 'fail' WHEN r.failing IS NOT NULL THEN 'warn' WHEN r.judged = 0 THEN 'info' ELSE 'ok' END,
        coalesce('failing: ' || r.failing || E'\nSELECT name, observed, allowed FROM ops.quality_results WHERE status = ''fail'';',
                 format('none of %s fails%s', r.n, CASE r.judged WHEN r.n THEN '' ELSE format(', %s not run yet', r.n - r.judged) END));

    SELECT count(*) AS n, string_agg(CASE a.dedupe_key WHEN 'run:' THEN 'run:(landing directory)' WHEN 'files:' THEN 'files:(landing directory)' ELSE a.dedupe_key END, ', '
           ORDER BY a.alert_id) AS keys, bool_or(a.severity = 'error') AS is_error INTO r
      FROM (SELECT DISTINCT ON (a.dedupe_key) a.alert_id, a.dedupe_key, a.state, a.severity FROM ops.alerts AS a
             ORDER BY a.dedupe_key, a.alert_id DESC) AS a WHERE a.state <> 'recovered';
    RETURN QUERY SELECT 'incidents', CASE WHEN r.is_error THEN 'fail' WHEN r.n > 0 THEN 'warn' ELSE 'ok' END,
        CASE r.n WHEN 0 THEN 'none open' ELSE format(E'%s open: %s\nSELECT alert_id, dedupe_key, state, run_id FROM ops.alerts ORDER BY 1 DESC;', r.n,
            CASE WHEN length(r.keys) > 60 THEN substr(r.keys, 1, 57) || '...' ELSE r.keys END) END;
    SELECT count(*) AS n, min(a.created_at) AS oldest, max(a.attempts) AS attempts INTO r FROM ops.alerts AS a WHERE a.delivered_at IS NULL;
    RETURN QUERY SELECT 'messages', CASE r.n WHEN 0 THEN 'ok' ELSE 'warn' END, CASE r.n WHEN 0 THEN 'none waits to be delivered' ELSE
        format(E'%s not delivered, the oldest for %s, tried %s times: is a sender at work?\nSELECT alert_id, next_at, attempts FROM ops.alerts WHERE delivered_at IS NULL;',
               r.n, date_trunc('second', now() - r.oldest), r.attempts) END;

    r := NULL;
    IF EXISTS (SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = 'cron' AND c.relname = 'job'
                  AND EXISTS (SELECT FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid AND e.extname = 'pg_cron'   -- nobody else's
                               WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e')
                  AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')) THEN
        EXECUTE 'SELECT min(j.schedule) AS schedule, bool_or(j.active) AS active FROM cron.job AS j
                  WHERE j.jobname = ''dwh_run_pipeline'' AND j.database = current_database()' INTO r;
        RETURN QUERY SELECT 'schedule', CASE WHEN r.active THEN 'ok' WHEN r.active IS NULL THEN 'info' ELSE 'warn' END,
            CASE WHEN r.active THEN r.schedule WHEN r.active IS NULL THEN E'none that you can see\nSELECT * FROM dwh.schedule_pipeline();'
                 ELSE r.schedule || E', switched off\nSELECT * FROM dwh.schedule_pipeline();' END;
    ELSE
        RETURN QUERY SELECT 'schedule', 'info', 'pg_cron is not in this database, or not yours to read';
    END IF;
    RETURN QUERY SELECT 'evidence', CASE s.setting WHEN '0' THEN 'fail' ELSE 'ok' END, CASE s.setting WHEN '0'
        THEN E'max_worker_processes is 0: a run that fails leaves no trace\nALTER SYSTEM SET max_worker_processes = 8; and restart'
        ELSE format('of failing runs by a background worker (max_worker_processes is %s)', s.setting) END
      FROM pg_settings AS s WHERE s.name = 'max_worker_processes';
EXCEPTION WHEN undefined_table OR undefined_column OR no_data_found THEN
    RAISE EXCEPTION 'there is no warehouse in this database, or one of another data model'
        USING ERRCODE = 'WH004', DETAIL = format('Asked for its status: %s.', SQLERRM), HINT = 'SELECT * FROM dwh.create_warehouse();';
END
$$;
COMMENT ON FUNCTION dwh.status() IS
'One screen: is all well, what waits, and what to do next. Ages are clock time. Returns one row an item, in a fixed order: state is ok, info, warn or fail, and detail ends with the next command where there is something to do. Errors: 42501 without rights to the ledgers, WH004 without a warehouse. Reads ledgers alone, also on a standby; waits for nobody.';

-- A load waits for each step that would take it now: after staging for two of them.
CREATE FUNCTION dwh.explain_pipeline(OUT step_no integer, OUT step text, OUT reads text[], OUT writes text[], OUT waiting bigint, OUT does text)
RETURNS SETOF record
LANGUAGE plpgsql STABLE ROWS 6 SET search_path = pg_catalog, pg_temp SET jit = off AS $$
#variable_conflict use_column
BEGIN
    IF EXISTS (SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = 'ops' AND c.relkind <> 'r'
                  AND c.relname IN ('warehouse', 'loads', 'runs', 'run_steps', 'quality_checks', 'quality_results', 'alerts')) THEN
        RAISE EXCEPTION 'schema ops holds views in the place of tables'   -- whose functions would run as the caller
            USING ERRCODE = 'undefined_table', DETAIL = 'They are not of a warehouse.', HINT = 'SELECT * FROM dwh.create_warehouse();';
    END IF;
    RETURN QUERY
    WITH open AS MATERIALIZED (
        SELECT l.staged_at, l.users_at, l.products_at, l.facts_at, l.status = 'quarantined' AS is_quarantined, l.status = 'stopped' AS is_stopped
          FROM ops.loads AS l WHERE l.checked_at IS NULL),
    counted AS MATERIALIZED (
        SELECT count(*) FILTER (WHERE o.staged_at IS NULL AND NOT o.is_quarantined) AS stage_events,
               count(*) FILTER (WHERE o.staged_at IS NOT NULL AND o.users_at IS NULL AND NOT o.is_quarantined) AS apply_scd2,
               count(*) FILTER (WHERE o.staged_at IS NOT NULL AND o.products_at IS NULL AND NOT o.is_quarantined) AS upsert_products,
               count(*) FILTER (WHERE o.users_at IS NOT NULL AND o.products_at IS NOT NULL AND o.facts_at IS NULL AND NOT o.is_quarantined) AS load_facts,
               count(*) FILTER (WHERE o.facts_at IS NOT NULL OR o.is_quarantined) AS run_quality_checks
          FROM open AS o WHERE NOT o.is_stopped)
    SELECT s.step_no, s.step, s.reads::text[], s.writes::text[], s.waiting, s.does
      FROM counted AS c CROSS JOIN LATERAL (VALUES
        (1, 'load_jsonl', '{files,ops.files,ops.loads}', '{raw.user_events,ops.loads,ops.files,ops.rejects}', NULL::bigint,
         'lines of new and grown files become raw events, refused ones rejects'),
        (2, 'stage_events', '{raw.user_events,ops.loads,ops.event_filter,ops.forgotten_users,staging.user_events,marts.fact_user_events}',
         '{staging.user_events,ops.event_filter,ops.event_conflicts,ops.rejects,ops.loads,ops.warehouse}', c.stage_events,
         'raw events are typed, and each event_id staged once; replays are counted, conflicts kept'),
        (3, 'apply_scd2', '{staging.user_events,ops.loads,marts.dim_user}', '{marts.dim_user,marts.fact_user_events,ops.loads,ops.warehouse}', c.apply_scd2,
         'versions of users are opened, closed, split and moved; facts follow to the version of their time'),
        (4, 'upsert_products', '{staging.user_events,ops.loads,marts.dim_product,marts.dim_product_price}',
         '{marts.dim_product,marts.dim_product_price,ops.loads,ops.warehouse}', c.upsert_products,
         'products take their newest attributes, prices their intervals'),
        (5, 'load_facts', '{staging.user_events,ops.loads,marts.dim_user,marts.dim_product}', '{marts.fact_user_events,ops.loads,ops.warehouse}', c.load_facts,
         'staged events become facts, with the keys of their version and product'),
        (6, 'run_quality_checks', '{raw.user_events,staging.user_events,marts.*,ops.*}', '{ops.quality_results,ops.loads,ops.alerts}', c.run_quality_checks,
         'every enabled check looks at the new loads; one of severity error that fails stops the run'))
        AS s (step_no, step, reads, writes, waiting, does)
     ORDER BY s.step_no;
EXCEPTION WHEN undefined_table OR undefined_column THEN
    RAISE EXCEPTION 'there is no warehouse in this database, or one of another data model'
        USING ERRCODE = 'WH004', DETAIL = format('Asked what waits for the pipeline: %s.', SQLERRM), HINT = 'SELECT * FROM dwh.create_warehouse();';
END
$$;
COMMENT ON FUNCTION dwh.explain_pipeline() IS
'What each step of a run reads and writes, and how many loads it would take now. Returns one row a step, in order; waiting is NULL for load_jsonl, which looks at files. Errors: 42501 without rights to ops.loads, WH004 without a warehouse. Reads only.';

CREATE FUNCTION dwh.help(OUT name text, OUT arguments text, OUT does text) RETURNS SETOF record
LANGUAGE sql STABLE ROWS 50 SET search_path = pg_catalog, pg_temp AS $$
    SELECT p.proname::text,
           CASE WHEN p.prokind = 'a' THEN pg_get_function_identity_arguments(p.oid) ELSE coalesce(
               (SELECT string_agg(CASE WHEN a.position > p.pronargs - p.pronargdefaults THEN format('[%s]', a.name) ELSE a.name END, ', ' ORDER BY a.position)
                  FROM unnest(p.proargnames) WITH ORDINALITY AS a (name, position) WHERE a.position <= p.pronargs), '') END,
           coalesce(substring(obj_description(p.oid, 'pg_proc') FROM '^(.*?\.)(?=\s|$)'), obj_description(p.oid, 'pg_proc'))
      FROM pg_proc AS p
     WHERE p.pronamespace = 'dwh'::regnamespace AND NOT starts_with(p.proname::text, '_')
     ORDER BY array_position(ARRAY['create_warehouse', 'generate_events', 'landing_directory', 'run_pipeline', 'schedule_pipeline', 'unschedule_pipeline',
                  'status', 'help', 'explain_pipeline', 'trace', 'metrics',
                  'load_jsonl', 'stage_events', 'apply_scd2', 'upsert_products', 'load_facts', 'run_quality_checks', 'add_quality_check', 'check_kinds', 'retry_rejects',
                  'claim_alerts', 'ack_alert', 'fail_alert', 'forget_user', 'drop_before', 'prune_history', 'grant_roles',
                  'typed_events', 'user_versions', 'product_state', 'product_prices', 'resolved_facts', 'fact_partitions', 'held_loads',
                  'event_id', 'parse_event', 'last_known', 'sample_events', 'dirty_kinds'], p.proname::text),   -- what is new comes last
              p.proname::text COLLATE "C", pg_get_function_identity_arguments(p.oid) COLLATE "C" DESC
$$;
COMMENT ON FUNCTION dwh.help() IS
'The functions of schema dwh in the order in which one meets them. Returns one row a function: its arguments, in brackets those that may be left out, and the first sentence of its comment; \df+ dwh.* shows the whole of it. Errors: none. Reads the catalog alone.';
