# A dry run says what a run would do, and leaves no trace: no row, no file, no lock that anybody waits for; in a read-only
# transaction, beside a run, and on a standby. What it says is compared with runs in test/oracle/94_dry_run.sh.
use strict;
use warnings;
use lib 'test/t';
use DwhTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = new_server('primary', init => { allows_streaming => 1 });
my $dir = temp_dir();
my @schemas = qw(raw staging marts ops);
my $rows = sub { my ($source) = @_; 'SELECT step, status, rows_in, rows_out, rejected, message FROM dwh._dry_run(' . (defined $source ? "'$source'" : 'NULL') . ')' };

# ---- nothing there yet ----
$primary->safe_psql('postgres', 'CREATE DATABASE dwh; CREATE ROLE reader LOGIN');
my $db = 'dwh';
$primary->safe_psql($db, 'CREATE EXTENSION dwh_ext');
sqlstate($primary, $db, $rows->(), 'WH004', 'without a warehouse');
$primary->safe_psql($db, 'SELECT dwh.create_warehouse()');
is($primary->safe_psql($db, $rows->()), join("\n", 'load_jsonl|no_data|0|0|0|', map({ "$_|nothing_new|0|" . ($_ =~ /stage|facts/ ? 0 : '') . '|0|' }
	qw(stage_events apply_scd2 upsert_products load_facts)), 'run_quality_checks|nothing_new|||0|'), 'no landing directory: no data');
ok(!-e landing($primary, $db), 'which was not made');

# ---- rights and paths, as load_jsonl has them ----
$primary->safe_psql($db, 'GRANT USAGE ON SCHEMA dwh TO reader; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA dwh TO reader');
sqlstate($primary, $db, $rows->($_), '42501', "without the right to read it: $_", user => 'reader') for "$dir/first.jsonl", "$dir/none/x.jsonl";
sqlstate($primary, $db, $rows->("$dir/none.jsonl"), '58P01', 'a file that is missing');
sqlstate($primary, $db, $rows->(''), '22023', 'an empty path');

# ---- what a run would do ----
write_file("$dir/first.jsonl", sample($primary, $db, 'events => 300, users => 40, dirty_rate => 0.02'));
sqlstate($primary, $db, "SELECT * FROM dwh.run_pipeline('$dir/first.jsonl')", '00000', 'a run');
append_file("$dir/first.jsonl", sample($primary, $db, 'events => 50, seed => 3'));
write_file("$dir/late.jsonl", qq({"event_time": "2023-05-0${_}T10:00:00Z", "event_type": "view", "user_id": "u$_", "product_id": "p$_"}\n), $_ == 1 ? '>' : '>>') for 1 .. 3;
write_file("$dir/poison.jsonl", "poison\n" x 20);
write_file("$dir/same.jsonl", join '', map { qq({"event_time": "2023-05-0${_}T10:00:00Z", "event_type": "view", "user_id": "u$_", "product_id": "p$_"}\n) } 1 .. 3);
my $before = table_checksum($primary, $db, @schemas);
my ($said, $err) = sqlstate($primary, $db, "BEGIN READ ONLY; " . $rows->($dir) . '; COMMIT', '00000', 'in a read-only transaction');
like($said, qr/^load_jsonl\|would_do\|\d+\|\d+\|2\d\|4 files: 2 new, 1 grown, 1 known$/m, 'files by kind');
like($said, qr/^stage_events\|would_do\|.*\|late: \d+ events on \d+ days, from 2023-05-01 to 2025-01-\d\d$/m, 'late events by days');
like($said, qr/^apply_scd2\|would_do\|.*\|users: \d+$/m, 'users');
like($said, qr/^upsert_products\|would_do\|.*\|products: \d+$/m, 'products');
like($said, qr/^load_facts\|would_do\|.*\|partitions to make: staging\.user_events: 2023-05; marts\.fact_user_events: 2023-05$/m, 'partitions');
like($said, qr{^run_quality_checks\|would_fail\|.*\|\Q$dir\E/poison\.jsonl would be quarantined: 20 of 20 lines that are not blank are refused$}m, 'what would fail');
is(table_checksum($primary, $db, @schemas), $before, 'and nothing changed');

# ---- beside a run: neither waits for the other ----
my $run = begin_sql($primary, $db, "BEGIN; SELECT * FROM dwh.run_pipeline('$dir/late.jsonl'); SELECT pg_sleep(1000)");
my $pid = wait_for($run, q{query LIKE '%pg_sleep%' AND wait_event = 'PgSleep'});
my $patience = "SET lock_timeout = '2s'; ";
is(scalar run_sql($primary, $db, $patience . $rows->("$dir/late.jsonl")), '00000', 'while a run holds its locks');
$primary->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
end_sql($run);
my $reader = begin_sql($primary, $db, 'BEGIN; ' . $rows->($dir) . '; SELECT pg_sleep(1000)');
$pid = wait_for($reader, q{query LIKE '%pg_sleep%' AND wait_event = 'PgSleep'});
is(scalar run_sql($primary, $db, $patience . "SELECT * FROM dwh.run_pipeline('$dir/late.jsonl')"), '00000', 'a run while somebody holds on to a dry run');
$primary->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
end_sql($reader);
like($primary->safe_psql($db, $rows->("$dir/late.jsonl")), qr/^load_jsonl\|nothing_new\|0\|0\|0\|1 file: 1 known$/m, 'what was loaded is known');
like($primary->safe_psql($db, $rows->($dir)), qr/\|4 files: 1 new, 1 grown, 2 known$/m, 'by any name');

# ---- many files, each of several days ----
my $many = temp_dir();
for my $file (1 .. 700)
{
	write_file("$many/$file.jsonl", join '', map { sprintf qq({"event_time": "2024-%02d-02T00:00:00Z", "event_type": "x", "user_id": "m%d"}\n), 1 + ($file + $_) % 12, $file } 1 .. 5);
}
is($primary->safe_psql($db, "SELECT count(*), count(DISTINCT d), min(d), max(d) FROM dwh._examine('$many') AS e, unnest(e.days) AS d"),
	'3500|12|2024-01-02|2024-12-02', 'the days of many files');
like($primary->safe_psql($db, $rows->($many)), qr/^stage_events\|would_do\|3500\|3500\|0\|/m, 'are summed up');

# ---- a standby ----
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;
$primary->wait_for_catchup($standby);
for my $settings ('', 'SET work_mem = 64; ')
{
	is($standby->safe_psql($db, $settings . $rows->($dir)), $primary->safe_psql($db, $rows->($dir)), "the standby says the same $settings");
}
is($standby->safe_psql($db, "SELECT * FROM dwh._examine('$dir')"), $primary->safe_psql($db, "SELECT * FROM dwh._examine('$dir')"), 'file by file');
$standby->stop;
done_testing();
