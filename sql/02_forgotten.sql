-- 02_forgotten.sql: is this a user who was erased?
--
-- Invariant: what is remembered of an erased user is a digest with the warehouse's salt: enough to refuse what arrives
-- later, no user_id.

CREATE FUNCTION dwh._salted_digest(salt uuid, user_id text) RETURNS bytea
LANGUAGE sql STABLE AS $$
    SELECT pg_catalog.sha256(pg_catalog.convert_to(salt::pg_catalog.text OPERATOR(pg_catalog.||) user_id, 'UTF8'))
$$;
COMMENT ON FUNCTION dwh._salted_digest(uuid, text) IS 'SHA-256 of a salt and a user_id. No SET clause: it is inlined.';

CREATE FUNCTION dwh._user_digest(user_id text) RETURNS bytea
LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
    SELECT dwh._salted_digest(w.salt, _user_digest.user_id) FROM ops.warehouse AS w
$$;
COMMENT ON FUNCTION dwh._user_digest(text) IS
'The digest under which ops.forgotten_users remembers this user: DELETE FROM ops.forgotten_users WHERE user_digest = dwh._user_digest(''u1'') lets later arrivals of u1 in again.';

CREATE FUNCTION dwh._forgotten(user_ids text[]) RETURNS integer[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM ops.forgotten_users) THEN
        RETURN '{}';
    END IF;
    RETURN ARRAY(
        WITH sent AS MATERIALIZED (SELECT u.id, u.position FROM unnest(user_ids) WITH ORDINALITY AS u (id, position)),
        known AS MATERIALIZED (   -- a digest costs more than a comparison: one for each user
            SELECT d.id FROM (SELECT DISTINCT s.id FROM sent AS s) AS d
             CROSS JOIN ops.warehouse AS w
              JOIN ops.forgotten_users AS f ON f.user_digest = dwh._salted_digest(w.salt, d.id))
        SELECT s.position::integer FROM sent AS s JOIN known AS k ON k.id = s.id ORDER BY s.position);
END
$$;
COMMENT ON FUNCTION dwh._forgotten(text[]) IS
'The places (from 1) of the user_ids that belong to erased users; costs nothing where nobody was erased.';

-- A string as JSON reads it; what JSON would not read stays as it is.
CREATE FUNCTION dwh._unescaped(string text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN string ~ '^([^"\\\u0001-\u001f]|\\["\\/bfnrt]|\\u(?!0000|[dD][89a-fA-F])[0-9a-fA-F]{4}|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})*$'
                THEN ('"' || string || '"')::jsonb #>> '{}' ELSE string END
$$;
COMMENT ON FUNCTION dwh._unescaped(text) IS 'What stands between the quotes of a JSON string, with its escapes read.';

CREATE FUNCTION dwh._text_of(bytes bytea) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    FOR cut IN 0 .. least(3, octet_length(bytes)) LOOP
        BEGIN
            RETURN convert_from(substring(bytes FOR octet_length(bytes) - cut), 'UTF8');
        EXCEPTION WHEN character_not_in_repertoire OR untranslatable_character THEN
            CONTINUE;   -- cut inside a character, perhaps
        END;
    END LOOP;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION dwh._text_of(bytea) IS 'Bytes as UTF-8 text, without a character at the end that was cut; NULL where they are none.';

-- Most refused lines still say user_id, although something else in them, or their end, is wrong.
CREATE FUNCTION dwh._line_users(bytes bytea) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    said text[];   -- in the escape format, where any byte is text: a string without its quotes, or a number
    users text[] := '{}';
BEGIN
    FOR said IN SELECT regexp_matches(encode(bytes, 'escape'),
        '"user_id"\s*:\s*(?:"((?:\\\\(?:\\\\|[^\\])|\\[0-7]{3}|[^"\\])*)(?:"\s*(?:[,}]|$)|$)|(-?[0-9]{1,100}(?:\.[0-9]{1,100})?(?:[eE][+-]?[0-9]{1,2})?)\s*(?:[,}]|$))', 'g')
    LOOP
        users := users || CASE WHEN said[2] IS NULL THEN dwh._unescaped(dwh._text_of(decode(said[1], 'escape')))
                               WHEN said[2] ~ '^-?0[0-9]' THEN said[2] ELSE said[2]::jsonb #>> '{}' END;
    END LOOP;
    RETURN array_remove(users, NULL);
END
$$;
COMMENT ON FUNCTION dwh._line_users(bytea) IS 'The user_ids that a refused line gives under that key, each well ended, or the end of the line inside of it.';

CREATE FUNCTION dwh._ascii_of(bytes bytea) RETURNS text
LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
    SELECT replace(regexp_replace(replace(encode(bytes, 'escape'), '\\', chr(1)), '\\[0-7]{3}', ' ', 'g'), chr(1), '\')
$$;
COMMENT ON FUNCTION dwh._ascii_of(bytea) IS 'Bytes that are no text, with a blank for each that is not ASCII.';

-- Of a line without the key nobody can say whose it is: every word in it may be a user_id. Words are the strings in
-- quotes, what stands between separators, between blanks and punctuation, and runs of letters and digits.
CREATE FUNCTION dwh._words(bytes bytea) RETURNS SETOF text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    line text;
BEGIN
    BEGIN
        line := convert_from(bytes, 'UTF8');
    EXCEPTION WHEN character_not_in_repertoire OR untranslatable_character THEN   -- what is no text is blank
        line := dwh._ascii_of(bytes);
    END;
    RETURN QUERY
    SELECT trim(w.word) FROM regexp_split_to_table(line, '[,;|\t]') AS w (word)
     UNION
    SELECT w.word FROM regexp_split_to_table(line, '[\s,;|"''{}\[\]]+|:(?=\s|"|$)') AS w (word)
     UNION
    SELECT w.word FROM regexp_split_to_table(line, '[\u0001-\u002f\u003a-\u0040\u005b-\u005e\u0060\u007b-\u007f]+') AS w (word)
     UNION
    SELECT dwh._unescaped(m[1])
      FROM regexp_matches(line, '"((?:[^"\\]|\\.)*)"', 'g') AS m;
END
$$;
COMMENT ON FUNCTION dwh._words(bytea) IS 'The words in a refused line, strings in quotes as JSON reads them among them.';

CREATE FUNCTION dwh._named_users(bytes bytea) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    users text[] := dwh._line_users(bytes);
BEGIN
    RETURN CASE WHEN cardinality(users) > 0 THEN users ELSE ARRAY(SELECT w.word FROM dwh._words(bytes) AS w (word)) END;
END
$$;
COMMENT ON FUNCTION dwh._named_users(bytea) IS 'Whose a refused line may be: the user_ids it gives, or else all words in it.';

CREATE FUNCTION dwh._is_forgotten_line(bytes bytea) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN EXISTS (SELECT FROM ops.forgotten_users) AND cardinality(dwh._forgotten(dwh._named_users(bytes))) > 0;
END
$$;
COMMENT ON FUNCTION dwh._is_forgotten_line(bytea) IS 'True if a refused line may be an erased user''s; costs nothing where nobody was erased.';

-- The invariant of stage_chunk.c is about events; what is refused may be an erased user's as well.
CREATE FUNCTION dwh._forget_refused(load_id bigint) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    forgotten bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM ops.forgotten_users) THEN
        RETURN 0;
    END IF;
    -- refused lines: the row stays for the counts, and raw_bytes, so that a retry sees that the line was not kept
    UPDATE ops.rejects AS j SET raw = '', message = 'erased'
     WHERE j.load_id = _forget_refused.load_id AND j.stage = 'load' AND j.raw <> ''
       AND dwh._is_forgotten_line(j.raw);
    -- refused events: the user may be known although the event is none
    WITH refused AS MATERIALIZED (
        SELECT array_agg(r.line_no ORDER BY r.line_no) AS lines, array_agg(r.payload ->> 'user_id' ORDER BY r.line_no) AS users
          FROM ops.rejects AS j JOIN raw.user_events AS r ON r.load_id = j.load_id AND r.line_no = j.line_no
         WHERE j.load_id = _forget_refused.load_id AND j.stage = 'stage' AND jsonb_typeof(r.payload -> 'user_id') IN ('string', 'number')),
    theirs AS MATERIALIZED (SELECT f.lines[u.position] AS line_no FROM refused AS f CROSS JOIN unnest(dwh._forgotten(f.users)) AS u (position)),
    gone AS (
        DELETE FROM ops.rejects AS j USING theirs AS t WHERE j.load_id = _forget_refused.load_id AND j.line_no = t.line_no)
    DELETE FROM raw.user_events AS r USING theirs AS t WHERE r.load_id = _forget_refused.load_id AND r.line_no = t.line_no;
    GET DIAGNOSTICS forgotten = ROW_COUNT;
    RETURN forgotten;
END
$$;
COMMENT ON FUNCTION dwh._forget_refused(bigint) IS
'Takes the refused events of erased users in a load out of ops.rejects and raw, returns how many, and empties its refused lines that name one. Costs nothing where nobody was erased.';
