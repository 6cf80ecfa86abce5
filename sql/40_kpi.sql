-- 40_kpi.sql: marts -> the answers: views marts.kpi_daily and marts.kpi_segment.
--
-- The views belong to the warehouse, so they use nothing of the extension: DROP EXTENSION leaves them working. The
-- reporting zone is setting dwh.report_timezone, UTC where it is not set.
--
-- Definitions. Session: the events of one user with one session_id; it belongs to the day, and the segment, of its first
-- event (the least event_time, then event_id). Purchase: an event of type purchase. gross_revenue: the sum of revenue of
-- all events, as the facts have it. checked_revenue: price times quantity of the purchases. Rates are NULL where there is
-- nothing to divide by.

CREATE FUNCTION dwh._create_kpis() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    CREATE OR REPLACE VIEW marts.kpi_segment AS
    WITH zone AS (
        SELECT COALESCE(NULLIF(current_setting('dwh.report_timezone', true), ''), 'UTC') AS name),
    events AS (
        SELECT (f.event_time AT TIME ZONE z.name)::date AS day, u.device, u.country, u.user_id, f.session_id, f.event_id,
               f.event_time, f.event_type, f.revenue, f.price * f.quantity AS checked
          FROM marts.fact_user_events AS f
          JOIN marts.dim_user AS u ON u.user_key = f.user_key
         CROSS JOIN zone AS z),
    sessions AS (
        SELECT DISTINCT ON (e.user_id, e.session_id) e.day, e.device, e.country,
               bool_or(e.event_type = 'add_to_cart') OVER w AS has_cart,
               bool_or(e.event_type = 'purchase') OVER w AS has_purchase
          FROM events AS e WHERE e.session_id IS NOT NULL
        WINDOW w AS (PARTITION BY e.user_id, e.session_id)
         ORDER BY e.user_id, e.session_id, e.event_time, e.event_id),
    counted AS (
        SELECT e.day, e.device, e.country,
               count(DISTINCT e.user_id) AS active_users,
               count(*) AS events,
               count(*) FILTER (WHERE e.event_type = 'page_view') AS page_views,
               count(*) FILTER (WHERE e.event_type = 'purchase') AS purchases,
               sum(e.revenue) AS gross_revenue,
               sum(e.checked) FILTER (WHERE e.event_type = 'purchase') AS checked_revenue
          FROM events AS e GROUP BY e.day, e.device, e.country),
    begun AS (
        SELECT s.day, s.device, s.country, count(*) AS sessions, count(*) FILTER (WHERE s.has_cart) AS cart_sessions,
               count(*) FILTER (WHERE s.has_purchase) AS purchase_sessions
          FROM sessions AS s GROUP BY s.day, s.device, s.country)
    SELECT c.day, c.device, c.country, COALESCE(b.sessions, 0) AS sessions, c.active_users, c.events, c.page_views,
           COALESCE(b.cart_sessions, 0) AS cart_sessions,
           round(b.cart_sessions::numeric / NULLIF(b.sessions, 0), 6) AS cart_rate,
           COALESCE(b.purchase_sessions, 0) AS purchase_sessions,
           round(b.purchase_sessions::numeric / NULLIF(b.sessions, 0), 6) AS session_conversion,
           c.purchases, c.gross_revenue, c.checked_revenue,
           round(c.gross_revenue / NULLIF(c.purchases, 0), 6) AS aov,
           round(c.gross_revenue / NULLIF(c.active_users, 0), 6) AS arpu
      FROM counted AS c
      LEFT JOIN begun AS b ON b.day = c.day AND b.device IS NOT DISTINCT FROM c.device
       AND b.country IS NOT DISTINCT FROM c.country
     ORDER BY c.day, c.device, c.country;
    COMMENT ON VIEW marts.kpi_segment IS
        'KPIs by reporting day (dwh.report_timezone), device and country as they were at event time. Active users of several segments or days must not be added up.';

    CREATE OR REPLACE VIEW marts.kpi_daily AS
    WITH zone AS (
        SELECT COALESCE(NULLIF(current_setting('dwh.report_timezone', true), ''), 'UTC') AS name),
    counted AS (
        SELECT (f.event_time AT TIME ZONE z.name)::date AS day,
               count(DISTINCT u.user_id) AS active_users
          FROM marts.fact_user_events AS f
          JOIN marts.dim_user AS u ON u.user_key = f.user_key
         CROSS JOIN zone AS z
         GROUP BY 1)
    SELECT s.day, sum(s.sessions)::bigint AS sessions, c.active_users, sum(s.events)::bigint AS events,
           sum(s.page_views)::bigint AS page_views, sum(s.cart_sessions)::bigint AS cart_sessions,
           round(sum(s.cart_sessions) / NULLIF(sum(s.sessions), 0), 6) AS cart_rate,
           sum(s.purchase_sessions)::bigint AS purchase_sessions,
           round(sum(s.purchase_sessions) / NULLIF(sum(s.sessions), 0), 6) AS session_conversion,
           sum(s.purchases)::bigint AS purchases, sum(s.gross_revenue) AS gross_revenue,
           sum(s.checked_revenue) AS checked_revenue,
           round(sum(s.gross_revenue) / NULLIF(sum(s.purchases), 0), 6) AS aov,
           round(sum(s.gross_revenue) / NULLIF(c.active_users, 0), 6) AS arpu
      FROM marts.kpi_segment AS s
      JOIN counted AS c ON c.day = s.day
     GROUP BY s.day, c.active_users
     ORDER BY s.day;
    COMMENT ON VIEW marts.kpi_daily IS
        'KPIs by reporting day (dwh.report_timezone): numerators, denominators and rates.';

    PERFORM dwh._comment_columns(view, ARRAY[
        ['day', 'Reporting day.'],
        ['sessions', 'Sessions that began on the day (and in the segment).'],
        ['active_users', 'Users with at least one event.'],
        ['events', 'All events.'],
        ['page_views', 'Events of type page_view.'],
        ['cart_sessions', 'Sessions with at least one add_to_cart.'],
        ['cart_rate', 'cart_sessions / sessions, 0 to 1.'],
        ['purchase_sessions', 'Sessions with at least one purchase.'],
        ['session_conversion', 'purchase_sessions / sessions, 0 to 1.'],
        ['purchases', 'Events of type purchase.'],
        ['gross_revenue', 'Sum of revenue of all events.'],
        ['checked_revenue', 'Sum of price times quantity of the purchases.'],
        ['aov', 'Average order value: gross_revenue / purchases.'],
        ['arpu', 'Average revenue per active user: gross_revenue / active_users.']])
      FROM unnest(ARRAY['marts.kpi_segment', 'marts.kpi_daily']::regclass[]) AS view;
    PERFORM dwh._comment_columns('marts.kpi_segment', ARRAY[
        ['device', 'Of the user''s version at event time; NULL = not known.'],
        ['country', 'Of the user''s version at event time; NULL = not known.']]);
END
$$;
COMMENT ON FUNCTION dwh._create_kpis() IS 'Makes or replaces the KPI views in marts.';
