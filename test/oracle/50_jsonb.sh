#!/usr/bin/env bash
# A line is loaded exactly when ::jsonb accepts it and it is an object of at most 1,000 levels, and what is stored is what
# ::jsonb makes of it: equal in text, hash and binary form.
. "$(dirname "$0")/common.bash"
public=()
for file in json-test-suite.tar.gz jsonb-cases.jsonl; do
    if need_public "$file" 'acceptance as ::jsonb'; then public+=("$PUBLIC_DATA/$file"); fi
done
export PGOPTIONS="$PGOPTIONS -c jit=off" # each comparison is one query
seed=5
longest=$((16 * 1024 * 1024)) # dwh.max_line_bytes
python3 "$oracle/50_jsonb.py" "$scratch/lines.jsonl" $seed $longest "$oracle/../fuzz/corpus/event" ${public[@]+"${public[@]}"} >"$scratch/report"
total=$(head -1 "$scratch/report")
while IFS='|' read -r source texts left_out; do
    # counted with tar, find and tr, so that a suite that silently shrinks is seen
    case $source in
    JSONTestSuite) is "$texts cases, $left_out with LF" '340 cases, 21 with LF' "$source: 340 cases" ;;
    PostgreSQL*) is "$texts cases, $left_out with LF" '272 cases, 10 with LF' "$source: 272 cases" ;;
    kept*) is "$((texts > left_out))" 1 "$source: $texts cases" ;;
    *) is "$left_out" 0 "$source: $texts cases of seed $seed" ;;
    esac
done < <(tail -n +2 "$scratch/report")

new_warehouse dwh_oracle_jsonb
q <<SQL
CREATE TABLE public.line (line_no bigint PRIMARY KEY, bytes bytea);
COPY public.line FROM '$scratch/lines.jsonl.tsv';
-- What ::jsonb makes of bytes, or the SQLSTATE and message of its refusal.
CREATE FUNCTION public.as_jsonb(bytes bytea, OUT value jsonb, OUT code text, OUT message text) LANGUAGE plpgsql AS \$\$
BEGIN
    value := convert_from(bytes, 'UTF8')::jsonb;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = PG_EXCEPTION_DETAIL;
END \$\$;
-- Levels of nesting of a value.
CREATE FUNCTION public.levels(value jsonb) RETURNS integer LANGUAGE plpgsql STRICT AS \$\$
DECLARE depth integer := 0; in_string boolean := false; c "char"; deepest integer := 0; text text := value::text; i integer := 1;
BEGIN
    IF length(text) - length(translate(text, '[{', '')) <= 1000 THEN RETURN 0; END IF;
    text := regexp_replace(text, '"([^"\\\\]|\\\\.)*"', '', 'g');
    FOREACH c IN ARRAY string_to_array(text, NULL)::"char"[] LOOP
        IF c IN ('[', '{') THEN depth := depth + 1; deepest := greatest(deepest, depth);
        ELSIF c IN (']', '}') THEN depth := depth - 1; END IF;
    END LOOP;
    RETURN deepest;
END \$\$;
CREATE TABLE public.truth AS
SELECT l.line_no, l.bytes, t.value, t.code, t.message, public.levels(t.value) AS levels,
       -- blanks and tabs alone, a CR before the LF set aside
       octet_length(l.bytes) < 1000 AND encode(l.bytes, 'hex') ~ '^(20|09)*(0d)?\$' AS is_blank,
       octet_length(l.bytes) - (substr(l.bytes, octet_length(l.bytes)) = '\\x0d')::integer > $longest AS is_too_long
  FROM public.line AS l CROSS JOIN LATERAL public.as_jsonb(l.bytes) AS t;
SELECT dwh.load_jsonl('$scratch/lines.jsonl') \\g /dev/null
CREATE VIEW public.verdict AS
SELECT t.*, r.payload, j.class,
       t.value IS NOT NULL AND jsonb_typeof(t.value) = 'object' AND t.levels <= 1000 AND NOT t.is_too_long AS must_load
  FROM public.truth AS t
  LEFT JOIN raw.user_events AS r USING (line_no)
  LEFT JOIN ops.rejects AS j USING (line_no);
ANALYZE public.truth, raw.user_events, ops.rejects;
SQL
show() { sql "SELECT line_no, left(encode(bytes, 'escape'), 100), code, class, left(value::text, 60), left(payload::text, 60) FROM public.verdict WHERE $1 ORDER BY line_no LIMIT 20"; }
is "$(sql 'SELECT lines, loaded + rejected + blank FROM ops.loads')" "$total|$total" "$total lines counted"
is "$(show 'must_load AND payload IS NULL')" '' "every line that ::jsonb accepts as an object is loaded ($(sql 'SELECT count(*) FROM public.verdict WHERE must_load'))"
is "$(show 'NOT must_load AND payload IS NOT NULL')" '' "no line that ::jsonb refuses is loaded ($(sql 'SELECT count(*) FROM public.verdict WHERE NOT must_load'))"
is "$(show 'NOT must_load AND NOT is_blank AND class IS NULL')" '' 'every other line is a reject'
is "$(show 'is_blank AND class IS NOT NULL')" '' "but blank ones ($(sql 'SELECT count(*) FROM public.verdict WHERE is_blank'))"
is "$(sql 'SELECT blank FROM ops.loads')" "$(sql 'SELECT count(*) FROM public.verdict WHERE is_blank')" 'which are counted'
is "$(show 'payload::text <> value::text')" '' 'stored values print as ::jsonb prints them'
is "$(show 'jsonb_hash_extended(payload, 0) <> jsonb_hash_extended(value, 0)')" '' 'and have the same hash'
is "$(show 'jsonb_send(payload) <> jsonb_send(value)')" '' 'and the same binary form'
is "$(show 'payload <> value')" '' 'and are equal'
is "$(show 'payload IS NOT NULL AND NOT record_image_eq(ROW(payload), ROW(value))')" '' 'byte by byte, as stored'

# Classes, where the line has one fault and ::jsonb names it.
is "$(show "is_too_long <> (class IS NOT NULL AND class = 'too_long')")" '' "lines over $longest bytes, and no others: too_long ($(sql 'SELECT count(*) FROM public.verdict WHERE is_too_long'))"
is "$(show "value IS NOT NULL AND jsonb_typeof(value) <> 'object' AND levels <= 1000 AND class <> 'not_object'")" '' 'valid values that are no objects: not_object'
is "$(show "value IS NOT NULL AND levels > 1000 AND class <> 'too_deep'")" '' 'more than 1,000 levels: too_deep'
is "$(show "code = '54001' AND class <> 'too_deep'")" '' "and more than ::jsonb's stack takes ($(sql "SELECT count(*) FROM public.verdict WHERE code = '54001'"))"
is "$(show "code = '22021' AND class <> 'invalid_utf8'")" '' 'bytes that are no UTF-8: invalid_utf8'
is "$(show "code = '22003' AND class <> 'invalid_json'")" '' 'numbers out of range: invalid_json'
# Lines that are right once their escapes of NUL and of surrogates are taken away have no other fault.
q <<'SQL'
CREATE TABLE public.one_fault AS
SELECT t.line_no FROM public.truth AS t
 CROSS JOIN LATERAL public.as_jsonb(convert_to(regexp_replace(convert_from(t.bytes, 'UTF8'), '\\u(0000|[dD][89a-fA-F][0-9a-fA-F]{2})', 'x', 'g'), 'UTF8')) AS c
 WHERE octet_length(t.bytes) < 100000 AND (t.code = '22P05' OR t.code = '22P02' AND t.message ~ 'surrogate') AND public.levels(c.value) <= 1000;
SQL
one_fault='line_no IN (SELECT line_no FROM public.one_fault)'
is "$(show "code = '22P05' AND $one_fault AND position('\\ud' IN lower(encode(bytes, 'escape'))) = 0 AND class <> 'nul_escape'")" '' 'the escape of NUL: nul_escape'
is "$(show "code = '22P02' AND message ~ 'surrogate' AND $one_fault AND position('\\\\u0000' IN encode(bytes, 'escape')) = 0 AND class <> 'lone_surrogate'")" '' 'half of a surrogate pair: lone_surrogate'
isnt "$(sql "SELECT count(*) FROM public.verdict WHERE message ~ 'surrogate' AND $one_fault")" 0 'there are such lines'
is "$(show "code = '22P02' AND message !~ 'surrogate' AND class NOT IN ('invalid_json', 'lone_surrogate', 'nul_escape', 'too_deep')")" '' 'all else: invalid_json, or what follows in the line'
# What the comparisons are worth.
is "$(q -c BEGIN -c "UPDATE raw.user_events SET payload = payload || '{\"more\": 1}' WHERE line_no = 1" -c "SELECT count(*) FROM public.verdict WHERE jsonb_send(payload) <> jsonb_send(value)" -c ROLLBACK)" 1 'the comparison sees one other value'
is "$(q -c BEGIN -c "DELETE FROM raw.user_events WHERE line_no = 1" -c "SELECT count(*) FROM public.verdict WHERE must_load AND payload IS NULL" -c ROLLBACK)" 1 'and one missing line'

# A BOM, CR LF, and a last line without an end.
printf '\xef\xbb\xbf{"a": 1}\r\n{"b": 2}\r\r\n\xef\xbb\xbf{"c": 3}\n {"d": 4}' >"$scratch/bom.jsonl"
q -c "SELECT dwh.load_jsonl('$scratch/bom.jsonl')" >/dev/null
is "$(sql "SELECT line_no, payload FROM raw.user_events WHERE load_id = 2 ORDER BY line_no")" $'1|{"a": 1}\n2|{"b": 2}\n4|{"d": 4}' 'a BOM and CR are taken off where they belong to the file'
is "$(sql "SELECT line_no, byte_offset, class FROM ops.rejects WHERE load_id = 2")" '3|24|invalid_json' 'a BOM later is no blank'
