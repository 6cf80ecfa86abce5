#!/usr/bin/env bash
# The filter of known ids with more than one tier: every id of a history of 1.7 million is found again, and nearly no other
# one is asked for.
. "$(dirname "$0")/common.bash"
history=1700000
[ "$SCALE" = full ] || history=900000

new_warehouse dwh_oracle_filter
# ids that count, and ids that look random; put where loads would put them, with the filter made from them
sql "SELECT dwh._make_partitions('staging.user_events', ARRAY['2025-01-01Z', '2025-02-01Z']::timestamptz[])" >/dev/null
sql "INSERT INTO ops.loads (path, lines, loaded, rejected, blank, staged, facts, status, loaded_at, staged_at, users_at, products_at, facts_at, checked_at, first_event, last_event)
     SELECT 'history', $history, $history, 0, 0, $history, $history, 'loaded', now(), now(), now(), now(), now(), now(), '2025-01-01Z', '2025-02-28Z'"
sql "INSERT INTO staging.user_events (event_id, event_time, event_type, user_id, load_id, line_no)
     SELECT CASE WHEN g % 2 = 0 THEN lpad(to_hex(g), 32, '0') ELSE md5(g::text) END::uuid,
            timestamptz '2025-01-01Z' + g % 59 * interval '1 day', 'view', 'u' || g % 1000, 1, g FROM generate_series(1, $history) AS g"
is "$(sql 'SELECT dwh._rebuild_event_filter()')" "$history" "$history ids are taken"
is "$(sql 'SELECT count(DISTINCT tier), sum(ids) FROM ops.event_filter')" "$((history / 800000 + 1))|$history" 'in as many tiers as they need'
is "$(sql 'SELECT max(octet_length(bits)), min(octet_length(bits)) FROM ops.event_filter')" '1984|1984' 'a segment has one size'

# 60,000 known ids at their own time or another one, 60,000 new ones
sql "COPY (SELECT jsonb_build_object('event_id', CASE WHEN k.g % 2 = 0 THEN lpad(to_hex(k.g), 32, '0') ELSE md5(k.g::text) END::uuid,
            'event_time', to_char(timestamptz '2025-01-01Z' + (k.g % 59 + k.g / 7 % 2) * interval '1 day', 'YYYY-MM-DD\"T\"HH24:MI:SSTZH:TZM'),
            'event_type', 'view', 'user_id', 'u' || k.g % 1000)
       FROM (SELECT n::bigint * $history / 60000 AS g FROM generate_series(1, 60000) AS n) AS k
      UNION ALL
     SELECT jsonb_build_object('event_id', md5('new' || g)::uuid, 'event_time', '2025-02-28T12:00:00Z', 'event_type', 'view', 'user_id', 'u1')
       FROM generate_series(1, 60000) AS g) TO '$scratch/batch.jsonl'" >/dev/null
sql "SELECT dwh.load_jsonl('$scratch/batch.jsonl')" >/dev/null
expected=$(sql "SELECT count(*) FILTER (WHERE s.event_id IS NULL), count(*) FILTER (WHERE s.event_id IS NOT NULL)
                  FROM raw.user_events AS r LEFT JOIN staging.user_events AS s ON s.event_id = (r.payload ->> 'event_id')::uuid")
is "$expected" '60000|60000' 'half of the batch is known'
is "$(sql 'SELECT staged, replayed + conflicting FROM dwh.stage_events()')" "$expected" 'every known id is found, every new one is staged'
# the raw rows of the history do not exist, so a repeat is a replay where the columns are equal: those at their own time
is "$(sql "SELECT replayed FROM ops.loads WHERE load_id = 2")" \
    "$(sql "SELECT count(*) FROM raw.user_events AS r JOIN staging.user_events AS s ON s.event_id = (r.payload ->> 'event_id')::uuid AND s.load_id = 1
              AND s.event_time = (r.payload ->> 'event_time')::timestamptz")" 'those that say the same are replays'
is "$(sql 'SELECT count(*) = count(DISTINCT event_id) FROM staging.user_events')" t 'each event_id is staged once'

# A load that fills a tier finds its own ids in it: the first half of the lines comes again, a day later each.
new_warehouse dwh_oracle_full_tier
sql "INSERT INTO ops.event_filter (tier, segment, ids, bits) SELECT 1, s, 771, decode(repeat('00', 1984), 'hex') FROM generate_series(0, 1023) AS s" >/dev/null
sql "COPY (SELECT jsonb_build_object('event_id', md5(n::text)::uuid, 'event_time', to_char(timestamptz '2025-01-01Z' + n % 20 * interval '1 day' + r * interval '1 day',
            'YYYY-MM-DD\"T\"HH24:MI:SSTZH:TZM'), 'event_type', 'view', 'user_id', 'u' || n % 100)
       FROM (SELECT n, 0 AS r FROM generate_series(1, 40000) AS n UNION ALL SELECT n, 1 FROM generate_series(1, 40000) AS n) AS l) TO '$scratch/twice.jsonl'" >/dev/null
sql "SELECT dwh.run_pipeline('$scratch/twice.jsonl')" >/dev/null
is "$(sql 'SELECT staged, conflicting, (SELECT max(tier) FROM ops.event_filter) FROM ops.loads')" '40000|40000|2' 'a repeat in another chunk is found in the tier that was filled before it'
is "$(sql 'SELECT count(DISTINCT event_id) FROM marts.fact_user_events')" 40000 'each event_id is one fact'
echo "1..$test_no"
