-- 92_verdicts.sql: what becomes of verdicts: kept, told, raised; and which loads go no further.
--
-- Invariants: a failure of severity error stops what called, and its evidence survives (04_evidence.sql). A load is quarantined
-- by a check of the user's (kind query) alone: what the built-in kinds find is damage of the warehouse, not a fault of a
-- file; the exception is reject_share, by which staging quarantines. A forced load is never quarantined: it fails its run.
-- Repeats are harmless: verdicts are added, nothing else changes; without loads only a change of verdict is added.

CREATE FUNCTION dwh._alerts_of_checks(results jsonb, checked bigint[], run_id bigint) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object('dedupe_key', 'check:' || (r ->> 'name'), 'severity', r ->> 'severity', 'run_id', run_id,
               'title', format('quality check %s failed', r ->> 'name'),
               'body', jsonb_strip_nulls(jsonb_build_object('check', r ->> 'name', 'observed', r -> 'observed', 'allowed', r -> 'allowed',
                   'limits', r -> 'limits', 'full', CASE WHEN checked IS NULL AND NOT coalesce((SELECT k.is_timely FROM dwh.check_kinds() AS k WHERE k.kind = r -> 'checked_as' ->> 'kind'), false) THEN true END,
                   'loads', CASE jsonb_typeof(r -> 'by_load') WHEN 'object' THEN (
                       SELECT jsonb_agg(f.load_id ORDER BY f.load_id) FROM (
                           SELECT k.load_id::bigint FROM jsonb_object_keys(r -> 'by_load') AS k (load_id) WHERE k.load_id ~ '^[0-9]{1,18}$' ORDER BY 1 LIMIT 10) AS f) END,
                   'sqlstate', CASE WHEN r ->> 'severity' = 'error' THEN 'WH001' END)))), '[]')
      FROM jsonb_array_elements(results) AS r WHERE r ->> 'status' = 'fail'
$$;
COMMENT ON FUNCTION dwh._alerts_of_checks(jsonb, bigint[], bigint) IS
'The alerts of verdicts that are failures, as dwh._write_evidence takes them. checked: the loads that were looked at, NULL = all.';

-- Noun. No SET clause: it is inlined.
CREATE FUNCTION dwh.held_loads()
RETURNS TABLE (load_id bigint, path text, status text, quarantined_by text, lines bigint, refused bigint, run_id bigint, loaded_at timestamptz)
LANGUAGE sql STABLE ROWS 10 AS $$
    SELECT l.load_id, l.path, l.status, l.quarantined_by, l.lines, l.rejected + l.stage_rejected, l.run_id, l.loaded_at
      FROM ops.loads AS l
     WHERE l.status IN ('quarantined', 'stopped')
       AND NOT EXISTS (SELECT FROM ops.loads AS n WHERE n.path = l.path AND n.load_id > l.load_id AND n.status <> 'stopped')
$$;
COMMENT ON FUNCTION dwh.held_loads() IS
'The loads that go no further, quarantined or stopped, but those whose path has a later load that was not stopped. quarantined_by: the check that it failed in a run, NULL = dwh.max_reject_share. Returns one row a load; to dismiss one for good, delete its rows of ops.rejects and ops.loads. Errors: 42P01 without a warehouse. Reads only.';

-- What passes has recovered, unless a load that the check holds back is still held, or the failure was found by looking at
-- all loads and this was but some, or others still wait for it. What is not asked any more has recovered, too.
CREATE FUNCTION dwh._recover_checks(results jsonb, checked bigint[], run_id bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM dwh._recover_alert(i.dedupe_key, _recover_checks.run_id)
       FROM (SELECT DISTINCT ON (a.dedupe_key) a.dedupe_key, a.state, a.body FROM ops.alerts AS a
              WHERE a.dedupe_key >= 'check:' AND a.dedupe_key < 'check;' ORDER BY a.dedupe_key, a.alert_id DESC) AS i
       LEFT JOIN ops.quality_checks AS c ON i.dedupe_key = dwh._alert_key('check:' || c.name) AND c.enabled
       LEFT JOIN jsonb_to_recordset(results) AS r (name text, status text) ON r.name = c.name
      WHERE i.state <> 'recovered'
        AND (c.name IS NULL OR r.status = 'pass' AND (_recover_checks.checked IS NULL OR NOT i.body ? 'full' AND NOT EXISTS (
                 SELECT FROM ops.loads AS w WHERE w.checked_at IS NULL AND w.facts_at IS NOT NULL AND w.load_id <> ALL (_recover_checks.checked)))
             AND NOT EXISTS (SELECT FROM dwh.held_loads() AS h JOIN ops.loads AS l ON l.load_id = h.load_id
                              WHERE h.status = 'quarantined' AND coalesce(h.quarantined_by, 'reject_share') = c.name
                                AND dwh._is_quarantined(l.quarantined_by, l.quarantine_rule, l.rejected + l.stage_rejected, l.lines - l.blank)))
      ORDER BY i.dedupe_key;
END
$$;
COMMENT ON FUNCTION dwh._recover_checks(jsonb, bigint[], bigint) IS
'Ends the incidents of checks that these verdicts show to be well, and of checks that are gone or switched off.';

-- The evidence of a verdict that stops something: results, quarantined loads with their first rejects, and an alert. Of a load
-- that a check quarantined nothing stays staged.
CREATE FUNCTION dwh._evidence_of_checks(results jsonb, checked bigint[], load_ids bigint[], run_id bigint) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object(
        'results', (SELECT jsonb_agg(r || jsonb_build_object('run_id', run_id, 'load_ids', checked)) FROM jsonb_array_elements(results) AS r),
        'loads', (SELECT jsonb_agg(to_jsonb(l) || jsonb_build_object('run_id', run_id, 'checked_at', clock_timestamp())
                           || CASE WHEN l.quarantined_by IS NOT NULL THEN '{"staged": 0, "replayed": 0, "conflicting": 0, "facts": 0}' ELSE '{}' END::jsonb)
                    FROM ops.loads AS l WHERE l.load_id = ANY (load_ids) AND l.status = 'quarantined'),
        'files', (SELECT jsonb_agg(to_jsonb(f)) FROM ops.files AS f JOIN ops.loads AS l USING (load_id)
                   WHERE l.load_id = ANY (load_ids) AND l.status = 'quarantined'),
        'rejects', (SELECT jsonb_agg(to_jsonb(j)) FROM (
                      SELECT f.* FROM ops.loads AS l
                       CROSS JOIN LATERAL (SELECT r.* FROM ops.rejects AS r WHERE r.load_id = l.load_id
                                            ORDER BY r.line_no LIMIT 1000) AS f
                       WHERE l.load_id = ANY (load_ids) AND l.status = 'quarantined') AS j),
        'alerts', dwh._alerts_of_checks(results, checked, run_id))
$$;
COMMENT ON FUNCTION dwh._evidence_of_checks(jsonb, bigint[], bigint[], bigint) IS
'What must survive when these verdicts stop a run or a call, as dwh._write_evidence takes it. checked: the loads that were looked at, NULL = all; load_ids: those among which quarantined ones are new.';

CREATE FUNCTION dwh._has_failed(results jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM jsonb_array_elements(results) AS r WHERE r ->> 'status' = 'fail' AND r ->> 'severity' = 'error')
$$;
COMMENT ON FUNCTION dwh._has_failed(jsonb) IS 'True if a verdict of severity error is a failure.';

CREATE FUNCTION dwh._failed_checks(results jsonb) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT string_agg(format('%s (%s)', r ->> 'name', r ->> 'observed'), ', ') FROM jsonb_array_elements(results) AS r WHERE r ->> 'status' = 'fail'
$$;
COMMENT ON FUNCTION dwh._failed_checks(jsonb) IS 'The verdicts that are failures, with what was observed, in words; NULL = none.';

CREATE FUNCTION dwh._warn_of_checks(results jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    failed text := dwh._failed_checks(results);
BEGIN
    IF failed IS NOT NULL THEN
        RAISE WARNING 'quality checks of severity warn failed: %', failed
            USING HINT = 'The first offenders: SELECT name, offenders FROM ops.quality_results WHERE status = ''fail'' ORDER BY result_id DESC LIMIT 5;';
    END IF;
END
$$;
COMMENT ON FUNCTION dwh._warn_of_checks(jsonb) IS 'A WARNING names the verdicts that are failures.';

CREATE FUNCTION dwh._raise_failed_checks(results jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    failed text;
    quarantined text;
    first record;
BEGIN
    SELECT string_agg(r ->> 'name', ', ') INTO failed FROM jsonb_array_elements(results) AS r
     WHERE r ->> 'status' = 'fail' AND r ->> 'severity' = 'error';
    IF failed IS NULL THEN
        PERFORM dwh._warn_of_checks(results);
        RETURN;
    END IF;
    SELECT r ->> 'name' AS name, r ->> 'observed' AS observed, r ->> 'allowed' AS allowed, r -> 'offenders' -> 0 AS offender,
           r -> 'limits' ->> 'max_percent' AS percent, r -> 'limits' ->> 'population' AS population,
           (SELECT string_agg(format('%s (%s)', l.load_id, regexp_replace(l.path, '^.*/', '')), ', ' ORDER BY l.load_id) FROM ops.loads AS l
             WHERE l.forced AND jsonb_typeof(r -> 'by_load') = 'object' AND r -> 'by_load' ? l.load_id::text) AS forced
      INTO first FROM jsonb_array_elements(results) AS r WHERE r ->> 'status' = 'fail' AND r ->> 'severity' = 'error' LIMIT 1;
    SELECT string_agg(format('%s (load %s, by %s)', l.path, l.load_id, r ->> 'name'), ', ') INTO quarantined
      FROM jsonb_array_elements(results) AS r
     CROSS JOIN jsonb_to_recordset(r -> 'quarantined') AS l (load_id bigint, path text);
    RAISE EXCEPTION 'quality checks failed: %', failed
        USING ERRCODE = 'WH001',
              DETAIL = format('%s found %s%s, allowed are %s%s; the first: %s.', first.name, first.observed, ' of ' || first.population, first.allowed,
                              ' (' || first.percent || ' %)', left(first.offender::text, 500)),
              HINT = CASE WHEN first.name = 'reject_share' AND first.offender ->> 'status' = 'quarantined' THEN format(
                  'The load is quarantined and left out from now on. Mend the file, raise dwh.max_reject_share, or load it with force => true. Why: SELECT line_no, class, message FROM ops.rejects WHERE load_id = %s;',
                  first.offender ->> 'load_id')
                  WHEN first.name = 'reject_share' THEN format(
                  'Load %s was let through staging with a larger dwh.max_reject_share: check it with the same setting.', first.offender ->> 'load_id')
                  WHEN first.forced IS NOT NULL THEN format(
                  'A forced load is not quarantined, so every run fails until the check lets it pass: load %s. Change the check %s in ops.quality_checks, or UPDATE ops.quality_checks SET enabled = false WHERE name = %L;',
                  first.forced, first.name, first.name)
                  WHEN quarantined IS NOT NULL THEN format(
                  'Quarantined and left out from now on: %s. Run again to go on without, mend the file, or change the check in ops.quality_checks, which releases it.', quarantined)
                  ELSE 'The first offenders: SELECT name, offenders FROM ops.quality_results WHERE status = ''fail'' ORDER BY result_id DESC LIMIT 5;' END;
END
$$;
COMMENT ON FUNCTION dwh._raise_failed_checks(jsonb) IS 'Raises WH001 if a verdict of severity error is a failure; a WARNING names failures of severity warn.';

CREATE FUNCTION dwh._keep_results(results jsonb, checked bigint[], load_ids bigint[], run_id bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    -- a schedule of every minute mostly finds no load: what it says of the clock is kept when it is news
    INSERT INTO ops.quality_results (run_id, load_ids, name, severity, status, observed, allowed, offenders, limits)
    SELECT _keep_results.run_id, _keep_results.checked, r.name, r.severity, r.status, r.observed, r.allowed, r.offenders, r.limits
      FROM jsonb_to_recordset(results)
        AS r (name text, severity text, status text, observed bigint, allowed bigint, offenders jsonb, limits jsonb)
      LEFT JOIN LATERAL (SELECT q.* FROM ops.quality_results AS q WHERE q.name = r.name ORDER BY q.result_id DESC LIMIT 1) AS last ON true
     WHERE cardinality(_keep_results.checked) IS DISTINCT FROM 0
        OR (r.severity, r.status, r.limits) IS DISTINCT FROM (last.severity, last.status, last.limits);
    PERFORM dwh._raise_alert(n.dedupe_key, n.severity, n.title, n.body, n.run_id)
       FROM jsonb_populate_recordset(NULL::ops.alerts, dwh._alerts_of_checks(results, _keep_results.checked, run_id)) AS n;
    PERFORM dwh._recover_checks(results, _keep_results.checked, _keep_results.run_id);
    PERFORM dwh._recover_loads(_keep_results.run_id);
    UPDATE ops.loads AS l SET checked_at = clock_timestamp()
     WHERE l.checked_at IS NULL AND (l.facts_at IS NOT NULL OR l.status = 'quarantined') AND l.load_id = ANY (_keep_results.load_ids);
END
$$;
COMMENT ON FUNCTION dwh._keep_results(jsonb, bigint[], bigint[], bigint) IS
'Keeps verdicts on the checked loads (NULL = all; of none only those that differ from the last) that let things go on, tells of them, and marks load_ids as checked.';

CREATE FUNCTION dwh._offending_loads(quality_check jsonb, by_load jsonb, since timestamptz) RETURNS bigint[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    offending record;
    offends bigint[] := '{}';
    beyond bigint[] := '{}';
BEGIN
    FOR offending IN
        SELECT l.load_id, (by_load ->> l.load_id::text)::bigint AS offenders FROM ops.loads AS l
         WHERE l.staged_at >= since AND l.checked_at IS NULL AND by_load ? l.load_id::text AND NOT l.forced AND l.status <> 'quarantined'
         ORDER BY l.load_id
    LOOP
        offends := offends || offending.load_id;
        BEGIN
            PERFORM set_config('transaction_read_only', 'on', true);   -- until the end of this block
            IF offending.offenders > (SELECT o.allowed FROM dwh._limit_of((quality_check ->> 'max_offenders')::bigint, (quality_check ->> 'max_percent')::numeric,
                                                                      quality_check ->> 'population', ARRAY[offending.load_id]) AS o) THEN
                beyond := beyond || offending.load_id;
            END IF;
        EXCEPTION WHEN OTHERS OR assert_failure THEN
            NULL;   -- a population that cannot be said of this load alone
        END;
    END LOOP;
    RETURN CASE WHEN cardinality(beyond) > 0 THEN beyond ELSE offends END;
END
$$;
COMMENT ON FUNCTION dwh._offending_loads(jsonb, jsonb, timestamptz) IS
'The loads staged since then, by the run, whose own offenders are more than the check allows of that load; if none is alone, all that have some. Forced and quarantined ones aside.';

CREATE FUNCTION dwh._quarantine_by_checks(results jsonb, since timestamptz) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    verdict record;
    quality_check jsonb;
    load_ids bigint[];
    quarantined jsonb;
BEGIN
    FOR verdict IN SELECT r.value AS body, r.ordinality - 1 AS place FROM jsonb_array_elements(results) WITH ORDINALITY AS r
                    WHERE r.value ->> 'status' = 'fail' AND r.value ->> 'severity' = 'error' AND jsonb_typeof(r.value -> 'by_load') = 'object'
                    ORDER BY r.ordinality
    LOOP
        quality_check := verdict.body -> 'checked_as';
        CONTINUE WHEN quality_check ->> 'kind' <> 'query';
        load_ids := dwh._offending_loads(quality_check, verdict.body -> 'by_load', since);
        WITH q AS (
            UPDATE ops.loads AS l
               SET status = 'quarantined', quarantined_by = verdict.body ->> 'name', quarantine_rule = dwh._check_rule(quality_check)
             WHERE l.load_id = ANY (load_ids)
            RETURNING l.load_id, l.path)
        SELECT jsonb_agg(to_jsonb(q) ORDER BY q.load_id) INTO quarantined FROM q;
        IF quarantined IS NOT NULL THEN
            results := jsonb_set(results, ARRAY[verdict.place::text, 'quarantined'], quarantined);
        END IF;
    END LOOP;
    RETURN results;
END
$$;
COMMENT ON FUNCTION dwh._quarantine_by_checks(jsonb, timestamptz) IS
'Sets the loads staged since then, by the run, that fail a check of kind query to quarantined, for the evidence: the run is about to be undone. Returns the verdicts, with the loads that each quarantined.';

CREATE FUNCTION dwh._check_step(run_id bigint, since timestamptz, OUT status text, OUT rows_in bigint, OUT rows_out bigint, OUT rejected bigint, OUT evidence jsonb, OUT results jsonb)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    load_ids bigint[] := ARRAY(SELECT l.load_id FROM ops.loads AS l
                                WHERE l.checked_at IS NULL AND (l.facts_at IS NOT NULL OR l.status = 'quarantined')
                                ORDER BY l.load_id);
BEGIN
    rejected := 0;
    SELECT coalesce(jsonb_agg(to_jsonb(e)), '[]'), count(*), count(*) FILTER (WHERE e.status = 'pass') INTO results, rows_in, rows_out
      FROM dwh._evaluate_checks(load_ids) AS e;
    status := CASE WHEN cardinality(load_ids) = 0 THEN 'nothing_new' ELSE 'done' END;
    IF dwh._has_failed(results) THEN
        status := 'failed';
        results := dwh._quarantine_by_checks(results, since);
        evidence := dwh._evidence_of_checks(results, load_ids, load_ids, run_id);
    ELSE
        PERFORM dwh._keep_results(results, load_ids, load_ids, run_id);
    END IF;
END
$$;
COMMENT ON FUNCTION dwh._check_step(bigint, timestamptz) IS
'Checks all loads that wait for it, and the clock also without any: keeps the verdicts, or hands out the evidence of their failure. Rows are checks and passed checks. since: when the run began.';

CREATE FUNCTION dwh.run_quality_checks(load_id bigint DEFAULT NULL, "full" boolean DEFAULT false)
RETURNS TABLE (name text, severity text, status text, observed bigint, allowed bigint, offenders jsonb, elapsed interval, limits jsonb)
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
    SELECT coalesce(jsonb_agg(to_jsonb(e)), '[]') INTO results FROM dwh._evaluate_checks(checked) AS e;
    IF dwh._has_failed(results) THEN
        PERFORM dwh._record_evidence(dwh._evidence_of_checks(results, checked, load_ids, NULL));
        PERFORM dwh._raise_failed_checks(results);
    END IF;
    PERFORM dwh._keep_results(results, checked, load_ids, NULL);
    PERFORM dwh._warn_of_checks(results);
    RETURN QUERY SELECT r.* FROM jsonb_to_recordset(results)
        AS r (name text, severity text, status text, observed bigint, allowed bigint, offenders jsonb, elapsed interval, limits jsonb);
END
$$;
REVOKE EXECUTE ON FUNCTION dwh.run_quality_checks(bigint, boolean) FROM PUBLIC;
COMMENT ON FUNCTION dwh.run_quality_checks(bigint, boolean) IS
'Runs every enabled check of ops.quality_checks on a load, or on every load not checked yet; full => true looks at all loads. Without a load to look at only the timely kinds are run: freshness and volume. Returns one row a check: offenders found and allowed (freshness: seconds, volume: events), the first dwh.kept_offenders of them, clock time, all limits; it is kept in ops.quality_results. Errors: WH001 if a check of severity error fails (the verdicts are kept all the same, a load with too many refused lines is quarantined and left alone from then on), P0002 for an unknown load, WH004 without a warehouse. A repeat checks again and adds verdicts; without loads only those that are not as the last ones.';
