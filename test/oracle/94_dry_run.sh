#!/usr/bin/env bash
# What dwh._examine() and dwh._dry_run() say of a directory of random small logs, against what the verbs and runs then make of
# it: new, known, renamed, grown, rewritten, cut, compressed, empty and dirty files, repeats and conflicts within and across
# them, loads that wait, erased users, dropped time. And saying it leaves no trace.
. "$(dirname "$0")/common.bash"
rounds=120
[ "$SCALE" = full ] || rounds=40
new_warehouse dwh_oracle_dry_run
sql "ALTER DATABASE $db SET timezone = 'UTC'"
sql "ALTER DATABASE $db SET dwh.fact_partition = 'day'"
q -f "$oracle/94_dry_run.sql"
dir=$scratch/logs
chmod 755 "$scratch"
RANDOM=94
one_of() { local i=$((RANDOM % $# + 1)); echo "${!i}"; }
for ((round = 0; round < rounds; round++)); do
    python3 "$oracle/94_dry_run.py" "$dir" "$round"
    # from the middle on users are erased, and time is dropped
    rest=$(one_of 'SELECT public.rest()' 'SELECT public.rest()' 'SELECT' 'SELECT FROM dwh.apply_scd2()')
    if ((round > rounds / 2)); then
        rest=$(one_of "$rest" "$rest" "$rest" "SELECT dwh.forget_user('u$((RANDOM % 20))')" \
            "SELECT FROM dwh.drop_before('$(one_of raw staging)', '2025-01-$((RANDOM % 20 + 10))Z')")
    fi
    # a load that waits
    if ((RANDOM % 4 == 0)); then
        first=$(find "$dir" -type f -name '*.jsonl' | sort | head -1)
        [ -z "$first" ] || sql "SELECT FROM dwh.load_jsonl('$first')" || true
    fi
    q -v round=$round -v dir="$dir" -v access="$(one_of 'READ ONLY' 'READ WRITE')" -v how="$(one_of verbs verbs run)" \
        -v ending="$(one_of COMMIT COMMIT ROLLBACK)" -v rest="$rest" -f "$oracle/94_dry_run_round.sql" || true
done >"$scratch/out" 2>&1
is "$(head -5 "$scratch/out")" '' "$rounds rounds without an error"
is "$(sql 'SELECT * FROM public.trouble LIMIT 10')" '' 'no row, sequence or transaction id is used, no lock but ACCESS SHARE taken'
for part in files touched steps; do
    is "$(sql "SELECT * FROM public.differences WHERE part = '$part' ORDER BY round, place LIMIT 8")" '' \
        "$part: as said, in $(sql "SELECT count(*) FROM public.said WHERE part = '$part'") rounds"
done
is "$(sql "SELECT string_agg(DISTINCT f ->> 'status', ' ' ORDER BY f ->> 'status') FROM public.said, jsonb_array_elements(said) AS f WHERE part = 'files'")" \
    'already_loaded appended empty failed loaded partial_tail quarantined rewritten truncated waiting' 'every status is among them'
is "$(sql "SELECT bool_and(n > 0) FROM (SELECT unnest(ARRAY[sum((f ->> 'staged')::bigint), sum((f ->> 'replayed')::bigint), sum((f ->> 'conflicting')::bigint),
       sum((f ->> 'stage_rejected')::bigint), sum((f ->> 'forgotten')::bigint), sum((f ->> 'held_back_bytes')::bigint), count(*) FILTER (WHERE f -> 'is_poisoned' = 'true'),
       count(*) FILTER (WHERE f ->> 'day_late' ~ '[1-9]')]) AS n
  FROM public.said, jsonb_array_elements(said) AS f WHERE part = 'files') AS c")" t 'and every count'
is "$(sql "SELECT count(DISTINCT done = '\"WH001\"') FROM public.said WHERE part = 'steps'")" 2 'runs that succeed, and runs that fail'
# Files of several chunks each, sorts that do not fit into memory: repeats within a file, across files, and of what is staged.
big() { # name
    q -v round="$1" -v dir="$dir" -v access='READ ONLY' -v how=verbs -v ending="$2" -v rest='SELECT public.rest()' -f "$oracle/94_dry_run_round.sql"
}
export PGOPTIONS="$PGOPTIONS -c work_mem=64kB -c dwh.load_workers=2"
q >"$scratch/out" 2>&1 <<SQL || true
SELECT FROM dwh.generate_events(path => '$dir/big_1.jsonl', events => 20000, dirty_rate => 0.02, seed => 1);
SQL
{ (sed -n '1000,19000p' "$dir/big_1.jsonl"; python3 "$oracle/94_dry_run.py" "$scratch/more" 0; cat "$scratch"/more/*.jsonl 2>/dev/null) >"$dir/big_2.jsonl" || true
  big 10001 ROLLBACK; big 10001 COMMIT
  sort "$dir/big_2.jsonl" >"$dir/big_3.jsonl"; big 10002 COMMIT; } >>"$scratch/out" 2>&1 || true
is "$(head -5 "$scratch/out")" '' 'large files without an error'
is "$(sql 'SELECT * FROM public.differences WHERE round > 10000 LIMIT 10')" '' \
    "large files: as said, $(sql "SELECT string_agg(format('%s staged, %s replayed', f ->> 'staged', f ->> 'replayed'), '; ') FROM public.said, jsonb_array_elements(said) AS f WHERE part = 'files' AND round > 10000 AND f ->> 'lines' > '10000'")"
# Nothing is written to the log either: no other session is at work, and what the server itself writes comes seldom.
wal() { printf '%s\n' 'SELECT pg_current_wal_insert_lsn() AS before \gset' "SELECT count(*) AS files FROM dwh._dry_run('$dir') \\gset" \
    "SELECT pg_current_wal_insert_lsn() - :'before'" | q -f -; }
is "$(for _ in 1 2 3 4 5; do wal; done | sort -n | head -1)" 0 'no byte of WAL'
# What the comparison is worth.
sql "UPDATE public.said SET said = jsonb_set(said, '{0,staged}', '-1') WHERE round = (SELECT min(round) FROM public.said WHERE part = 'files' AND said <> '[]') AND part = 'files'"
is "$(sql "SELECT count(*) FROM public.differences")" 1 'the comparison sees one other count'
