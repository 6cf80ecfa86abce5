-- 80_erasure.sql: a user leaves the warehouse: every layer, every ledger; and later arrivals are refused.
--
-- Invariants: afterwards the marts are what a load of the same files without the user's lines gives; the counts of each
-- load stay conserved, as the erased lines move to ops.loads.forgotten.
-- What a conflict was decided by is not decided again: an event of another user whose event_id the erased one had first
-- stays in ops.event_conflicts.
-- Repeats are harmless: nothing is left to erase.

-- Noun: this payload is the user's, whatever else it is. No SET clause, so that it is inlined.
CREATE FUNCTION dwh._is_of_user(payload jsonb, user_id text) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
    SELECT (payload OPERATOR(pg_catalog.->>) 'user_id') OPERATOR(pg_catalog.=) user_id
       AND pg_catalog.jsonb_typeof(payload OPERATOR(pg_catalog.->) 'user_id') IN ('string', 'number')
$$;
COMMENT ON FUNCTION dwh._is_of_user(jsonb, text) IS 'True if staging would read this user_id out of the payload, be it an event or not.';

-- What is no JSON can only be searched: for the user_id, its characters as they are or as JSON escapes them, not as a part
-- of a longer word. Letters beyond ASCII are told by ranges, so that no locale decides.
CREATE FUNCTION dwh._user_pattern(user_id text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
    WITH letters AS (
        SELECT c.position, ascii(c.letter) AS code FROM regexp_split_to_table(user_id, '') WITH ORDINALITY AS c (letter, position)),
    escaped AS (
        SELECT l.position, l.code,
               CASE WHEN l.code < 65536 THEN '\\u' || lpad(to_hex(l.code), 4, '0')
                    ELSE '\\u' || to_hex(55296 + ((l.code - 65536) >> 10)) || '\\u' || to_hex(56320 + ((l.code - 65536) & 1023)) END AS hex,
               CASE l.code WHEN 8 THEN '|\\b' WHEN 9 THEN '|\\t' WHEN 10 THEN '|\\n' WHEN 12 THEN '|\\f' WHEN 13 THEN '|\\r'
                           WHEN 34 THEN '|\\"' WHEN 47 THEN '|\\/' WHEN 92 THEN '|\\\\' ELSE '' END AS short
          FROM letters AS l),
    spelled AS (
        SELECT string_agg(format('(?:\U%s|%s%s)', lpad(to_hex(e.code), 8, '0'),
               replace(replace(replace(replace(replace(replace(e.hex, 'a', '[aA]'), 'b', '[bB]'), 'c', '[cC]'), 'd', '[dD]'), 'e', '[eE]'),
                       'f', '[fF]'), e.short), '' ORDER BY e.position) AS word
          FROM escaped AS e)
    SELECT format('(?:(?<!%1$s)|(?<=\\[bfnrt])|(?<=\\u00[0-7][0-9A-Fa-f]))%2$s(?!%1$s|\\u(?!00[0-7]))',
                  '[A-Za-z0-9_\u00C0-\u1FFF\u2C00-\u2FEF\u3040-\uD7FF\uF900-\U0010FFFF]', s.word) FROM spelled AS s
$$;
COMMENT ON FUNCTION dwh._user_pattern(text) IS
'A regular expression that finds a user_id in text, as it is or as JSON escapes it, and not inside a longer word.';

CREATE FUNCTION dwh._names_user(bytes bytea, user_id text, pattern text) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF position(convert_to(user_id, 'UTF8') IN bytes) = 0 AND position(convert_to('\', 'UTF8') IN bytes) = 0 THEN
        RETURN false;   -- neither as it is nor escaped
    END IF;
    RETURN convert_from(bytes, 'UTF8') ~ pattern COLLATE "C";
EXCEPTION WHEN character_not_in_repertoire OR untranslatable_character THEN
    -- no text: other letters than ASCII are found wherever their bytes are, and are blanks for the rest
    RETURN user_id ~ '[^\u0001-\u007f]' COLLATE "C" AND position(convert_to(user_id, 'UTF8') IN bytes) > 0
        OR dwh._ascii_of(bytes) ~ pattern COLLATE "C";
END
$$;
COMMENT ON FUNCTION dwh._names_user(bytea, text, text) IS
'True if bytes, which may be no text at all, hold this user_id as a word. pattern: dwh._user_pattern(user_id).';

CREATE FUNCTION dwh._is_users_reject(bytes bytea, is_whole boolean, user_id text, pattern text) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF is_whole THEN
        RETURN coalesce(dwh._is_of_user(convert_from(bytes, 'UTF8')::jsonb, _is_users_reject.user_id), false);
    END IF;
    RETURN dwh._names_user(bytes, _is_users_reject.user_id, pattern);
EXCEPTION WHEN data_exception OR character_not_in_repertoire OR untranslatable_character THEN
    RETURN dwh._names_user(bytes, _is_users_reject.user_id, pattern);
END
$$;
COMMENT ON FUNCTION dwh._is_users_reject(bytea, boolean, text, text) IS
'True if a payload as jsonb prints it is the user''s; one that was kept in part is if it names the user.';

-- Work table of one call: dwh_erased, a row for each row that was erased, with its layer. Whatever reads it is PL/pgSQL: an
-- SQL function would look for the table of the first call when it is called again in one transaction.
CREATE FUNCTION dwh._begin_erasure() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning AS $$
BEGIN
    PERFORM dwh._require_free_names(ARRAY['dwh_erased']);
    CREATE TEMPORARY TABLE dwh_erased (
        layer text NOT NULL, load_id bigint NOT NULL, line_no bigint NOT NULL, event_id uuid, event_time timestamptz, product_key bigint)
        ON COMMIT DROP;
END
$$;
COMMENT ON FUNCTION dwh._begin_erasure() IS 'Makes the work table of forget_user.';

CREATE FUNCTION dwh._erase_raw(user_id text) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    erased bigint;
BEGIN
    WITH gone AS (
        DELETE FROM raw.user_events AS r WHERE dwh._is_of_user(r.payload, _erase_raw.user_id)
        RETURNING r.load_id, r.line_no, r.payload)
    INSERT INTO pg_temp.dwh_erased (layer, load_id, line_no, event_id, event_time, product_key)
    SELECT 'raw', g.load_id, g.line_no, e.event_id, e.event_time, p.product_key
      FROM gone AS g CROSS JOIN ops.warehouse AS w   -- when facts were dropped, an event may be in no other layer: see _move_counts
      LEFT JOIN marts.dim_product AS p ON p.product_id = g.payload ->> 'product_id'
      LEFT JOIN LATERAL dwh.parse_event(g.payload) AS e ON w.facts_since IS NOT NULL;
    GET DIAGNOSTICS erased = ROW_COUNT;
    RETURN erased;
END
$$;
COMMENT ON FUNCTION dwh._erase_raw(text) IS 'Deletes the user''s lines from raw, of all loads; returns how many. Reads all of raw.';

CREATE FUNCTION dwh._erase_events(user_id text, OUT staging bigint, OUT facts bigint, OUT conflicts bigint, OUT versions bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    old_facts bigint;
BEGIN
    WITH gone AS (
        DELETE FROM staging.user_events AS s WHERE s.user_id = _erase_events.user_id
        RETURNING s.load_id, s.line_no, s.event_id, s.event_time, s.product_id)
    INSERT INTO pg_temp.dwh_erased
    SELECT 'staging', g.load_id, g.line_no, g.event_id, g.event_time, p.product_key
      FROM gone AS g LEFT JOIN marts.dim_product AS p ON p.product_id = g.product_id;
    GET DIAGNOSTICS staging = ROW_COUNT;
    ANALYZE pg_temp.dwh_erased;

    WITH gone AS (
        DELETE FROM marts.fact_user_events AS f USING pg_temp.dwh_erased AS e
         WHERE e.layer = 'staging' AND f.event_id = e.event_id AND f.event_time = e.event_time
        RETURNING f.load_id, f.line_no, f.event_id, f.event_time, f.product_key)
    INSERT INTO pg_temp.dwh_erased SELECT 'facts', g.* FROM gone AS g;
    GET DIAGNOSTICS facts = ROW_COUNT;
    -- those from before what staging still has are found by the user's versions
    WITH gone AS (
        DELETE FROM marts.fact_user_events AS f
         WHERE f.event_time < (SELECT w.staging_since FROM ops.warehouse AS w)
           AND f.user_key IN (SELECT d.user_key FROM marts.dim_user AS d WHERE d.user_id = _erase_events.user_id)
        RETURNING f.load_id, f.line_no, f.event_id, f.event_time, f.product_key)
    INSERT INTO pg_temp.dwh_erased SELECT 'facts', g.* FROM gone AS g;
    GET DIAGNOSTICS old_facts = ROW_COUNT;
    facts := facts + old_facts;
    DELETE FROM marts.dim_user AS d WHERE d.user_id = _erase_events.user_id;
    GET DIAGNOSTICS versions = ROW_COUNT;

    WITH gone AS (
        DELETE FROM ops.event_conflicts AS x WHERE dwh._is_of_user(x.payload, _erase_events.user_id)
        RETURNING x.load_id, x.line_no, x.event_id)
    INSERT INTO pg_temp.dwh_erased (layer, load_id, line_no, event_id) SELECT 'conflicts', g.load_id, g.line_no, g.event_id FROM gone AS g;
    GET DIAGNOSTICS conflicts = ROW_COUNT;
    -- a digest of what was erased is not kept either
    UPDATE ops.event_conflicts AS x SET kept_fingerprint = NULL
     WHERE x.kept_fingerprint IS NOT NULL
       AND (EXISTS (SELECT FROM pg_temp.dwh_erased AS e WHERE e.load_id = x.kept_load_id AND e.line_no = x.kept_line_no)
            OR NOT EXISTS (SELECT FROM staging.user_events AS s WHERE s.event_id = x.event_id)   -- dropped before: anybody's
               AND NOT EXISTS (SELECT FROM marts.fact_user_events AS f WHERE f.event_id = x.event_id));
END
$$;
COMMENT ON FUNCTION dwh._erase_events(text) IS
'Deletes the user''s events from staging and facts, the versions, and the conflicts that the user sent; returns how many of each.';

CREATE FUNCTION dwh._erase_rejects(user_id text) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    pattern text := dwh._user_pattern(_erase_rejects.user_id);
    events bigint;
    lines bigint;
BEGIN
    -- refused events: the user is read from raw, where that is gone from what the reject kept
    WITH gone AS (
        DELETE FROM ops.rejects AS j
         WHERE j.stage = 'stage'
           AND (EXISTS (SELECT FROM pg_temp.dwh_erased AS e WHERE e.layer = 'raw' AND e.load_id = j.load_id AND e.line_no = j.line_no)
                OR NOT EXISTS (SELECT FROM raw.user_events AS r WHERE r.load_id = j.load_id AND r.line_no = j.line_no)
                   AND dwh._is_users_reject(j.raw, octet_length(j.raw) = j.raw_bytes, _erase_rejects.user_id, pattern))
        RETURNING j.load_id, j.line_no)
    INSERT INTO pg_temp.dwh_erased (layer, load_id, line_no) SELECT 'rejects', g.load_id, g.line_no FROM gone AS g;
    GET DIAGNOSTICS events = ROW_COUNT;
    -- refused lines: the user_id that they give says whose they are, where there is none any word may. The row stays and is counted; raw_bytes too, so that a retry sees that
    -- the line was not kept.
    UPDATE ops.rejects AS j SET raw = '', message = 'erased'
     WHERE j.stage = 'load' AND j.raw <> ''
       AND (CASE WHEN cardinality(dwh._line_users(j.raw)) > 0 THEN _erase_rejects.user_id = ANY (dwh._line_users(j.raw))
                 ELSE dwh._names_user(j.raw, _erase_rejects.user_id, pattern) END
            OR dwh._says_user(j.message, _erase_rejects.user_id, pattern));
    GET DIAGNOSTICS lines = ROW_COUNT;
    RETURN events + lines;
END
$$;
COMMENT ON FUNCTION dwh._erase_rejects(text) IS
'Deletes the user''s refused events, and empties refused lines that name the user; returns how many.';

-- Rows are printed as JSON in verdicts and messages, so the user_id is in quotes there, unless it is cut: a number without them
-- is a count or a line, another word may be the user.
CREATE FUNCTION dwh._says_user(said text, user_id text, pattern text) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT position(to_jsonb(user_id)::text IN replace(said, '\"', '"')) > 0 OR user_id !~ '^[-+.0-9eE]*$' AND said ~ pattern COLLATE "C"
$$;
COMMENT ON FUNCTION dwh._says_user(text, text, text) IS 'True if a text of a ledger says the user_id. pattern: dwh._user_pattern(user_id).';

CREATE FUNCTION dwh._erase_from_ledgers(user_id text) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    pattern text := dwh._user_pattern(user_id);
    results bigint;
    runs bigint;
    alerts bigint;
BEGIN
    UPDATE ops.quality_results AS q SET offenders = NULL
     WHERE q.offenders IS NOT NULL
       AND (dwh._says_user(q.offenders::text, user_id, pattern)
            OR EXISTS (SELECT FROM jsonb_path_query(q.offenders, '$[*].event_id') AS o
                         JOIN pg_temp.dwh_erased AS e ON e.event_id::text = o #>> '{}'));
    GET DIAGNOSTICS results = ROW_COUNT;
    UPDATE ops.run_steps AS s SET message = 'erased' WHERE dwh._says_user(s.message, user_id, pattern);
    UPDATE ops.runs AS r SET message = CASE WHEN r.message IS NOT NULL THEN 'erased' END, detail = NULL, hint = NULL
     WHERE dwh._says_user(concat_ws(' ', r.message, r.detail, r.hint), user_id, pattern);
    GET DIAGNOSTICS runs = ROW_COUNT;
    UPDATE ops.alerts AS a SET title = CASE WHEN dwh._says_user(a.title, user_id, pattern) THEN 'erased' ELSE a.title END,
           body = jsonb_strip_nulls(jsonb_build_object('sqlstate', a.body -> 'sqlstate', 'erased', true))
     WHERE dwh._says_user(concat_ws(' ', a.title, a.body), user_id, pattern);
    GET DIAGNOSTICS alerts = ROW_COUNT;
    RETURN results + runs + alerts;
END
$$;
COMMENT ON FUNCTION dwh._erase_from_ledgers(text) IS
'Takes out of verdicts, runs and alerts what names the user; returns how many rows changed.';

-- Every erased line was one of its load's staged, replayed, conflicting and refused events, or was not staged yet; it is
-- forgotten now. A line that was only in raw is a replay, or an event whose staging row and fact were dropped: of one
-- event_id the first is taken for the event, within what the counts of the load allow.
CREATE FUNCTION dwh._move_counts() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    WITH lines AS (
        SELECT e.load_id, e.line_no, bool_or(e.layer = 'raw') AS in_raw, bool_or(e.layer = 'staging') AS in_staging,
               bool_or(e.layer = 'facts') AS in_facts, bool_or(e.layer = 'conflicts') AS in_conflicts, bool_or(e.layer = 'rejects') AS in_rejects,
               min(e.event_id::text) AS event_id, min(e.event_time) AS event_time
          FROM pg_temp.dwh_erased AS e GROUP BY e.load_id, e.line_no),
    judged AS (
        SELECT n.*, n.in_staging OR n.in_facts AS is_staged,
               l.staged_at IS NOT NULL AND NOT (n.in_staging OR n.in_facts OR n.in_conflicts OR n.in_rejects) AS in_raw_only,
               n.event_time < w.facts_since AS is_before_facts
          FROM lines AS n JOIN ops.loads AS l ON l.load_id = n.load_id CROSS JOIN ops.warehouse AS w),
    ranked AS (
        SELECT j.*, j.in_raw_only AND j.is_before_facts
               AND row_number() OVER (PARTITION BY j.event_id, j.in_raw_only AND j.is_before_facts ORDER BY j.load_id, j.line_no) = 1 AS is_first
          FROM judged AS j),
    counted AS (
        SELECT r.load_id, count(*) AS erased, count(*) FILTER (WHERE NOT r.in_raw) AS without_raw,
               count(*) FILTER (WHERE r.is_staged) AS staged, count(*) FILTER (WHERE r.in_facts) AS facts,
               count(*) FILTER (WHERE r.in_facts AND NOT r.in_staging) AS without_staging,
               count(*) FILTER (WHERE r.in_conflicts) AS conflicting, count(*) FILTER (WHERE r.in_rejects) AS rejected,
               count(*) FILTER (WHERE r.in_raw_only) AS raw_only, count(*) FILTER (WHERE r.is_first) AS firsts
          FROM ranked AS r GROUP BY r.load_id),
    moved AS (
        SELECT c.*, greatest(c.raw_only - l.replayed, least(c.firsts, l.staging_dropped - c.without_staging, l.facts_dropped)) AS dropped
          FROM counted AS c JOIN ops.loads AS l ON l.load_id = c.load_id)
    UPDATE ops.loads AS l
       SET forgotten = l.forgotten + m.erased, staged = l.staged - m.staged - m.dropped, replayed = l.replayed - m.raw_only + m.dropped,
           conflicting = l.conflicting - m.conflicting, stage_rejected = l.stage_rejected - m.rejected, facts = l.facts - m.facts - m.dropped,
           raw_dropped = greatest(l.raw_dropped - m.without_raw, 0),   -- 0: what a failed run quarantined never had rows
           staging_dropped = l.staging_dropped - m.without_staging - m.dropped, facts_dropped = l.facts_dropped - m.dropped
      FROM moved AS m WHERE m.load_id = l.load_id;
END
$$;
COMMENT ON FUNCTION dwh._move_counts() IS 'Moves the erased lines of the work table to forgotten in the ledger of loads.';

-- Staging has every observation since ops.warehouse.staging_since, so intervals from before stay, and those since then are
-- derived again, as dwh.product_prices() does it; loads that upsert_products() has not applied yet are left to it.
CREATE FUNCTION dwh._recompute_prices(product_keys bigint[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM marts.dim_product_price AS c
     WHERE c.product_key = ANY (product_keys) AND c.valid_from >= coalesce((SELECT w.staging_since FROM ops.warehouse AS w), '-infinity');
    WITH kept AS MATERIALIZED (
        SELECT DISTINCT ON (c.product_key) c.product_key, c.price, c.valid_from
          FROM marts.dim_product_price AS c WHERE c.product_key = ANY (product_keys) ORDER BY c.product_key, c.valid_from DESC),
    said AS (
        SELECT DISTINCT ON (p.product_key, s.event_time) p.product_key, s.event_time, s.price
          FROM marts.dim_product AS p
          JOIN staging.user_events AS s ON s.product_id = p.product_id AND s.price IS NOT NULL
          JOIN ops.loads AS l ON l.load_id = s.load_id AND l.products_at IS NOT NULL
         WHERE p.product_key = ANY (product_keys)
         ORDER BY p.product_key, s.event_time, s.event_id DESC),
    changes AS (
        SELECT d.product_key, d.event_time, d.price,
               lag(d.price, 1, k.price) OVER (PARTITION BY d.product_key ORDER BY d.event_time) IS DISTINCT FROM d.price AS is_change
          FROM said AS d LEFT JOIN kept AS k ON k.product_key = d.product_key),
    derived AS MATERIALIZED (
        SELECT c.product_key, c.price, c.event_time AS valid_from,
               lead(c.event_time) OVER (PARTITION BY c.product_key ORDER BY c.event_time) AS valid_to
          FROM changes AS c WHERE c.is_change),
    reopened AS (
        UPDATE marts.dim_product_price AS c SET valid_to = n.valid_from, is_current = n.valid_from IS NULL
          FROM kept AS k LEFT JOIN (SELECT d.product_key, min(d.valid_from) AS valid_from FROM derived AS d GROUP BY d.product_key) AS n
               ON n.product_key = k.product_key
         WHERE c.product_key = k.product_key AND c.valid_from = k.valid_from)
    INSERT INTO marts.dim_product_price (product_key, price, valid_from, valid_to, is_current)
    SELECT d.product_key, d.price, d.valid_from, d.valid_to, d.valid_to IS NULL FROM derived AS d;
END
$$;
COMMENT ON FUNCTION dwh._recompute_prices(bigint[]) IS 'Derives the price intervals of these products again from the observations that are left.';

-- What none of the events left in staging states was stated before they begin, or by the erased user alone. A price from
-- before is in the history of prices. Of a category and a brand nobody can tell: they stay, by nobody (the nil uuid), and any
-- event since then outdoes them.
CREATE FUNCTION dwh._recompute_products(product_keys bigint[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    bounds record;
    nobody uuid := '00000000-0000-0000-0000-000000000000';
    touched text[];
    named text[];   -- by events that are left
BEGIN
    SELECT w.staging_since AS staging, w.facts_since AS facts INTO bounds FROM ops.warehouse AS w;
    SELECT array_agg(p.product_id) INTO touched FROM marts.dim_product AS p WHERE p.product_key = ANY (product_keys) AND p.product_key <> 0;
    IF touched IS NULL THEN
        RETURN;
    END IF;
    PERFORM dwh._recompute_prices(product_keys);
    WITH state AS MATERIALIZED (SELECT n.* FROM dwh.product_state() AS n WHERE n.product_id = ANY (touched)),
    wanted AS (
        SELECT p.product_key,
               CASE WHEN c.is_old THEN p.category ELSE n.category END AS category,
               CASE WHEN c.is_old THEN least(p.category_time, bounds.staging) ELSE n.category_time END AS category_time,
               CASE WHEN c.is_old THEN nobody ELSE n.category_event_id END AS category_event_id,
               CASE WHEN b.is_old THEN p.brand ELSE n.brand END AS brand,
               CASE WHEN b.is_old THEN least(p.brand_time, bounds.staging) ELSE n.brand_time END AS brand_time,
               CASE WHEN b.is_old THEN nobody ELSE n.brand_event_id END AS brand_event_id,
               CASE WHEN r.is_old THEN h.price ELSE n.price END AS price,
               CASE WHEN r.is_old THEN least(p.price_time, bounds.staging) ELSE n.price_time END AS price_time,
               CASE WHEN r.is_old THEN nobody ELSE n.price_event_id END AS price_event_id
          FROM marts.dim_product AS p
          LEFT JOIN state AS n ON n.product_id = p.product_id
          LEFT JOIN marts.dim_product_price AS h ON h.product_key = p.product_key AND h.is_current
         CROSS JOIN LATERAL (SELECT bounds.staging IS NOT NULL AND n.category_time IS NULL AND p.category_time IS NOT NULL AS is_old) AS c
         CROSS JOIN LATERAL (SELECT bounds.staging IS NOT NULL AND n.brand_time IS NULL AND p.brand_time IS NOT NULL AS is_old) AS b
         CROSS JOIN LATERAL (SELECT n.price_time IS NULL AND h.price IS NOT NULL AS is_old) AS r
         WHERE p.product_id = ANY (touched)),
    changed AS (
        UPDATE marts.dim_product AS p
           SET category = w.category, category_time = w.category_time, category_event_id = w.category_event_id,
               brand = w.brand, brand_time = w.brand_time, brand_event_id = w.brand_event_id,
               price = w.price, price_time = w.price_time, price_event_id = w.price_event_id,
               is_inferred = coalesce(w.category_time, w.brand_time, w.price_time) IS NULL
          FROM wanted AS w
         WHERE p.product_key = w.product_key
           AND (p.category_event_id, p.brand_event_id, p.price_event_id) IS DISTINCT FROM (w.category_event_id, w.brand_event_id, w.price_event_id))
    SELECT coalesce(array_agg(s.product_id), '{}') INTO named FROM state AS s;

    -- a product that no event names any more would not be there either; where facts were dropped, nobody can say so
    IF bounds.facts IS NULL THEN
        WITH gone AS (
            DELETE FROM marts.dim_product AS p
             WHERE p.product_id = ANY (touched) AND p.product_id <> ALL (named)
               AND NOT EXISTS (SELECT FROM marts.fact_user_events AS f WHERE f.event_time < bounds.staging AND f.product_key = p.product_key)
            RETURNING p.product_key)
        DELETE FROM marts.dim_product_price AS c USING gone AS g WHERE c.product_key = g.product_key;
    END IF;
END
$$;
COMMENT ON FUNCTION dwh._recompute_products(bigint[]) IS
'Makes products and their prices what the events that are left say of them, and removes those that no event names any more.';

CREATE FUNCTION dwh.forget_user(
    user_id text,
    OUT status text, OUT raw bigint, OUT rejects bigint, OUT staging bigint, OUT facts bigint, OUT conflicts bigint, OUT versions bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
#variable_conflict use_column
DECLARE
    is_new boolean;
    ledgers bigint;
BEGIN
    IF coalesce(forget_user.user_id, '') = '' THEN
        RAISE EXCEPTION 'user_id is missing'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = 'It is NULL or empty, which no event''s user_id is.',
                  HINT = 'Give the user_id as staging.user_events has it: SELECT * FROM dwh.forget_user(''u000123'').';
    END IF;
    PERFORM dwh._require_warehouse();
    PERFORM dwh._lock_pipeline();
    INSERT INTO ops.forgotten_users (user_digest) VALUES (dwh._user_digest(forget_user.user_id)) ON CONFLICT DO NOTHING;
    is_new := FOUND;
    PERFORM dwh._begin_erasure();
    raw := dwh._erase_raw(forget_user.user_id);
    SELECT e.staging, e.facts, e.conflicts, e.versions INTO staging, facts, conflicts, versions FROM dwh._erase_events(forget_user.user_id) AS e;
    rejects := dwh._erase_rejects(forget_user.user_id);
    ledgers := dwh._erase_from_ledgers(forget_user.user_id);
    PERFORM dwh._move_counts();
    PERFORM dwh._recompute_products(ARRAY(SELECT DISTINCT e.product_key FROM pg_temp.dwh_erased AS e WHERE e.product_key IS NOT NULL));
    DROP TABLE pg_temp.dwh_erased;
    status := CASE WHEN raw + rejects + staging + facts + conflicts + versions + ledgers = 0 THEN 'nothing_found' ELSE 'done' END;
    IF is_new OR status = 'done' THEN
        PERFORM dwh._count_change();   -- a snapshot from before would let the user in
    END IF;
END
$$;
REVOKE EXECUTE ON FUNCTION dwh.forget_user(text) FROM PUBLIC;
COMMENT ON FUNCTION dwh.forget_user(text) IS
'Erases a user from every layer and ledger: lines of raw (also of loads not staged yet, or quarantined), staged events, facts, versions, conflicts and refused events that the user sent; refused lines that give the user_id, or have it as a word where they give none, and verdicts, runs and alerts that name the user are emptied. Products and their prices are computed again from the events that are left (what events dropped from staging may have stated stays). From then on, and for ever, events of the user that arrive are counted as ops.loads.forgotten when they are staged, and are in no layer; a salted digest remembers this, and DELETE FROM ops.forgotten_users WHERE user_digest = dwh._user_digest(user_id) lifts it. Returns one row: status (done; nothing_found: remembered all the same) and rows erased. One transaction; waits for a run at work; reads all of raw. Dead rows leave the disk with VACUUM; WAL, backups, source files and the server''s log are outside. Errors: 22023 for NULL or an empty text, 42501 without rights to the tables, 40001 where the snapshot is too old, WH004 without a warehouse. A repeat erases what has arrived since and is not staged, else changes nothing and says nothing_found.';
