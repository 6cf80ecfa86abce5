-- 88_built_in_checks.sql: what the warehouse says about itself, as kinds of checks.
--
-- A kind is a query whose rows are offenders. $1 is the loads to look at, NULL = all.
-- Invariant: what a kind reads for some loads grows with them and their users, not with the history, whatever the
-- statistics say. Rows of the loads are found by index (dwh._evaluate_checks sees to it), in partitions from their first
-- event on; facts meet staged events in a FULL JOIN, which is never a nested loop: that would be quadratic where the planner
-- expects one row of a load that it has not heard of yet.
-- Repeats are harmless: nothing here writes.

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
RETURNS TABLE (event_id uuid, event_time timestamptz, event_type text, user_id text, price numeric, revenue numeric, load_id bigint, line_no bigint)
LANGUAGE sql STABLE AS $$
    SELECT s.event_id, s.event_time, s.event_type, s.user_id, s.price, s.revenue, s.load_id, s.line_no FROM staging.user_events AS s
     WHERE load_ids IS NULL OR s.load_id = ANY (load_ids)
       AND s.event_time >= (SELECT dwh._first_event(load_ids))
$$;
COMMENT ON FUNCTION dwh._staged_of(bigint[]) IS 'The staged events of these loads, NULL = all: what the checks read.';

CREATE FUNCTION dwh._facts_of(load_ids bigint[])
RETURNS TABLE (
    event_id uuid, event_time timestamptz, event_type text, user_key bigint, product_key bigint, price numeric, revenue numeric,
    load_id bigint, line_no bigint)
LANGUAGE sql STABLE AS $$
    SELECT f.event_id, f.event_time, f.event_type, f.user_key, f.product_key, f.price, f.revenue, f.load_id, f.line_no FROM marts.fact_user_events AS f
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

CREATE FUNCTION dwh._kinds_of_loads()
RETURNS TABLE ("position" integer, kind text, severity text, description text, query text)
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
 'Every event_id is one fact, every fact is the staged event of its line, unless that was dropped from staging, and every staged event is a fact; the filter of known ids holds as many as were staged (else SELECT dwh._rebuild_event_filter()). Of some loads: their facts among themselves.',
$$
SELECT f.event_id, count(*) AS facts FROM dwh._facts_of($1) AS f GROUP BY f.event_id HAVING count(*) > 1
 UNION ALL
SELECT coalesce(f.event_id, s.event_id), CASE WHEN f.load_id IS NULL THEN 0 ELSE 1 END
  FROM (SELECT i.* FROM dwh._facts_of($1) AS i WHERE i.event_time >= (SELECT coalesce(w.staging_since, '-infinity') FROM ops.warehouse AS w)) AS f
  FULL JOIN dwh._staged_of($1) AS s ON s.load_id = f.load_id AND s.line_no = f.line_no
 WHERE CASE WHEN f.load_id IS NULL THEN s.load_id NOT IN (SELECT l.load_id FROM ops.loads AS l WHERE l.checked_at IS NULL AND l.facts_at IS NULL)
            WHEN s.load_id IS NULL THEN true
            ELSE (f.event_id, f.event_time, f.event_type, f.price, f.revenue) IS DISTINCT FROM (s.event_id, s.event_time, s.event_type, s.price, s.revenue) END
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
COMMENT ON FUNCTION dwh._kinds_of_loads() IS 'The kinds of checks that look at loads: the law of conservation and the invariants of the model.';
