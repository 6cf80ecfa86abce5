-- One round of 94_dry_run.sh: says before what a run would do, lets it be done, and keeps both.
-- Variables: round, dir, access (READ ONLY or READ WRITE), how (verbs or run), ending (COMMIT or ROLLBACK), rest (the other steps).
\set QUIET on
SELECT public.state() AS before, coalesce((SELECT max(load_id) FROM ops.loads), 0) AS last_id,
       coalesce((SELECT max(last_event) FROM ops.loads WHERE facts > 0), '-infinity') AS newest \gset
BEGIN TRANSACTION :access;
SELECT coalesce(jsonb_agg(to_jsonb(e)), '[]') AS said FROM dwh._examine(:'dir') AS e \gset
SELECT jsonb_agg(to_jsonb(s) - '{elapsed, message}'::text[]) AS steps FROM dwh._dry_run(:'dir') AS s \gset
SELECT coalesce(pg_current_xact_id_if_assigned()::text, '') AS xid,
       (SELECT coalesce(string_agg(DISTINCT mode, ', '), '') FROM pg_locks WHERE pid = pg_backend_pid() AND locktype <> 'virtualxid') AS modes \gset
COMMIT;
INSERT INTO public.trouble SELECT :round, 'it has a transaction id' WHERE :'xid' <> '';
INSERT INTO public.trouble SELECT :round, 'it holds ' || :'modes' WHERE :'modes' <> 'AccessShareLock';
INSERT INTO public.trouble SELECT :round, 'something has changed' WHERE public.state() <> :'before';
SELECT :'how' = 'verbs' AS by_verbs \gset
BEGIN;
\if :by_verbs
CREATE TEMPORARY TABLE waiting ON COMMIT DROP AS SELECT load_id, forgotten FROM ops.loads
 WHERE checked_at IS NULL AND staged_at IS NULL AND status NOT IN ('quarantined', 'stopped');
CREATE TEMPORARY TABLE loaded ON COMMIT DROP AS SELECT row_number() OVER () AS place, l.* FROM dwh.load_jsonl(:'dir') AS l;
SELECT FROM dwh.stage_events();
INSERT INTO public.said SELECT :round, 'files', public.comparable(:'said'), public.made(:round, :last_id, :'newest');
INSERT INTO public.said SELECT :round, 'touched', (SELECT jsonb_build_object('users', coalesce(sum((e ->> 'users')::bigint), 0),
       'products', coalesce(sum((e ->> 'products')::bigint), 0)) FROM jsonb_array_elements(:'said') AS e), public.touched(:last_id);
\else
SELECT public.try_run(:'dir') AS done \gset
INSERT INTO public.said SELECT :round, 'steps', public.promised(:'steps', :'done'), :'done';
\endif
-- what is compared must outlive what is rolled back
SELECT coalesce(jsonb_agg(to_jsonb(s)), '[]') AS kept FROM public.said AS s WHERE s.round = :round \gset
:ending;
DELETE FROM public.said WHERE round = :round;
INSERT INTO public.said SELECT * FROM jsonb_populate_recordset(NULL::public.said, :'kept');
:rest;
