# Sourced by the oracle tests: TAP lines, databases of their own, comparisons.
#
# The tests run as the server's user (BIN: where psql is; PGHOST, PGUSER: the cluster), so the server can read what they
# write. The session's TimeZone and DateStyle stay what the cluster has, which is unusual on purpose.
set -euo pipefail
oracle=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
test_no=0
# generated logs with faults hold conflicts on purpose, and their warning is no difference
export PGOPTIONS='-c client_min_messages=error'
scratch=$(mktemp -d)
databases=()
db=postgres

# SQL in, values out. A failure is said in the output, too: an empty answer must not look like the absence of differences.
q() { "$BIN/psql" -XqAt -v ON_ERROR_STOP=1 -d "$db" "$@" || { echo 'SQL ended with an error'; return 1; }; }
sql() { q -c "$1"; }

finish() {
    local status=$? name
    for name in ${databases[@]+"${databases[@]}"}; do
        "$BIN/psql" -Xq -d postgres -c "DROP DATABASE IF EXISTS $name WITH (FORCE)" >/dev/null 2>&1 || true
    done
    rm -rf "$scratch"
    exit $status
}
trap finish EXIT

# An empty warehouse in a database of that name, which becomes the current one.
new_warehouse() { # name
    "$BIN/psql" -Xq -d postgres -c "SET client_min_messages = warning" -c "DROP DATABASE IF EXISTS $1 WITH (FORCE)" -c "CREATE DATABASE $1"
    databases+=("$1")
    db=$1
    q -c 'CREATE EXTENSION dwh_ext' -c 'SELECT dwh.create_warehouse()' >/dev/null
}
drop_warehouse() { "$BIN/psql" -Xq -d postgres -c "DROP DATABASE IF EXISTS $1 WITH (FORCE)"; }

ok() { # status name
    test_no=$((test_no + 1))
    if [ "$1" = 0 ]; then echo "ok $test_no - $2"; else echo "not ok $test_no - $2"; fi
}
# Equal texts; where they are not, both are shown.
is() { # got expected name
    if [ "$1" = "$2" ]; then ok 0 "$3"; else
        ok 1 "$3"
        printf '%s\n' "$1" | head -20 | sed 's/^/#      got: /'
        printf '%s\n' "$2" | head -20 | sed 's/^/# expected: /'
    fi
}
isnt() { # got unexpected name
    if [ "$1" != "$2" ] && [[ $1 != *'SQL ended with an error'* ]]; then ok 0 "$3"; else ok 1 "$3"; printf '%s\n' "$1" | head -20 | sed 's/^/# unexpected: /'; fi
}
# The public logs are not part of a clone. Where they are missing the test is skipped, in CI it fails.
need_public() { # file name-of-test
    [ -r "${PUBLIC_DATA:-/nonexistent}/$1" ] && return 0
    if [ "${CI:-}" = true ]; then ok 1 "$2: $1 is missing, and in CI it must be there"; else
        test_no=$((test_no + 1)); echo "ok $test_no - $2 # skip the public log $1 is not on this machine"; fi
    return 1
}

# What a session makes of a statement that must fail: its SQLSTATE, or "no error".
sqlstate_of() { # sql
    local said
    said=$("$BIN/psql" -XqAt -v VERBOSITY=sqlstate -d "$db" -c "$1" 2>&1 >/dev/null) || true
    said=$(sed -n 's/^ERROR:  //p' <<<"$said" | head -1)
    echo "${said:-no error}"
}

# One line for each mart: rows, and two sums of hashes over what its rows mean. Keys are replaced by what they stand for,
# numbers are compared by value, so equal lines are equal marts.
marts() {
    q <<'SQL'
SET timezone = 'UTC'; SET datestyle = 'ISO, YMD';
WITH mean (mart, meaning) AS (
    SELECT 'dim_user', ROW(d.user_id, d.device, d.country, d.valid_from, d.valid_to, d.is_current)::text FROM marts.dim_user AS d
     UNION ALL
    SELECT 'dim_product', ROW(p.product_id, p.category, p.brand, trim_scale(p.price), p.is_inferred)::text FROM marts.dim_product AS p
     UNION ALL
    SELECT 'dim_product_price', ROW(p.product_id, trim_scale(h.price), h.valid_from, h.valid_to, h.is_current)::text
      FROM marts.dim_product_price AS h LEFT JOIN marts.dim_product AS p USING (product_key)
     UNION ALL
    SELECT 'fact_user_events', ROW(f.event_id, f.event_time, f.event_type, f.session_id, f.quantity, trim_scale(f.price),
           trim_scale(f.revenue), f.attributes, u.user_id, u.device, u.country, u.valid_from, u.valid_to, p.product_id)::text
      FROM marts.fact_user_events AS f
      LEFT JOIN marts.dim_user AS u USING (user_key)
      LEFT JOIN marts.dim_product AS p USING (product_key))
SELECT mart, count(*), sum(hashtextextended(meaning, 1)::numeric), sum(hashtextextended(meaning, 2)::numeric)
  FROM mean GROUP BY mart ORDER BY mart;
SQL
}

# Every row of raw, staging and marts with where it lies and which transaction wrote it: equal before and after means
# that nothing was written, not even the same again.
rows_as_stored() {
    local table
    for table in raw.user_events staging.user_events marts.dim_user marts.dim_product marts.dim_product_price marts.fact_user_events; do
        echo "$table $(sql "SELECT count(*), sum(hashtextextended(t::text || t.tableoid || t.ctid || t.xmin, 1)::numeric) FROM $table AS t")"
    done
}

# Names of the checks that fail on the whole warehouse; nothing where all pass. Warnings are left out.
failing_checks() {
    sql "SELECT string_agg(name, ',') FILTER (WHERE status <> 'pass' AND severity = 'error') || '' FROM dwh.run_quality_checks(\"full\" => true)" 2>&1
}
