-- 03_alerts.sql: the outbox of what somebody should know; delivery is outside the server (docker/notifier).
--
-- Invariants: an incident is all that has one dedupe_key from its first failure until it has recovered; it makes one message
-- when it begins, one in dwh.alert_interval while it goes on (at once where it turns from warn to error), and one when it ends.
-- The messages of a key are claimed in their order, one at a time, until they are acknowledged. A message holds no row data.
-- Repeats are harmless: a failure that goes on is counted on the message that is there; a message is delivered at least once.

CREATE FUNCTION dwh._alert_key(wanted text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN octet_length(wanted) <= 1000 THEN wanted
                ELSE left(wanted, 200) || ':' || encode(sha256(convert_to(wanted, 'UTF8')), 'hex') END
$$;
COMMENT ON FUNCTION dwh._alert_key(text) IS
'The dedupe_key that is kept: itself, or its beginning with a digest where it would not fit into an index, as a long path.';

CREATE FUNCTION dwh._lock_alerts(dedupe_key text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(dedupe_key, 7239369275230650370));
    RETURN true;
EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
    RETURN false;
END
$$;
COMMENT ON FUNCTION dwh._lock_alerts(text) IS
'Lets one transaction at a time add messages of a key, until it ends; false after two seconds of waiting.';

CREATE FUNCTION dwh._raise_alert(dedupe_key text, severity text, title text, body jsonb, run_id bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
    wanted text := dwh._alert_key(dedupe_key);
    -- Without the lock (a transaction around the caller's may hold it) there is a message: rather one too many than none.
    is_alone boolean := dwh._lock_alerts(wanted);
    last record;
    is_open boolean;
BEGIN
    SELECT a.alert_id, a.state, a.severity, a.created_at INTO last FROM ops.alerts AS a
     WHERE a.dedupe_key = wanted ORDER BY a.alert_id DESC LIMIT 1;
    is_open := coalesce(last.state <> 'recovered', false);
    IF is_open AND is_alone AND clock_timestamp() < last.created_at + dwh._setting('alert_interval')::interval
       AND NOT (last.severity = 'warn' AND _raise_alert.severity = 'error') THEN
        BEGIN
            UPDATE ops.alerts AS a SET failures = a.failures + 1, last_failed_at = clock_timestamp() WHERE a.alert_id = last.alert_id;
        EXCEPTION WHEN lock_not_available OR deadlock_detected OR serialization_failure THEN
            NULL;   -- a sender has it at this moment: that the count misses one must not stop a run
        END;
        RETURN;
    END IF;
    INSERT INTO ops.alerts (dedupe_key, state, severity, title, body, run_id)
    VALUES (wanted, CASE WHEN is_open THEN 'still-failing' ELSE 'first-fail' END, _raise_alert.severity,
            left(regexp_replace(_raise_alert.title, '[[:cntrl:]]+', ' ', 'g'), 200), _raise_alert.body, _raise_alert.run_id);
    NOTIFY dwh_alerts;
END
$$;
COMMENT ON FUNCTION dwh._raise_alert(text, text, text, jsonb, bigint) IS
'Says that something failed: a message if that is news, worse than before (error after warn), or the last message is older than dwh.alert_interval; else counted on that one. body: names and counts, never rows.';

CREATE FUNCTION dwh._recover_alert(dedupe_key text, run_id bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wanted text := dwh._alert_key(dedupe_key);
    last record;
    incident record;
BEGIN
    -- looked at before the lock is asked for, as most of what is well was well before
    IF coalesce((SELECT a.state FROM ops.alerts AS a WHERE a.dedupe_key = wanted ORDER BY a.alert_id DESC LIMIT 1), 'recovered') = 'recovered'
       OR NOT dwh._lock_alerts(wanted) THEN   -- busy: the next time that it is well says so
        RETURN;
    END IF;
    SELECT a.alert_id, a.state, a.severity, a.title, a.body, a.last_failed_at INTO last FROM ops.alerts AS a
     WHERE a.dedupe_key = wanted ORDER BY a.alert_id DESC LIMIT 1;
    IF last.state = 'recovered' THEN
        RETURN;
    END IF;
    SELECT sum(a.failures) AS failures, min(a.created_at) AS since INTO incident FROM ops.alerts AS a
     WHERE a.dedupe_key = wanted AND a.alert_id > coalesce(
           (SELECT max(r.alert_id) FROM ops.alerts AS r WHERE r.dedupe_key = wanted AND r.state = 'recovered'), -1);
    INSERT INTO ops.alerts (dedupe_key, state, severity, title, body, run_id, failures, last_failed_at)
    VALUES (wanted, 'recovered', last.severity, last.title,
            last.body || jsonb_build_object('failures', incident.failures,
                'failed_since', to_char(incident.since AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')),
            _recover_alert.run_id, 0, last.last_failed_at);
    NOTIFY dwh_alerts;
END
$$;
COMMENT ON FUNCTION dwh._recover_alert(text, bigint) IS
'Says that something which may have failed is well: a message if the last one was of a failure, with the failures of the incident.';

CREATE FUNCTION dwh._recover_loads(run_id bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- the ledger is read once, from the first load on that an open incident is about; without one not at all
    PERFORM dwh._recover_alert(w.dedupe_key, _recover_loads.run_id)
       FROM (WITH open AS MATERIALIZED (
                 SELECT o.dedupe_key, o.load_id
                   FROM (SELECT DISTINCT ON (a.dedupe_key) a.dedupe_key, a.state, coalesce((a.body ->> 'load_id')::bigint, 0) AS load_id
                           FROM ops.alerts AS a WHERE a.dedupe_key >= 'load:' AND a.dedupe_key < 'load;'
                          ORDER BY a.dedupe_key, a.alert_id DESC) AS o
                  WHERE o.state <> 'recovered'),
             latest AS (
                 SELECT DISTINCT ON (l.path) l.path, l.load_id, l.status FROM ops.loads AS l
                  WHERE l.load_id > (SELECT min(o.load_id) FROM open AS o) ORDER BY l.path, l.load_id DESC)
             SELECT o.dedupe_key FROM open AS o
               JOIN latest AS l ON dwh._alert_key('load:' || l.path) = o.dedupe_key AND l.load_id > o.load_id
              WHERE l.status NOT IN ('stopped', 'quarantined') ORDER BY o.dedupe_key) AS w;
END
$$;
COMMENT ON FUNCTION dwh._recover_loads(bigint) IS
'Recovers the incidents of loads that went over their reject limit and whose path has a later load that did not.';

CREATE FUNCTION dwh.claim_alerts(n integer DEFAULT 10, lease interval DEFAULT '5 minutes')
RETURNS TABLE (alert_id bigint, dedupe_key text, state text, severity text, title text, body jsonb, failures bigint, run_id bigint,
    created_at timestamptz, last_failed_at timestamptz, attempts integer, delivered_to text[])
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    asked_at timestamptz := clock_timestamp();
BEGIN
    PERFORM dwh._require_warehouse();
    IF coalesce(claim_alerts.n NOT BETWEEN 1 AND 1000 OR claim_alerts.lease NOT BETWEEN '1 second' AND '1 day', true) THEN
        RAISE EXCEPTION 'claim of alerts out of range'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('n is %s, from 1 to 1000 is allowed; lease is %s, from one second to one day is allowed.',
                                  coalesce(claim_alerts.n::text, 'NULL'), coalesce(claim_alerts.lease::text, 'NULL')),
                  HINT = 'SELECT * FROM dwh.claim_alerts(n => 10, lease => ''5 minutes'').';
    END IF;
    RETURN QUERY
    WITH due AS MATERIALIZED (
        SELECT a.alert_id FROM ops.alerts AS a
         WHERE a.delivered_at IS NULL AND a.next_at <= asked_at
           AND NOT EXISTS (SELECT FROM ops.alerts AS e   -- in order: an earlier one of the key comes first
                            WHERE e.dedupe_key = a.dedupe_key AND e.alert_id < a.alert_id AND e.delivered_at IS NULL)
         ORDER BY a.next_at, a.alert_id LIMIT claim_alerts.n FOR UPDATE SKIP LOCKED),
    claimed AS (
        UPDATE ops.alerts AS a SET attempts = a.attempts + 1, next_at = clock_timestamp() + claim_alerts.lease
          FROM due AS d WHERE a.alert_id = d.alert_id
        RETURNING a.alert_id, a.dedupe_key, a.state, a.severity, a.title, a.body, a.failures, a.run_id, a.created_at,
                  a.last_failed_at, a.attempts, a.delivered_to)
    SELECT c.* FROM claimed AS c ORDER BY c.alert_id;
END
$$;
REVOKE EXECUTE ON FUNCTION dwh.claim_alerts(integer, interval) FROM PUBLIC;
COMMENT ON FUNCTION dwh.claim_alerts(integer, interval) IS
'Claims up to n alerts that wait in ops.alerts, for a sender that then calls ack_alert() or fail_alert() for each; NOTIFY dwh_alerts tells when there is a new one. lease: for how long nobody else gets them; a sender that dies loses them to the next one when it ends. Of one dedupe_key one message at a time is out, and none before an earlier one that is not acknowledged. Passes over what another sender is claiming, waits for nobody. Returns one row an alert, by alert_id; delivered_to names the channels that have it already. Errors: 22023 for n outside 1 to 1000 or a lease outside 1 second to 1 day, 40001 (retry) above READ COMMITTED where another sender was faster, WH004 without a warehouse. A repeat returns others, or none.';

CREATE FUNCTION dwh._settle_alert(alert_id bigint, channels text[], OUT delivered_at timestamptz, OUT attempts integer)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
BEGIN
    PERFORM dwh._require_warehouse();
    IF cardinality(channels) > 16 OR EXISTS (SELECT FROM unnest(channels) AS c WHERE c IS NULL OR length(c) NOT BETWEEN 1 AND 100) THEN
        RAISE EXCEPTION 'names of channels out of range'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = 'delivered_to holds at most 16 names of 1 to 100 characters.',
                  HINT = 'Name the channels that have the alert, for example ARRAY[''webhook''].';
    END IF;
    UPDATE ops.alerts AS a
       SET delivered_to = ARRAY(SELECT DISTINCT c FROM unnest(a.delivered_to || channels) AS c ORDER BY c)
     WHERE a.alert_id = _settle_alert.alert_id
    RETURNING a.delivered_at, a.attempts INTO _settle_alert.delivered_at, _settle_alert.attempts;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no alert %', coalesce(_settle_alert.alert_id::text, 'NULL')
            USING ERRCODE = 'no_data_found',
                  DETAIL = 'ops.alerts has no row with this alert_id.',
                  HINT = 'SELECT * FROM ops.alerts WHERE delivered_at IS NULL ORDER BY alert_id.';
    END IF;
END
$$;
COMMENT ON FUNCTION dwh._settle_alert(bigint, text[]) IS
'Locks an alert, adds the channels that have it, and says whether it was delivered before, and how often it was claimed. 22023 for what cannot be names of channels, P0002 for an unknown alert, 55P03 after two seconds of waiting.';

CREATE FUNCTION dwh.ack_alert(alert_id bigint, delivered_to text[] DEFAULT '{}', OUT status text, OUT delivered_at timestamptz)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    alert record := dwh._settle_alert(ack_alert.alert_id, ack_alert.delivered_to);
BEGIN
    status := 'already_acked';
    delivered_at := alert.delivered_at;
    IF delivered_at IS NULL THEN
        status := 'acked';
        delivered_at := clock_timestamp();
        UPDATE ops.alerts AS a SET delivered_at = ack_alert.delivered_at, last_error = NULL WHERE a.alert_id = ack_alert.alert_id;
        NOTIFY dwh_alerts;   -- the next one of its key may go
    END IF;
END
$$;
REVOKE EXECUTE ON FUNCTION dwh.ack_alert(bigint, text[]) FROM PUBLIC;
COMMENT ON FUNCTION dwh.ack_alert(bigint, text[]) IS
'Says that an alert is delivered, through the channels delivered_to (added to those known), so that it is not claimed again and the next one of its dedupe_key may be. Returns status (acked, already_acked) and when it was delivered. Errors: P0002 for an unknown alert, 22023 for names of channels that are too many or too long, 55P03 (retry) where another transaction holds the row for more than 2 seconds, WH004 without a warehouse. A repeat says already_acked, and changes nothing but the channels.';

CREATE FUNCTION dwh.fail_alert(alert_id bigint, error text DEFAULT NULL, delivered_to text[] DEFAULT '{}', OUT status text, OUT next_at timestamptz)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    alert record := dwh._settle_alert(fail_alert.alert_id, fail_alert.delivered_to);
BEGIN
    status := 'already_acked';
    IF alert.delivered_at IS NULL THEN
        status := 'waiting';
        -- up to a fifth less, so that two senders, or two alerts, do not come back together
        next_at := clock_timestamp()
            + make_interval(secs => least(3600, 30 * 2 ^ least(greatest(alert.attempts, 1) - 1, 10)) * (1 - random() / 5));
        UPDATE ops.alerts AS a
           SET next_at = fail_alert.next_at, last_error = left(regexp_replace(fail_alert.error, '[[:cntrl:]]+', ' ', 'g'), 500)
         WHERE a.alert_id = fail_alert.alert_id;
    END IF;
END
$$;
REVOKE EXECUTE ON FUNCTION dwh.fail_alert(bigint, text, text[]) FROM PUBLIC;
COMMENT ON FUNCTION dwh.fail_alert(bigint, text, text[]) IS
'Says that an alert could not be delivered, or only through the channels delivered_to: it may be claimed again after 30 seconds, doubled with each attempt, at most an hour, up to a fifth less at random. error: why, without secrets; the first 500 characters are kept. Returns status (waiting, already_acked) and when it may be claimed again. Errors: P0002 for an unknown alert, 22023 for names of channels that are too many or too long, 55P03 (retry) where another transaction holds the row for more than 2 seconds, WH004 without a warehouse. A repeat waits anew; after ack_alert() it says already_acked, and changes nothing but the channels.';
