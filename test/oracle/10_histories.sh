#!/usr/bin/env bash
# Thousands of random small histories against a brute-force oracle: loaded whole, and split into rounds, shuffled and with
# replays, so that late events meet versions, prices and facts that are there already. After every round the marts must be what the
# oracle makes of the events so far, and keys must have stayed.
. "$(dirname "$0")/common.bash"
histories=6000 rounds=8
[ "$SCALE" = full ] || histories=1200
python3 "$oracle/10_histories.py" "$scratch" $histories $rounds 20250110 >"$scratch/sizes"
events=$(wc -l <"$scratch/whole.tsv")

begin() { # database scenario
    new_warehouse "$1"
    q -f "$oracle/10_histories.sql"
    q -c "SET datestyle = 'ISO'" -c "\\copy oracle.observation FROM '$scratch/$2.tsv'"
}
# Called after each step of apply_scd2: gathers what happened to the keys, and remembers the versions for the next one.
key_trouble=
keys() {
    key_trouble+=$(sql "SELECT * FROM oracle.key_differences() WHERE rows <> 0")
    q -c 'TRUNCATE oracle.kept' -c 'INSERT INTO oracle.kept SELECT * FROM marts.dim_user'
}
# Compares with the oracle.
compare() { # round name
    sql "CALL oracle.compute($1)"
    q -c 'ANALYZE oracle.seen' -c 'ANALYZE oracle.state' -c 'ANALYZE oracle.version' -c 'ANALYZE oracle.price_state'
    is "$(sql "SELECT * FROM oracle.differences() WHERE rows <> 0")$key_trouble" "" "$2"
    key_trouble=
}

begin dwh_oracle_whole whole
sql "SELECT dwh.run_pipeline('$scratch/whole.jsonl')" >/dev/null
keys
compare 1 "$histories histories ($events events) loaded whole: $(sql 'SELECT count(*) FROM marts.dim_user') versions and $(sql 'SELECT count(*) FROM marts.dim_product_price') prices as the oracle has them"
is "$(failing_checks)" "" "whole: every quality check passes"
whole=$(marts)
# An oracle that cannot fail proves nothing: each comparison must see its own damage.
damage() { # what sql
    is "$(q -c BEGIN -c "$2" -c "SELECT string_agg(what, ', ' ORDER BY what) FROM (SELECT * FROM oracle.differences() UNION ALL SELECT * FROM oracle.key_differences()) AS d WHERE rows <> 0" -c ROLLBACK)" "$1" "the oracle sees: $1"
}
damage 'versions missing, versions too many' \
    "UPDATE marts.dim_user SET valid_to = valid_to - interval '1 microsecond' WHERE user_key = (SELECT min(user_key) FROM marts.dim_user WHERE valid_to > valid_from + interval '1 hour' AND user_key NOT IN (SELECT user_key FROM marts.fact_user_events f JOIN marts.dim_user d USING (user_key) WHERE f.event_time = d.valid_to - interval '1 microsecond'))"
damage 'products missing, products too many' \
    "UPDATE marts.dim_product SET brand = 'other' WHERE product_key = (SELECT min(product_key) FROM marts.dim_product WHERE brand IS NOT NULL)"
damage 'prices missing, prices too many' \
    "UPDATE marts.dim_product_price AS h SET valid_to = valid_to - interval '1 microsecond', price = price + 0.00 WHERE (product_key, valid_from) = (SELECT product_key, valid_from FROM marts.dim_product_price WHERE valid_to > valid_from + interval '1 hour' ORDER BY 1, 2 LIMIT 1)"
damage 'prices missing' "DELETE FROM marts.dim_product_price WHERE is_current AND product_key = (SELECT min(product_key) FROM marts.dim_product_price)"
damage 'prices too many' "INSERT INTO marts.dim_product_price SELECT product_key, 99, min(valid_from) - interval '1 day', min(valid_from), false FROM marts.dim_product_price GROUP BY 1 LIMIT 1"
damage 'events without a fact' "DELETE FROM marts.fact_user_events WHERE event_id = (SELECT min(event_id::text)::uuid FROM marts.fact_user_events)"
damage 'facts with a wrong version' \
    "UPDATE marts.fact_user_events SET user_key = (SELECT max(user_key) FROM marts.dim_user) WHERE event_id = (SELECT f.event_id FROM marts.fact_user_events f JOIN marts.dim_user d USING (user_key) WHERE d.user_id = 'u000007' LIMIT 1)"
damage 'facts with a wrong product' "UPDATE marts.fact_user_events SET product_key = 0 WHERE event_id = (SELECT event_id FROM marts.fact_user_events WHERE product_key <> 0 LIMIT 1)"
damage 'keys lost though the start stayed, keys minted though only the start moved' \
    "WITH v AS (SELECT user_key FROM marts.dim_user ORDER BY user_key LIMIT 1), f AS (UPDATE marts.fact_user_events SET user_key = -user_key WHERE user_key = (SELECT user_key FROM v))
     UPDATE marts.dim_user SET user_key = -user_key WHERE user_key = (SELECT user_key FROM v)"
drop_warehouse dwh_oracle_whole

# The verbs one by one: files by pattern, by name and as large objects; all loads at once, or each alone and in another
# order than they came.
begin dwh_oracle_verbs verbs
for ((round = 1; round <= rounds; round++)); do
    files=$scratch/verbs/$round
    case $((round % 4)) in
    0) q -c "SELECT dwh.load_jsonl('$files/*.jsonl')" -c 'SELECT dwh.stage_events()' -c 'SELECT dwh.apply_scd2()' \
         -c 'SELECT dwh.upsert_products()' -c 'SELECT dwh.load_facts()' -c 'SELECT dwh.run_quality_checks()' >/dev/null
       keys ;;
    1) for part in 3 1 2; do
           q -c "SELECT dwh.load_jsonl('$files/part_$part.jsonl')" -c 'SELECT dwh.stage_events()' -c 'SELECT dwh.upsert_products()' \
             -c 'SELECT dwh.apply_scd2()' -c 'SELECT dwh.load_facts()' -c 'SELECT dwh.run_quality_checks()' >/dev/null
           keys
       done ;;
    *) # large objects; all staged before the first is applied
       for part in 1 2 3; do
           object=$(sql "SELECT lo_import('$files/part_$part.jsonl')")
           sql "SELECT load_id FROM dwh.load_jsonl($object::oid)" >>"$scratch/loads.$round"
       done
       mapfile -t loads <"$scratch/loads.$round"
       for load in "${loads[2]}" "${loads[0]}" "${loads[1]}"; do sql "SELECT dwh.stage_events($load)" >/dev/null; done
       for load in "${loads[1]}" "${loads[2]}" "${loads[0]}"; do
           sql "SELECT dwh.apply_scd2($load)" >/dev/null; keys; sql "SELECT dwh.upsert_products($load)" >/dev/null
           # facts of one load before the next one's versions, or all afterwards
           if [ $((round % 4)) = 2 ]; then sql "SELECT dwh.load_facts($load)" >/dev/null; fi
       done
       q -c 'SELECT dwh.load_facts()' -c 'SELECT dwh.run_quality_checks()' >/dev/null ;;
    esac
    compare $round "verbs, round $round of $rounds: versions, products, prices, facts and keys as the oracle has them"
done
is "$(failing_checks)" "" "verbs: every quality check passes"
is "$(sql 'SELECT sum(staged) FROM ops.loads')" "$events" "verbs: every event staged once"
is "$(sql 'SELECT sum(replayed) || $$ $$ || sum(conflicting) + sum(rejected) + sum(stage_rejected) FROM ops.loads')" \
    "$(awk '$1 == "verbs" { print $3 - $2, 0 }' "$scratch/sizes")" "verbs: every replay counted, nothing refused"
is "$(marts)" "$whole" "verbs: the same marts as one load"
is "$(sql "SELECT count(*) FROM (SELECT user_id, device, country, valid_from, valid_to FROM dwh.user_versions() EXCEPT ALL SELECT user_id, device, country, valid_from, valid_to FROM oracle.version) AS d")" 0 \
    "dwh.user_versions() says the same as the oracle"
is "$(sql "SELECT count(*) FROM ((SELECT * FROM dwh.product_prices() EXCEPT ALL SELECT * FROM oracle.price) UNION ALL (SELECT * FROM oracle.price EXCEPT ALL SELECT * FROM dwh.product_prices())) AS d")" 0 \
    "dwh.product_prices() says the same as the oracle"
before=$(rows_as_stored)
q -c 'SELECT dwh.stage_events()' -c 'SELECT dwh.apply_scd2()' -c 'SELECT dwh.upsert_products()' -c 'SELECT dwh.load_facts()' >"$scratch/again"
is "$(grep -c nothing_new "$scratch/again")" 4 "verbs: called again, each says nothing_new"
is "$(rows_as_stored)" "$before" "verbs: called again, no row is written"
drop_warehouse dwh_oracle_verbs

begin dwh_oracle_runs runs
for ((round = 1; round <= rounds; round++)); do
    if [ $((round % 2)) = 0 ]; then sql "SELECT dwh.run_pipeline('$scratch/runs/$round')" >/dev/null; keys; else
        for part in 2 3 1; do sql "SELECT dwh.run_pipeline('$scratch/runs/$round/part_$part.jsonl')" >/dev/null; keys; done
    fi
    compare $round "runs, round $round of $rounds: versions, products, prices, facts and keys as the oracle has them"
done
is "$(failing_checks)" "" "runs: every quality check passes"
is "$(marts)" "$whole" "runs: the same marts as one load"
