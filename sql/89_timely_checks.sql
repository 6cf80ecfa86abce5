-- 89_timely_checks.sql: is anything coming, and as much as usual? Kinds of checks that look at the clock.
--
-- The query of such a kind is one call: $1 is its parameters, $2 the time, $3 the name of the check; it gives the verdict.
-- Invariants: the ledger is read, never the layers; the time is an argument (now() in a run), no clock is read here. A volume
-- learns only from periods that nobody has reason to doubt, and never from the one that it judges.
-- Repeats are harmless: nothing here writes.

CREATE FUNCTION dwh._freshness(parameters jsonb, at timestamptz, newest_at timestamptz, newest jsonb,
    OUT observed bigint, OUT allowed bigint, OUT has_failed boolean, OUT limits jsonb, OUT offenders jsonb)
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT s.observed, s.allowed, s.observed > s.allowed, jsonb_build_object('max_age', parameters ->> 'max_age'),
           CASE WHEN s.observed > s.allowed THEN jsonb_build_array(newest) END
      FROM (SELECT coalesce(greatest(ceil(extract(epoch FROM at - newest_at)), 0), 0)::bigint AS observed,
                   floor(extract(epoch FROM (parameters ->> 'max_age')::interval))::bigint AS allowed) AS s
$$;
COMMENT ON FUNCTION dwh._freshness(jsonb, timestamptz, timestamptz, jsonb) IS
'The verdict on an age in whole seconds, rounded up; NULL = there is nothing that could be old: a pass.';

CREATE FUNCTION dwh._freshness_load(parameters jsonb, at timestamptz,
    OUT observed bigint, OUT allowed bigint, OUT has_failed boolean, OUT limits jsonb, OUT offenders jsonb)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT f.* FROM (SELECT) AS one_row
      LEFT JOIN (SELECT l.load_id, l.loaded_at FROM ops.loads AS l WHERE l.status NOT IN ('quarantined', 'stopped')
                  ORDER BY l.loaded_at DESC LIMIT 1) AS n ON true
     CROSS JOIN LATERAL dwh._freshness(parameters, at, n.loaded_at, to_jsonb(n)) AS f
$$;
COMMENT ON FUNCTION dwh._freshness_load(jsonb, timestamptz) IS
'Kind freshness_load: the age of the newest load that is neither quarantined nor stopped.';

CREATE FUNCTION dwh._freshness_event(parameters jsonb, at timestamptz,
    OUT observed bigint, OUT allowed bigint, OUT has_failed boolean, OUT limits jsonb, OUT offenders jsonb)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT f.* FROM (SELECT) AS one_row
      LEFT JOIN (SELECT l.load_id, l.last_event FROM ops.loads AS l
                  WHERE l.facts_at IS NOT NULL AND l.last_event IS NOT NULL AND l.status NOT IN ('quarantined', 'stopped')
                  ORDER BY l.last_event DESC LIMIT 1) AS n ON true
     CROSS JOIN LATERAL dwh._freshness(parameters, at, n.last_event, to_jsonb(n)) AS f
$$;
COMMENT ON FUNCTION dwh._freshness_event(jsonb, timestamptz) IS
'Kind freshness_event: the age of the newest event of the loads that are through.';

-- The period to judge (point 0: the last one complete) and those at its place in the seasons before. Periods are counted
-- from a Monday, so that one of a week begins on Mondays.
CREATE FUNCTION dwh._volume_points(parameters jsonb, at timestamptz, name text)
RETURNS TABLE (point integer, since timestamptz, until timestamptz, events bigint, is_learned_from boolean, is_accepted boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
    WITH p AS (
        SELECT k.point, e.last - k.point * s.season * s.period - s.period AS since, e.last - k.point * s.season * s.period AS until,
               (SELECT date_bin(s.period, min(l.loaded_at), '2000-01-03 00:00:00+00') FROM ops.loads AS l
                 WHERE l.status NOT IN ('quarantined', 'stopped')) AS first
          FROM (SELECT (parameters ->> 'period')::interval AS period, (parameters ->> 'season')::integer AS season) AS s
         CROSS JOIN LATERAL (SELECT date_bin(s.period, at, '2000-01-03 00:00:00+00') AS last) AS e
         CROSS JOIN generate_series(0, (parameters ->> 'points')::integer) AS k (point))
    SELECT p.point, p.since, p.until, v.events,
           p.since >= p.first AND NOT v.is_forced AND NOT (coalesce(r.has_failed, false) AND NOT r.is_accepted)
           AND coalesce(u.status NOT IN ('failed', 'dead'), true), coalesce(r.is_accepted, false)
      FROM p
     CROSS JOIN LATERAL (
           SELECT coalesce(sum(l.loaded) FILTER (WHERE l.status NOT IN ('quarantined', 'stopped')), 0)::bigint AS events,
                  coalesce(bool_or(l.forced), false) AS is_forced
             FROM ops.loads AS l WHERE l.loaded_at >= p.since AND l.loaded_at < p.until) AS v
     CROSS JOIN LATERAL (
           SELECT bool_or(q.status = 'fail') AS has_failed, bool_or(q.accepted) AS is_accepted FROM ops.quality_results AS q
            WHERE q.name = _volume_points.name AND q.limits ->> 'since' = to_jsonb(p.since) #>> '{}'
              AND q.limits ->> 'until' = to_jsonb(p.until) #>> '{}') AS r
      LEFT JOIN LATERAL (
           SELECT o.status FROM ops.runs AS o WHERE o.started_at >= p.since AND o.started_at < p.until
            ORDER BY o.started_at DESC, o.run_id DESC LIMIT 1) AS u ON true
$$;
COMMENT ON FUNCTION dwh._volume_points(jsonb, timestamptz, text) IS
'Point 0: the last complete period before that time; 1 to points: the same place in the seasons before. events are those loaded; not learned from is a period before the first load, with a forced load, whose last run failed or died, or with a failure of the check of that name that nobody accepted.';

CREATE FUNCTION dwh._volume(parameters jsonb, at timestamptz, name text,
    OUT observed bigint, OUT allowed bigint, OUT has_failed boolean, OUT limits jsonb, OUT offenders jsonb)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    judged record;
    spread float8;
    low bigint;
BEGIN
    WITH p AS MATERIALIZED (SELECT v.* FROM dwh._volume_points(parameters, at, name) AS v),
         learned AS (SELECT p.events::float8 AS events FROM p WHERE p.point > 0 AND p.is_learned_from),
         m AS (SELECT count(*) AS points, percentile_cont(0.5) WITHIN GROUP (ORDER BY l.events) AS median FROM learned AS l)
    SELECT p.since, p.until, p.events, p.is_accepted, m.points, m.median,
           (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY abs(l.events - m.median)) FROM learned AS l) AS mad
      INTO judged FROM p CROSS JOIN m WHERE p.point = 0;
    observed := judged.events;
    limits := jsonb_build_object('since', judged.since, 'until', judged.until, 'points', judged.points);
    IF judged.points < (parameters ->> 'min_points')::integer THEN
        allowed := observed;
        has_failed := false;
        limits := limits || jsonb_build_object('min_points', (parameters ->> 'min_points')::integer);
        RETURN;
    END IF;
    -- MAD is 0 where more than half of the points are equal: arrivals vary with the root of their number, and by a few percent
    spread := (parameters ->> 'sensitivity')::float8 * greatest(1.4826 * judged.mad, sqrt(judged.median), 0.05 * judged.median);
    low := greatest(ceil(judged.median - spread), 0);
    allowed := floor(judged.median + spread);
    has_failed := observed NOT BETWEEN low AND allowed AND NOT judged.is_accepted;
    limits := limits || jsonb_build_object('low', low, 'high', allowed, 'median', judged.median, 'mad', judged.mad)
        || CASE WHEN judged.is_accepted THEN '{"accepted": true}' ELSE '{}' END::jsonb;
    offenders := CASE WHEN has_failed THEN jsonb_build_array(jsonb_build_object('since', judged.since, 'until', judged.until, 'events', observed)) END;
END
$$;
COMMENT ON FUNCTION dwh._volume(jsonb, timestamptz, text) IS
'Kind volume: events loaded in the last complete period, against the median of the same place in the seasons before, give or take sensitivity times the greatest of 1.4826 MAD, the median''s root and 5 % of it. Not judged, a pass, with fewer than min_points.';

CREATE FUNCTION dwh.check_kinds()
RETURNS TABLE (kind text, "position" integer, severity text, enabled boolean, is_timely boolean, description text, parameters jsonb, query text)
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT k.kind, k.position, k.severity, true, false, k.description, '{}'::jsonb, k.query FROM dwh._kinds_of_loads() AS k
     UNION ALL VALUES
    ('freshness_load', 100, 'warn', true, true,
     'The newest load that is neither quarantined nor stopped is not older than max_age. Seconds; a pass while nothing was ever loaded.',
     '{"max_age": "1 day"}'::jsonb, 'SELECT * FROM dwh._freshness_load($1, $2)'),
    ('freshness_event', 110, 'warn', false, true,
     'The newest event of the loads that are through is not older than max_age. Seconds; a pass while there is none. Off at first: a log may be history.',
     '{"max_age": "1 day"}', 'SELECT * FROM dwh._freshness_event($1, $2)'),
    ('volume', 120, 'warn', true, true,
     'As many events were loaded in the last complete period (UTC) as at the same place of the seasons before: the median of up to points of them, give or take sensitivity times the greatest of 1.4826 MAD, its root and 5 %. season counts periods. A pass with fewer than min_points to learn from, or where the period''s failure was accepted.',
     '{"period": "1 day", "season": 7, "points": 8, "min_points": 4, "sensitivity": 4}', 'SELECT * FROM dwh._volume($1, $2, $3)')
$$;
REVOKE EXECUTE ON FUNCTION dwh.check_kinds() FROM PUBLIC;
COMMENT ON FUNCTION dwh.check_kinds() IS
'The built-in kinds of ops.quality_checks. Returns one row a kind: where and how create_warehouse() adds a check of it, its parameters with their defaults, and its query, whose rows are offenders ($1: bigint[] of loads, NULL = all). A timely kind looks at the clock, in every run, also in one without loads; its query gives the verdict ($1: parameters, $2: now(), $3: name of the check). Errors: none. A repeat returns the same.';
