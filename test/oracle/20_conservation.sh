#!/usr/bin/env bash
# The conservation law on a large dirty log: every count as the generator says it must be, nothing written by a second
# run, and the same marts from the same lines in seven files, shuffled and some of them twice.
. "$(dirname "$0")/common.bash"
events=1000000
[ "$SCALE" = full ] || events=50000
size="events => $events, users => $((events / 20)), products => 2000, dirty_rate => 0.01"

new_warehouse dwh_oracle_dirty
sql "CREATE TABLE public.truth AS
     SELECT g.path, g.events, g.purchases, k.kind, k.outcome, k.class, coalesce((g.faults ->> k.kind)::bigint, 0) AS n
       FROM dwh.generate_events('$scratch/dirty.jsonl', $size) AS g CROSS JOIN dwh.dirty_kinds() AS k"
# The generator's own word for what becomes of its lines.
truth() { sql "SELECT coalesce(sum(n), 0) FROM public.truth WHERE $1"; }
is "$(sql 'SELECT count(*) FROM public.truth WHERE n = 0')" 0 "every kind of fault is in the log of $events events"
sql "SELECT dwh.run_pipeline('$scratch/dirty.jsonl')" >/dev/null
ledger() { sql "SELECT $1 FROM ops.loads"; }
is "$(ledger 'count(*)')" 1 'one load'

# Bytes and lines are counted by other tools.
is "$(ledger lines)" "$(wc -l <"$scratch/dirty.jsonl")" "lines: $(ledger lines), as wc counts them"
is "$(ledger lines)" $((events + $(truth "outcome NOT IN ('held_back', 'none')"))) 'lines: events and faults, without BOM and tail'
is "$(ledger bytes)" "$(wc -c <"$scratch/dirty.jsonl")" "bytes: $(ledger bytes), as wc counts them"
is "$(ledger sha256)" "$(sha256sum <"$scratch/dirty.jsonl" | cut -d' ' -f1)" 'sha256 is that of sha256sum'
is "$(ledger held_back_bytes)" "$(python3 -c "
import sys
content = open(sys.argv[1], 'rb').read()
print(len(content) - content.rfind(b'\n') - 1)" "$scratch/dirty.jsonl")" "held back: $(ledger held_back_bytes) bytes, what follows the last LF"
isnt "$(ledger held_back_bytes)" 0 'something is held back'
is "$(ledger blank)" "$(truth "outcome = 'blank'")" "blank: $(ledger blank), as generated"
is "$(ledger rejected)" "$(truth "outcome = 'load_reject'")" "rejected: $(ledger rejected), as generated"
is "$(ledger stage_rejected)" "$(truth "outcome = 'stage_reject'")" "stage_rejected: $(ledger stage_rejected), as generated"
is "$(ledger replayed)" "$(truth "outcome = 'replay'")" "replayed: $(ledger replayed), as generated"
is "$(ledger conflicting)" "$(truth "outcome = 'conflict'")" "conflicting: $(ledger conflicting), as generated"
is "$(ledger staged)" $((events + $(truth "outcome = 'fact'"))) "staged: $(ledger staged), as generated"
is "$(ledger facts)" "$(ledger staged)" 'facts = staged'
is "$(ledger forgotten)" 0 'nobody was forgotten'
is "$(ledger 'lines - loaded - rejected - blank')" 0 'lines = loaded + rejected + blank'
is "$(ledger 'loaded - staged - replayed - conflicting - stage_rejected - forgotten')" 0 \
    'loaded = staged + replayed + conflicting + stage_rejected + forgotten'
is "$(sql 'SELECT stage, class, count(*) FROM ops.rejects GROUP BY 1, 2 ORDER BY 1, 2')" \
    "$(sql "SELECT replace(outcome, '_reject', ''), class, sum(n) FROM public.truth WHERE class IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2")" \
    "rejects by class: $(sql "SELECT string_agg(class || ' ' || n, ', ') FROM (SELECT class, count(*) AS n FROM ops.rejects GROUP BY 1 ORDER BY 1) AS c")"
# The ledger's counts are those of the tables.
is "$(sql 'SELECT (SELECT count(*) FROM raw.user_events), (SELECT count(*) FROM staging.user_events),
                  (SELECT count(*) FROM marts.fact_user_events), (SELECT count(*) FROM ops.event_conflicts), (SELECT count(*) FROM ops.rejects)')" \
    "$(ledger 'loaded, staged, facts, conflicting, rejected + stage_rejected')" 'the tables hold as many rows as the ledger says'
is "$(sql 'SELECT count(DISTINCT event_id) FROM marts.fact_user_events')" "$(ledger facts)" 'each event_id is one fact'
# Every fact can be walked back to its bytes: line_no and byte_offset are those of the file.
is "$(q -c "SELECT r.line_no, r.byte_offset, octet_length(r.payload ->> 'session_id'), r.payload ->> 'session_id'
             FROM marts.fact_user_events AS f JOIN raw.user_events AS r USING (load_id, line_no)
            WHERE hashtextextended(f.event_id::text, 1) % 5000 = 0 AND r.payload ? 'session_id' ORDER BY 1" | python3 -c "
import json, sys
content = open(sys.argv[1], 'rb').read()
starts, at = [0], content.find(b'\n')
while at >= 0:
    starts.append(at + 1)
    at = content.find(b'\n', at + 1)
bad = n = 0
for row in sys.stdin:
    line_no, offset, _, session = row.rstrip('\n').split('|')
    start = starts[int(line_no) - 1]
    n += 1
    line = content[start:content.index(b'\n', start)]
    # line 1 begins after the BOM, or with it
    bad += (int(offset) != start and int(line_no) > 1) or json.loads(line.decode('utf-8-sig'))['session_id'] != session
print('wrong', bad, 'enough' if n > 2 else 'too few')" "$scratch/dirty.jsonl")" 'wrong 0 enough' 'facts lead back to the line and byte that they came from'
is "$(failing_checks)" "" 'every quality check passes'

before=$(rows_as_stored)
is "$(sql "SELECT string_agg(DISTINCT status, ',') FROM dwh.run_pipeline('$scratch/dirty.jsonl')")" nothing_new 'a second run says nothing_new'
is "$(rows_as_stored)" "$before" 'a second run writes no row of raw, staging and marts'
is "$(ledger 'count(*)')" 1 'nor a row of the ledger'
cp "$scratch/dirty.jsonl" "$scratch/copy.jsonl"
sql "SELECT dwh.run_pipeline('$scratch/copy.jsonl')" >/dev/null
is "$(rows_as_stored)" "$before" 'nor does a copy under another name'
# What the comparison is worth: one rewritten row shows.
sql "UPDATE marts.dim_product SET brand = brand WHERE product_key = 1"
isnt "$(rows_as_stored)" "$before" 'the comparison sees a row written again'
drop_warehouse dwh_oracle_dirty
rm "$scratch/dirty.jsonl" "$scratch/copy.jsonl"

# Any split, shuffle or replay of the same lines gives the same marts. Conflicts are the one thing that order decides.
new_warehouse dwh_oracle_whole
sql "SELECT dwh.generate_events('$scratch/whole.jsonl', $size, seed => 7,
       dirty_kinds => (SELECT array_agg(kind) FROM dwh.dirty_kinds() WHERE outcome <> 'conflict'))" >/dev/null
sql "SELECT dwh.run_pipeline('$scratch/whole.jsonl')" >/dev/null
whole=$(marts)
counts=$(ledger 'sum(staged), sum(conflicting)')
drop_warehouse dwh_oracle_whole
read -r lines repeated <<<"$(python3 "$oracle/reshuffle.py" "$scratch/whole.jsonl" "$scratch/split" 7 11)"
rm "$scratch/whole.jsonl"

new_warehouse dwh_oracle_split
for part in 5 0 3; do sql "SELECT dwh.run_pipeline('$scratch/split/part_$part.jsonl')" >/dev/null; done
sql "SELECT dwh.run_pipeline('$scratch/split')" >/dev/null         # the rest at once, with one file under two names
is "$(ledger 'count(*)')" 7 'seven loads, the file that is there twice once'
is "$(marts)" "$whole" "$lines lines, $repeated of them twice, in 7 files, shuffled: identical marts"
is "$(ledger 'sum(staged), sum(conflicting)')" "$counts" 'as many events staged as from one file, no conflict'
is "$(ledger 'sum(lines)')" $((lines + repeated)) 'every line counted'
is "$(failing_checks)" "" 'every quality check passes on seven loads'
sql "UPDATE marts.dim_user SET country = 'XX' WHERE user_key = (SELECT min(user_key) FROM marts.dim_user)"
isnt "$(marts)" "$whole" 'the comparison sees one changed attribute'
