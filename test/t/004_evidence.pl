# A run or check that fails leaves the layers as they were, the caller gets the SQLSTATE, and the evidence is readable
# from any other session.
use strict;
use warnings;
use lib 'test/t';
use DwhTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('evidence');
my $db = new_warehouse($node, 'dwh');
my $dir = temp_dir();
my $good = write_file("$dir/good.jsonl", sample($node, $db, 'events => 500, users => 50'));
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$good')", '00000', 'a good run');
my $before = layers_checksum($node, $db);
my $last_run = sub { $node->safe_psql($_[0], "SELECT $_[1] FROM ops.runs AS r ORDER BY run_id DESC LIMIT 1") };

# A poisoned file: 40 good lines, 20 bad ones.
my $poisoned = write_file("$dir/poisoned.jsonl", sample($node, $db, 'events => 40, seed => 5') . join '', map { "bad line $_\n" } 1 .. 20);
my ($out, $err) = sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$poisoned')", 'WH001', 'a poisoned file: WH001 is delivered');
like($err, qr/reject_share/, 'the message names the check');
like($err, qr/^DETAIL:.*poisoned\.jsonl/m, 'DETAIL the file');
like($err, qr/^HINT:/m, 'HINT is there');
is(layers_checksum($node, $db), $before, 'raw, staging and marts as before');
is($last_run->($db, 'status, sqlstate, finished_at >= started_at, message IS NOT NULL, detail IS NOT NULL, hint IS NOT NULL, username'),
	'failed|WH001|t|t|t|t|' . $node->safe_psql($db, 'SELECT current_user'), 'ops.runs tells what happened');
is($node->safe_psql($db, q{SELECT string_agg(step || ' ' || status, ', ' ORDER BY step_no) FROM ops.run_steps WHERE run_id = (SELECT max(run_id) FROM ops.runs)}),
	'load_jsonl done, stage_events done, apply_scd2 nothing_new, upsert_products nothing_new, load_facts nothing_new, run_quality_checks failed',
	'ops.run_steps how far it got');
is($node->safe_psql($db, q{SELECT name, observed, allowed, jsonb_array_length(offenders), offenders -> 0 ->> 'refused' FROM ops.quality_results
	WHERE run_id = (SELECT max(run_id) FROM ops.runs) AND status = 'fail'}), 'reject_share|1|0|1|20', 'ops.quality_results the verdict and the offender');
is($node->safe_psql($db, q{SELECT l.status, l.lines, l.rejected, l.run_id = (SELECT max(run_id) FROM ops.runs), count(j.*), min(j.class), min(convert_from(j.raw, 'UTF8'))
	FROM ops.loads AS l JOIN ops.rejects AS j USING (load_id) WHERE l.status = 'quarantined' GROUP BY l.load_id}),
	'quarantined|60|20|t|20|invalid_json|bad line 1', 'ops.loads the quarantined file, ops.rejects its lines');
is($node->safe_psql($db, q{SELECT severity, body ->> 'sqlstate', dedupe_key, state, run_id = (SELECT max(run_id) FROM ops.runs) FROM ops.alerts}),
	'error|WH001|check:reject_share|first-fail|t', 'ops.alerts the alert');
unlike($node->safe_psql($db, 'SELECT string_agg(a::text, E\'\n\') FROM ops.alerts AS a'), qr/bad line/, 'the alert holds no row data');

# The next run goes on without it; force releases it.
is($node->safe_psql($db, "SELECT status FROM dwh.load_jsonl('$poisoned')"), 'quarantined', 'the file is known as quarantined');
my $other = write_file("$dir/other.jsonl", sample($node, $db, 'events => 100, seed => 6'));
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$dir')", '00000', 'the next run of the directory is fine');
is($node->safe_psql($db, 'SELECT count(*) FROM marts.fact_user_events'), '600', 'with the new file and nothing of the poisoned one');
is($last_run->($db, 'status'), 'succeeded', 'and says so');
sqlstate($node, $db, "SELECT * FROM dwh.load_jsonl('$poisoned', force => true); SELECT * FROM dwh.run_pipeline('$dir')", '00000', 'force releases it');
is($node->safe_psql($db, 'SELECT count(*) FROM marts.fact_user_events'), '640', 'then its good lines are facts');
is_sound($node, $db, 'every check passes');

# A check of the user's own, in a run and called alone.
$before = layers_checksum($node, $db);
my $third = write_file("$dir/third.jsonl", sample($node, $db, 'events => 70, seed => 7'));
$node->safe_psql($db, q{INSERT INTO ops.quality_checks (name, severity, description, query) VALUES ('mine', 'error', 'never', 'SELECT generate_series(1, 25) AS n_th')});
($out, $err) = sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$third')", 'WH001', 'a failing check of the user');
like($err, qr/mine/, 'is named');
is(layers_checksum($node, $db), $before, 'raw, staging and marts as before');
is($node->safe_psql($db, q{SELECT observed, jsonb_array_length(offenders) FROM ops.quality_results WHERE name = 'mine' ORDER BY result_id DESC LIMIT 1}),
	'25|10', 'with its first ten offenders');
sqlstate($node, $db, 'SELECT * FROM dwh.run_quality_checks("full" => true)', 'WH001', 'called alone as well');
is($node->safe_psql($db, q{SELECT count(*), count(DISTINCT run_id) FROM ops.quality_results WHERE name = 'mine' AND status = 'fail'}), '2|1', 'and it is kept');
is($node->safe_psql($db, q{SELECT state, failures FROM ops.alerts WHERE dedupe_key = 'check:mine'}), 'first-fail|2', 'one alert counts both');
sqlstate($node, $db, "UPDATE ops.quality_checks SET query = 'SELECT 1 / (count(*) - count(*)) FROM ops.warehouse' WHERE name = 'mine'; SELECT * FROM dwh.run_pipeline('$third')", '22012', 'a check with an error gives that error');
is($last_run->($db, 'status, sqlstate'), 'failed|22012', 'which is kept');
$node->safe_psql($db, q{DELETE FROM ops.quality_checks WHERE name = 'mine'});

# Tampering is seen by the checks on everything.
$node->safe_psql($db, 'DELETE FROM marts.fact_user_events WHERE event_id = (SELECT min(event_id::text)::uuid FROM marts.fact_user_events)');
sqlstate($node, $db, 'SELECT * FROM dwh.run_quality_checks("full" => true)', 'WH001', 'a deleted fact is seen');
is($node->safe_psql($db, q{SELECT name, observed FROM ops.quality_results WHERE status = 'fail' AND name = 'conservation'}), 'conservation|1', 'and kept');
$node->safe_psql($db, q{INSERT INTO marts.fact_user_events SELECT r.event_id, r.event_time, r.event_type, r.session_id, r.user_key, r.product_key, r.quantity,
	r.price, r.revenue, r.attributes, l.load_id, r.line_no FROM ops.loads AS l, dwh.resolved_facts(l.load_id) AS r
	WHERE NOT EXISTS (SELECT FROM marts.fact_user_events AS f WHERE f.event_id = r.event_id)});
is_sound($node, $db, 'put back: every check passes');
$node->safe_psql($db, q{UPDATE marts.dim_user SET valid_from = valid_from + interval '1 second' WHERE user_key = (SELECT min(user_key) FROM marts.dim_user)});
sqlstate($node, $db, 'SELECT * FROM dwh.run_quality_checks("full" => true)', 'WH001', 'a moved version is seen');
$node->safe_psql($db, q{UPDATE marts.dim_user SET valid_from = valid_from - interval '1 second' WHERE user_key = (SELECT min(user_key) FROM marts.dim_user)});

# Evidence outlives the caller's ROLLBACK, for the run and for a load over its reject limit.
my $runs = $node->safe_psql($db, 'SELECT count(*) FROM ops.runs');
my $bad = write_file("$dir/bad.jsonl", "also bad\n" x 12);
sqlstate($node, $db, "BEGIN; SELECT * FROM dwh.run_pipeline('$bad'); COMMIT", 'WH001', 'a failing run inside a transaction');
is($last_run->($db, "run_id > $runs - 1, status, sqlstate"), 't|failed|WH001', 'outlives its ROLLBACK');
my $some_bad = write_file("$dir/some_bad.jsonl", sample($node, $db, 'events => 30, seed => 11') . "not json\n" x 3);
$before = layers_checksum($node, $db);
sqlstate($node, $db, "BEGIN; SELECT * FROM dwh.load_jsonl('$some_bad', reject_limit => 2); COMMIT", 'WH002', 'a load over its limit');
is(layers_checksum($node, $db), $before, 'leaves no row');
is($node->safe_psql($db, q{SELECT l.loaded, l.rejected, count(j.*) FROM ops.loads AS l JOIN ops.rejects AS j USING (load_id) WHERE l.status = 'stopped' GROUP BY l.load_id}),
	'0|3|3', 'but readable rejects');
sqlstate($node, $db, "SELECT * FROM dwh.load_jsonl('$some_bad', on_error => 'abort')", 'WH002', 'on_error => abort');
is($node->safe_psql($db, q{SELECT count(*), sum(rejected) FROM ops.loads WHERE status = 'stopped'}), '2|4', 'ends at the first one');
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$good')", '00000', 'and the next run is fine');

# No run is left as if it were running.
sqlstate($node, $db, "BEGIN; SELECT * FROM dwh.run_pipeline('$third'); ROLLBACK", '00000', 'a good run, rolled back');
is($node->safe_psql($db, 'SELECT count(*) FROM marts.fact_user_events'), '640', 'leaves nothing');
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$good')", '00000', 'the next one');
is($node->safe_psql($db, q{SELECT count(*) FROM ops.runs WHERE status = 'running'}), '0', 'no run is said to be running when none is');

# The other isolation levels.
for my $level ('REPEATABLE READ', 'SERIALIZABLE')
{
	my $file = write_file("$dir/" . lc(substr $level, 0, 3) . '.jsonl', "$level\n" x 12);
	sqlstate($node, $db, "BEGIN ISOLATION LEVEL $level; SELECT * FROM dwh.run_pipeline('$file'); COMMIT", 'WH001', "$level: WH001");
	is($last_run->($db, 'status, sqlstate'), 'failed|WH001', "$level: kept");
	my $fine = write_file("$file.good.jsonl", sample($node, $db, 'events => 20, seed => 1' . length $level));
	sqlstate($node, $db, "BEGIN ISOLATION LEVEL $level; SELECT * FROM dwh.run_pipeline('$fine'); COMMIT", '00000', "$level: a good run");
	is($last_run->($db, 'status'), 'succeeded', "$level: kept");
}

# As an owner without superuser rights, also by SET ROLE, also to a role that cannot log in.
$node->safe_psql('postgres', 'CREATE ROLE etl LOGIN; CREATE ROLE team NOLOGIN; GRANT team TO etl; CREATE DATABASE plain; CREATE DATABASE shared;
	GRANT CREATE ON DATABASE plain TO etl; GRANT CREATE ON DATABASE shared TO team; GRANT pg_read_server_files TO etl, team');
for my $case ([ 'plain', 'etl', '' ], [ 'shared', 'team', 'SET ROLE team;' ])
{
	my ($base, $owner, $set) = @$case;
	$node->safe_psql($base, "CREATE EXTENSION dwh_ext; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA dwh TO $owner");
	sqlstate($node, $base, "$set SELECT dwh.create_warehouse()", '00000', "$base: create_warehouse()", user => 'etl');
	sqlstate($node, $base, "$set SELECT * FROM dwh.run_pipeline('$good')", '00000', "$base: a good run", user => 'etl');
	(undef, $err) = sqlstate($node, $base, "$set SELECT * FROM dwh.run_pipeline('$poisoned')", 'WH001', "$base: a failing run", user => 'etl');
	unlike($err, qr/WARNING/, "$base: without a warning");
	is($last_run->($base, 'status, sqlstate, username'), "failed|WH001|$owner", "$base: its evidence");
	is($node->safe_psql($base, q{SELECT count(*) FROM ops.rejects}), '20', "$base: its rejects");
}

# Without a free background worker the SQLSTATE is delivered all the same, and a WARNING says what is missing.
$node->append_conf('postgresql.conf', 'max_worker_processes = 0');
$node->restart;
($out, $err) = sqlstate($node, $db, "SELECT * FROM dwh.load_jsonl('$some_bad', on_error => 'abort')", 'WH002', 'no worker: WH002 is delivered');
like($err, qr/WARNING: .*max_worker_processes/s, 'no worker: with a warning');
my $worse = write_file("$dir/worse.jsonl", "worse\n" x 30);
$before = layers_checksum($node, $db);
($out, $err) = sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$worse')", 'WH001', 'no worker: WH001 is delivered');
like($err, qr/WARNING: .*max_worker_processes/s, 'no worker: with a warning');
is(layers_checksum($node, $db), $before, 'no worker: raw, staging and marts as before');
my $fine = write_file("$dir/fine.jsonl", sample($node, $db, 'events => 20, seed => 99'));
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$fine')", '00000', 'no worker: a good run succeeds');
is($last_run->($db, 'status'), 'succeeded', 'no worker: and is in the ledger');
is_sound($node, $db, 'every check passes');

$node->stop;
done_testing();
