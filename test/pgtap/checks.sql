-- An increment and a look at everything give the same verdicts: a warehouse of several loads is damaged in many ways, at rows
-- chosen by chance, each undone. Of a load alone fails what fails of all; and load by load fails what fails of all at once, be it
-- by the load that was damaged or by another one with the same users and products. Scope differs by definition for what no load
-- has to do with: an event_id that is doubled in another load, rows before their load's time (conservation counts those), and
-- versions of users without events.
SET client_min_messages = error;
SET search_path = public;
SELECT no_plan();

CREATE FUNCTION public.failing(load_ids bigint[]) RETURNS text[] LANGUAGE sql AS $$
    SELECT coalesce(array_agg(e.name ORDER BY e.name COLLATE "C"), '{}') FROM dwh._evaluate_checks(load_ids) AS e WHERE e.status = 'fail' $$;

-- Eight loads over the same users and products, the later ones with many late events, replays and conflicts.
SELECT is((SELECT count(*) FROM dwh.generate_events(dwh.landing_directory() || format('/%s.jsonl', n), events => 150, users => 12 + 3 * n, products => 5, days => 20,
    start_at => timestamptz '2025-03-20Z' - n * interval '2 days', seed => 100 + n % 6, dirty_rate => 0.2,
    dirty_kinds => '{truncated_json,null_user,blank_line,replay,conflict,conflict_moved,late_event,missing_revenue}')), 1::bigint, 'log ' || n) FROM generate_series(1, 8) AS n;
SELECT lives_ok(format('SELECT * FROM dwh.run_pipeline(%L)', n || '.jsonl'), 'run ' || n) FROM generate_series(1, 8) AS n;
UPDATE ops.quality_checks SET enabled = false WHERE kind IN (SELECT k.kind FROM dwh.check_kinds() AS k WHERE k.is_timely);
UPDATE ops.quality_checks SET severity = 'warn';   -- so that also one that ends with an error is a verdict
CREATE TABLE public.before AS SELECT l.load_id, public.failing(ARRAY[l.load_id]) AS failing FROM ops.loads AS l;
SELECT is(public.failing(NULL), '{event_conflicts}', 'undamaged: all pass, but for the conflicts that came');
SELECT is((SELECT bool_and(b.failing <@ '{event_conflicts}'::text[]) FROM public.before AS b), true, 'undamaged: every load alone passes');
SELECT is((SELECT count(*) > 0 FROM ops.loads AS l WHERE l.conflicting > 0 AND l.replayed > 0), true, 'there are conflicts and replays');

-- Damages of one load (%1$s); %2$s is a number by chance. A fact of another load stands within that one's time: one before it is
-- left to conservation.
CREATE TABLE public.damages (damage text, statement text, is_of_load boolean DEFAULT false);
INSERT INTO public.damages VALUES
    ('a fact is gone', 'DELETE FROM marts.fact_user_events AS f WHERE (f.load_id, f.line_no) = (SELECT s.load_id, s.line_no FROM staging.user_events AS s WHERE s.load_id = %1$s ORDER BY md5(s.line_no::text || %2$s) LIMIT 1)'),
    ('a fact is doubled', 'INSERT INTO marts.fact_user_events SELECT f.event_id, CASE WHEN f.event_time < ''2025-04-01Z'' THEN timestamptz ''2025-04-02Z'' ELSE ''2025-03-30Z'' END, f.event_type, f.session_id, f.user_key, f.product_key, f.quantity, f.price, f.revenue, f.attributes, f.load_id, f.line_no FROM marts.fact_user_events AS f WHERE f.load_id = %1$s ORDER BY md5(f.line_no::text || %2$s) LIMIT 1'),
    ('a fact has another id', 'UPDATE marts.fact_user_events AS f SET event_id = gen_random_uuid() WHERE (f.load_id, f.line_no) = (SELECT s.load_id, s.line_no FROM staging.user_events AS s WHERE s.load_id = %1$s ORDER BY md5(s.line_no::text || %2$s) LIMIT 1)'),
    ('a fact has another user', 'UPDATE marts.fact_user_events AS f SET user_key = (SELECT d.user_key FROM marts.dim_user AS d ORDER BY md5(d.user_key::text || %2$s) LIMIT 1) WHERE (f.load_id, f.line_no) = (SELECT s.load_id, s.line_no FROM staging.user_events AS s WHERE s.load_id = %1$s ORDER BY md5(s.line_no::text || %2$s) LIMIT 1)'),
    ('a fact has no user', 'UPDATE marts.fact_user_events AS f SET user_key = -%2$s - 1 WHERE (f.load_id, f.line_no) = (SELECT s.load_id, s.line_no FROM staging.user_events AS s WHERE s.load_id = %1$s ORDER BY md5(s.line_no::text || %2$s) LIMIT 1)'),
    ('a fact has no product', 'UPDATE marts.fact_user_events AS f SET product_key = -%2$s - 1 WHERE (f.load_id, f.line_no) = (SELECT s.load_id, s.line_no FROM staging.user_events AS s WHERE s.load_id = %1$s ORDER BY md5(s.line_no::text || %2$s) LIMIT 1)'),
    ('a fact is of another load', 'UPDATE marts.fact_user_events AS f SET load_id = %1$s %% 8 + 1 WHERE (f.load_id, f.line_no) = (SELECT s.load_id, s.line_no FROM staging.user_events AS s WHERE s.load_id = %1$s AND s.event_time >= (SELECT l.first_event FROM ops.loads AS l WHERE l.load_id = %1$s %% 8 + 1) ORDER BY md5(s.line_no::text || %2$s) LIMIT 1)'),
    ('a staged event is gone', 'DELETE FROM staging.user_events AS s WHERE (s.load_id, s.line_no) = (SELECT s.load_id, s.line_no FROM staging.user_events AS s WHERE s.load_id = %1$s ORDER BY md5(s.line_no::text || %2$s) LIMIT 1)'),
    ('a staged event has no user', 'ALTER TABLE staging.user_events ALTER user_id DROP NOT NULL; UPDATE staging.user_events AS s SET user_id = NULL WHERE (s.load_id, s.line_no) = (SELECT s.load_id, s.line_no FROM staging.user_events AS s WHERE s.load_id = %1$s ORDER BY md5(s.line_no::text || %2$s) LIMIT 1)'),
    ('a staged event has another user', 'UPDATE staging.user_events AS s SET user_id = ''nobody'' WHERE (s.load_id, s.line_no) = (SELECT s.load_id, s.line_no FROM staging.user_events AS s WHERE s.load_id = %1$s ORDER BY md5(s.line_no::text || %2$s) LIMIT 1)'),
    ('a raw line is gone', 'DELETE FROM raw.user_events AS r WHERE (r.load_id, r.line_no) = (SELECT r.load_id, r.line_no FROM raw.user_events AS r WHERE r.load_id = %1$s ORDER BY md5(r.line_no::text || %2$s) LIMIT 1)'),
    ('a raw line is of another load', 'UPDATE raw.user_events AS r SET load_id = %1$s %% 8 + 1, line_no = 100000 WHERE (r.load_id, r.line_no) = (SELECT r.load_id, r.line_no FROM raw.user_events AS r WHERE r.load_id = %1$s ORDER BY md5(r.line_no::text || %2$s) LIMIT 1)'),
    ('the rejects are gone', 'DELETE FROM ops.rejects AS j WHERE j.load_id = %1$s'),
    ('the conflicts are gone', 'DELETE FROM ops.event_conflicts AS c WHERE c.load_id = %1$s'),
    ('a conflict more', 'INSERT INTO ops.event_conflicts SELECT s.load_id, 100000, s.event_id, s.load_id, s.line_no, ''{}'' FROM staging.user_events AS s WHERE s.load_id = %1$s LIMIT 1'),
    ('a count of the ledger', 'UPDATE ops.loads AS l SET (lines, loaded, rejected, blank, replayed, facts) = (SELECT l.lines + (%2$s %% 6 = 5)::integer, l.loaded + CASE WHEN %2$s %% 6 < 2 THEN 1 ELSE 0 END, l.rejected + CASE %2$s %% 6 WHEN 0 THEN -1 WHEN 2 THEN 1 ELSE 0 END, l.blank + CASE %2$s %% 6 WHEN 1 THEN -1 WHEN 2 THEN -1 WHEN 5 THEN 1 ELSE 0 END, l.replayed + CASE %2$s %% 6 WHEN 3 THEN 1 ELSE 0 END, l.facts + CASE %2$s %% 6 WHEN 4 THEN 1 ELSE 0 END) WHERE l.load_id = %1$s'),
    ('too many refused', 'UPDATE ops.loads AS l SET rejected = l.rejected + 1000, lines = l.lines + 1000 WHERE l.load_id = %1$s'),
    ('a version is gone', 'DELETE FROM marts.dim_user AS d WHERE d.user_key = (SELECT f.user_key FROM marts.fact_user_events AS f WHERE f.load_id = %1$s ORDER BY md5(f.line_no::text || %2$s) LIMIT 1)'),
    ('a version begins later', 'UPDATE marts.dim_user AS d SET valid_from = d.valid_from + interval ''1 us'' WHERE d.user_key = (SELECT f.user_key FROM marts.fact_user_events AS f WHERE f.load_id = %1$s ORDER BY md5(f.line_no::text || %2$s) LIMIT 1)'),
    ('a version begins earlier', 'UPDATE marts.dim_user AS d SET valid_from = d.valid_from - interval ''1 us'' WHERE d.user_key = (SELECT f.user_key FROM marts.fact_user_events AS f WHERE f.load_id = %1$s ORDER BY md5(f.line_no::text || %2$s) LIMIT 1)'),
    ('a version ends otherwise', 'UPDATE marts.dim_user AS d SET valid_to = coalesce(d.valid_to + CASE WHEN %2$s %% 2 = 0 THEN interval ''1 us'' ELSE interval ''-1 us'' END, d.valid_from + interval ''1 us''), is_current = false WHERE d.user_key = (SELECT f.user_key FROM marts.fact_user_events AS f WHERE f.load_id = %1$s ORDER BY md5(f.line_no::text || %2$s) LIMIT 1)'),
    ('a version is of another user', 'UPDATE marts.dim_user AS d SET user_id = (SELECT max(o.user_id) FROM marts.dim_user AS o WHERE o.user_id <> d.user_id), valid_to = coalesce(d.valid_to, d.valid_from + interval ''1 us''), is_current = false WHERE d.user_key = (SELECT f.user_key FROM marts.fact_user_events AS f WHERE f.load_id = %1$s ORDER BY md5(f.line_no::text || %2$s) LIMIT 1)'),
    ('a price is gone', 'DELETE FROM marts.dim_product_price AS v WHERE v.product_key = (SELECT p.product_key FROM staging.user_events AS s JOIN marts.dim_product AS p USING (product_id) WHERE s.load_id = %1$s AND s.price IS NOT NULL ORDER BY md5(s.line_no::text || %2$s) LIMIT 1)'),
    ('a price ends otherwise', 'UPDATE marts.dim_product_price AS v SET valid_to = coalesce(v.valid_to, v.valid_from) + interval ''1 us'', is_current = false WHERE (v.product_key, v.valid_from) = (SELECT p.product_key, max(h.valid_from) FROM staging.user_events AS s JOIN marts.dim_product AS p USING (product_id) JOIN marts.dim_product_price AS h USING (product_key) WHERE s.load_id = %1$s AND s.price IS NOT NULL GROUP BY 1 ORDER BY md5(p.product_key::text || %2$s) LIMIT 1)'),
    ('a price is another', 'UPDATE marts.dim_product AS p SET price = -1 WHERE p.product_id = (SELECT s.product_id FROM staging.user_events AS s WHERE s.load_id = %1$s AND s.price IS NOT NULL ORDER BY md5(s.line_no::text || %2$s) LIMIT 1)'),
    ('a product is gone', 'DELETE FROM marts.dim_product AS p WHERE p.product_key = (SELECT f.product_key FROM marts.fact_user_events AS f WHERE f.load_id = %1$s ORDER BY md5(f.line_no::text || %2$s) LIMIT 1)');

-- These touch rows of the load alone; versions, products and prices are others' as well, also from before its first event.
UPDATE public.damages SET is_of_load = damage ~ '^(a fact|a staged|a raw|the rejects|the conflicts|a conflict|a count|too many)' AND damage !~ 'of another load';

-- What fails of the damaged load, of all loads one by one, and of all at once.
CREATE FUNCTION public.damaged(statement text, load_id bigint, OUT of_load text[], OUT of_each text[], OUT of_all text[]) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    of_load := public.failing(ARRAY[load_id]);
    SELECT array_agg(DISTINCT f.name ORDER BY f.name) INTO of_each FROM public.before AS l, unnest(public.failing(ARRAY[l.load_id])) AS f (name);
    of_all := public.failing(NULL);
    RAISE EXCEPTION SQLSTATE 'TT000';
EXCEPTION WHEN SQLSTATE 'TT000' THEN
    NULL;
END $$;
CREATE TABLE public.verdicts AS
    SELECT d.damage, d.is_of_load, r.round, l.load_id, v.*, b.failing AS before, d.statement
      FROM public.damages AS d CROSS JOIN generate_series(1, 4) AS r (round)
     CROSS JOIN LATERAL (SELECT (('x' || left(md5(d.damage || r.round), 6))::bit(24)::integer % 8 + 1)::bigint AS load_id) AS l
      JOIN public.before AS b ON b.load_id = l.load_id
     CROSS JOIN LATERAL public.damaged(format(d.statement, l.load_id, r.round), l.load_id) AS v;

SELECT is((SELECT count(*) FROM public.verdicts), 4 * count(*), 'every damage was done, and judged') FROM public.damages;
SELECT is_empty('SELECT damage, round, load_id, of_load, of_all FROM public.verdicts WHERE NOT of_load <@ of_all', 'what fails of a load fails of all');
SELECT is_empty('SELECT damage, round, load_id, of_each, of_all FROM public.verdicts WHERE of_each IS DISTINCT FROM of_all', 'load by load the same checks fail as of all at once');
SELECT is_empty($$SELECT damage, round, load_id, of_load, of_all FROM public.verdicts
    WHERE is_of_load AND array_remove(of_load, 'event_conflicts') IS DISTINCT FROM array_remove(of_all, 'event_conflicts')$$, 'damage of a load''s own rows: the increment gives the verdicts of a look at everything');
SELECT is_empty($$SELECT damage FROM public.verdicts GROUP BY damage HAVING bool_and(of_all = '{event_conflicts}' AND of_load = before)$$, 'every damage is found at least once');
SELECT is_empty($$SELECT c.name FROM ops.quality_checks AS c WHERE c.enabled AND NOT EXISTS (SELECT FROM public.verdicts AS v WHERE c.name = ANY (v.of_load))$$, 'every check of loads failed at least once');
SELECT is(public.failing(NULL), '{event_conflicts}', 'all was undone');
SELECT * FROM finish();
