#!/usr/bin/env bash
# The seed's SQL, written plainly (seed.sql), gives the same marts on a clean log, and the user's own queries run
# unchanged and give the numbers that a count outside of the database gives.
. "$(dirname "$0")/common.bash"
events=200000
[ "$SCALE" = full ] || events=20000
new_warehouse dwh_oracle_seed
sql "SELECT dwh.generate_events('$scratch/clean.jsonl', events => $events, users => $((events / 20)))" >/dev/null
sql "SELECT dwh.run_pipeline('$scratch/clean.jsonl')" >/dev/null
q -v file="$scratch/clean.jsonl" -f "$oracle/seed.sql"

both_ways() { # name ours theirs
    is "$(sql "SELECT (SELECT count(*) FROM ($2) AS o), (SELECT count(*) FROM ($2 EXCEPT ALL $3) AS d), (SELECT count(*) FROM ($3 EXCEPT ALL $2) AS d)")" \
        "$(sql "SELECT count(*), 0, 0 FROM ($3) AS t")" "$1: $(sql "SELECT count(*) FROM ($3) AS t") rows, equal both ways"
}
staging='event_id, event_time, event_type, user_id, session_id, product_id, device, country, category, brand, price, revenue, quantity'
users='user_id, device, country, valid_from, valid_to, is_current'
facts='f.event_id, f.event_time, f.event_type, f.session_id, f.quantity, f.price, f.revenue, u.user_id, u.device, u.country, u.valid_from, u.valid_to'
our_users="SELECT $users FROM marts.dim_user" their_users="SELECT $users FROM seed.dim_user"
our_facts="SELECT $facts, p.product_id FROM marts.fact_user_events f JOIN marts.dim_user u USING (user_key) JOIN marts.dim_product p USING (product_key)"
their_facts="SELECT $facts, coalesce(p.product_id, '') FROM seed.fact_user_events f JOIN seed.dim_user u USING (user_key) LEFT JOIN seed.dim_product p USING (product_key)"
both_ways 'raw.user_events' 'SELECT line_no, payload FROM raw.user_events' 'SELECT line_no, payload FROM seed.raw_user_events'
both_ways 'staging.user_events' "SELECT $staging FROM staging.user_events" "SELECT $staging FROM seed.staging_user_events"
both_ways 'marts.dim_user' "$our_users" "$their_users"
both_ways 'marts.dim_product' 'SELECT product_id, category, brand, price FROM marts.dim_product WHERE product_key <> 0' \
    'SELECT product_id, category, brand, price FROM seed.dim_product'
both_ways 'marts.fact_user_events' "$our_facts" "$their_facts"
is "$(sql 'SELECT count(*) FROM marts.dim_product WHERE is_inferred')" 0 'every product of a clean log is fully known'
is "$(sql 'SELECT * FROM seed.failed_checks')$(failing_checks)" '' 'the checks of both pass'
isnt "$(sql 'SELECT count(*) FROM marts.dim_user WHERE NOT is_current')" 0 'the log has users that changed'
is "$(sql "SELECT count(*) FROM (SELECT event_id FROM raw.user_events r JOIN seed.staging_user_events s ON s.event_id = dwh.event_id(r.payload)) AS d")" \
    "$events" 'dwh.event_id(payload) gives every stored event_id again'
is "$(q -c BEGIN -c 'UPDATE marts.dim_user SET valid_from = valid_from - interval $$1 s$$ WHERE user_key = 1' \
        -c "SELECT count(*) FROM ($our_users EXCEPT ALL $their_users) AS d" -c ROLLBACK)" 1 'the comparison sees one moved version'

# The user's queries, letter by letter, against a count in python.
python3 - "$scratch/clean.jsonl" >"$scratch/numbers" <<'EOP'
import collections, json, sys
types, users, revenue, n = collections.Counter(), set(), 0, 0
for line in open(sys.argv[1], encoding="utf-8"):
    event = json.loads(line)
    types[event["event_type"]] += 1
    users.add(event["user_id"])
    revenue += event.get("revenue", 0)
    n += 1
for name, count in types.most_common():
    print("%s|%d" % (name, count))
print(len(users), revenue, 0, 1, sep="\n")
EOP
q >"$scratch/answers" <<'EOQ'
SELECT event_type, COUNT(*) FROM marts.fact_user_events GROUP BY 1 ORDER BY 2 DESC;
SELECT COUNT(*) FROM marts.dim_user WHERE is_current = true;
SELECT SUM(revenue) FROM marts.fact_user_events;
SELECT COUNT(*) FROM staging.user_events WHERE event_time IS NULL OR event_type IS NULL;
WITH s AS (SELECT COUNT(*) cnt FROM staging.user_events), f AS (SELECT COUNT(*) cnt FROM marts.fact_user_events)
SELECT f.cnt::float / s.cnt AS load_ratio FROM s, f;
EOQ
is "$(cat "$scratch/answers")" "$(cat "$scratch/numbers")" \
    "the user's five queries run unchanged: $(head -3 "$scratch/answers" | tr '\n|' ', ') users $(sed -n 4p "$scratch/answers"), revenue $(sed -n 5p "$scratch/answers")"
