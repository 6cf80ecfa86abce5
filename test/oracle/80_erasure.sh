#!/usr/bin/env bash
# Hundreds of random small logs with replays, conflicts and rejects, loaded in several files; users are erased at random
# moments between the steps, and old files are read again. In the end the warehouse must mean what one means that never saw
# the lines of the erased users, every count must be conserved, and no table may name them.
. "$(dirname "$0")/common.bash"
trials=200
[ "$SCALE" = full ] || trials=80
python3 "$oracle/80_erasure.py" "$scratch" $trials 20250712

new_warehouse dwh_oracle_erasure
q -f "$oracle/80_erasure.sql"
sql "ALTER DATABASE dwh_oracle_erasure SET dwh.max_reject_share = 1"
is "$("$BIN/psql" -XqAt -v ON_ERROR_STOP=1 -d "$db" -f "$scratch/trials.sql" 2>&1 >/dev/null | head -5)" "" "$trials trials, every call without an error"
differences="SELECT trial, part, count(*) FROM (
    (SELECT 'kept', m.trial, part, meaning FROM public.meaning AS m WHERE is_erased EXCEPT ALL SELECT 'kept', m.trial, part, meaning FROM public.meaning AS m WHERE NOT is_erased)
    UNION ALL
    (SELECT 'lost', m.trial, part, meaning FROM public.meaning AS m WHERE NOT is_erased EXCEPT ALL SELECT 'lost', m.trial, part, meaning FROM public.meaning AS m WHERE is_erased)) AS d
    GROUP BY 1, 2 ORDER BY 1, 2"
is "$(sql "$differences LIMIT 20")" "" "users, products, prices, facts, staging, conflicts and counts as without the lines of the erased: $(sql "SELECT count(*) FILTER (WHERE is_erased) FROM public.meaning") rows"
is "$(sql 'SELECT * FROM public.trouble ORDER BY 1 LIMIT 20')" "" "every check passes, every load is through, and no table names an erased user"
# What the comparison is worth: an erasure that is left out shows.
sql "UPDATE public.meaning SET meaning = meaning || ' ' WHERE ctid = (SELECT min(ctid) FROM public.meaning WHERE is_erased)"
is "$(sql "SELECT count(*) FROM ($differences) AS d")" 1 "the comparison sees one row that is another"
is "$(sql "SELECT count(DISTINCT trial) FROM public.meaning")" "$trials" "every trial was played"
is "$(grep -c forget_user "$scratch/trials.sql" | awk '{ print ($1 > '$trials') }')" 1 "$(grep -c forget_user "$scratch/trials.sql") erasures"
