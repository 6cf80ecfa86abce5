#!/usr/bin/env bash
# Random histories in which a third of all lines is refused at first, as events of the future or as lines that are too
# long, and accepted by retries between later loads. After each round the marts must be what the brute-force oracle makes of
# the events accepted so far, and in the end what one clean load of all of them gives.
. "$(dirname "$0")/common.bash"
histories=2400 rounds=6
[ "$SCALE" = full ] || histories=500
python3 "$oracle/10_histories.py" "$scratch" $histories $rounds 20250712 >/dev/null
events=$(wc -l <"$scratch/whole.tsv")

new_warehouse dwh_oracle_retry_whole
sql "SELECT dwh.run_pipeline('$scratch/whole.jsonl')" >/dev/null
whole=$(marts)
drop_warehouse dwh_oracle_retry_whole

# Some lines become longer than the least dwh.max_line_bytes by blanks at their end, which their jsonb does not see.
awk -v seed=15 'BEGIN { srand(seed) }
    FNR == 1 { close(out); out = FILENAME ".padded" }
    { if (rand() < .1) printf "%s%1100s\n", $0, "" >out; else print >out }' "$scratch"/runs/*/*.jsonl
for file in "$scratch"/runs/*/*.jsonl; do mv "$file.padded" "$file"; done

new_warehouse dwh_oracle_retry
q -f "$oracle/10_histories.sql"
q -c "SET datestyle = 'ISO'" -c "\\copy oracle.observation FROM '$scratch/runs.tsv'"
sql "ALTER DATABASE dwh_oracle_retry SET dwh.max_reject_share = 1"
# The clock of every fourth line is put back before all events, so that stage_events() refuses it.
put_back="UPDATE raw.user_events AS r SET loaded_at = '1970-01-01Z' FROM ops.loads AS l
           WHERE l.load_id = r.load_id AND l.staged_at IS NULL AND hashint8extended(r.load_id * 1000000 + r.line_no, 15) % 4 = 0"
retry() { sql "SELECT coalesce(sum(staged), 0) || ' ' || coalesce(sum(replayed), 0) || ' ' || coalesce(sum(loaded), 0) FROM dwh.retry_rejects($1)" >>"$scratch/retried"; }
for ((round = 1; round <= rounds; round++)); do
    if [ $((round % 2)) = 0 ]; then limit=32MB; else limit=1kB; fi
    q -c "LOAD 'dwh_ext'" -c "SET dwh.max_line_bytes = '$limit'" -c "SELECT dwh.load_jsonl('$scratch/runs/$round/*.jsonl')" >/dev/null
    # refused lines of loads that are not staged yet, too
    if [ $round = 3 ]; then retry NULL; fi
    q -c "$put_back" -c 'SELECT dwh.stage_events()' >/dev/null
    case $((round % 3)) in
    0) # beside new events that have no facts yet
       retry NULL ;;
    1) # after the versions, before the facts
       q -c 'SELECT dwh.apply_scd2()' >/dev/null
       retry "(SELECT min(load_id) FROM ops.rejects)" ;;
    *) # in a warehouse where all is done
       sql "SELECT dwh.run_pipeline('none_*.jsonl')" >/dev/null
       retry "(SELECT max(load_id) FROM ops.rejects)" ;;
    esac
    if [ $round = $rounds ]; then retry NULL; fi
    q -c 'TRUNCATE oracle.kept' -c 'INSERT INTO oracle.kept SELECT * FROM marts.dim_user'
    sql "SELECT dwh.run_pipeline('none_*.jsonl')" >/dev/null
    # what was accepted so far; the oracle makes of it what it means
    q -c 'UPDATE oracle.observation SET round = CASE WHEN event_id IN (SELECT event_id FROM staging.user_events) THEN 1 ELSE 2 END' \
      -c 'CALL oracle.compute(1)' -c 'ANALYZE oracle.seen' -c 'ANALYZE oracle.state' -c 'ANALYZE oracle.version'
    is "$(sql "SELECT * FROM oracle.differences() WHERE rows <> 0")$(sql "SELECT * FROM oracle.key_differences() WHERE rows <> 0")" "" \
        "round $round of $rounds, $(sql 'SELECT count(*) FROM oracle.seen') of $events events: versions, products, facts and keys as the oracle has them"
    is "$(failing_checks)" "" "round $round: every quality check passes"
done
is "$(sql 'SELECT sum(staged) || $$ $$ || sum(rejected) + sum(stage_rejected) + sum(conflicting) FROM ops.loads')" "$events 0" "every event staged once, no reject left"
is "$(marts)" "$whole" "the same marts as one load that refused nothing"
is "$(awk '{ staged += $1; replayed += $2; loaded += $3 } END { print (staged > 100), (replayed > 10), (loaded > 10) }' "$scratch/retried")" "1 1 1" \
    "retries staged, counted replays and loaded lines: $(awk '{ s += $1; r += $2; l += $3 } END { print s, r, l }' "$scratch/retried")"
is "$(sql 'SELECT count(*) FROM ops.loads AS l, dwh.typed_events(l.load_id) AS e WHERE e.reject_class IS NOT NULL')" 0 "dwh.typed_events() takes all that was accepted"
before=$(rows_as_stored)
retry NULL
sql "SELECT dwh.run_pipeline('none_*.jsonl')" >/dev/null
is "$(rows_as_stored)" "$before" "once more: no row is written"
