-- The KPI views against numbers worked out by hand, in three time zones.
SET datestyle = 'ISO, YMD';
SET client_min_messages = warning;
SELECT no_plan();

-- New York went from 02:00 EST to 03:00 EDT on 2025-03-09, so that day there is [05:00Z, 04:00Z of the next day).
-- A day in Seoul is [15:00Z of the day before, 15:00Z).
SELECT lo_from_bytea(1001, convert_to($log$
{"event_id": "1", "event_time": "2025-03-09T04:59:59Z", "event_type": "page_view", "user_id": "a", "session_id": "s1", "device": "mobile", "country": "KR"}
{"event_id": "2", "event_time": "2025-03-09T05:00:00Z", "event_type": "add_to_cart", "user_id": "a", "session_id": "s1", "product_id": "p1", "price": 100}
{"event_id": "3", "event_time": "2025-03-09T06:59:59Z", "event_type": "purchase", "user_id": "a", "session_id": "s1", "product_id": "p1", "price": 100, "quantity": 2, "revenue": 200}
{"event_id": "4", "event_time": "2025-03-10T03:59:59Z", "event_type": "page_view", "user_id": "b", "session_id": "s2", "device": "mobile", "country": "US"}
{"event_id": "5", "event_time": "2025-03-10T04:00:00Z", "event_type": "purchase", "user_id": "b", "session_id": "s2", "product_id": "p2", "price": 50, "quantity": 1, "revenue": 60}
{"event_id": "6", "event_time": "2025-03-09T15:00:00Z", "event_type": "page_view", "user_id": "b", "session_id": "s3", "device": "desktop", "country": "US"}
{"event_id": "7", "event_time": "2025-03-09T14:59:59Z", "event_type": "page_view", "user_id": "b", "session_id": "s3", "device": "desktop", "country": "US"}
{"event_id": "8", "event_time": "2025-03-10T12:00:00Z", "event_type": "page_view", "user_id": "c"}
{"event_id": "9", "event_time": "2025-03-12T12:00:00Z", "event_type": "page_view", "user_id": "c"}
$log$, 'UTF8')) AS made \gset
-- The days of events 1 to 9:  UTC       9 9 9 10 10 9  9 10 12
--                             Seoul     9 9 9 10 10 10 9 10 12
--                             New York  8 9 9  9 10 9  9 10 12
-- Sessions begin with events 1 (s1), 4 (s2) and 7 (s3); s1 has a cart and a purchase, s2 a purchase.

SELECT is_empty('SELECT * FROM marts.kpi_daily', 'no facts, no days');
SELECT is_empty('SELECT * FROM marts.kpi_segment', 'and no segments');

SELECT is(loaded, 9::bigint, 'the log is loaded') FROM dwh.load_jsonl(large_object => 1001);
SELECT is((SELECT status FROM dwh.stage_events()) || (SELECT status FROM dwh.apply_scd2()) || (SELECT status FROM dwh.upsert_products()), 'donedonedone', 'staged, applied');
SELECT is(facts, 9::bigint, 'and in the marts') FROM dwh.load_facts();

-- day, sessions, active users, events, page views, cart sessions, cart rate, purchase sessions, conversion, purchases,
-- gross revenue, checked revenue, average order value, average revenue per user
SELECT results_eq('SELECT k::text FROM marts.kpi_daily AS k', ARRAY[
    -- events 1 2 3 6 7 of a and b; s1 and s3
    '(2025-03-09,2,2,5,3,1,0.500000,1,0.500000,1,200,200,200.000000,100.000000)',
    -- events 4 5 8 of b and c; s2. Sent revenue 60, price times quantity 50
    '(2025-03-10,1,2,3,2,0,0.000000,1,1.000000,1,60,50,60.000000,30.000000)',
    -- event 9 of c, without a session: nothing to divide by, no revenue known
    '(2025-03-12,0,1,1,1,0,,0,,0,,,,)'], 'kpi_daily in UTC');

SELECT results_eq('SELECT k::text FROM marts.kpi_segment AS k', ARRAY[
    -- b was on a desktop at events 6 and 7
    '(2025-03-09,desktop,US,1,1,2,2,0,0.000000,0,0.000000,0,,,,)',
    '(2025-03-09,mobile,KR,1,1,3,1,1,1.000000,1,1.000000,1,200,200,200.000000,200.000000)',
    -- and on a mobile at 4 and 5
    '(2025-03-10,mobile,US,1,1,2,1,0,0.000000,1,1.000000,1,60,50,60.000000,60.000000)',
    -- nothing is known of c
    '(2025-03-10,,,0,1,1,1,0,,0,,0,,,,)',
    '(2025-03-12,,,0,1,1,1,0,,0,,0,,,,)'], 'kpi_segment in UTC');

SET dwh.report_timezone = 'Asia/Seoul';
SELECT results_eq('SELECT k::text FROM marts.kpi_daily AS k', ARRAY[
    -- events 1 2 3 7; s1 and s3
    '(2025-03-09,2,2,4,2,1,0.500000,1,0.500000,1,200,200,200.000000,100.000000)',
    -- events 4 5 6 8; s2
    '(2025-03-10,1,2,4,3,0,0.000000,1,1.000000,1,60,50,60.000000,30.000000)',
    '(2025-03-12,0,1,1,1,0,,0,,0,,,,)'], 'kpi_daily in Seoul');

SET dwh.report_timezone = 'America/New_York';
SELECT results_eq('SELECT k::text FROM marts.kpi_daily AS k', ARRAY[
    -- event 1; s1 begins, and its cart and purchase count for the day it began
    '(2025-03-08,1,1,1,1,1,1.000000,1,1.000000,0,,,,)',
    -- events 2 3 4 6 7 of a and b; s2 and s3; the purchase of event 3
    '(2025-03-09,2,2,5,3,0,0.000000,1,0.500000,1,200,200,200.000000,100.000000)',
    -- events 5 8 of b and c; no session begins
    '(2025-03-10,0,2,2,1,0,,0,,1,60,50,60.000000,30.000000)',
    '(2025-03-12,0,1,1,1,0,,0,,0,,,,)'], 'kpi_daily in New York, over the change to summer time');

-- The autumn day of 25 hours: 2025-11-02 in New York is [04:00Z, 05:00Z of the next day).
SELECT lo_from_bytea(1002, convert_to($log$
{"event_id": "10", "event_time": "2025-11-02T03:59:59Z", "event_type": "page_view", "user_id": "d", "session_id": "s4"}
{"event_id": "11", "event_time": "2025-11-02T04:00:00Z", "event_type": "page_view", "user_id": "d", "session_id": "s5"}
{"event_id": "12", "event_time": "2025-11-03T04:59:59Z", "event_type": "page_view", "user_id": "d", "session_id": "s6"}
{"event_id": "13", "event_time": "2025-11-03T05:00:00Z", "event_type": "page_view", "user_id": "d", "session_id": "s7"}
$log$, 'UTF8')) AS made \gset
SELECT is(loaded, 4::bigint, 'a second log is loaded') FROM dwh.load_jsonl(large_object => 1002);
SELECT is((SELECT status FROM dwh.stage_events()) || (SELECT status FROM dwh.apply_scd2()) || (SELECT status FROM dwh.upsert_products()), 'donedonedone', 'staged, applied');
SELECT is(facts, 4::bigint, 'and in the marts') FROM dwh.load_facts();
SELECT results_eq($$SELECT k.day, k.sessions, k.events FROM marts.kpi_daily AS k WHERE k.day > '2025-10-01'$$,
    $$VALUES (date '2025-11-01', 1::bigint, 1::bigint), ('2025-11-02', 2, 2), ('2025-11-03', 1, 1)$$, 'over the change to winter time');

-- The session's own time zone does not matter.
RESET dwh.report_timezone;
SET timezone = 'Pacific/Kiritimati';
SELECT results_eq($$SELECT k.day, k.sessions, k.events FROM marts.kpi_daily AS k WHERE k.day > '2025-10-01'$$,
    $$VALUES (date '2025-11-02', 2::bigint, 2::bigint), ('2025-11-03', 2, 2)$$, 'UTC by default, wherever the session is');
SELECT throws_ok($$SET dwh.report_timezone = 'Mars/Olympus'$$, '22023', NULL, 'a time zone that does not exist is refused');
SELECT is((SELECT sum(events) FROM marts.kpi_daily), (SELECT sum(events) FROM marts.kpi_segment), 'both views count the same events');
SELECT is((SELECT sum(events) FROM marts.kpi_daily)::bigint, (SELECT count(*) FROM marts.fact_user_events), 'which are all facts');

SELECT * FROM finish();
