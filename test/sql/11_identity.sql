-- 11_identity: dwh.event_id() against an oracle in SQL: the documented canonical text, and version 5 UUIDs from a SHA-1
-- written out here, so that nothing is shared with the code under test.
\set VERBOSITY sqlstate
SET timezone = 'UTC';
SET client_min_messages = warning;

-- FIPS 180-4, for short inputs
CREATE FUNCTION test.sha1(message bytea) RETURNS bytea LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    m constant bigint := 4294967295;
    padded bytea := message || '\x80' || decode(repeat('00', (119 - octet_length(message) % 64) % 64), 'hex') || int8send(octet_length(message)::bigint * 8);
    h bigint[] := ARRAY[1732584193, 4023233417, 2562383102, 271733878, 3285377520];
    w bigint[]; a bigint; b bigint; c bigint; d bigint; e bigint; f bigint; k bigint; x bigint; t bigint;
BEGIN
    FOR block IN 0 .. octet_length(padded) / 64 - 1 LOOP
        w := '{}';
        FOR i IN 0 .. 79 LOOP
            IF i < 16 THEN
                w[i] := ('x' || encode(substring(padded FROM block * 64 + i * 4 + 1 FOR 4), 'hex'))::bit(32)::bigint;
            ELSE
                x := w[i-3] # w[i-8] # w[i-14] # w[i-16];
                w[i] := (x << 1 & m) | (x >> 31);
            END IF;
        END LOOP;
        a := h[1]; b := h[2]; c := h[3]; d := h[4]; e := h[5];
        FOR i IN 0 .. 79 LOOP
            IF i < 20 THEN f := (b & c) | (~b & m & d); k := 1518500249;
            ELSIF i < 40 THEN f := b # c # d; k := 1859775393;
            ELSIF i < 60 THEN f := (b & c) | (b & d) | (c & d); k := 2400959708;
            ELSE f := b # c # d; k := 3395469782; END IF;
            t := ((a << 5 & m) | (a >> 27)) + f + e + k + w[i] & m;
            e := d; d := c; c := (b << 30 & m) | (b >> 2); b := a; a := t;
        END LOOP;
        h := ARRAY[h[1] + a & m, h[2] + b & m, h[3] + c & m, h[4] + d & m, h[5] + e & m];
    END LOOP;
    RETURN (SELECT string_agg(substring(int8send(v) FROM 5), '' ORDER BY n) FROM unnest(h) WITH ORDINALITY AS v (v, n));
END $$;
SELECT encode(test.sha1('abc'), 'hex') = 'a9993e364706816aba3e25717850c26c9cd0d89d'
   AND encode(test.sha1('abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq'), 'hex') = '84983e441c3bd26ebaae4aa1f95129e5e54670f1' AS sha1_is_right;

-- RFC 9562 section 5.5, with the standard's own example
CREATE FUNCTION test.uuid5(namespace uuid, name text) RETURNS uuid LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    u bytea := substring(test.sha1(decode(replace(namespace::text, '-', ''), 'hex') || convert_to(name, 'UTF8')) FOR 16);
BEGIN
    u := set_byte(u, 6, get_byte(u, 6) & 15 | 80);
    u := set_byte(u, 8, get_byte(u, 8) & 63 | 128);
    RETURN encode(u, 'hex')::uuid;
END $$;
SELECT test.uuid5('6ba7b810-9dad-11d1-80b4-00c04fd430c8', 'www.example.com') = '2ed6657d-e927-568b-95e1-2665a8aea6a2' AS uuid5_is_right,
       test.uuid5('6ba7b811-9dad-11d1-80b4-00c04fd430c8', 'urn:dwh_ext:event_id') AS namespace_of_event_ids;

-- numbers without trailing zeros, everywhere
CREATE FUNCTION test.trimmed(value jsonb) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN CASE jsonb_typeof(value)
        WHEN 'number' THEN to_jsonb(trim_scale(value::numeric))
        WHEN 'array' THEN (SELECT coalesce(jsonb_agg(test.trimmed(e) ORDER BY n), '[]') FROM jsonb_array_elements(value) WITH ORDINALITY AS a (e, n))
        WHEN 'object' THEN (SELECT coalesce(jsonb_object_agg(k, test.trimmed(v)), '{}') FROM jsonb_each(value) AS o (k, v))
        ELSE value END;
END $$;
CREATE FUNCTION test.oracle_id(payload jsonb) RETURNS uuid LANGUAGE plpgsql IMMUTABLE SET timezone = 'UTC' AS $$
DECLARE
    keys text[] := ARRAY['event_type', 'user_id', 'session_id', 'product_id', 'device', 'country', 'category', 'brand'];
    numbers text[] := ARRAY['price', 'revenue', 'quantity'];
    canonical jsonb;
    namespace uuid := '49ed8e02-15dd-5f18-bfd9-42bd0f565928';
    sent text := nullif(payload ->> 'event_id', '');
BEGIN
    IF sent ~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$' THEN RETURN sent::uuid; END IF;
    IF sent IS NOT NULL THEN RETURN test.uuid5(namespace, sent); END IF;
    SELECT jsonb_build_array(to_char((payload ->> 'event_time')::timestamptz, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
        || (SELECT jsonb_agg(nullif(payload ->> k, '') ORDER BY n) FROM unnest(keys) WITH ORDINALITY AS u (k, n))
        || (SELECT jsonb_agg(trim_scale(nullif(payload ->> k, '')::numeric) ORDER BY n) FROM unnest(numbers) WITH ORDINALITY AS u (k, n))
        || jsonb_build_array(nullif(test.trimmed(payload - 'event_id' - 'event_time' - keys - numbers), '{}')) INTO canonical;
    RETURN test.uuid5(namespace, canonical::text);
END $$;

-- Every form of identity, and every field of the canonical text.
CREATE TABLE test.identity_case (n int GENERATED ALWAYS AS IDENTITY, payload jsonb);
INSERT INTO test.identity_case (payload) SELECT test.event(c::jsonb)::jsonb FROM unnest(ARRAY[
    '{}', '{"event_id": "0A1B2C3D-0000-4000-8000-00000000ABCD"}', '{"event_id": "0a1b2c3d-0000-4000-8000-00000000abcd"}',
    '{"event_id": "0a1b2c3d000040008000000000000abcd"}', '{"event_id": "{0a1b2c3d-0000-4000-8000-00000000abcd}"}', '{"event_id": "0a1b2c3d-0000-4000-8000-00000000abcg"}',
    '{"event_id": "evt-1"}', '{"event_id": "한글"}', '{"event_id": 17}', '{"event_id": 17.0}', '{"event_id": 1e3}', '{"event_id": " "}', '{"event_id": ""}', '{"event_id": null}',
    '{"event_time": "2025-01-10T00:00:00.5Z"}', '{"event_time": "2025-01-10T09:00:00.000001+09:00"}', '{"event_type": "q\"\\\u0001\n\u007f\u20ac"}', '{"user_id": 12}', '{"session_id": "s"}', '{"session_id": ""}',
    '{"product_id": "p"}', '{"device": "d"}', '{"country": "c"}', '{"category": "c"}', '{"brand": "c"}', '{"price": 10}', '{"price": 10.50}', '{"price": "10.5"}', '{"price": -0.0}',
    '{"price": 100, "quantity": 2}', '{"revenue": 100}', '{"quantity": 1.0}', '{"quantity": "1"}', '{"price": 1e-20}', '{"price": 123456789012345678901234567890}',
    '{"x": 1}', '{"x": 1.0}', '{"x": [1.50, {"b": 2.0, "aa": 0.10}, null, true, "1.0"]}', '{"zz": 1, "y": 2, "": 3}', '{"x": {}}', '{"x": []}', '{"x": null}', '{"x": 1e10}',
    '{"x": {"device": "d"}}', '{"한": "글", "é": 1}', '{"x": "\u2028\t\b\f\r/"}']) AS c;
SELECT n, payload FROM test.identity_case WHERE dwh.event_id(payload) IS DISTINCT FROM test.oracle_id(payload) ORDER BY n;
SELECT count(*) AS cases, count(dwh.event_id(payload)) AS ids FROM test.identity_case;
-- one id written out, so that no change of code and oracle together goes unseen
SELECT dwh.event_id('{"event_time": "2025-01-10T12:30:15Z", "event_type": "purchase", "user_id": "u000123", "session_id": "uuid", "product_id": "p0045", "device": "mobile", "country": "KR", "price": 29000, "quantity": 1, "revenue": 29000}'),
       test.uuid5('49ed8e02-15dd-5f18-bfd9-42bd0f565928', '["2025-01-10T12:30:15.000000Z", "purchase", "u000123", "uuid", "p0045", "mobile", "KR", null, null, 29000, 29000, 1, null]');

-- What makes no difference ...
SELECT count(DISTINCT dwh.event_id(e::jsonb)) AS should_be_1 FROM unnest(ARRAY[
    '{"event_time": "2025-01-10T12:30:15Z", "event_type": "purchase", "user_id": "u1", "price": 29000, "extra": {"a": 1.0, "b": "x"}}',
    '{"extra": {"b": "x", "a": 1.00}, "price": 29000.00, "user_id": "u1", "event_type": "purchase", "event_time": "2025-01-10T12:30:15Z"}',
    '{"event_time": "2025-01-10T21:30:15.000+09:00", "event_type": "\u0070urchase", "user_id": "u\u0031", "price": 2.9e4, "extra": {"a": 10e-1, "b": "\u0078"}}',
    '{"event_time": "2025-01-10 12:30:15.0000001z", "event_type": "purchase", "user_id": "zz", "user_id": "u1", "price": "29000.0", "extra": {"a": 2, "a": 1, "b": "x"}, "device": null, "brand": ""}',
    '{"event_id": "", "event_time": "2025-01-10T12:29:75Z", "event_time": "2025-01-10T12:30:15Z", "event_type": "purchase", "user_id": "u1", "price": 29000, "extra": {"a": 1, "b": "x"}}']) AS e;
-- ... and what does
SELECT count(DISTINCT dwh.event_id(e::jsonb)) AS should_be_8 FROM unnest(ARRAY[
    test.event('{}'), test.event('{"x": null}'), test.event('{"x": 1}'), test.event('{"x": "1"}'), test.event('{"price": 1}'), test.event('{"revenue": 1}'), test.event('{"device": "u1"}'), test.event('{"country": "u1"}')]) AS e;
-- before anything is computed: a purchase with and without its revenue are two events
SELECT dwh.event_id(test.event('{"event_type": "purchase", "price": 2, "quantity": 2}')::jsonb) <> dwh.event_id(test.event('{"event_type": "purchase", "price": 2, "quantity": 2, "revenue": 4}')::jsonb) AS differ;
-- as text and as a number, an event_id is the same name
SELECT dwh.event_id(test.event('{"event_id": 17}')::jsonb) = dwh.event_id(test.event('{"event_id": "17"}')::jsonb) AS same_name;
SELECT dwh.event_id('{"user_id": "u1"}'), dwh.event_id(NULL);
-- under any settings
SET timezone = 'Asia/Kathmandu'; SET datestyle = 'SQL, DMY'; SET bytea_output = 'escape'; SET extra_float_digits = 0; SET intervalstyle = 'sql_standard'; SET standard_conforming_strings = on;
SELECT count(*) AS other_under_other_settings FROM test.identity_case WHERE dwh.event_id(payload) IS DISTINCT FROM test.oracle_id(payload);
RESET datestyle; RESET bytea_output; RESET extra_float_digits; SET timezone = 'UTC';

-- Stored ids are recomputable from raw, and a line and its stored jsonb give the same event.
SELECT test.begin();
SELECT test.put('ids.jsonl', VARIADIC (SELECT array_agg(payload::text ORDER BY n) FROM test.identity_case));
SELECT test.put('spelled.jsonl', '{"x": 1.0e1, "user_id": "u\u0031", "event_type": "page_view", "event_time": "2025-01-10T00:00:00Z", "x": 1.50e1}');
SELECT status, loaded FROM test.load('*.jsonl');
SELECT staged + replayed + conflicting = rows_in AS conserved, staged = (SELECT count(DISTINCT test.oracle_id(payload)) FROM raw.user_events) AS each_id_once FROM dwh.stage_events();
SELECT count(*) FROM staging.user_events AS s JOIN raw.user_events AS r USING (load_id, line_no) WHERE s.event_id <> test.oracle_id(r.payload);
-- of the generator's log too: about 2 % of its events have no event_id
SELECT test.begin();
SELECT events FROM dwh.generate_events('g.jsonl', events => 1000, users => 20, seed => 3);
SELECT loaded FROM test.load('g.jsonl');
SELECT rows_in, rejected FROM dwh.stage_events();
SELECT count(*) FILTER (WHERE NOT r.payload ? 'event_id') BETWEEN 5 AND 50 AS some_have_none,
       count(*) FILTER (WHERE s.event_id IS DISTINCT FROM test.oracle_id(r.payload)) AS differences
  FROM raw.user_events AS r LEFT JOIN staging.user_events AS s USING (load_id, line_no);
DROP TABLE test.identity_case;
