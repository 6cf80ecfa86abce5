#!/usr/bin/env bash
# Logs that nobody here wrote: a shop's, which must become marts that equal an independent count and the brute-force
# oracle, and two of other formats, which must load to raw whole and go no further, with the reason.
. "$(dirname "$0")/common.bash"

shop() {
    local log=$PUBLIC_DATA/retentioneering-ecom.csv.gz rows events users sessions changed whole part
    read -r rows events users sessions changed \
        <<<"$(python3 "$oracle/ecom_to_jsonl.py" "$log" "$scratch/shop.jsonl" "$scratch/shop.tsv")"
    is "$rows $users $changed" '31106 600 180' 'shop log: 31,106 rows, 600 users, 180 of them change platform'
    compare() { # name
        q -f "$oracle/10_histories.sql"
        q -c "SET datestyle = 'ISO'" -c "\\copy oracle.observation FROM '$scratch/shop.tsv'" -c 'CALL oracle.compute(1)'
        is "$(sql 'SELECT * FROM oracle.differences() WHERE rows <> 0')" '' "$1: every version, product and fact as the brute-force oracle has it"
        is "$(failing_checks)" '' "$1: every quality check passes"
    }

    new_warehouse dwh_oracle_shop
    sql "SELECT dwh.run_pipeline('$scratch/shop.jsonl')" >/dev/null
    is "$(sql 'SELECT lines, loaded, rejected, staged, replayed, conflicting, stage_rejected, facts FROM ops.loads')" \
        "$rows|$rows|0|$events|$((rows - events))|0|0|$events" "shop log: $events events staged and facts, $((rows - events)) replays, nothing refused"
    is "$(sql 'SELECT count(DISTINCT user_id) FROM marts.dim_user')" "$users" "shop log: $users users"
    is "$(sql 'SELECT count(DISTINCT (user_id, session_id)) FROM staging.user_events')" "$sessions" "shop log: $sessions sessions"
    is "$(sql 'SELECT count(*) FROM (SELECT user_id FROM marts.dim_user GROUP BY 1 HAVING count(*) > 1) AS u')" "$changed" \
        "shop log: $changed users have several versions"
    is "$(sql "SELECT event_type, count(*) FROM marts.fact_user_events GROUP BY 1 ORDER BY event_type COLLATE \"C\"")" \
        "$(zcat "$log" | python3 -c '
import csv, collections, sys
rows = {tuple(sorted(row.items())) for row in csv.DictReader(sys.stdin)}
for name, count in sorted(collections.Counter(dict(row)["event"] for row in rows).items()):
    print("%s|%d" % (name, count))')" 'shop log: events by type'
    is "$(sql "SELECT count(*) FROM marts.fact_user_events WHERE attributes ? 'user_cohort' AND attributes ? 'acquisition_channel'")" "$events" \
        'shop log: columns beyond the model are kept as attributes'
    compare 'shop log'
    whole=$(marts)
    is "$(q -c BEGIN -c "UPDATE marts.dim_user SET device = 'x' WHERE user_key = 1" -c "SELECT count(*) FROM oracle.differences() WHERE rows <> 0" -c ROLLBACK)" 3 \
        'the oracle sees a changed device'

    python3 "$oracle/reshuffle.py" "$scratch/shop.jsonl" "$scratch/shop" 7 3 >/dev/null
    new_warehouse dwh_oracle_shop_split
    for part in 6 2; do sql "SELECT dwh.run_pipeline('$scratch/shop/part_$part.jsonl')" >/dev/null; done
    sql "SELECT dwh.run_pipeline('$scratch/shop')" >/dev/null
    is "$(marts)" "$whole" 'shop log: shuffled, in 7 files, some lines twice: identical marts'
    compare 'shop log, shuffled'
}

# A log of another format: raw takes every line, staging refuses every event, a run ends in WH001 and leaves no trace but
# the evidence.
foreign() { # name file lines missing-field
    local before log=$2 load
    new_warehouse dwh_oracle_foreign
    sql "SELECT dwh.generate_events('$scratch/ours.jsonl', events => 2000, users => 100)" >/dev/null
    sql "SELECT dwh.run_pipeline('$scratch/ours.jsonl')" >/dev/null

    # step by step
    is "$(sql "SELECT status, lines, loaded, rejected, blank FROM dwh.load_jsonl('$log')")" "loaded|$3|$3|0|0" "$1: all $3 lines load to raw"
    load=$(sql 'SELECT max(load_id) FROM ops.loads')
    case $log in *.gz) zcat "$log" ;; *) cat "$log" ;; esac >"$scratch/plain"
    q -c 'CREATE TABLE public.line (no bigint GENERATED ALWAYS AS IDENTITY, text text)' \
      -c "COPY public.line (text) FROM '$scratch/plain' (FORMAT csv, DELIMITER E'\\x01', QUOTE E'\\x02')"
    is "$(sql "SELECT count(*) FROM raw.user_events AS r JOIN public.line AS l ON l.no = r.line_no AND l.text::jsonb::text = r.payload::text WHERE load_id = $load")" "$3" \
        "$1: each as ::jsonb has it"
    is "$(sql 'SELECT staged, rejected, quarantined FROM dwh.stage_events()')" "0|$3|1" "$1: staging refuses all and quarantines the load"
    is "$(sql "SELECT stage, class, message, count(*) FROM ops.rejects WHERE load_id = $load GROUP BY 1, 2, 3")" \
        "stage|missing_field|$4 is missing|$3" "$1: the reason is kept for each"
    is "$(q -c 'SELECT status FROM dwh.apply_scd2()' -c 'SELECT status FROM dwh.upsert_products()' -c 'SELECT status FROM dwh.load_facts()')" \
        $'nothing_new\nnothing_new\nnothing_new' "$1: the next steps have nothing to do"

    # as a run, in a warehouse that has not seen it
    new_warehouse dwh_oracle_foreign
    sql "SELECT dwh.run_pipeline('$scratch/ours.jsonl')" >/dev/null
    before=$(rows_as_stored)
    is "$(sqlstate_of "SELECT dwh.run_pipeline('$log')")" WH001 "$1: run_pipeline ends in WH001"
    is "$(rows_as_stored)" "$before" "$1: raw, staging and marts are as before"
    is "$(sql "SELECT status, lines, loaded, stage_rejected, staged, facts FROM ops.loads WHERE path = '$log'")" "quarantined|$3|$3|$3|0|0" \
        "$1: the file is quarantined"
    is "$(sql "SELECT class, count(*) FROM ops.rejects GROUP BY 1")" "missing_field|$3" "$1: the evidence has every reject"
    is "$(sql "SELECT status, sqlstate FROM ops.runs ORDER BY run_id DESC LIMIT 1")" 'failed|WH001' "$1: the run is written down as failed"
    is "$(sql "SELECT name, status FROM ops.quality_results WHERE status = 'fail' AND severity = 'error'")" 'reject_share|fail' "$1: and the check that stopped it"
    is "$(sql 'SELECT count(*) FROM ops.alerts')" 1 "$1: and an alert"
    sql "SELECT dwh.generate_events('$scratch/next.jsonl', events => 1000, users => 100, seed => 43)" >/dev/null
    mkdir -p "$scratch/both"; cp "$log" "$scratch/next.jsonl" "$scratch/both/"
    case $log in *.gz) mv "$scratch/both/$(basename "$log")" "$scratch/both/foreign.jsonl.gz" ;; esac
    sql "SELECT dwh.run_pipeline('$scratch/both')" >/dev/null
    is "$(sql 'SELECT count(*) FROM marts.fact_user_events')" 3000 "$1: the next run, with the quarantined file beside a new one, is fine"
    is "$(failing_checks)" '' "$1: and every quality check passes"
    rm -r "$scratch/both" "$scratch/next.jsonl"
}

if need_public retentioneering-ecom.csv.gz 'shop log'; then shop; fi
if need_public gharchive-2021-07-21.jsonl.gz 'GH Archive'; then
    is "$(zcat "$PUBLIC_DATA/gharchive-2021-07-21.jsonl.gz" | wc -l)" 800 'GH Archive: 800 lines'
    foreign 'GH Archive' "$PUBLIC_DATA/gharchive-2021-07-21.jsonl.gz" 800 event_time
fi
if need_public otto-train-sample.jsonl 'otto'; then foreign otto "$PUBLIC_DATA/otto-train-sample.jsonl" 20 event_time; fi
