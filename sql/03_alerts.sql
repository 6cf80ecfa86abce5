-- 03_alerts.sql: the outbox of what somebody should know; delivery is outside the server (docker/notifier).
--
-- Invariants: an incident is all that has one dedupe_key from its first failure until it has recovered; it makes one message
-- when it begins, one in dwh.alert_interval while it goes on, and one when it ends. A message holds no row data.
-- Repeats are harmless: a failure that goes on is counted on the message that is there.

CREATE FUNCTION dwh._raise_alert(dedupe_key text, severity text, title text, body jsonb, run_id bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    last record;
BEGIN
    SELECT a.alert_id, a.state, a.created_at INTO last FROM ops.alerts AS a
     WHERE a.dedupe_key = _raise_alert.dedupe_key ORDER BY a.alert_id DESC LIMIT 1 FOR UPDATE;
    IF last.state IN ('first-fail', 'still-failing')
       AND clock_timestamp() < last.created_at + dwh._setting('alert_interval')::interval THEN
        UPDATE ops.alerts AS a SET failures = a.failures + 1, last_failed_at = clock_timestamp() WHERE a.alert_id = last.alert_id;
        RETURN;
    END IF;
    INSERT INTO ops.alerts (dedupe_key, state, severity, title, body, run_id)
    VALUES (_raise_alert.dedupe_key, CASE WHEN last.state IN ('first-fail', 'still-failing') THEN 'still-failing' ELSE 'first-fail' END,
            _raise_alert.severity, _raise_alert.title, _raise_alert.body, _raise_alert.run_id);
    NOTIFY dwh_alerts;
END
$$;
COMMENT ON FUNCTION dwh._raise_alert(text, text, text, jsonb, bigint) IS
'Says that something failed: a message if that is news or the last message is older than dwh.alert_interval, else counted on that one.';

CREATE FUNCTION dwh._recover_alert(dedupe_key text, run_id bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    last record;
BEGIN
    SELECT a.* INTO last FROM ops.alerts AS a
     WHERE a.dedupe_key = _recover_alert.dedupe_key ORDER BY a.alert_id DESC LIMIT 1 FOR UPDATE;
    IF last.state IN ('first-fail', 'still-failing') THEN
        INSERT INTO ops.alerts (dedupe_key, state, severity, title, body, run_id, failures, last_failed_at)
        VALUES (_recover_alert.dedupe_key, 'recovered', last.severity, last.title, last.body, _recover_alert.run_id, 0, last.last_failed_at);
        NOTIFY dwh_alerts;
    END IF;
END
$$;
COMMENT ON FUNCTION dwh._recover_alert(text, bigint) IS 'Says that something which may have failed is well: a message if the last one was of a failure.';
