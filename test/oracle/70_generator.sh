#!/usr/bin/env bash
# The generator: the same bytes for the same arguments on any machine, the seed's traits, and each fault at a known count.
. "$(dirname "$0")/common.bash"
new_warehouse dwh_oracle_generator
generate() { # file arguments...; prints what it returns
    local file=$1; shift
    sql "SELECT events, sessions, purchases, bytes, faults FROM dwh.generate_events('$scratch/$file'${1:+, $1})"
}
digest() { sha256sum <"$scratch/$1" | cut -d' ' -f1; }

# Literals, so that another machine, compiler or locale that makes other bytes is seen. They change only when the
# generator is meant to write another log.
small="events => 1000, users => 50, products => 20, days => 3, seed => 7"
generate small.jsonl "$small" >/dev/null
is "$(digest small.jsonl)" c6f4cc7bbf2b0fd83ca8bcf6fbc16c196237fc18449274331bb15a3bba177a4e 'a small log has the recorded bytes'
generate dirty.jsonl "$small, dirty_rate => 0.1, dirty_kinds => (SELECT array_agg(kind) FROM dwh.dirty_kinds() WHERE kind <> 'too_long')" >/dev/null
is "$(digest dirty.jsonl)" 7432052c824e7d837067bf5f790bd4662149060f20b255177b7b58d48f2a5f55 'a small dirty log, too'
generate again.jsonl "$small" >/dev/null
is "$(digest again.jsonl)" "$(digest small.jsonl)" 'the same arguments give the same bytes'
sql "SET timezone = 'America/St_Johns'; SET datestyle = 'SQL, MDY'; SET lc_numeric = 'C'; SELECT dwh.generate_events('$scratch/zone.jsonl', $small)" >/dev/null
is "$(digest zone.jsonl)" "$(digest small.jsonl)" 'whatever the session has set'
generate other.jsonl "${small/seed => 7/seed => 8}" >/dev/null
isnt "$(digest other.jsonl)" "$(digest small.jsonl)" 'another seed gives another log'
q -c "SELECT dwh.sample_events($small)" >"$scratch/sample.jsonl"
is "$(digest sample.jsonl)" "$(digest small.jsonl)" 'sample_events gives the lines of the file'
# sample_events leaves out what text cannot hold; psql ends each row with LF, so also the half line.
text="events => 1000, dirty_rate => 0.2, dirty_kinds => (SELECT array_agg(kind) FROM dwh.dirty_kinds() WHERE kind NOT IN ('too_long', 'invalid_utf8'))"
generate text.jsonl "$text" >/dev/null
echo >>"$scratch/text.jsonl"
q -c "SELECT dwh.sample_events($text)" >"$scratch/sample.jsonl"
is "$(digest sample.jsonl)" "$(digest text.jsonl)" 'also with faults'
is "$(sqlstate_of "SELECT dwh.sample_events(events => 100, dirty_rate => 0.5, dirty_kinds => ARRAY['invalid_utf8'])")" 22023 \
    'a kind that text cannot hold is refused there'
is "$(sql "SELECT count(*) FROM dwh.sample_events(events => 1000, dirty_rate => 0.1) AS line WHERE line ~ 'note.: .caf'")" 0 \
    'and left out where no kinds are named'

# Traits, on a log that is large enough for shares.
returned=$(generate large.jsonl 'events => 200000')
python3 "$oracle/70_generator.py" "$scratch/large.jsonl" >"$scratch/traits"
trait() { awk -v name="$1" '$1 == name { print $2 }' "$scratch/traits"; }
shown() { awk -v name="$1" '$1 == name { print $3, $4 }' "$scratch/traits"; }
is "$returned" "$(trait events)|$(trait sessions)|$(trait purchases)|$(wc -c <"$scratch/large.jsonl")|{}" "what it returns is what the file holds: $returned"
is "$(trait events)" 200000 'as many events as asked for'
is "$(trait conversion)" yes "2 to 5 % of the sessions convert: $(shown conversion)"
is "$(trait ordered)" yes 'in the order of time'
is "$(trait seconds)" yes 'times as the seed writes them'
is "$(trait funnel)" yes 'each session goes page_view, add_to_cart, purchase'
is "$(trait one_user)" yes 'a session is of one user'
is "$(trait curve)" yes "quiet at night, busy in the evening: sessions $(shown curve)"
is "$(trait anonymous)" yes "about 2 % without event_id: $(shown anonymous)"
is "$(trait unique)" yes 'no event_id twice'
is "$(trait revenue)" yes 'revenue = price x quantity on every purchase'
is "$(trait no_revenue)" yes 'no revenue elsewhere'
is "$(trait purchase_keys)" yes 'purchases have product, price, quantity and revenue'
is "$(trait device_changes)" yes "some users change their device, once: $(shown device_changes)"
is "$(trait country_changes)" yes 'fewer their country, once'
is "$(trait products)" yes 'a product has one category and brand'

# The clean lines do not depend on the faults.
events=5000
generate clean.jsonl "events => $events" >/dev/null
for rate in 0.01 0.5; do
    generate faulty.jsonl "events => $events, dirty_rate => $rate, dirty_kinds => (SELECT array_agg(kind) FROM dwh.dirty_kinds() WHERE kind NOT IN ('too_long', 'replay'))" >/dev/null
    is "$(python3 -c "
import sys
clean, faulty = (open(name, 'rb').read() for name in sys.argv[1:])
faulty = faulty[3:] if faulty.startswith(b'\xef\xbb\xbf') else faulty
lines = iter(faulty.split(b'\n'))
print(all(any(line == other for other in lines) for line in clean.split(b'\n')[:-1]))" "$scratch/clean.jsonl" "$scratch/faulty.jsonl")" True \
        "dirty_rate => $rate leaves the clean lines as they are, in their order"
done

# Each kind alone: its count is the one returned, and the warehouse makes of it what dirty_kinds() says.
sql 'CREATE TABLE public.kind AS SELECT * FROM dwh.dirty_kinds()'
while IFS='|' read -r kind outcome class; do
    new_warehouse dwh_oracle_kind
    n=$(sql "SELECT faults ->> '$kind' FROM dwh.generate_events('$scratch/kind.jsonl', events => 1000, dirty_rate => 0.05, dirty_kinds => ARRAY['$kind'])")
    sql "SELECT dwh.run_pipeline('$scratch/kind.jsonl')" >/dev/null
    lines=0 fact=0 blank=0 load_reject=0 stage_reject=0 replay=0 conflict=0
    case $outcome in held_back | none) ;; *) lines=$n; declare "$outcome=$n" ;; esac
    is "$(sql 'SELECT lines, blank, rejected, stage_rejected, replayed, conflicting, staged, facts, held_back_bytes > 0 FROM ops.loads')
$(sql 'SELECT class, count(*) FROM ops.rejects GROUP BY 1')" \
        "$((1000 + lines))|$blank|$load_reject|$stage_reject|$replay|$conflict|$((1000 + fact))|$((1000 + fact))|$([ "$outcome" = held_back ] && echo t || echo f)
${class:+$class|$n}" "kind $kind: $n of them, outcome $outcome${class:+ ($class)}"
done < <(sql 'SELECT kind, outcome, class FROM dwh.dirty_kinds()')
is "$(db=dwh_oracle_generator; sql "SELECT count(*) FROM public.kind WHERE outcome IN ('load_reject', 'stage_reject') AND class IS NULL OR kind IS NULL OR meaning IS NULL")" 0 'every kind has its outcome, class and meaning'

# Arguments out of range, and what a set of faults must be.
for call in "events => -1" "users => 0" "products => 0" "days => 0" "dirty_rate => -0.1" "dirty_rate => 'NaN'" "dirty_kinds => ARRAY['no such kind']"; do
    is "$(sqlstate_of "SELECT dwh.generate_events('$scratch/never.jsonl', $call)")" 22023 "refused: $call"
done
is "$(ls "$scratch/never.jsonl" 2>/dev/null)" '' 'and nothing is left behind'
