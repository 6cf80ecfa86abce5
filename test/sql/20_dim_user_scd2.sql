-- 20_dim_user_scd2: the versions of each user are a function of all observations, whatever order they arrived in.
\set VERBOSITY sqlstate
SET timezone = 'UTC';
SET datestyle = 'ISO, YMD';
SET client_min_messages = warning;
-- Observations as text: "A@1 -@6 B@4" = device A on day 1, none known on day 6, B on day 4; each word is one load.
CREATE FUNCTION test.observe(words text, who text DEFAULT 'u') RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    word text;
    n int := 0;
BEGIN
    -- as test.begin() does, only faster
    TRUNCATE raw.user_events, staging.user_events, marts.dim_user, marts.fact_user_events, ops.loads, ops.files, ops.rejects, ops.event_conflicts RESTART IDENTITY;
    FOREACH word IN ARRAY string_to_array(words, ' ') LOOP
        n := n + 1;
        PERFORM test.put(format('o%s.jsonl', n), VARIADIC (SELECT array_agg(test.event(jsonb_build_object('user_id', who, 'event_id', o, 'event_time', format('2025-01-%sT00:00:00Z', lpad(split_part(o, '@', 2), 2, '0')),
            'device', nullif(split_part(o, '@', 1), '-'), 'country', 'KR'))) FROM unnest(string_to_array(word, '+')) AS o));
        PERFORM count(*) FROM test.load(format('o%s.jsonl', n));
        PERFORM count(*) FROM test.build();
    END LOOP;
END $$;
-- "A[1,3) B[3,)"
CREATE FUNCTION test.versions() RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(format('%s[%s,%s)%s', coalesce(device, '-'), extract(day FROM valid_from), extract(day FROM valid_to), CASE WHEN is_current THEN '*' END), ' ' ORDER BY valid_from) FROM marts.dim_user $$;
-- each fact's version
CREATE FUNCTION test.facts() RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(format('%s:%s', extract(day FROM f.event_time), coalesce(d.device, '-')), ' ' ORDER BY f.event_time, f.event_id)
      FROM marts.fact_user_events AS f JOIN marts.dim_user AS d USING (user_key) $$;
CREATE FUNCTION test.case(words text) RETURNS TABLE (arrival text, versions text, facts text, differences bigint) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM test.observe(words);
    RETURN QUERY SELECT words, test.versions(), test.facts(), (SELECT count(*) FROM test.differences());
END $$;

SELECT c.* FROM unnest(ARRAY[
    'A@1',                      -- opens
    'A@1 A@2',                  -- nothing changes
    'A@1 B@5',                  -- closes and opens
    'A@1 A@5 B@3',              -- a late one splits: A[1,3) B[3,5) A[5,)
    'A@1 -@6 B@4',              -- null says nothing: A[1,4) B[4,)
    'A@5 B@1',                  -- before the first, another value: a new first version
    'A@5 A@1',                  -- before the first, the same: valid_from moves
    'A@1 B@5 A@3',              -- equal to the surrounding value: no new version ...
    'A@1 B@5 A@3 B@2',          -- ... but remembered
    'A@1 B@5 B@3',              -- the change was earlier than thought
    'A@1 B@5 A@9 B@7 C@5',
    'A@1+B@2+A@3',              -- A, B, A in one load: three versions
    'B@2+A@3+A@1',              -- lines out of order
    '-@1 A@3',                  -- NULL to a value is a change
    '-@1 -@2',
    'A@3 -@1',                  -- not known before: NULL until it is
    'A@1 B@3 -@2',
    'A@1 B@1',                  -- one instant: the greater event_id wins ...
    'B@1 A@1',                  -- ... whatever came first
    'A@1 B@5 A@5',
    'A@1 B@5 -@5',
    'A@2 B@4 C@6 A@3 A@5 B@1'
]) WITH ORDINALITY AS w (words, n), test.case(w.words) AS c ORDER BY w.n;

-- Any order of arrival, in one load or in many, gives the same: all 24 orders of four observations, each also as one load.
CREATE TABLE test.orders AS
    SELECT array_to_string(ARRAY[a, b, c, d], ' ') AS words
      FROM unnest(ARRAY['A@2', 'B@4', '-@5', 'A@7']) AS a, unnest(ARRAY['A@2', 'B@4', '-@5', 'A@7']) AS b, unnest(ARRAY['A@2', 'B@4', '-@5', 'A@7']) AS c, unnest(ARRAY['A@2', 'B@4', '-@5', 'A@7']) AS d
     WHERE a NOT IN (b, c, d) AND b NOT IN (c, d) AND c <> d;
SELECT count(*) AS orders, string_agg(DISTINCT c.versions, ' | ') AS versions, string_agg(DISTINCT c.facts, ' | ') AS facts, sum(c.differences) AS differences
  FROM test.orders AS o, test.case(o.words) AS c;
SELECT count(*) AS orders, string_agg(DISTINCT c.versions, ' | ') AS versions, string_agg(DISTINCT c.facts, ' | ') AS facts, sum(c.differences) AS differences
  FROM test.orders AS o, test.case(replace(o.words, ' ', '+')) AS c;
SELECT count(*) AS orders, string_agg(DISTINCT c.versions, ' | ') AS versions, sum(c.differences) AS differences
  FROM test.orders AS o, test.case(overlay(o.words PLACING '+' FROM 8 FOR 1)) AS c;
DROP TABLE test.orders;

-- Attribute by attribute: the version may be a pair that no single event stated.
SELECT test.begin();
SELECT test.put('pair.jsonl',
    test.event('{"event_id": "00000000-0000-0000-0000-000000000001", "device": "mobile", "country": "KR"}'),
    test.event('{"event_id": "00000000-0000-0000-0000-000000000002", "device": null, "country": "US"}'),
    test.event('{"event_id": "00000000-0000-0000-0000-000000000003", "device": "", "country": null}'),
    test.event('{"event_id": "10000000-0000-0000-0000-000000000000", "user_id": "u2", "device": "a", "event_time": "2025-01-01T00:00:00Z"}'),
    test.event('{"event_id": "ff000000-0000-0000-0000-000000000000", "user_id": "u2", "device": "b", "event_time": "2025-01-01T00:00:00Z"}'),
    test.event('{"event_id": "20000000-0000-0000-0000-000000000000", "user_id": "u2", "device": "c", "event_time": "2025-01-01T00:00:00Z"}'));
SELECT loaded FROM test.load('pair.jsonl');
SELECT count(*) FROM test.build();
SELECT user_id, device, country, valid_from FROM marts.dim_user ORDER BY user_id;
-- ids are bytes: case, trailing blanks and accents make other users; so do values
SELECT test.put('bytes.jsonl', test.event('{"event_id": "c1", "user_id": "U1", "device": "x"}'), test.event('{"event_id": "c2", "user_id": "u1 ", "device": "X"}'),
    test.event('{"event_id": "c3", "user_id": "é"}'), test.event(jsonb_build_object('event_id', 'c4', 'user_id', U&'e\0301')));
SELECT loaded FROM test.load('bytes.jsonl');
SELECT count(*) FROM test.build();
SELECT count(*) FROM marts.dim_user;
SELECT * FROM test.differences();

-- What apply_scd2 says it did: a late change splits history, facts inside are re-pointed (mission 20).
SELECT test.observe('KR@1 KR@20 US@28');
SELECT test.put('late.jsonl', test.event('{"event_id": "l1", "user_id": "u", "event_time": "2025-01-10T00:00:00Z", "device": "JP", "country": "KR"}'));
SELECT test.versions(), test.facts();
SELECT loaded FROM test.load('late.jsonl');
SELECT staged FROM dwh.stage_events();
SELECT status, loads, rows_in, opened, closed, split, moved, removed, repointed FROM dwh.apply_scd2();
SELECT test.versions();
SELECT status, opened, repointed FROM dwh.apply_scd2();
SELECT count(*) FROM test.build();
SELECT test.versions(), test.facts();
SELECT * FROM test.differences();

-- Surrogate keys are minted once: same start keeps the key, a moved start too, only what is new gets a new one.
SELECT test.observe('A@5 B@9');
SELECT user_key AS a_key FROM marts.dim_user WHERE device = 'A' \gset
SELECT user_key AS b_key FROM marts.dim_user WHERE device = 'B' \gset
SELECT test.put('k1.jsonl', test.event('{"event_id": "k1", "user_id": "u", "event_time": "2025-01-02T00:00:00Z", "device": "A", "country": "KR"}'));   -- A moves to day 2
SELECT test.put('k2.jsonl', test.event('{"event_id": "k2", "user_id": "u", "event_time": "2025-01-07T00:00:00Z", "device": "B", "country": "KR"}'));   -- B moves to day 7
SELECT test.put('k3.jsonl', test.event('{"event_id": "k3", "user_id": "u", "event_time": "2025-01-04T00:00:00Z", "device": "C", "country": "KR"}'));   -- A[2,4) C[4,5) A[5,7)
SELECT loaded FROM test.load('k1.jsonl');
SELECT count(*) FROM test.build();
SELECT test.versions(), (SELECT user_key FROM marts.dim_user WHERE device = 'A') = :a_key AS a_keeps, (SELECT user_key FROM marts.dim_user WHERE device = 'B') = :b_key AS b_keeps;
SELECT loaded FROM test.load('k2.jsonl');
SELECT count(*) FROM test.build();
SELECT test.versions(), (SELECT user_key FROM marts.dim_user WHERE device = 'A') = :a_key AS a_keeps, (SELECT user_key FROM marts.dim_user WHERE device = 'B') = :b_key AS b_keeps;
SELECT loaded FROM test.load('k3.jsonl');
SELECT count(*) FROM test.build();
SELECT device, extract(day FROM valid_from) AS since, user_key = :a_key AS is_a, user_key = :b_key AS is_b FROM marts.dim_user ORDER BY valid_from;
SELECT test.facts();
SELECT * FROM test.differences();

-- Half-open, whatever happened: no overlap, no gap, one current row, no zero length.
SELECT count(*) FILTER (WHERE valid_to <> next_from) AS overlaps_or_gaps, count(*) FILTER (WHERE valid_to <= valid_from) AS zero_length, count(*) FILTER (WHERE is_current) AS current_rows
  FROM (SELECT *, lead(valid_from) OVER (PARTITION BY user_id ORDER BY valid_from) AS next_from FROM marts.dim_user) AS d;
-- Every accepted event is an observation, whatever its type.
SELECT test.begin();
SELECT test.put('types.jsonl', test.event('{"event_type": "never_seen", "device": "tv"}'));
SELECT loaded FROM test.load('types.jsonl');
SELECT count(*) FROM test.build();
SELECT user_id, device FROM marts.dim_user;
-- dwh.last_known: the last input that is not null
SELECT dwh.last_known(x ORDER BY n) FROM (VALUES (1, 'a'), (2, NULL), (3, 'b'), (4, NULL)) AS v (n, x);
SELECT dwh.last_known(x) IS NULL AS none FROM (VALUES (NULL::text), (NULL)) AS v (x);
SELECT n, dwh.last_known(x) OVER (ORDER BY n) FROM (VALUES (1, NULL::int), (2, 7), (3, NULL), (4, 8)) AS v (n, x);
