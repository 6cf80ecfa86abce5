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
$primary->safe_psql($db, q{SELECT lo_from_bytea(4711, '{"event_time": "2025-01-01T00:00:00Z", "event_type": "x", "user_id": "u"}')});
my $third = write_file("$dir/third.jsonl", sample($primary, $db, 'events => 20, seed => 3'));
$primary->wait_for_catchup($standby);

my @schemas = qw(raw staging marts ops);
my $rows = table_checksum($primary, $db, @schemas);
is(table_checksum($standby, $db, @schemas), $rows, 'the standby has every row');
is(marts_checksum($standby, $db), marts_checksum($primary, $db), 'and the same marts');

# Every public function of the catalog is on one of these lists, so that a new one must be put on the right one.
my $of_raw = 'raw.user_events AS r ORDER BY load_id, line_no';
my %readers = (
	sample_events => ['SELECT * FROM dwh.sample_events(20)'],
	dirty_kinds => ['SELECT * FROM dwh.dirty_kinds()'],
	event_id => ["SELECT dwh.event_id(r.payload) FROM $of_raw"],
	parse_event => ["SELECT dwh.parse_event(r.payload, r.loaded_at) FROM $of_raw"],
	typed_events => ['SELECT * FROM dwh.typed_events(1) AS t ORDER BY t::text'],
	user_versions => ['SELECT * FROM dwh.user_versions() ORDER BY 1, 4'],
	product_state => ['SELECT * FROM dwh.product_state() ORDER BY 1'],
	product_prices => ['SELECT * FROM dwh.product_prices() ORDER BY 1, 3'],
	resolved_facts => ['SELECT * FROM dwh.resolved_facts(1) AS f ORDER BY f::text'],
	check_kinds => ['SELECT * FROM dwh.check_kinds()'],
	held_loads => ['SELECT * FROM dwh.held_loads()'],
	status => ['SELECT item, state FROM dwh.status()'],
	explain_pipeline => ['SELECT * FROM dwh.explain_pipeline()'],
	metrics => [q{SELECT name, labels, value FROM dwh.metrics() WHERE name !~ '(age|freshness|alert)_seconds$|table_bytes'}],
	trace => ['SELECT f.event_id, t.what, t.line_no, t.bytes FROM (SELECT event_id FROM marts.fact_user_events ORDER BY 1 LIMIT 20) AS f, dwh.trace(f.event_id) AS t'],
	help => ['SELECT * FROM dwh.help()'],
	fact_partitions => ['SELECT * FROM dwh.fact_partitions()'],
	last_known => ['SELECT user_id, dwh.last_known(device ORDER BY event_time, event_id) FROM staging.user_events GROUP BY 1 ORDER BY 1']);
my %writers = (
	create_warehouse => ['SELECT dwh.create_warehouse()'],
	load_jsonl => ["SELECT * FROM dwh.load_jsonl('$third')", "SELECT * FROM dwh.load_jsonl('$third', force => true)", 'SELECT * FROM dwh.load_jsonl(large_object => 4711)'],
	run_pipeline => ["SELECT * FROM dwh.run_pipeline('$third')", "SELECT * FROM dwh.run_pipeline('$third', run_id => 'a', skip_if_running => true)"],
	stage_events => ['SELECT * FROM dwh.stage_events()'],
	apply_scd2 => ['SELECT * FROM dwh.apply_scd2()'],
	upsert_products => ['SELECT * FROM dwh.upsert_products()'],
	load_facts => ['SELECT * FROM dwh.load_facts()'],
	run_quality_checks => ['SELECT * FROM dwh.run_quality_checks()', 'SELECT * FROM dwh.run_quality_checks("full" => true)'],
	retry_rejects => ['SELECT * FROM dwh.retry_rejects()'],
	forget_user => [q{SELECT * FROM dwh.forget_user('u000001')}],
	drop_before => [map { "SELECT * FROM dwh.drop_before('$_', now())" } qw(raw staging facts)],
	add_quality_check => [q{SELECT * FROM dwh.add_quality_check('mine', 'SELECT 1 AS x')}],
	claim_alerts => ['SELECT * FROM dwh.claim_alerts()'],
	ack_alert => ['SELECT * FROM dwh.ack_alert(1)'],
	fail_alert => ['SELECT * FROM dwh.fail_alert(1)'],
	prune_history => ['SELECT * FROM dwh.prune_history()'],
	schedule_pipeline => ['SELECT * FROM dwh.schedule_pipeline()'],
	unschedule_pipeline => ['SELECT * FROM dwh.unschedule_pipeline()'],
	grant_roles => ['SELECT * FROM dwh.grant_roles(current_user)']);
# these write files, of the server that they are called on
my $elsewhere = temp_dir();
my %filers = (
	landing_directory => ['SELECT dwh.landing_directory()'],
	generate_events => ["SELECT dwh.generate_events('$elsewhere/generated.jsonl', events => 10)"]);
my %seen;
for my $line (split /\n/, $primary->safe_psql($db, q{SELECT proname, count(*) FROM pg_proc WHERE pronamespace = 'dwh'::regnamespace AND proname !~ '^_' GROUP BY 1 ORDER BY 1}))
{
	my ($name, $count) = split /\|/, $line;
	my @lists = grep { $_->{$name} } \%readers, \%writers, \%filers;
	is(scalar(@lists), 1, "$name is on one list");
	cmp_ok(scalar(@{ $lists[0]{$name} // [] }), '>=', $count, "$name is called in each of its forms");
	$seen{$name} = 1;
}
is(join(' ', grep { !$seen{$_} } sort(keys %readers, keys %writers, keys %filers)), '', 'no list has what is not there');

for my $query ('SELECT * FROM marts.kpi_daily', 'SELECT * FROM marts.kpi_segment', map { @{ $readers{$_} } } sort keys %readers)
{
	is($standby->safe_psql($db, $query), $primary->safe_psql($db, $query), "the standby answers $query");
}
sqlstate($standby, $db, $_, '00000', "on the standby $_") for "SELECT * FROM dwh.load_jsonl('$third', validate_only => true)", map { @{ $filers{$_} } } sort keys %filers;

for my $verb (map { @{ $writers{$_} } } sort keys %writers)
{
	sqlstate($standby, $db, $verb, '25006', "on the standby $verb");
	sqlstate($primary, $db, "BEGIN READ ONLY; $verb; COMMIT", '25006', "in a read-only transaction $verb");
}
is(table_checksum($standby, $db, @schemas), $rows, 'nothing changed on the standby');
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
