-- 03_alerts: the outbox. An incident begins once, reminds, and ends; senders claim each message, in the order of its key.
\set VERBOSITY sqlstate
SELECT test.begin();
CREATE FUNCTION test.raised(key text, severity text DEFAULT 'error') RETURNS void LANGUAGE sql AS $$
    SELECT dwh._raise_alert(key, severity, 'it failed', '{"sqlstate": "WH001"}', 7) $$;
-- Time goes by: every time in the outbox is so much older.
CREATE FUNCTION test.wait(pause interval) RETURNS void LANGUAGE sql AS $$
    UPDATE ops.alerts SET created_at = created_at - pause, last_failed_at = last_failed_at - pause, next_at = next_at - pause $$;
CREATE VIEW test.outbox AS
    SELECT alert_id, dedupe_key, state, severity, failures, attempts, next_at <= clock_timestamp() AS is_due, delivered_at IS NOT NULL AS is_delivered, delivered_to
      FROM ops.alerts ORDER BY alert_id;

-- An incident: one message, counted on, reminded of after dwh.alert_interval, worse at once, ended once.
SELECT test.raised('a', 'warn'), test.raised('a', 'warn'), test.raised('a', 'warn');
SELECT test.raised('a', 'error');
SELECT test.raised('a', 'error'), test.raised('a', 'warn');
SELECT test.wait('25 hours');
SELECT test.raised('a', 'warn'), test.raised('b');
SELECT dwh._recover_alert('a', 8), dwh._recover_alert('a', 9), dwh._recover_alert('never', 9);
SELECT test.raised('a', 'warn');
SELECT * FROM test.outbox;
SELECT run_id, body - 'failed_since' AS body, body ->> 'failed_since' = to_char((SELECT min(created_at) FROM ops.alerts WHERE dedupe_key = 'a') AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS says_since
  FROM ops.alerts WHERE state = 'recovered';
SET dwh.alert_interval = '1s';
SELECT test.wait('2 seconds'), test.raised('b');
RESET dwh.alert_interval;
SELECT state FROM ops.alerts WHERE dedupe_key = 'b' ORDER BY alert_id;

-- Claims: one message of a key at a time, in order; others go on.
SELECT alert_id, dedupe_key, state, severity, title, body - 'failed_since' AS body, failures, run_id, attempts, delivered_to FROM dwh.claim_alerts();
SELECT count(*) AS while_the_lease_lasts FROM dwh.claim_alerts();
SELECT status, delivered_at IS NOT NULL AS has_time FROM dwh.ack_alert(1);
SELECT status FROM dwh.ack_alert(1);
SELECT alert_id, dedupe_key, state FROM dwh.claim_alerts(1);
SELECT count(*) AS nothing_else FROM dwh.claim_alerts();
-- a sender that died: the lease ends, and the same message comes again
SELECT test.wait('6 minutes');
SELECT alert_id, dedupe_key, state, attempts FROM dwh.claim_alerts(lease => '1 hour');
-- one channel has it: it waits, and says so; text of an error is one line of at most 500 characters
SELECT status, next_at - clock_timestamp() BETWEEN '46 seconds' AND '61 seconds' AS in_a_minute
  FROM dwh.fail_alert(2, error => E'refused\nby the \r\n other side' || repeat('x', 600), delivered_to => '{webhook}');
SELECT left(last_error, 30) AS last_error, length(last_error), delivered_to FROM ops.alerts WHERE alert_id = 2;
SELECT count(*) AS not_yet FROM dwh.claim_alerts();
SELECT test.wait('61 seconds');
SELECT alert_id, attempts, delivered_to FROM dwh.claim_alerts();
SELECT status FROM dwh.ack_alert(2, '{smtp,webhook}');
SELECT status, next_at FROM dwh.fail_alert(2, 'late');
SELECT * FROM test.outbox WHERE alert_id = 2;
-- the pause doubles up to an hour, and is not the same twice
CREATE FUNCTION test.pause(claimed integer) RETURNS interval LANGUAGE plpgsql AS $$
BEGIN
    UPDATE ops.alerts SET attempts = claimed WHERE alert_id = 3;
    RETURN next_at - clock_timestamp() FROM dwh.fail_alert(3);
END $$;
SELECT p.attempts, bool_and(f.pause BETWEEN make_interval(secs => p.seconds * 0.8 - 5) AND make_interval(secs => p.seconds)) AS is_within,
       count(DISTINCT round(extract(epoch FROM f.pause), 2)) > 1 AS differs
  FROM (VALUES (0, 30), (1, 30), (2, 60), (5, 480), (7, 1920), (8, 3600), (9, 3600), (2147483647, 3600)) AS p (attempts, seconds)
 CROSS JOIN generate_series(1, 5) AS n CROSS JOIN LATERAL (SELECT test.pause(p.attempts + 0 * n) AS pause) AS f GROUP BY 1 ORDER BY 1;

-- What is not allowed.
SELECT c.call, e.* FROM (VALUES ('claim_alerts(0)'), ('claim_alerts(1001)'), ('claim_alerts(NULL)'), ('claim_alerts(1, NULL)'), ('claim_alerts(1, ''0'')'),
       ('claim_alerts(1, ''-1 day'')'), ('claim_alerts(1, ''25 hours'')'), ('ack_alert(4711)'), ('ack_alert(NULL)'), ('fail_alert(4711)'), ('fail_alert(NULL)'),
       ('ack_alert(3, ''{NULL}'')'), ('ack_alert(3, ARRAY[''''])'), ('fail_alert(3, ''x'', array_fill(''c''::text, ARRAY[17]))'),
       ('fail_alert(3, NULL, ARRAY[repeat(''c'', 101)])')) AS c (call), test.error('SELECT * FROM dwh.' || c.call) AS e;
SELECT status FROM dwh.fail_alert(3, NULL, NULL);
SELECT last_error, delivered_to FROM ops.alerts WHERE alert_id = 3;

-- A title is one line, a key fits into its index, and two long ones stay apart.
SELECT test.begin();
SELECT dwh._raise_alert('load:' || (SELECT string_agg(chr(44032 + (i * i * n) % 11172), '') FROM generate_series(1, 4000) AS i), 'error',
                        E'two\nlines\r\n\tof ' || repeat('text', 100), '{}', NULL)
  FROM unnest('{1,2,1}'::int[]) AS n;
SELECT title, length(dedupe_key), left(dedupe_key, 5) AS key, failures FROM ops.alerts ORDER BY alert_id;

-- A load over its limit, and the incident's end: a later load of that path that is neither stopped nor quarantined.
SELECT test.begin();
SELECT test.put('abort.jsonl', test.event('{}'), 'broken'), test.put('good.jsonl', test.event('{"user_id": "u2"}'));
SELECT status FROM test.load('good.jsonl');
SELECT test.load('abort.jsonl', on_error => 'abort');
SELECT test.load('abort.jsonl', reject_limit => '0');
SELECT state, failures FROM ops.alerts;
SELECT dwh._recover_loads(NULL);
SELECT state FROM ops.alerts;
INSERT INTO ops.loads (path, lines, loaded, rejected, blank, status, loaded_at) SELECT test.dir() || '/abort.jsonl', 1, 0, 1, 0, 'quarantined', now();
SELECT dwh._recover_loads(NULL);
SELECT state FROM ops.alerts;
-- another path is another matter; the check that comes with every run or call ends it
SELECT status FROM test.load('good.jsonl', force => true);
SELECT dwh._recover_loads(NULL);
SELECT state FROM ops.alerts;
DELETE FROM ops.loads WHERE status = 'quarantined';
SELECT status FROM test.load('abort.jsonl', reject_limit => '1', force => true);
SELECT count(*) AS steps FROM test.build();
SELECT count(*) > 0 AS checked FROM dwh.run_quality_checks();
SELECT regexp_replace(dedupe_key, '/.*/', '') AS key, state, body - '{load_id,failed_since}'::text[] AS body FROM ops.alerts WHERE dedupe_key LIKE 'load:%' ORDER BY alert_id;
SELECT dwh._recover_loads(NULL);
SELECT count(*) FROM ops.alerts WHERE dedupe_key LIKE 'load:%';

-- Any history of failures, recoveries, senders and time, against what must hold of every one of them.
SELECT test.begin();
SET dwh.alert_interval = '60s';
CREATE TEMP TABLE said (no bigint GENERATED ALWAYS AS IDENTITY, key text, what text);
CREATE TEMP TABLE delivered (no bigint GENERATED ALWAYS AS IDENTITY, alert_id bigint);
SELECT setseed(0.42);
DO $$
DECLARE
    key text;
    claimed record;
BEGIN
    FOR n IN 1 .. 500 LOOP
        key := 'key ' || floor(random() * 4);
        CASE floor(random() * 8)
            WHEN 0, 1, 2 THEN PERFORM test.raised(key); INSERT INTO said (key, what) VALUES (key, 'f');
            WHEN 3 THEN PERFORM dwh._recover_alert(key, n); INSERT INTO said (key, what) VALUES (key, 'w');
            WHEN 4 THEN PERFORM test.wait(make_interval(secs => random() * 40));
            ELSE
                FOR claimed IN SELECT * FROM dwh.claim_alerts(1 + floor(random() * 3)::int, make_interval(secs => 1 + random() * 30)) LOOP
                    CASE floor(random() * 4)
                        WHEN 0 THEN PERFORM dwh.fail_alert(claimed.alert_id, 'no');
                        WHEN 1 THEN INSERT INTO delivered (alert_id) VALUES (claimed.alert_id);   -- and died
                        ELSE INSERT INTO delivered (alert_id) VALUES (claimed.alert_id); PERFORM dwh.ack_alert(claimed.alert_id);
                    END CASE;
                END LOOP;
        END CASE;
    END LOOP;
    FOR n IN 1 .. 1000 LOOP   -- then everything gets through
        PERFORM test.wait('2 hours');
        SELECT * INTO claimed FROM dwh.claim_alerts(1);
        EXIT WHEN claimed.alert_id IS NULL;
        INSERT INTO delivered (alert_id) VALUES (claimed.alert_id);
        PERFORM dwh.ack_alert(claimed.alert_id);
    END LOOP;
END $$;
SELECT count(*) > 60 AS many, count(DISTINCT dedupe_key) AS keys, count(DISTINCT state) AS states, count(*) FILTER (WHERE delivered_at IS NULL) AS waiting FROM ops.alerts;
-- every incident begins once and ends at most once
SELECT dedupe_key FROM ops.alerts GROUP BY 1 HAVING string_agg(left(state, 1), '' ORDER BY alert_id) !~ '^(fs*r)*(fs*)?$';
-- as many incidents as there were failures after something well, as many ends, as many failures as were said
SELECT s.key FROM (SELECT key, what, lag(what, 1, 'w') OVER (PARTITION BY key ORDER BY no) AS before FROM said) AS s
 GROUP BY 1 HAVING count(*) FILTER (WHERE what = 'f' AND before = 'w') <> (SELECT count(*) FROM ops.alerts WHERE dedupe_key = s.key AND state = 'first-fail')
     OR count(*) FILTER (WHERE what = 'w' AND before = 'f') <> (SELECT count(*) FROM ops.alerts WHERE dedupe_key = s.key AND state = 'recovered')
     OR count(*) FILTER (WHERE what = 'f') <> (SELECT sum(failures) FROM ops.alerts WHERE dedupe_key = s.key)
     OR count(*) FILTER (WHERE what = 'f' AND before = 'w') = 0;
-- every message arrived, and of a key none before an earlier one
SELECT a.alert_id FROM ops.alerts AS a WHERE a.alert_id NOT IN (SELECT alert_id FROM delivered);
SELECT l.alert_id FROM (SELECT a.alert_id, d.no, lead(d.no) OVER (PARTITION BY a.dedupe_key ORDER BY a.alert_id) AS next_no
                          FROM ops.alerts AS a JOIN (SELECT alert_id, min(no) AS no FROM delivered GROUP BY 1) AS d USING (alert_id)) AS l WHERE l.no > l.next_no;
SELECT count(*) > (SELECT count(*) FROM ops.alerts) AS some_twice FROM delivered;
RESET dwh.alert_interval;
