-- 90_quality_checks.sql: is everything there, once, and where it belongs?
--
-- A check is a row of ops.quality_checks: a query whose rows are offenders. $1 is the loads to look at, NULL = all.
-- Invariant: what a built-in check reads for some loads grows with them and their users, not with the history, whatever the
-- statistics say. Rows of the loads are found by index (dwh._evaluate_checks sees to it), in partitions from their first
-- event on; facts meet staged events in a FULL JOIN, which is never a nested loop: that would be quadratic where the planner
-- expects one row of a load that it has not heard of yet.
-- Repeats are harmless: verdicts are added, nothing else changes.

CREATE FUNCTION dwh._first_event(load_ids bigint[]) RETURNS timestamptz
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(CASE WHEN bool_and(l.first_event IS NOT NULL OR l.staged = 0) THEN min(l.first_event) END, '-infinity')
      FROM ops.loads AS l WHERE l.load_id = ANY (load_ids)
$$;
COMMENT ON FUNCTION dwh._first_event(bigint[]) IS
'No event staged of these loads is earlier; -infinity for NULL = all, or where a load does not say.';

-- Nouns without a SET clause, so that they are inlined: what reads them is planned for these loads, or for all. A row that
-- stands before its load's time is left to "conservation", which counts without bounds.
CREATE FUNCTION dwh._staged_of(load_ids bigint[])
RETURNS TABLE (event_id uuid, event_time timestamptz, event_type text, user_id text, load_id bigint, line_no bigint)
LANGUAGE sql STABLE AS $$
    SELECT s.event_id, s.event_time, s.event_type, s.user_id, s.load_id, s.line_no FROM staging.user_events AS s
     WHERE load_ids IS NULL OR s.load_id = ANY (load_ids)
       AND s.event_time >= (SELECT dwh._first_event(load_ids))
$$;
COMMENT ON FUNCTION dwh._staged_of(bigint[]) IS 'The staged events of these loads, NULL = all: what the checks read.';

CREATE FUNCTION dwh._facts_of(load_ids bigint[])
RETURNS TABLE (
    event_id uuid, event_time timestamptz, event_type text, user_key bigint, product_key bigint, load_id bigint, line_no bigint)
LANGUAGE sql STABLE AS $$
    SELECT f.event_id, f.event_time, f.event_type, f.user_key, f.product_key, f.load_id, f.line_no FROM marts.fact_user_events AS f
     WHERE load_ids IS NULL OR f.load_id = ANY (load_ids)
       AND f.event_time >= (SELECT dwh._first_event(load_ids))
$$;
COMMENT ON FUNCTION dwh._facts_of(bigint[]) IS 'The facts of these loads, NULL = all: what the checks read.';

CREATE FUNCTION dwh._versions_of(load_ids bigint[])
RETURNS TABLE (user_key bigint, user_id text, valid_from timestamptz, valid_to timestamptz)
LANGUAGE sql STABLE AS $$
    SELECT d.user_key, d.user_id, d.valid_from, d.valid_to FROM marts.dim_user AS d WHERE load_ids IS NULL
     UNION ALL
    SELECT d.user_key, d.user_id, d.valid_from, d.valid_to
      FROM (SELECT s.user_id, coalesce(
                   (SELECT pg_catalog.max(b.valid_from) FROM marts.dim_user AS b
                     WHERE b.user_id = s.user_id AND b.valid_from < pg_catalog.min(s.event_time)), pg_catalog.min(s.event_time)) AS since
              FROM dwh._staged_of(load_ids) AS s WHERE load_ids IS NOT NULL GROUP BY s.user_id) AS u
      JOIN marts.dim_user AS d ON d.user_id = u.user_id AND d.valid_from >= u.since
$$;
COMMENT ON FUNCTION dwh._versions_of(bigint[]) IS
'The versions of the users of these loads, from the one on that was valid before their first event of the loads; NULL = all.';

CREATE FUNCTION dwh._built_in_checks()
RETURNS TABLE ("position" integer, name text, severity text, description text, query text)
LANGUAGE sql IMMUTABLE AS $check$
VALUES
(10, 'conservation', 'error',
 'For each load: lines = loaded + rejected + blank; loaded = staged + replayed + conflicting + stage_rejected + forgotten; staged = facts; and the tables hold just as many rows, less those that drop_before() took.',
$$
SELECT l.load_id, l.path, l.lines, l.loaded, l.rejected, l.blank, l.staged, l.replayed, l.conflicting, l.stage_rejected,
       l.forgotten, l.facts, l.raw_dropped, l.staging_dropped, l.facts_dropped, c.*
  FROM ops.loads AS l
 CROSS JOIN LATERAL (SELECT
       (SELECT count(*) FROM raw.user_events AS r WHERE r.load_id = l.load_id) AS raw_rows,
       (SELECT count(*) FROM ops.rejects AS j WHERE j.load_id = l.load_id AND j.stage = 'load') AS reject_rows,
       (SELECT count(*) FROM ops.rejects AS j WHERE j.load_id = l.load_id AND j.stage = 'stage') AS stage_reject_rows,
       (SELECT count(*) FROM staging.user_events AS s WHERE s.load_id = l.load_id) AS staging_rows,
       (SELECT count(*) FROM ops.event_conflicts AS x WHERE x.load_id = l.load_id) AS conflict_rows,
       (SELECT count(*) FROM marts.fact_user_events AS f WHERE f.load_id = l.load_id) AS fact_rows) AS c
 WHERE l.status NOT IN ('quarantined', 'stopped') AND ($1 IS NULL OR l.load_id = ANY ($1))
   AND (l.lines <> l.loaded + l.rejected + l.blank
        OR l.loaded - l.forgotten - l.raw_dropped <> c.raw_rows OR l.rejected <> c.reject_rows
        OR l.staged_at IS NOT NULL AND (
           l.loaded <> l.staged + l.replayed + l.conflicting + l.stage_rejected + l.forgotten
           OR l.staged - l.staging_dropped <> c.staging_rows OR l.stage_rejected <> c.stage_reject_rows OR l.conflicting <> c.conflict_rows)
        OR l.facts_at IS NOT NULL AND (l.staged <> l.facts OR l.facts - l.facts_dropped <> c.fact_rows))
$$),
(20, 'reject_share', 'error',
 'No load has more than dwh.max_reject_share (0.1: at least 90 % must get through) of its non-blank lines refused, by either step, and at least 10 of them or all.',
$$
SELECT l.load_id, l.path, l.status, l.lines - l.blank AS lines, l.rejected + l.stage_rejected AS refused,
       round(1 - (l.rejected + l.stage_rejected)::numeric / nullif(l.lines - l.blank, 0), 6) AS load_ratio
  FROM ops.loads AS l
 WHERE l.status <> 'stopped' AND NOT l.forced AND dwh._is_poisoned(l.rejected + l.stage_rejected, l.lines - l.blank)
   AND ($1 IS NULL AND l.status <> 'quarantined' OR l.load_id = ANY ($1))
$$),
(30, 'null_key_columns', 'error',
 'No staged event is without event_id, event_time, event_type or user_id, no fact without its keys.',
$$
SELECT s.load_id, s.line_no, 'staging' AS layer FROM dwh._staged_of($1) AS s
 WHERE s.event_id IS NULL OR s.event_time IS NULL OR s.event_type IS NULL OR s.user_id IS NULL
 UNION ALL
SELECT f.load_id, f.line_no, 'facts' FROM dwh._facts_of($1) AS f
 WHERE f.event_id IS NULL OR f.event_time IS NULL OR f.event_type IS NULL OR f.user_key IS NULL OR f.product_key IS NULL
$$),
(40, 'duplicate_event_id', 'error',
 'Every event_id is one fact, and every fact is the staged event of its line, unless that was dropped from staging; the filter of known ids holds as many as were staged (else SELECT dwh._rebuild_event_filter()). Of some loads: their facts among themselves.',
$$
SELECT f.event_id, count(*) AS facts FROM dwh._facts_of($1) AS f GROUP BY f.event_id HAVING count(*) > 1
 UNION ALL
SELECT f.event_id, 1
  FROM (SELECT i.* FROM dwh._facts_of($1) AS i
         WHERE i.event_time >= (SELECT coalesce(w.staging_since, '-infinity') FROM ops.warehouse AS w)) AS f
  FULL JOIN dwh._staged_of($1) AS s ON s.load_id = f.load_id AND s.line_no = f.line_no
 WHERE coalesce(f.event_id <> s.event_id, f.event_id IS NOT NULL)
 UNION ALL
SELECT NULL, m.missing FROM (SELECT (SELECT sum(l.staged - l.facts_dropped) FROM ops.loads AS l) - coalesce(sum(f.ids), 0) AS missing
                               FROM ops.event_filter AS f) AS m WHERE m.missing > 0
$$),
(50, 'referential', 'error',
 'Every fact has its user version and its product.',
$$
SELECT f.event_id, f.user_key, f.product_key FROM dwh._facts_of($1) AS f
  LEFT JOIN marts.dim_user AS d ON d.user_key = f.user_key
  LEFT JOIN marts.dim_product AS p ON p.product_key = f.product_key
 WHERE d.user_key IS NULL OR p.product_key IS NULL
$$),
(60, 'one_current_version', 'error',
 'Every user with events has exactly one current version.',
$$
SELECT u.user_id, count(d.user_key) AS current_versions
  FROM (SELECT DISTINCT s.user_id FROM dwh._staged_of($1) AS s
         WHERE s.load_id NOT IN (SELECT l.load_id FROM ops.loads AS l   -- staged, but not applied yet
                                  WHERE l.checked_at IS NULL AND l.staged_at IS NOT NULL AND l.users_at IS NULL)) AS u
  LEFT JOIN marts.dim_user AS d ON d.user_id = u.user_id AND d.is_current
 GROUP BY u.user_id HAVING count(d.user_key) <> 1
$$),
(70, 'version_intervals', 'error',
 'The versions of a user neither overlap nor leave a gap: each ends where the next one starts. Of some loads: from the user''s first event of theirs on.',
$$
SELECT v.user_id, v.user_key, v.valid_from, v.valid_to, v.next_from
  FROM (SELECT d.*, lead(d.valid_from) OVER (PARTITION BY d.user_id ORDER BY d.valid_from) AS next_from
          FROM dwh._versions_of($1) AS d) AS v
 WHERE v.valid_to IS DISTINCT FROM v.next_from
$$),
(75, 'price_intervals', 'error',
 'The prices of a product neither overlap nor leave a gap, one differs from the next, and the open one is the product''s.',
$$
WITH touched AS MATERIALIZED (   -- since when: what was before has not changed
    SELECT p.product_key, p.price, min(s.event_time) AS since
      FROM staging.user_events AS s JOIN marts.dim_product AS p ON p.product_id = s.product_id
     WHERE s.load_id = ANY ($1) AND s.price IS NOT NULL GROUP BY p.product_key
     UNION ALL
    SELECT p.product_key, p.price, '-infinity' FROM marts.dim_product AS p WHERE $1 IS NULL)
SELECT t.product_key, t.price AS product_price, v.*
  FROM touched AS t
  LEFT JOIN LATERAL (
       SELECT d.*, lead(d.valid_from) OVER w AS next_from, lead(d.price) OVER w AS next_price
         FROM marts.dim_product_price AS d
        WHERE d.product_key = t.product_key AND d.valid_from >= coalesce((SELECT max(b.valid_from)
              FROM marts.dim_product_price AS b WHERE b.product_key = t.product_key AND b.valid_from < t.since), '-infinity')
       WINDOW w AS (ORDER BY d.valid_from)) AS v ON true
 WHERE v.valid_to IS DISTINCT FROM v.next_from OR v.price = v.next_price
    OR v.next_from IS NULL AND v.price IS DISTINCT FROM t.price
       AND NOT EXISTS (SELECT FROM ops.loads AS l WHERE l.checked_at IS NULL AND l.staged_at IS NOT NULL AND l.products_at IS NULL)
$$),
(80, 'event_in_version', 'error',
 'Every fact points to a version of its own user that is valid at its event_time.',
$$
SELECT f.event_id, f.event_time, f.user_key, d.valid_from, d.valid_to, s.user_id
  FROM dwh._facts_of($1) AS f
  FULL JOIN dwh._staged_of($1) AS s ON s.load_id = f.load_id AND s.line_no = f.line_no
  LEFT JOIN marts.dim_user AS d ON d.user_key = f.user_key
 WHERE coalesce(f.event_time < d.valid_from OR f.event_time >= d.valid_to OR d.user_id <> s.user_id, false)
$$),
(90, 'event_conflicts', 'warn',
 'No event came with the event_id of another one.',
$$
SELECT c.event_id, c.load_id, c.line_no, c.kept_load_id, c.kept_line_no FROM ops.event_conflicts AS c
 WHERE $1 IS NULL OR c.load_id = ANY ($1)
$$)
$check$;
COMMENT ON FUNCTION dwh._built_in_checks() IS 'The checks that create_warehouse() puts into ops.quality_checks.';

CREATE FUNCTION dwh._add_quality_checks() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- text comes with the version; severity, limit and the switch are the user's
    INSERT INTO ops.quality_checks AS c (position, name, severity, description, query)
    SELECT b.position, b.name, b.severity, b.description, b.query FROM dwh._built_in_checks() AS b
        ON CONFLICT (name) DO UPDATE SET position = excluded.position, description = excluded.description, query = excluded.query
        WHERE (c.position, c.description, c.query) IS DISTINCT FROM (excluded.position, excluded.description, excluded.query);
END
$$;
COMMENT ON FUNCTION dwh._add_quality_checks() IS 'Adds the built-in checks that are missing to ops.quality_checks and brings their queries up to date.';

-- Noun: the verdicts, computed and not kept.
CREATE FUNCTION dwh._evaluate_checks(load_ids bigint[])
RETURNS TABLE (name text, severity text, status text, observed bigint, allowed bigint, offenders jsonb, elapsed interval)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET jit = off AS $$
#variable_conflict use_column
DECLARE
    quality_check record;
    began timestamptz;
    takes_loads boolean;
    settings jsonb := jsonb_object_agg(s.name, s.setting) FROM pg_settings AS s WHERE s.name IN ('enable_seqscan', 'enable_nestloop');
    -- Statistics of tables that grow are of yesterday, or missing, and of a load that it has not heard of the planner
    -- expects a row or so. So its rows are found by index; and where the ledger says that they are many, beside the
    -- versions that there are (about 100 bytes each), both are read once and hashed.
    is_large boolean := sum(l.staged) * 500 > pg_relation_size('marts.dim_user') FROM ops.loads AS l WHERE l.load_id = ANY (load_ids);
BEGIN
    FOR quality_check IN SELECT c.* FROM ops.quality_checks AS c WHERE c.enabled ORDER BY c.position, c.name LOOP
        began := clock_timestamp();
        name := quality_check.name;
        severity := quality_check.severity;
        allowed := coalesce(quality_check.max_offenders, 0);
        takes_loads := load_ids IS NOT NULL AND strpos(quality_check.query, '$1') > 0;
        PERFORM set_config('enable_seqscan', CASE WHEN takes_loads THEN 'off' ELSE settings ->> 'enable_seqscan' END, true),
                set_config('enable_nestloop', CASE WHEN takes_loads AND is_large THEN 'off' ELSE settings ->> 'enable_nestloop' END, true);
        BEGIN   -- the query stands on lines of its own: it may end in a comment
            EXECUTE format(E'SELECT count(*), jsonb_agg(o.offender) FILTER (WHERE o.position <= 10) FROM (\n'
                            'SELECT to_jsonb(q.*) AS offender, row_number() OVER () AS position FROM (\n%s\n) AS q) AS o', quality_check.query)
               INTO observed, offenders USING load_ids;
        EXCEPTION WHEN OTHERS THEN
            IF severity = 'warn' THEN   -- only written down, as a failure
                observed := allowed + 1;
                offenders := jsonb_build_array(jsonb_build_object('sqlstate', SQLSTATE, 'error', SQLERRM));
            ELSE
                RAISE EXCEPTION 'quality check "%" could not be run: %', quality_check.name, SQLERRM
                    USING ERRCODE = SQLSTATE,
                          DETAIL = 'Its query in ops.quality_checks ended with this error.',
                          HINT = format('Correct the query, or UPDATE ops.quality_checks SET enabled = false WHERE name = %L.', quality_check.name);
            END IF;
        END;
        status := CASE WHEN observed > allowed THEN 'fail' ELSE 'pass' END;
        elapsed := clock_timestamp() - began;
        RETURN NEXT;
    END LOOP;
    PERFORM set_config(before.key, before.value, true) FROM jsonb_each_text(settings) AS before;
END
$$;
COMMENT ON FUNCTION dwh._evaluate_checks(bigint[]) IS
'The verdicts of all enabled checks on these loads (NULL = all), with the first ten offenders of each.';

CREATE FUNCTION dwh._alerts_of_checks(results jsonb, run_id bigint) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object('dedupe_key', 'check:' || (r ->> 'name'), 'severity', r ->> 'severity', 'run_id', run_id,
               'title', format('quality check %s failed', r ->> 'name'),
               'body', jsonb_strip_nulls(jsonb_build_object('check', r ->> 'name', 'observed', r -> 'observed', 'allowed', r -> 'allowed',
                   'sqlstate', CASE WHEN r ->> 'severity' = 'error' THEN 'WH001' END)))), '[]')
      FROM jsonb_array_elements(results) AS r WHERE r ->> 'status' = 'fail'
$$;
COMMENT ON FUNCTION dwh._alerts_of_checks(jsonb, bigint) IS 'The alerts of verdicts that are failures, as dwh._write_evidence takes them.';

-- The evidence of a verdict that stops something: results, quarantined loads with their first rejects, and an alert.
CREATE FUNCTION dwh._evidence_of_checks(results jsonb, checked bigint[], load_ids bigint[], run_id bigint) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object(
        'results', (SELECT jsonb_agg(r || jsonb_build_object('run_id', run_id, 'load_ids', checked)) FROM jsonb_array_elements(results) AS r),
        'loads', (SELECT jsonb_agg(to_jsonb(l) || jsonb_build_object('run_id', run_id, 'checked_at', clock_timestamp()))
                    FROM ops.loads AS l WHERE l.load_id = ANY (load_ids) AND l.status = 'quarantined'),
        'files', (SELECT jsonb_agg(to_jsonb(f)) FROM ops.files AS f JOIN ops.loads AS l USING (load_id)
                   WHERE l.load_id = ANY (load_ids) AND l.status = 'quarantined'),
        'rejects', (SELECT jsonb_agg(to_jsonb(j)) FROM (
                      SELECT f.* FROM ops.loads AS l
                       CROSS JOIN LATERAL (SELECT r.* FROM ops.rejects AS r WHERE r.load_id = l.load_id
                                            ORDER BY r.line_no LIMIT 1000) AS f
                       WHERE l.load_id = ANY (load_ids) AND l.status = 'quarantined') AS j),
        'alerts', dwh._alerts_of_checks(results, run_id))
$$;
COMMENT ON FUNCTION dwh._evidence_of_checks(jsonb, bigint[], bigint[], bigint) IS
'What must survive when these verdicts stop a run or a call, as dwh._write_evidence takes it. checked: the loads that were looked at, NULL = all; load_ids: those among which quarantined ones are new.';

CREATE FUNCTION dwh._has_failed(results jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM jsonb_array_elements(results) AS r WHERE r ->> 'status' = 'fail' AND r ->> 'severity' = 'error')
$$;
COMMENT ON FUNCTION dwh._has_failed(jsonb) IS 'True if a verdict of severity error is a failure.';

CREATE FUNCTION dwh._raise_failed_checks(results jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    failed text;
    first record;
BEGIN
    SELECT string_agg(r ->> 'name', ', ') INTO failed FROM jsonb_array_elements(results) AS r
     WHERE r ->> 'status' = 'fail' AND r ->> 'severity' = 'error';
    IF failed IS NULL THEN
        SELECT string_agg(format('%s (%s)', r ->> 'name', r ->> 'observed'), ', ') INTO failed FROM jsonb_array_elements(results) AS r
         WHERE r ->> 'status' = 'fail';
        IF failed IS NOT NULL THEN
            RAISE WARNING 'quality checks of severity warn failed: %', failed
                USING HINT = 'SELECT * FROM ops.quality_results WHERE status = ''fail'' ORDER BY result_id DESC shows the first offenders.';
        END IF;
        RETURN;
    END IF;
    SELECT r ->> 'name' AS name, r ->> 'observed' AS observed, r ->> 'allowed' AS allowed, r -> 'offenders' -> 0 AS offender
      INTO first FROM jsonb_array_elements(results) AS r WHERE r ->> 'status' = 'fail' AND r ->> 'severity' = 'error' LIMIT 1;
    RAISE EXCEPTION 'quality checks failed: %', failed
        USING ERRCODE = 'WH001',
              DETAIL = format('%s found %s, allowed are %s; the first: %s.', first.name, first.observed, first.allowed,
                              left(first.offender::text, 500)),
              HINT = CASE WHEN first.name = 'reject_share' AND first.offender ->> 'status' = 'quarantined' THEN format(
                  'The load is quarantined and left out from now on. SELECT * FROM ops.rejects WHERE load_id = %s shows why. Mend the file, raise dwh.max_reject_share, or load it with force => true.',
                  first.offender ->> 'load_id')
                  WHEN first.name = 'reject_share' THEN format(
                  'Load %s was let through staging with a larger dwh.max_reject_share: check it with the same setting.', first.offender ->> 'load_id')
                  ELSE 'SELECT * FROM ops.quality_results WHERE status = ''fail'' ORDER BY result_id DESC shows the verdicts and the first offenders.' END;
END
$$;
COMMENT ON FUNCTION dwh._raise_failed_checks(jsonb) IS 'Raises WH001 if a verdict of severity error is a failure; a WARNING names failures of severity warn.';

CREATE FUNCTION dwh.run_quality_checks(load_id bigint DEFAULT NULL, "full" boolean DEFAULT false)
RETURNS TABLE (name text, severity text, status text, observed bigint, allowed bigint, offenders jsonb, elapsed interval)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
#variable_conflict use_column
DECLARE
    load_ids bigint[];
    checked bigint[];   -- NULL = all
    results jsonb;
BEGIN
    PERFORM dwh._require_warehouse();
    PERFORM dwh._require_load(run_quality_checks.load_id);
    PERFORM dwh._lock_pipeline();
    load_ids := ARRAY(SELECT l.load_id FROM ops.loads AS l
                       WHERE CASE WHEN run_quality_checks.load_id IS NULL
                                  THEN l.checked_at IS NULL AND l.status <> 'stopped' AND (l.facts_at IS NOT NULL OR l.status = 'quarantined')
                                  ELSE l.load_id = run_quality_checks.load_id END
                       ORDER BY l.load_id);
    checked := CASE WHEN NOT "full" THEN load_ids END;
    SELECT jsonb_agg(to_jsonb(e)) INTO results FROM dwh._evaluate_checks(checked) AS e;
    IF dwh._has_failed(results) THEN
        PERFORM dwh._record_evidence(dwh._evidence_of_checks(results, checked, load_ids, NULL));
        PERFORM dwh._raise_failed_checks(results);
    END IF;
    PERFORM dwh._keep_results(results, checked, load_ids, NULL);
    PERFORM dwh._raise_failed_checks(results);
    RETURN QUERY SELECT r.* FROM jsonb_to_recordset(results)
        AS r (name text, severity text, status text, observed bigint, allowed bigint, offenders jsonb, elapsed interval);
END
$$;
REVOKE EXECUTE ON FUNCTION dwh.run_quality_checks(bigint, boolean) FROM PUBLIC;
COMMENT ON FUNCTION dwh.run_quality_checks(bigint, boolean) IS
'Runs every enabled check of ops.quality_checks on a load, or on every load not checked yet; full => true looks at all loads. Returns one row a check: offenders found and allowed, the first ten of them, clock time; all of it is kept in ops.quality_results. Errors: WH001 if a check of severity error fails (the verdicts are kept all the same, a load with too many refused lines is quarantined and left alone from then on), P0002 for an unknown load, WH004 without a warehouse. A repeat checks again and adds verdicts.';

CREATE FUNCTION dwh._keep_results(results jsonb, checked bigint[], load_ids bigint[], run_id bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    INSERT INTO ops.quality_results (run_id, load_ids, name, severity, status, observed, allowed, offenders)
    SELECT _keep_results.run_id, _keep_results.checked, r.name, r.severity, r.status, r.observed, r.allowed, r.offenders
      FROM jsonb_to_recordset(results)
        AS r (name text, severity text, status text, observed bigint, allowed bigint, offenders jsonb);
    PERFORM dwh._raise_alert(n.dedupe_key, n.severity, n.title, n.body, n.run_id)
       FROM jsonb_populate_recordset(NULL::ops.alerts, dwh._alerts_of_checks(results, run_id)) AS n;
    PERFORM dwh._recover_alert('check:' || (r ->> 'name'), run_id) FROM jsonb_array_elements(results) AS r WHERE r ->> 'status' = 'pass';
    PERFORM dwh._recover_loads(_keep_results.run_id);
    UPDATE ops.loads AS l SET checked_at = clock_timestamp()
     WHERE l.checked_at IS NULL AND l.facts_at IS NOT NULL AND l.load_id = ANY (_keep_results.load_ids);
END
$$;
COMMENT ON FUNCTION dwh._keep_results(jsonb, bigint[], bigint[], bigint) IS 'Keeps verdicts on the checked loads (NULL = all) that let things go on, and marks load_ids as checked.';
