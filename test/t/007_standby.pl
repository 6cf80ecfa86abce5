# A streaming standby answers questions; what would write ends in core's error, and leaves nothing half done.
use strict;
use warnings;
use lib 'test/t';
use DwhTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = new_server('primary', init => { allows_streaming => 1 }, conf => "wal_consistency_checking = 'all'\n");
my $db = new_warehouse($primary, 'dwh');
my $dir = temp_dir();
my $first = write_file("$dir/first.jsonl", sample($primary, $db, 'events => 500, users => 50, dirty_rate => 0.05'));
sqlstate($primary, $db, "SELECT * FROM dwh.run_pipeline('$first')", '00000', 'a run before the standby');
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;
my $second = write_file("$dir/second.jsonl", sample($primary, $db, 'events => 500, users => 50, seed => 2'));
sqlstate($primary, $db, "SELECT * FROM dwh.run_pipeline('$second')", '00000', 'a run that is streamed');
# loads at each stage, so that every verb has something to do
my $step = sub { my ($no, @verbs) = @_;
	my $path = write_file("$dir/step_$no.jsonl", sample($primary, $db, "events => 30, seed => 1$no"));
	$primary->safe_psql($db, join ';', "SELECT * FROM dwh.load_jsonl('$path')", map { "SELECT * FROM dwh.$_()" } @verbs) };
$step->(1, qw(stage_events apply_scd2 upsert_products));
$step->(2, qw(stage_events));
$step->(3);
my $third = write_file("$dir/third.jsonl", sample($primary, $db, 'events => 20, seed => 3'));
$primary->wait_for_catchup($standby);

my @schemas = qw(raw staging marts ops);
my $rows = table_checksum($primary, $db, @schemas);
is(table_checksum($standby, $db, @schemas), $rows, 'the standby has every row');
is(marts_checksum($standby, $db), marts_checksum($primary, $db), 'and the same marts');
for my $query ('SELECT * FROM marts.kpi_daily', 'SELECT * FROM marts.kpi_segment', 'SELECT * FROM dwh.user_versions() ORDER BY 1, 4',
	'SELECT * FROM dwh.sample_events(20)', 'SELECT dwh.event_id(payload) FROM raw.user_events ORDER BY load_id, line_no',
	'SELECT p.* FROM raw.user_events, dwh.parse_event(payload, loaded_at) AS p ORDER BY load_id, line_no', 'SELECT * FROM dwh.fact_partitions()',
	'SELECT * FROM dwh.product_state() ORDER BY 1', q{SELECT item, state FROM dwh.status()}, 'SELECT * FROM dwh.explain_pipeline()',
	q{SELECT name, labels, value FROM dwh.metrics() WHERE name !~ '(age|freshness|alert)_seconds$|table_bytes'},
	q{SELECT f.event_id, t.what, t.line_no, t.bytes FROM (SELECT event_id FROM marts.fact_user_events ORDER BY 1 LIMIT 20) AS f, dwh.trace(f.event_id) AS t})
{
	is($standby->safe_psql($db, $query), $primary->safe_psql($db, $query), "the standby answers $query");
}

my @verbs = ("SELECT * FROM dwh.load_jsonl('$third')", "SELECT * FROM dwh.load_jsonl('$third', force => true)", "SELECT * FROM dwh.run_pipeline('$third')",
	'SELECT * FROM dwh.stage_events()', 'SELECT * FROM dwh.apply_scd2()', 'SELECT * FROM dwh.upsert_products()', 'SELECT * FROM dwh.load_facts()',
	'SELECT * FROM dwh.run_quality_checks()', 'SELECT dwh.create_warehouse()');
for my $verb (@verbs)
{
	my ($state, $out, $err) = run_sql($standby, $db, $verb);
	is($state, '25006', "on the standby $verb") or diag($out, $err);
}
for my $verb (grep { !/create_warehouse/ } @verbs)
{
	my ($state, $out, $err) = run_sql($primary, $db, "BEGIN READ ONLY; $verb; COMMIT");
	is($state, '25006', "in a read-only transaction $verb") or diag($out, $err);
}
is(table_checksum($primary, $db, @schemas), $rows, 'nothing changed');
is($primary->safe_psql($db, q{SELECT count(*) FROM ops.runs WHERE status = 'running'}), '0', 'no run is left open');

# Promoted, it goes on where the primary was.
$primary->stop;
$standby->promote;
sqlstate($standby, $db, "SELECT * FROM dwh.run_pipeline('$dir/third.jsonl')", '00000', 'promoted: a run');
is($standby->safe_psql($db, "SELECT DISTINCT status FROM dwh.load_jsonl('$dir/*.jsonl')"), 'already_loaded', 'promoted: every file is known');
is_sound($standby, $db, 'promoted: every check passes');

$standby->stop;
done_testing();
