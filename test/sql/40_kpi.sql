-- 40_kpi: the answers, against numbers worked out by hand.
\set VERBOSITY sqlstate
SET timezone = 'Asia/Seoul';
SET datestyle = 'ISO, YMD';
SELECT test.begin();
-- Two users, three sessions and one event without a session. In UTC:
--   day 10: u1 mobile KR  s1: view 01:00, cart 01:01, purchase 01:02 of 2 x 10 = 20
--           u2 desktop US s1 (same id, another user: another session): view 23:50; it goes on over midnight:
--   day 11: u2            s1: cart 00:10                      - belongs to day 10, where it began
--           u1 tablet KR  s2: view 05:00, purchase 05:01 with revenue 30 sent, price 10 x quantity 2 = 20 checked
--           u1            no session: view 06:00
--   day 12: u2            no session: wishlist 12:00           - no session, so nothing to divide by
SELECT test.put('k.jsonl',
    '{"event_time": "2025-01-10T01:00:00Z", "event_type": "page_view",   "user_id": "u1", "session_id": "s1", "device": "mobile", "country": "KR"}',
    '{"event_time": "2025-01-10T01:01:00Z", "event_type": "add_to_cart", "user_id": "u1", "session_id": "s1", "device": "mobile", "country": "KR", "product_id": "p1"}',
    '{"event_time": "2025-01-10T01:02:00Z", "event_type": "purchase",    "user_id": "u1", "session_id": "s1", "device": "mobile", "country": "KR", "product_id": "p1", "price": 10, "quantity": 2, "revenue": 20}',
    '{"event_time": "2025-01-10T23:50:00Z", "event_type": "page_view",   "user_id": "u2", "session_id": "s1", "device": "desktop", "country": "US"}',
    '{"event_time": "2025-01-11T00:10:00Z", "event_type": "add_to_cart", "user_id": "u2", "session_id": "s1", "product_id": "p1"}',
    '{"event_time": "2025-01-11T05:00:00Z", "event_type": "page_view",   "user_id": "u1", "session_id": "s2", "device": "tablet", "country": "KR"}',
    '{"event_time": "2025-01-11T05:01:00Z", "event_type": "purchase",    "user_id": "u1", "session_id": "s2", "product_id": "p2", "price": 10, "quantity": 2, "revenue": 30}',
    '{"event_time": "2025-01-11T06:00:00Z", "event_type": "page_view",   "user_id": "u1"}',
    '{"event_time": "2025-01-12T12:00:00Z", "event_type": "wishlist",    "user_id": "u2"}');
SELECT step, status FROM dwh.run_pipeline();
-- day 10: 2 sessions, 2 users, 4 events, 2 views; carts: s1 of u1 and (its cart is on day 11) s1 of u2 = 2 of 2; 1 purchase session of 2; revenue 20, AOV 20/1, ARPU 20/2
-- day 11: 1 session, 2 users, 4 events, 2 views; no cart in s2: 0 of 1; 1 of 1; gross 30, checked 20; AOV 30/1, ARPU 30/2
-- day 12: no session: rates NULL; no purchase: AOV NULL; no revenue at all
SELECT day, sessions, active_users, events, page_views, cart_sessions, cart_rate, purchase_sessions, session_conversion FROM marts.kpi_daily ORDER BY day;
SELECT day, purchases, gross_revenue, checked_revenue, aov, arpu FROM marts.kpi_daily ORDER BY day;
-- by device and country as they were at event time: u1 was mobile on day 10 and tablet on day 11
SELECT day, device, country, sessions, active_users, events, page_views, cart_sessions, cart_rate, purchase_sessions, session_conversion FROM marts.kpi_segment ORDER BY 1, 2, 3;
SELECT day, device, country, purchases, gross_revenue, checked_revenue, aov, arpu FROM marts.kpi_segment ORDER BY 1, 2, 3;

-- Reporting days are those of dwh.report_timezone, never the session's.
SET dwh.report_timezone = 'Asia/Seoul';   -- UTC + 9: u2's session now begins, and lies whole, on day 11
SELECT day, sessions, events, cart_sessions, purchases, gross_revenue FROM marts.kpi_daily ORDER BY day;
SET timezone = 'America/New_York';
SELECT day, sessions, events FROM marts.kpi_daily ORDER BY day;
RESET dwh.report_timezone;
SET dwh.report_timezone = 'Nowhere/Nothing';
SELECT day, sessions, events FROM marts.kpi_daily ORDER BY day;
SET timezone = 'UTC';

-- A late change of segment moves the session's numbers with it.
SELECT test.put('late.jsonl', '{"event_time": "2025-01-10T00:30:00Z", "event_type": "page_view", "user_id": "u1", "session_id": "s1", "device": "tv", "country": "JP"}');
SELECT status FROM dwh.run_pipeline() WHERE step = 'load_facts';
-- s1 of u1 now begins on the TV; its cart and purchase stay with the mobile version's events, its session counts for TV
SELECT day, device, country, sessions, events, cart_sessions, purchase_sessions, purchases, gross_revenue FROM marts.kpi_segment WHERE day = '2025-01-10' ORDER BY 1, 2, 3;

-- The views add up to the facts.
SELECT (SELECT sum(events) FROM marts.kpi_daily) = count(*) AS events, (SELECT sum(events) FROM marts.kpi_segment) = count(*) AS segment_events,
       (SELECT sum(gross_revenue) FROM marts.kpi_daily) = sum(revenue) AS revenue,
       (SELECT sum(sessions) FROM marts.kpi_daily) = (SELECT count(DISTINCT (u.user_id, f.session_id)) FROM marts.fact_user_events AS f JOIN marts.dim_user AS u USING (user_key) WHERE f.session_id IS NOT NULL) AS sessions
  FROM marts.fact_user_events;
