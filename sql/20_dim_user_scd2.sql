-- 20_dim_user_scd2.sql: staging.user_events -> marts.dim_user: the versions of each user.
--
-- Invariant: dim_user is a function of all observations in the order of (event_time, event_id), whatever order they
-- arrived in: dwh.user_versions() EXCEPT ALL the table, both ways, is empty.
-- Repeats are harmless: a load that was applied is not applied again (ops.loads.users_at), and would change nothing.
-- Cost: the events of the loads, the versions of their users, and of users with a late event what staging holds of them from
-- that event on. Nothing that grows with the history is read: ops.loads says until when there are events of other loads, so
-- most users need no look-up at all, and the rest are looked up by key (OFFSET 0 keeps the planner from anything else). Plans
-- are made for the loads at hand: of a load in general the statistics say that it is all there is.

CREATE FUNCTION dwh._last_known(state anyelement, value anyelement) RETURNS anyelement
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'dwh_last_known';
COMMENT ON FUNCTION dwh._last_known(anyelement, anyelement) IS 'Transition function of dwh.last_known: the value.';

CREATE AGGREGATE dwh.last_known(anyelement) (SFUNC = dwh._last_known, STYPE = anyelement);
COMMENT ON AGGREGATE dwh.last_known(anyelement) IS
'The last input that is not null, in the order of the rows; NULL where there is none. As a window function it carries the last known value forward.';

-- Noun: what dim_user should hold, from all observations. An attribute's value at an instant is the last one known in
-- the order of (event_time, event_id), so at one instant the greatest event_id wins, attribute by attribute.
CREATE FUNCTION dwh.user_versions()
RETURNS TABLE (user_id text, device text, country text, valid_from timestamptz, valid_to timestamptz)
LANGUAGE sql STABLE AS $$
    WITH known AS (
        SELECT s.user_id, s.event_time, dwh.last_known(s.device) OVER w AS device, dwh.last_known(s.country) OVER w AS country,
               pg_catalog.lead(s.event_time) OVER w IS DISTINCT FROM s.event_time AS ends_instant
          FROM staging.user_events AS s
        WINDOW w AS (PARTITION BY s.user_id ORDER BY s.event_time, s.event_id ROWS UNBOUNDED PRECEDING)),
    changes AS (
        SELECT k.user_id, k.event_time, k.device, k.country,
               pg_catalog.row_number() OVER w = 1::pg_catalog.int8
               OR k.device IS DISTINCT FROM pg_catalog.lag(k.device) OVER w
               OR k.country IS DISTINCT FROM pg_catalog.lag(k.country) OVER w AS is_change
          FROM known AS k WHERE k.ends_instant
        WINDOW w AS (PARTITION BY k.user_id ORDER BY k.event_time))
    SELECT c.user_id, c.device, c.country, c.event_time,
           pg_catalog.lead(c.event_time) OVER (PARTITION BY c.user_id ORDER BY c.event_time)
      FROM changes AS c WHERE c.is_change
$$;
COMMENT ON FUNCTION dwh.user_versions() IS
'What marts.dim_user should hold, computed from all of staging.user_events. Returns one row a version. Errors: 42P01 without a warehouse. Reads only.';

-- Inlined where it is used. Two steps down the key, so that a user's older versions are not read.
CREATE FUNCTION dwh._versions_from(user_id text, since timestamptz)
RETURNS TABLE (user_key bigint, user_id text, device text, country text, valid_from timestamptz, valid_to timestamptz)
LANGUAGE sql STABLE ROWS 2 AS $$
    SELECT d.user_key, d.user_id, d.device, d.country, d.valid_from, d.valid_to FROM marts.dim_user AS d
     WHERE d.user_id = _versions_from.user_id
       AND d.valid_from >= COALESCE((SELECT pg_catalog.max(b.valid_from) FROM marts.dim_user AS b
                                      WHERE b.user_id = _versions_from.user_id AND b.valid_from < _versions_from.since),
                                    _versions_from.since)
    OFFSET 0
$$;
COMMENT ON FUNCTION dwh._versions_from(text, timestamptz) IS
'The versions of a user from the one before since on: those that reach into the time since then, or end just there.';

-- Work tables of one call: dwh_changed_user (who has new observations, and since when), dwh_old_version, dwh_new_version.
CREATE FUNCTION dwh._collect_versions(load_ids bigint[]) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    observations bigint;
    earliest timestamptz;        -- event of these loads
    latest timestamptz;
    others_until timestamptz;    -- no event of another load is later; NULL = there is none
BEGIN
    SELECT min(l.first_event) FILTER (WHERE l.load_id = ANY (load_ids)), max(l.last_event) FILTER (WHERE l.load_id = ANY (load_ids)),
           max(l.last_event) FILTER (WHERE l.load_id <> ALL (load_ids))
      INTO earliest, latest, others_until FROM ops.loads AS l;
    PERFORM dwh._require_free_names(ARRAY['dwh_changed_user', 'dwh_old_version', 'dwh_new_version', 'dwh_moved_version', 'dwh_moved_fact']);
    CREATE TEMPORARY TABLE dwh_changed_user ON COMMIT DROP AS
    SELECT s.user_id, min(s.event_time) AS since, count(*) AS observations, coalesce(min(s.event_time) <= others_until, false) AS is_late
      FROM staging.user_events AS s
     WHERE s.load_id = ANY (load_ids) AND s.event_time BETWEEN earliest AND latest GROUP BY s.user_id;
    SELECT coalesce(sum(u.observations), 0) INTO observations FROM pg_temp.dwh_changed_user AS u;
    ANALYZE pg_temp.dwh_changed_user;

    -- All versions that reach into the time since then, or end just there: the first of them is the state before.
    CREATE TEMPORARY TABLE dwh_old_version ON COMMIT DROP AS
    SELECT v.*, u.since, false AS is_matched
      FROM pg_temp.dwh_changed_user AS u CROSS JOIN LATERAL dwh._versions_from(u.user_id, u.since) AS v;
    ANALYZE pg_temp.dwh_old_version;

    -- dwh.user_versions() from there on: the version valid before counts as an observation at its own start.
    CREATE TEMPORARY TABLE dwh_new_version ON COMMIT DROP AS
    WITH observed AS (
        SELECT s.user_id, s.event_time, s.event_id, s.device, s.country
          FROM staging.user_events AS s
         WHERE s.load_id = ANY (load_ids) AND s.event_time BETWEEN earliest AND latest
         UNION ALL
        SELECT u.user_id, h.event_time, h.event_id, h.device, h.country
          FROM pg_temp.dwh_changed_user AS u
         CROSS JOIN LATERAL (
               SELECT s.event_time, s.event_id, s.device, s.country FROM staging.user_events AS s
                WHERE s.user_id = u.user_id AND s.event_time >= u.since AND s.event_time <= others_until
                  AND s.load_id <> ALL (load_ids) OFFSET 0) AS h
         WHERE u.is_late
         UNION ALL
        SELECT o.user_id, o.valid_from, '00000000-0000-0000-0000-000000000000'::uuid, o.device, o.country
          FROM pg_temp.dwh_old_version AS o WHERE o.valid_from < o.since),
    known AS (
        SELECT b.user_id, b.event_time, dwh.last_known(b.device) OVER w AS device, dwh.last_known(b.country) OVER w AS country,
               lead(b.event_time) OVER w IS DISTINCT FROM b.event_time AS ends_instant
          FROM observed AS b
        WINDOW w AS (PARTITION BY b.user_id ORDER BY b.event_time, b.event_id ROWS UNBOUNDED PRECEDING)),
    changes AS (
        SELECT k.user_id, k.event_time, k.device, k.country,
               row_number() OVER w = 1 OR k.device IS DISTINCT FROM lag(k.device) OVER w
               OR k.country IS DISTINCT FROM lag(k.country) OVER w AS is_change
          FROM known AS k WHERE k.ends_instant
        WINDOW w AS (PARTITION BY k.user_id ORDER BY k.event_time))
    SELECT NULL::bigint AS user_key, false AS is_minted, c.user_id, c.device, c.country, c.event_time AS valid_from,
           lead(c.event_time) OVER (PARTITION BY c.user_id ORDER BY c.event_time) AS valid_to
      FROM changes AS c WHERE c.is_change;
    ANALYZE pg_temp.dwh_new_version;
    RETURN observations;
END
$$;
COMMENT ON FUNCTION dwh._collect_versions(bigint[]) IS
'Makes the work tables of apply_scd2 for these loads: the users with new observations, their versions as they are and as they should be from the first new observation on. Returns the number of observations.';

CREATE FUNCTION dwh._match_version_keys() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning AS $$
BEGIN
    -- The version that starts at the same instant keeps its key ...
    UPDATE pg_temp.dwh_new_version AS n SET user_key = o.user_key
      FROM pg_temp.dwh_old_version AS o WHERE o.user_id = n.user_id AND o.valid_from = n.valid_from;
    UPDATE pg_temp.dwh_old_version AS o SET is_matched = true
      FROM pg_temp.dwh_new_version AS n WHERE n.user_key = o.user_key;
    -- ... else one that says the same at an overlapping time has only moved.
    CREATE TEMPORARY TABLE dwh_moved_version ON COMMIT DROP AS
    SELECT n.user_id, n.valid_from AS new_from, o.valid_from AS old_from, o.user_key
      FROM pg_temp.dwh_new_version AS n
      JOIN pg_temp.dwh_old_version AS o ON o.user_id = n.user_id
       AND o.device IS NOT DISTINCT FROM n.device AND o.country IS NOT DISTINCT FROM n.country
       AND (o.valid_to IS NULL OR n.valid_from < o.valid_to) AND (n.valid_to IS NULL OR o.valid_from < n.valid_to)
     WHERE n.user_key IS NULL AND NOT o.is_matched;
    -- Both sides are disjoint in time, so a pair in which each is the other's earliest can always be taken; each round
    -- takes all of those, and no pair is left in the end.
    LOOP
        WITH ranked AS (
            SELECT p.*, row_number() OVER (PARTITION BY p.user_id, p.new_from ORDER BY p.old_from) AS of_new,
                   row_number() OVER (PARTITION BY p.user_key ORDER BY p.new_from) AS of_old
              FROM pg_temp.dwh_moved_version AS p)
        UPDATE pg_temp.dwh_new_version AS n SET user_key = r.user_key
          FROM ranked AS r
         WHERE r.of_new = 1 AND r.of_old = 1 AND n.user_id = r.user_id AND n.valid_from = r.new_from;
        EXIT WHEN NOT FOUND;
        DELETE FROM pg_temp.dwh_moved_version AS p USING pg_temp.dwh_new_version AS n
         WHERE n.user_key IS NOT NULL AND n.user_id = p.user_id AND (n.valid_from = p.new_from OR n.user_key = p.user_key);
    END LOOP;
    UPDATE pg_temp.dwh_old_version AS o SET is_matched = true
      FROM pg_temp.dwh_new_version AS n WHERE n.user_key = o.user_key AND NOT o.is_matched;
    UPDATE pg_temp.dwh_new_version AS n
       SET user_key = nextval(pg_get_serial_sequence('marts.dim_user', 'user_key')), is_minted = true
     WHERE n.user_key IS NULL;
END
$$;
COMMENT ON FUNCTION dwh._match_version_keys() IS
'Gives each new version in the work tables its surrogate key: of the old one that started at the same instant, else of an overlapping one with the same values, else a new one.';

CREATE FUNCTION dwh._count_versions(OUT closed bigint, OUT split bigint, OUT moved bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    SELECT count(*) FILTER (WHERE o.valid_to IS NULL AND n.valid_to IS NOT NULL),
           count(*) FILTER (WHERE o.valid_to > n.valid_to),
           count(*) FILTER (WHERE o.valid_from <> n.valid_from)
      INTO closed, split, moved
      FROM pg_temp.dwh_old_version AS o JOIN pg_temp.dwh_new_version AS n USING (user_key);
END
$$;
COMMENT ON FUNCTION dwh._count_versions() IS 'How many versions of the work tables end now, end earlier, and start elsewhere.';

-- By key: other joins would read all of dim_user.
CREATE FUNCTION dwh._write_versions(OUT opened bigint, OUT removed bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    DELETE FROM marts.dim_user AS d USING pg_temp.dwh_old_version AS o
     WHERE d.user_key = o.user_key AND NOT o.is_matched;
    GET DIAGNOSTICS removed = ROW_COUNT;
    -- Versions that end first, then the open ones: so a user never has two current versions in between.
    UPDATE marts.dim_user AS d
       SET device = n.device, country = n.country, valid_from = n.valid_from, valid_to = n.valid_to, is_current = false
      FROM pg_temp.dwh_new_version AS n
     WHERE d.user_key = n.user_key AND NOT n.is_minted AND n.valid_to IS NOT NULL
       AND (d.device, d.country, d.valid_from, d.valid_to) IS DISTINCT FROM (n.device, n.country, n.valid_from, n.valid_to);
    UPDATE marts.dim_user AS d
       SET device = n.device, country = n.country, valid_from = n.valid_from, valid_to = NULL, is_current = true
      FROM pg_temp.dwh_new_version AS n
     WHERE d.user_key = n.user_key AND NOT n.is_minted AND n.valid_to IS NULL
       AND (d.device, d.country, d.valid_from, d.valid_to) IS DISTINCT FROM (n.device, n.country, n.valid_from, n.valid_to);
    INSERT INTO marts.dim_user (user_key, user_id, device, country, valid_from, valid_to, is_current)
    SELECT n.user_key, n.user_id, n.device, n.country, n.valid_from, n.valid_to, n.valid_to IS NULL
      FROM pg_temp.dwh_new_version AS n WHERE n.is_minted
     ORDER BY n.user_id, n.valid_from;
    GET DIAGNOSTICS opened = ROW_COUNT;
END
$$;
COMMENT ON FUNCTION dwh._write_versions() IS 'Writes the difference between old and new versions of the work tables into marts.dim_user; returns how many it opened and removed.';

-- Work table dwh_moved_fact: the facts where another version is valid now, in the intersections of old and new versions with
-- different keys. Later than the last fact there is nothing to look up, which spares all users without a late event.
CREATE FUNCTION dwh._collect_moved_facts() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    facts_until timestamptz := (SELECT max(l.last_event) FROM ops.loads AS l WHERE l.facts <> 0);
BEGIN
    CREATE TEMPORARY TABLE dwh_moved_fact ON COMMIT DROP AS
    SELECT h.event_id, h.event_time, o.user_key AS old_key, n.user_key AS new_key
      FROM pg_temp.dwh_old_version AS o
      JOIN pg_temp.dwh_new_version AS n ON n.user_id = o.user_id AND n.user_key <> o.user_key
       AND (o.valid_to IS NULL OR n.valid_from < o.valid_to) AND (n.valid_to IS NULL OR o.valid_from < n.valid_to)
     CROSS JOIN LATERAL (
           SELECT s.event_id, s.event_time, s.load_id FROM staging.user_events AS s
            WHERE s.user_id = o.user_id AND s.event_time >= greatest(o.valid_from, n.valid_from)
              AND s.event_time < coalesce(least(o.valid_to, n.valid_to), 'infinity') AND s.event_time <= facts_until OFFSET 0) AS h
      JOIN ops.loads AS l ON l.load_id = h.load_id AND l.facts <> 0   -- also where some events still wait for theirs
     WHERE greatest(o.valid_from, n.valid_from) <= facts_until;
    ANALYZE pg_temp.dwh_moved_fact;
END
$$;
COMMENT ON FUNCTION dwh._collect_moved_facts() IS 'Makes the work table of the facts inside changed intervals of the versions, with the key that they have and should have.';

CREATE FUNCTION dwh._repoint_facts() RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    repointed bigint;
BEGIN
    -- by key: other joins would read all facts
    UPDATE marts.fact_user_events AS f SET user_key = m.new_key
      FROM pg_temp.dwh_moved_fact AS m
     WHERE f.event_id = m.event_id AND f.event_time = m.event_time AND f.user_key = m.old_key;
    GET DIAGNOSTICS repointed = ROW_COUNT;
    RETURN repointed;
END
$$;
COMMENT ON FUNCTION dwh._repoint_facts() IS 'Points the facts inside changed intervals of the work tables to the version that is valid there now; returns how many.';

CREATE FUNCTION dwh.apply_scd2(
    load_id bigint DEFAULT NULL,
    OUT status text, OUT loads bigint, OUT rows_in bigint, OUT opened bigint, OUT closed bigint, OUT split bigint,
    OUT moved bigint, OUT removed bigint, OUT repointed bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
#variable_conflict use_column
DECLARE
    load_ids bigint[];
BEGIN
    load_ids := dwh._claim_loads('users', apply_scd2.load_id);
    loads := cardinality(load_ids);
    rows_in := 0; opened := 0; closed := 0; split := 0; moved := 0; removed := 0; repointed := 0;
    status := 'nothing_new';
    IF loads = 0 THEN
        RETURN;
    END IF;
    status := 'done';
    rows_in := dwh._collect_versions(load_ids);
    PERFORM dwh._match_version_keys();
    SELECT c.closed, c.split, c.moved INTO closed, split, moved FROM dwh._count_versions() AS c;
    SELECT w.opened, w.removed INTO opened, removed FROM dwh._write_versions() AS w;
    PERFORM dwh._collect_moved_facts();
    repointed := dwh._repoint_facts();
    DROP TABLE pg_temp.dwh_changed_user, pg_temp.dwh_old_version, pg_temp.dwh_new_version, pg_temp.dwh_moved_version, pg_temp.dwh_moved_fact;
    UPDATE ops.loads AS l SET users_at = clock_timestamp() WHERE l.load_id = ANY (load_ids);
END
$$;
REVOKE EXECUTE ON FUNCTION dwh.apply_scd2(bigint) FROM PUBLIC;
COMMENT ON FUNCTION dwh.apply_scd2(bigint) IS
'Brings marts.dim_user up to the observations of a load, or of every staged load not applied yet: opens, closes, splits and moves versions, and points facts inside changed intervals to the version valid there. Returns one row of counts: observations read, versions opened, closed, split (cut by a late observation), moved (another start), removed, facts repointed. Errors: P0002 for an unknown load, 55000 for one not staged yet, WH004 without a warehouse. A repeat changes nothing and says nothing_new.';
