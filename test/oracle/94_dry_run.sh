#!/usr/bin/env bash
# What dwh._examine() and dwh._dry_run() say of a directory of random small logs, against what the verbs and runs then make of
# it: new, known, renamed, grown, rewritten, cut, compressed, empty and dirty files, repeats and conflicts within and across
# them, loads that wait, erased users, dropped time. And saying it leaves no trace.
. "$(dirname "$0")/common.bash"
rounds=70
[ "$SCALE" = full ] || rounds=40
new_warehouse dwh_oracle_dry_run
sql "ALTER DATABASE $db SET timezone = 'UTC'"
sql "ALTER DATABASE $db SET dwh.fact_partition = 'day'"
q -f "$oracle/94_dry_run.sql"
dir=$scratch/logs
chmod 755 "$scratch"
RANDOM=94
# no subshell: it would have a sequence of its own
one_of() { # variable value...
    local i=$((RANDOM % ($# - 1) + 2))
    printf -v "$1" '%s' "${!i}"
}
for ((round = 0; round < rounds; round++)); do
    python3 "$oracle/94_dry_run.py" "$dir" "$round"
    # from the middle on users are erased, and time is dropped
    one_of rest 'SELECT public.rest()' 'SELECT public.rest()' 'SELECT' 'SELECT FROM dwh.apply_scd2()'
    if ((round > rounds / 2)); then
        one_of layer raw staging
        one_of rest "$rest" "$rest" "$rest" "SELECT dwh.forget_user('u$((RANDOM % 20))')" \
            "SELECT FROM dwh.drop_before('$layer', '2025-01-$((RANDOM % 20 + 10))Z')"
    fi
    # loads that wait, of files elsewhere
    if ((RANDOM % 3 == 0)); then
        mkdir -p "$scratch/aside"
        python3 "$oracle/94_dry_run.py" "$scratch/aside" "$((round + 1000))"
        sql "SELECT FROM dwh.load_jsonl('$scratch/aside')" || true
    fi
    one_of access 'READ ONLY' 'READ WRITE'
    one_of how verbs verbs run
    one_of ending COMMIT COMMIT ROLLBACK
    q -v round=$round -v dir="$dir" -v access="$access" -v how="$how" -v ending="$ending" -v rest="$rest" -f "$oracle/94_dry_run_round.sql" || true
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
# Nothing is written to the log either: no other session is at work, and what the server itself writes comes seldom.
wal() { printf '%s\n' 'SELECT pg_current_wal_insert_lsn() AS before \gset' "SELECT count(*) AS files FROM dwh._dry_run('$dir') \\gset" \
    "SELECT pg_current_wal_insert_lsn() - :'before'" | q -f -; }
is "$(for _ in 1 2 3 4 5; do wal; done | sort -n | head -1)" 0 'no byte of WAL'
# What the comparison is worth.
sql "UPDATE public.said SET said = jsonb_set(said, '{0,staged}', '-1') WHERE round = (SELECT min(round) FROM public.said WHERE part = 'files' AND said <> '[]') AND part = 'files'"
is "$(sql "SELECT count(*) FROM public.differences")" 1 'the comparison sees one other count'

# Files of several chunks each, sorts that do not fit into memory: repeats within a file, across files, and of what is staged.
new_warehouse dwh_oracle_dry_run_large
q -f "$oracle/94_dry_run.sql"
large=$scratch/large
mkdir "$large"
export PGOPTIONS="$PGOPTIONS -c timezone=UTC -c work_mem=64kB -c dwh.load_workers=2"
round() { # number ending
    q -v round="$1" -v dir="$large" -v access='READ ONLY' -v how=verbs -v ending="$2" -v rest='SELECT public.rest()' -f "$oracle/94_dry_run_round.sql"
}
{
    chmod 777 "$large"
    q -c "SELECT FROM dwh.generate_events(path => '$large/1.jsonl', events => 20000, dirty_rate => 0.02, seed => 1)"
    sed -n '1000,19000p' "$large/1.jsonl" >"$large/2.jsonl"
    round 1 ROLLBACK
    round 2 COMMIT
    sort "$large/2.jsonl" | sed '1000,3000 s/"price": */&1/' >"$large/3.jsonl"
    round 3 COMMIT
} >"$scratch/out" 2>&1 || true
is "$(head -5 "$scratch/out")" '' 'large files without an error'
is "$(sql 'SELECT * FROM public.differences LIMIT 10')" '' 'large files: as said'
is "$(sql "SELECT string_agg(format('%s: %s', k.key, k.total), ', ') FROM (SELECT e.key, (sum(e.value::text::bigint) > 1000)::text AS total
  FROM public.said, jsonb_array_elements(said) AS f, jsonb_each(f) AS e WHERE part = 'files' AND round = 3 AND e.key IN ('replayed', 'conflicting') GROUP BY 1 ORDER BY 1) AS k")" \
    'conflicting: true, replayed: true' 'thousands of replays and conflicts among them'
