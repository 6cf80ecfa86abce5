-- What the trials of 94_dry_run.sh need: the state of everything, and what a run made of files.
SET check_function_bodies = off;
CREATE TABLE public.said (round int, part text, said jsonb, done jsonb);
CREATE TABLE public.trouble (round int, what text);

-- One digest of every row of the warehouse, and of every sequence.
CREATE FUNCTION public.state() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    relation record;
    digest text;
    result text := '';
BEGIN
    FOR relation IN SELECT c.oid::regclass AS name, c.relkind FROM pg_class AS c
        WHERE c.relnamespace::regnamespace::text IN ('raw', 'staging', 'marts', 'ops') AND c.relkind IN ('r', 'S') ORDER BY c.oid LOOP
        EXECUTE format(CASE relation.relkind WHEN 'S' THEN 'SELECT last_value::text || is_called FROM %s'
                       ELSE 'SELECT count(*) || md5(coalesce(string_agg(t::text || t.ctid || t.xmin, chr(10) ORDER BY t.ctid), '''')) FROM ONLY %s AS t' END,
                       relation.name) INTO digest;
        result := result || relation.name || digest;
    END LOOP;
    RETURN md5(result);
END $$;

-- What the verbs made of the loads that waited and of the files: the columns of dwh.examined_file that the ledger has.
CREATE FUNCTION public.made(round int, last_id bigint, newest timestamptz) RETURNS jsonb LANGUAGE sql AS $$
    WITH files AS (
        SELECT l.path, 'waiting' AS status, l.load_id, NULL::bigint AS continues_load_id, l.lines, l.loaded, l.rejected, l.blank, 0::bigint AS held_back_bytes, 0::bigint AS bytes,
               NULL AS message, w.forgotten AS forgotten_before, true AS is_new, l.load_id AS place, 0 AS kind
          FROM pg_temp.waiting AS w JOIN ops.loads AS l USING (load_id)
         UNION ALL
        SELECT f.path, f.status, CASE WHEN f.load_id <= last_id THEN f.load_id END,
               CASE WHEN l.continues_load_id <= last_id THEN l.continues_load_id END,
               f.lines, f.loaded, f.rejected, f.blank, f.held_back_bytes, f.bytes, f.message, 0, f.loaded + f.rejected > 0, f.place, 1
          FROM pg_temp.loaded AS f LEFT JOIN ops.loads AS l ON l.load_id = f.load_id AND f.loaded + f.rejected > 0),
    joined AS (
        SELECT f.*, l.staged, l.replayed, l.conflicting, l.stage_rejected, l.forgotten - f.forgotten_before AS forgotten,
               l.first_event, l.last_event, l.status = 'quarantined' AS is_poisoned, d.days, d.day_events, d.day_late
          FROM files AS f
          LEFT JOIN ops.loads AS l ON f.is_new AND l.load_id = CASE f.kind WHEN 0 THEN f.load_id
                ELSE (SELECT t.load_id FROM pg_temp.loaded AS t WHERE t.place = f.place) END
          LEFT JOIN LATERAL (
                SELECT array_agg(g.day ORDER BY g.day) AS days, array_agg(g.events ORDER BY g.day) AS day_events, array_agg(g.late ORDER BY g.day) AS day_late
                  FROM (SELECT (s.event_time AT TIME ZONE 'UTC')::date AS day, count(*) AS events, count(*) FILTER (WHERE s.event_time < newest) AS late
                          FROM staging.user_events AS s WHERE s.load_id = l.load_id GROUP BY 1) AS g) AS d ON true)
    SELECT coalesce(jsonb_agg(jsonb_build_object('path', j.path, 'status', j.status, 'load_id', j.load_id,
           'continues_load_id', j.continues_load_id, 'lines', j.lines,
           'loaded', j.loaded, 'rejected', j.rejected, 'blank', j.blank, 'held_back_bytes', j.held_back_bytes, 'bytes', j.bytes,
           'staged', coalesce(j.staged, 0), 'replayed', coalesce(j.replayed, 0), 'conflicting', coalesce(j.conflicting, 0),
           'stage_rejected', coalesce(j.stage_rejected, 0), 'forgotten', coalesce(j.forgotten, 0), 'first_event', j.first_event,
           'last_event', j.last_event, 'is_poisoned', coalesce(j.is_poisoned, false), 'days', coalesce(j.days, '{}'),
           'day_events', coalesce(j.day_events, '{}'), 'day_late', coalesce(j.day_late, '{}'),
           'failed', CASE j.status WHEN 'failed' THEN j.message END) ORDER BY j.kind, j.place), '[]')
      FROM joined AS j
$$;

-- The same columns of what the examination said.
CREATE FUNCTION public.comparable(said jsonb) RETURNS jsonb LANGUAGE sql AS $$
    SELECT coalesce(jsonb_agg((e.file - '{message, users, products}'::text[])
           || jsonb_build_object('failed', CASE e.file ->> 'status' WHEN 'failed' THEN e.file -> 'message' END) ORDER BY e.place), '[]')
      FROM jsonb_array_elements(said) WITH ORDINALITY AS e (file, place)
$$;

CREATE FUNCTION public.touched(last_id bigint) RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_object('users', count(DISTINCT s.user_id), 'products', count(DISTINCT s.product_id)) FROM staging.user_events AS s
     WHERE s.load_id > last_id OR s.load_id IN (SELECT w.load_id FROM pg_temp.waiting AS w)
$$;

CREATE FUNCTION public.try_run(source text) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    RETURN (SELECT jsonb_agg(jsonb_build_object('step', r.step, 'status', r.status, 'rows_in', r.rows_in, 'rows_out', r.rows_out, 'rejected', r.rejected))
              FROM dwh.run_pipeline(source) AS r);
EXCEPTION WHEN SQLSTATE 'WH001' THEN
    RETURN '"WH001"';
END $$;

-- What the dry run said of a run, in the run's words; what it cannot know is taken from the run.
CREATE FUNCTION public.promised(steps jsonb, done jsonb) RETURNS jsonb LANGUAGE sql AS $$
    SELECT CASE WHEN steps -> 5 ->> 'status' = 'would_fail' THEN '"WH001"' ELSE
           (SELECT jsonb_agg(jsonb_build_object('step', s.step -> 'step', 'status', CASE s.step ->> 'status' WHEN 'would_do' THEN 'done' ELSE s.step ->> 'status' END,
                   'rows_in', CASE WHEN s.step ->> 'rows_in' IS NULL THEN r.step -> 'rows_in' ELSE s.step -> 'rows_in' END,
                   'rows_out', CASE WHEN s.step ->> 'rows_out' IS NULL THEN r.step -> 'rows_out' ELSE s.step -> 'rows_out' END,
                   'rejected', s.step -> 'rejected') ORDER BY s.place)
              FROM jsonb_array_elements(steps) WITH ORDINALITY AS s (step, place)
              LEFT JOIN jsonb_array_elements(CASE jsonb_typeof(done) WHEN 'array' THEN done ELSE '[]' END) WITH ORDINALITY AS r (step, place) USING (place)) END
$$;

CREATE FUNCTION public.rest() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM dwh.apply_scd2();
    PERFORM dwh.upsert_products();
    PERFORM dwh.load_facts();
    PERFORM dwh.run_quality_checks();
EXCEPTION WHEN SQLSTATE 'WH001' THEN NULL;
END $$;

CREATE FUNCTION public.elements(value jsonb) RETURNS TABLE (element jsonb, place bigint) LANGUAGE sql AS $$
    SELECT * FROM jsonb_array_elements(CASE jsonb_typeof(value) WHEN 'array' THEN value ELSE jsonb_build_array(value) END) WITH ORDINALITY
$$;

-- What was said otherwise than it was done: both values, of those keys that differ.
CREATE VIEW public.differences AS
SELECT s.round, s.part, e.place, coalesce(e.said ->> 'path', e.said ->> 'step') AS of,
       (SELECT jsonb_object_agg(k.key, jsonb_build_array(k.value, e.done -> k.key)) FROM jsonb_each(CASE jsonb_typeof(e.said) WHEN 'object' THEN e.said END) AS k
         WHERE k.value IS DISTINCT FROM e.done -> k.key) AS said_and_done
  FROM public.said AS s
 CROSS JOIN LATERAL (SELECT place, x.element AS said, y.element AS done FROM public.elements(s.said) AS x FULL JOIN public.elements(s.done) AS y USING (place)) AS e
 WHERE e.said IS DISTINCT FROM e.done;
