#!/usr/bin/env bash
# dwh.parse_event and dwh.event_id against an independent reading of the same payloads (identity.py): identity, times,
# texts, numbers, attributes and refusals, for thousands of random payloads in several spellings each.
. "$(dirname "$0")/common.bash"
cases=6000
[ "$SCALE" = full ] || cases=1500
python3 "$oracle/60_identity.py" "$scratch" $cases 60
new_warehouse dwh_oracle_identity
q <<SQL
CREATE TABLE public.payload (
    number int, spelled int, payload jsonb, event_id uuid, micros numeric, event_type text, user_id text, session_id text, product_id text,
    device text, country text, category text, brand text, price text, revenue text, quantity int, attributes jsonb,
    flags text[], class text);
COPY public.payload FROM '$scratch/payloads.tsv';
CREATE TABLE public.respelled (event int, payload jsonb, event_id uuid);
COPY public.respelled FROM '$scratch/respelled.tsv';
CREATE TABLE public.times (text text, micros numeric);
COPY public.times FROM '$scratch/times.tsv';
CREATE TABLE public.parsed AS
SELECT p.*, e AS event, dwh.event_id(p.payload) AS its_id, extract(epoch FROM e.event_time) * 1000000 AS its_micros
  FROM public.payload AS p CROSS JOIN LATERAL dwh.parse_event(p.payload) AS e;
SQL
n=$(sql 'SELECT count(*) FROM public.payload WHERE class IS NULL')
show() { sql "SELECT number, left(payload::text, 200), $2 FROM public.parsed WHERE $1 ORDER BY number LIMIT 10"; }
same() { # what condition shown
    is "$(show "class IS NULL AND ($2) IS NOT TRUE" "$3")" '' "$1, of $n payloads"
}
same 'accepted' '(event).reject_class IS NULL AND (event).reject_message IS NULL' 'event'
same 'the same event_id' '(event).event_id = event_id' '(event).event_id, event_id'
same 'the same from dwh.event_id' 'its_id = event_id' 'its_id, event_id'
same 'the same event_time' 'its_micros = micros' 'its_micros, micros'
same 'the same texts' '((event).event_type, (event).user_id, (event).session_id, (event).product_id, (event).device, (event).country, (event).category, (event).brand)
  IS NOT DISTINCT FROM (event_type, user_id, session_id, product_id, device, country, category, brand)' 'event'
same 'the same price and revenue, digit by digit' '((event).price::text, (event).revenue::text) IS NOT DISTINCT FROM (price, revenue)' 'event, price, revenue'
same 'the same flags' '(SELECT array_agg(f ORDER BY f COLLATE "C") FROM unnest((event).flags) AS f) IS NOT DISTINCT FROM flags' 'event, flags'
same 'the same quantity' '(event).quantity IS NOT DISTINCT FROM quantity' 'event, quantity'
same 'the same attributes, as jsonb prints them' '(event).attributes::text IS NOT DISTINCT FROM attributes::text' 'event, attributes'
is "$(show 'class IS NOT NULL AND ((event).reject_class = class) IS NOT TRUE' '(event).reject_class, class')" '' \
    "refused with the right class, of $(sql 'SELECT count(*) FROM public.payload WHERE class IS NOT NULL') payloads"
is "$(sql 'SELECT count(DISTINCT class) FROM public.payload')" 4 'four classes among them'
is "$(show "class IS NOT NULL AND ((event).event_id IS NOT NULL OR (event).event_time IS NOT NULL OR (event).reject_message = '' OR its_id IS NOT NULL)" 'event')" '' \
    'a refused payload has a message, no fields and no event_id'
is "$(sql 'SELECT count(*) FROM (SELECT spelled FROM public.parsed GROUP BY spelled HAVING count(DISTINCT its_id) > 1) AS d')" 0 \
    "key order, escapes, blanks, equal keys and exponents make no other event: $cases events, 3 spellings each"
is "$(sql 'SELECT event, payload, dwh.event_id(payload), event_id FROM public.respelled WHERE dwh.event_id(payload) IS DISTINCT FROM event_id LIMIT 10')" '' \
    "nor do trailing zeros, numbers as strings, zones and nulls where there is no event_id: $((cases / 4)) events, 3 spellings each"
is "$(sql 'SELECT count(DISTINCT f) FROM public.payload CROSS JOIN LATERAL unnest(flags) AS f')" 5 'every flag is among them'
# What differs must differ: the same payload with one thing more.
is "$(sql "SELECT count(*) FROM public.respelled WHERE dwh.event_id(payload || '{\"note 2\": 0}') = event_id OR dwh.event_id(payload || '{\"brand\": \"other\"}') = event_id")" 0 \
    'another attribute or brand is another event'

parse="SELECT t.text, t.micros, extract(epoch FROM e.event_time) * 1000000 AS its_micros, e.reject_class FROM public.times AS t
 CROSS JOIN LATERAL dwh.parse_event(jsonb_build_object('event_time', t.text, 'event_type', 'a', 'user_id', 'b')) AS e"
is "$(sql "SELECT * FROM ($parse) AS t WHERE micros IS NOT NULL AND its_micros IS DISTINCT FROM micros LIMIT 10")" '' \
    "RFC 3339: $(sql 'SELECT count(*) FROM public.times WHERE micros IS NOT NULL') times to the microsecond"
is "$(sql "SELECT * FROM ($parse) AS t WHERE micros IS NULL AND reject_class IS DISTINCT FROM CASE WHEN text = '' THEN 'missing_field' ELSE 'invalid_time' END LIMIT 10")" '' \
    "RFC 3339: $(sql 'SELECT count(*) FROM public.times WHERE micros IS NULL') texts that are no time with a zone are refused"
# Session settings must not matter.
odd="SET timezone = 'America/St_Johns'; SET datestyle = 'SQL, MDY'; SET extra_float_digits = -15; SET IntervalStyle = sql_standard;"
is "$(sql "$odd SELECT count(*) FROM public.payload WHERE class IS NULL AND (extract(epoch FROM (dwh.parse_event(payload)).event_time) * 1000000 <> micros OR dwh.event_id(payload) <> event_id)")" 0 \
    'TimeZone, DateStyle and other settings make no difference'
# The clock: ten minutes are allowed, a microsecond more is not; without a clock nothing is from the future.
future() { sql "SELECT coalesce((dwh.parse_event('{\"event_time\": \"$1\", \"event_type\": \"a\", \"user_id\": \"b\"}', $2)).reject_class, 'accepted')"; }
is "$(future 2025-01-01T00:10:00Z "'2025-01-01Z'")" accepted 'ten minutes after loaded_at: accepted'
is "$(future 2025-01-01T00:10:00.000001Z "'2025-01-01Z'")" future_event 'a microsecond later: future_event'
is "$(future 9999-12-31T23:59:59Z NULL)" accepted 'without a clock: accepted'
# What the comparisons are worth.
is "$(q -c BEGIN -c "UPDATE public.parsed SET event_id = '00000000-0000-0000-0000-000000000001', price = '7.5' WHERE number = (SELECT min(number) FROM public.parsed WHERE class IS NULL)" \
    -c 'SELECT count(*) FROM public.parsed WHERE class IS NULL AND ((event).event_id = event_id) IS NOT TRUE' \
    -c 'SELECT count(*) FROM public.parsed WHERE class IS NULL AND ((event).price::text IS NOT DISTINCT FROM price) IS NOT TRUE' -c ROLLBACK)" $'1\n1' 'the comparisons see one other value'
