-- 10_staging: types, validation, flags, dedupe. Each event_id once; what is accepted first stays.
\set VERBOSITY sqlstate
SET timezone = 'UTC';
SET datestyle = 'ISO, YMD';
SELECT test.begin();

-- Timestamps: RFC 3339 with a zone, nothing else; to the microsecond, truncated.
SELECT t.sent, e.event_time, e.reject_class
  FROM unnest(ARRAY[
    '2025-01-10T12:30:15Z', '2025-01-10t12:30:15z', '2025-01-10 12:30:15+00:00', '2025-01-10T12:30:15+09:00',
    '2025-01-10T12:30:15-15:59', '2025-01-10T12:30:15+15:59', '2025-01-10T12:30:15+16:00', '2025-01-10T12:30:15-00:00',
    '2025-01-10T12:30:15.1Z', '2025-01-10T12:30:15.123456Z', '2025-01-10T12:30:15.999999999Z', '2025-01-10T12:30:15.0000009Z',
    '2016-12-31T23:59:60Z', '2025-01-10T12:30:60Z', '2025-01-10T12:30:61Z', '2025-01-10T24:00:00Z', '2025-01-10T12:60:00Z',
    '2024-02-29T00:00:00Z', '2025-02-29T00:00:00Z', '2100-02-29T00:00:00Z', '2000-02-29T00:00:00Z', '2025-13-01T00:00:00Z',
    '2025-00-10T00:00:00Z', '2025-01-00T00:00:00Z', '2025-04-31T00:00:00Z', '0001-01-01T00:00:00Z', '0000-01-01T00:00:00Z', '9999-12-31T23:59:59Z',
    '1969-12-31T23:59:59.999999Z', '1999-12-31T23:59:59.9999999Z',
    '2025-01-10T12:30:15', '2025-01-10', '2025-01-10T12:30Z', '2025-01-10T12:30:15+0900', '2025-01-10T12:30:15+09',
    '2025-01-10T12:30:15.Z', '2025-01-10T12:30:15,5Z', ' 2025-01-10T12:30:15Z', '2025-01-10T12:30:15Z ', '2025-01-10  12:30:15Z',
    '10.01.2025 12:30:15Z', '2025/01/10T12:30:15Z', '2025-1-10T12:30:15Z', '20250110T123015Z', '+2025-01-10T12:30:15Z', '12025-01-10T12:30:15Z',
    'now', 'today', 'infinity', '-infinity', 'epoch', '1736512215', '2025-01-10T12:30:15 UTC', '2025-01-10T12:30:15Z[Asia/Seoul]']) WITH ORDINALITY AS t (sent, n)
 CROSS JOIN LATERAL dwh.parse_event(test.event(jsonb_build_object('event_time', t.sent))::jsonb) AS e
 ORDER BY t.n;
-- never the session's zone
SET timezone = 'America/New_York';
SELECT (dwh.parse_event(test.event('{"event_time": "2025-01-10T12:30:15"}')::jsonb)).reject_class,
       (dwh.parse_event(test.event('{"event_time": "2025-01-10T12:30:15Z"}')::jsonb)).event_time = '2025-01-10 12:30:15+00' AS utc;
SET timezone = 'UTC';

-- future_event: more than 10 minutes after the load's own time, to the microsecond; without a clock nothing is.
SELECT t.event_time, (dwh.parse_event(test.event(jsonb_build_object('event_time', t.event_time))::jsonb, '2025-01-10 12:00:00+00')).reject_class,
       (dwh.parse_event(test.event(jsonb_build_object('event_time', t.event_time))::jsonb)).reject_class AS without_clock
  FROM unnest(ARRAY['2025-01-10T12:10:00Z', '2025-01-10T12:10:00.000001Z', '2025-01-10T21:10:00+09:00', '2030-01-01T00:00:00Z']) AS t (event_time);

-- Text: strings, and numbers as jsonb prints them; empty and null are missing.
SELECT t.sent, e.user_id, e.device, e.reject_class
  FROM unnest(ARRAY['{"user_id": 17}', '{"user_id": 1.50}', '{"user_id": 1e3}', '{"user_id": 12345678901234567890123}', '{"user_id": "  "}', '{"user_id": ""}', '{"user_id": null}',
                    '{"user_id": true}', '{"user_id": []}', '{"user_id": {}}', '{"device": ""}', '{"device": null}', '{"device": 7}', '{"device": false}',
                    '{"user_id": "한\u0001\ud83d\ude00"}', '{"user_id": "u1 "}', '{"event_type": 1}', '{"event_type": null}']) WITH ORDINALITY AS t (sent, n)
 CROSS JOIN LATERAL dwh.parse_event(test.event(t.sent::jsonb)::jsonb) AS e ORDER BY t.n;

-- Numbers: exact, also as strings in JSON's own grammar; quantity whole from 0.
SELECT t.sent, e.price, e.quantity, e.reject_class
  FROM unnest(ARRAY['{"price": 29000.10}', '{"price": "29000.10"}', '{"price": 0.1}', '{"price": 12345678901234567890.123456789012345678901234567890}', '{"price": 1e2}', '{"price": "1E-2"}',
                    '{"price": -5}', '{"price": ""}', '{"price": null}', '{"price": "01"}', '{"price": "+1"}', '{"price": ".5"}', '{"price": "5."}', '{"price": " 5"}', '{"price": "5 "}',
                    '{"price": "1,000"}', '{"price": "NaN"}', '{"price": "Infinity"}', '{"price": "0x10"}', '{"price": "1_000"}', '{"price": [1]}', '{"price": true}', '{"price": 1e99}', '{"price": 1e100}',
                    '{"price": "1e999999999999"}', '{"price": "1e-999999999999"}',
                    '{"quantity": 1}', '{"quantity": 1.0}', '{"quantity": "1"}', '{"quantity": "1.00"}', '{"quantity": 1e0}', '{"quantity": 10e-1}', '{"quantity": 0}', '{"quantity": -0}', '{"quantity": -0.0}',
                    '{"quantity": 2147483647}', '{"quantity": 2147483648}', '{"quantity": 1.5}', '{"quantity": -1}', '{"quantity": "one"}', '{"quantity": ""}', '{"quantity": null}', '{"quantity": true}',
                    '{"quantity": 1e-400}', '{"quantity": 1e9}', '{"quantity": 1e10}', '{"quantity": 0e99999}']) WITH ORDINALITY AS t (sent, n)
 CROSS JOIN LATERAL dwh.parse_event(test.event(t.sent::jsonb)::jsonb) AS e ORDER BY t.n;

-- What the payload holds beyond the model is attributes; nothing = NULL. Modelled keys are exact.
SELECT t.sent, e.attributes, e.device
  FROM unnest(ARRAY['{}', '{"x": 1}', '{"x": {"device": "inside"}, "device": "d"}', '{"Device": "upper"}', '{"": 1}', '{"x": null}', '{"flags": ["mine"], "load_id": 5}']) WITH ORDINALITY AS t (sent, n)
 CROSS JOIN LATERAL dwh.parse_event(test.event(t.sent::jsonb)::jsonb) AS e ORDER BY t.n;
-- other payloads than objects
SELECT t.sent, e.reject_class IS NOT NULL AS is_refused, dwh.event_id(t.sent::jsonb) FROM unnest(ARRAY['[]', '5', '"x"', 'null', '{}']) AS t (sent), dwh.parse_event(t.sent::jsonb) AS e;
SELECT dwh.parse_event(NULL) IS NULL AS null_gives_null;

-- Flags, and revenue as sent or computed.
SELECT test.put('flags.jsonl',
    test.event('{"event_id": "1", "event_type": "purchase", "price": 10, "quantity": 2, "revenue": 20}'),
    test.event('{"event_id": "2", "event_type": "purchase", "price": 10, "quantity": 2, "revenue": 20.00}'),
    test.event('{"event_id": "3", "event_type": "purchase", "price": 10, "quantity": 2, "revenue": 21}'),
    test.event('{"event_id": "4", "event_type": "purchase", "price": 10.50, "quantity": 2}'),
    test.event('{"event_id": "5", "event_type": "purchase", "price": 10}'),
    test.event('{"event_id": "6", "event_type": "purchase", "quantity": 2}'),
    test.event('{"event_id": "7", "event_type": "purchase", "price": -10, "quantity": 1}'),
    test.event('{"event_id": "8", "event_type": "purchase", "price": -10, "quantity": 1, "revenue": -10}'),
    test.event('{"event_id": "9", "event_type": "page_view", "revenue": 5}'),
    test.event('{"event_id": "10", "event_type": "add_to_cart", "price": 10, "quantity": 2}'),
    test.event('{"event_id": "11", "event_type": "purchase", "price": 10, "quantity": 0}'),
    test.event('{"event_id": "12", "event_type": "purchase", "price": 0.1, "quantity": 3, "revenue": 0.3}'),
    test.event('{"event_id": "13", "event_type": "wishlist", "device": "tv"}'));
SELECT status, loaded FROM test.load('flags.jsonl');
SELECT * FROM dwh.stage_events();
SELECT line_no, event_type, price, quantity, revenue, flags FROM staging.user_events ORDER BY line_no;
-- the noun is what the table holds
(SELECT event_id, event_time, event_type, user_id, session_id, product_id, device, country, category, brand, price, revenue, quantity, attributes, line_no, flags
   FROM dwh.typed_events(1) WHERE reject_class IS NULL EXCEPT ALL
 SELECT event_id, event_time, event_type, user_id, session_id, product_id, device, country, category, brand, price, revenue, quantity, attributes, line_no, flags FROM staging.user_events)
UNION ALL
(SELECT event_id, event_time, event_type, user_id, session_id, product_id, device, country, category, brand, price, revenue, quantity, attributes, line_no, flags FROM staging.user_events EXCEPT ALL
 SELECT event_id, event_time, event_type, user_id, session_id, product_id, device, country, category, brand, price, revenue, quantity, attributes, line_no, flags
   FROM dwh.typed_events(1) WHERE reject_class IS NULL);

-- Replays and conflicts within a load: the lower line stays.
SELECT test.begin();
SELECT test.put('r1.jsonl',
    '{"event_id": "a", "event_time": "2025-01-10T00:00:00Z", "event_type": "page_view", "user_id": "u1", "price": 1}',
    '{"price": 1.0, "user_id": "u1", "event_type": "page_view", "event_time": "2025-01-10T00:00:00Z", "event_id": "a"}',     -- replay: equal as jsonb
    '{"event_id": "a", "event_time": "2025-01-10T00:00:00Z", "event_type": "page_view", "user_id": "u2", "price": 1}',       -- conflict
    '{"event_id": "a", "event_time": "2025-02-20T00:00:00Z", "event_type": "page_view", "user_id": "u1", "price": 1}',       -- conflict: another time is still one fact
    '{"event_time": "2025-01-10T00:00:00Z", "event_type": "page_view", "user_id": "u1"}',
    '{"event_time": "2025-01-10T09:00:00+09:00", "event_type": "page_view", "user_id": "u1", "device": null}',                -- the same identity, another spelling
    '{"event_time": "2025-01-10T00:00:00Z", "event_type": "page_view", "user_id": "u1"}');                                   -- replay
SELECT lines, loaded FROM test.load('r1.jsonl');
SELECT * FROM dwh.stage_events();
SELECT line_no, user_id, price FROM staging.user_events ORDER BY line_no;
SELECT load_id, line_no, kept_load_id, kept_line_no, event_id = dwh.event_id(payload) AS has_its_id, payload ->> 'user_id' AS user_id FROM ops.event_conflicts ORDER BY 1, 2;
-- across loads: what was accepted first stays, also where the other is older in event time
SELECT test.put('r2.jsonl',
    '{"event_id": "a", "event_time": "2025-01-10T00:00:00Z", "event_type": "page_view", "user_id": "u1", "price": 1}',
    '{"event_id": "a", "event_time": "2024-01-10T00:00:00Z", "event_type": "purchase", "user_id": "u1"}',
    '{"event_id": "b", "event_time": "2025-01-10T00:00:00Z", "event_type": "page_view", "user_id": "u1"}');
SELECT lines, loaded FROM test.load('r2.jsonl');
SELECT * FROM dwh.stage_events();
SELECT load_id, line_no, user_id FROM staging.user_events ORDER BY 1, 2;
SELECT load_id, line_no, kept_load_id, kept_line_no FROM ops.event_conflicts ORDER BY 1, 2;
SELECT load_id, lines, loaded, staged, replayed, conflicting, stage_rejected, forgotten FROM ops.loads ORDER BY 1;
-- a conflicting event observes nothing: it is not accepted
SELECT count(*) FILTER (WHERE step = 'load_facts') AS steps FROM test.build();
SELECT user_id, valid_from, valid_to FROM marts.dim_user;
SELECT * FROM test.differences();

-- The verbs quarantine a load with too many refused lines; others go on.
SELECT test.begin();
SELECT test.put('poison.jsonl', VARIADIC (SELECT array_agg(test.event(jsonb_build_object('event_id', i) || CASE WHEN i <= 10 THEN '{"user_id": null}' ELSE '{}' END::jsonb) ORDER BY i) FROM generate_series(1, 50) AS i));
SELECT test.put('few.jsonl', VARIADIC (SELECT array_agg(test.event(jsonb_build_object('event_id', 'f' || i) || CASE WHEN i <= 9 THEN '{"user_id": null}' ELSE '{}' END::jsonb) ORDER BY i) FROM generate_series(1, 20) AS i));
SELECT test.put('all.jsonl', test.event('{"event_type": null, "x": 1}'));
SELECT test.put('edge.jsonl', VARIADIC (SELECT array_agg(test.event(jsonb_build_object('event_id', 'e' || i) || CASE WHEN i <= 10 THEN '{"user_id": null}' ELSE '{}' END::jsonb) ORDER BY i) FROM generate_series(1, 100) AS i));
SELECT file, loaded FROM test.load('*.jsonl');
SELECT status, loads, rows_in, staged, rejected, quarantined FROM dwh.stage_events();
SELECT load_id, regexp_replace(path, '^.*/', '') AS file, status, stage_rejected, staged, staged_at IS NOT NULL AS is_staged FROM ops.loads ORDER BY 1;
SELECT load_id, count(*) FROM ops.rejects GROUP BY 1 ORDER BY 1;
SELECT step, result FROM test.build();
-- the checks say so, and leave the load behind: the next call passes
SELECT count(*) FROM dwh.run_quality_checks();
SELECT load_id, status, checked_at IS NOT NULL AS is_checked FROM ops.loads ORDER BY 1;
SELECT name, status, observed FROM dwh.run_quality_checks() WHERE status = 'fail';
SELECT file, status FROM test.load('*.jsonl');
-- a larger share releases what is within it
SET dwh.max_reject_share = 0.25;
SELECT file, status FROM test.load('poison.jsonl');
SELECT status, staged, rejected, quarantined FROM dwh.stage_events();
-- force releases anything
SELECT file, status FROM test.load('all.jsonl', force => true);
SELECT status, staged, rejected, quarantined FROM dwh.stage_events();
SELECT step, left(result, 5) AS result FROM test.build();
SELECT name, status, observed FROM dwh.run_quality_checks() WHERE status = 'fail';
RESET dwh.max_reject_share;
SELECT count(*) FROM marts.fact_user_events;
SELECT * FROM test.differences();
