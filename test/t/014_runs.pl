# Runs as whoever operates them sees them: at work, named by their caller, cancelled, killed, dead, and the one after.
use strict;
use warnings;
use lib 'test/t';
use DwhTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('runs', conf => "restart_after_crash = on\n");
my $db = new_warehouse($node, 'dwh');
my $dir = temp_dir();
my $file_no = 0;
my $new_file = sub { my $n = ++$file_no; write_file("$dir/$n.jsonl", sample($node, $db, "events => 200, users => 20, seed => $n")) };
my $query = sub { $node->safe_psql($db, $_[0]) };
my $last_run = sub { $query->("SELECT $_[0] FROM ops.runs AS r ORDER BY run_id DESC LIMIT 1") };
my $steps = sub { $query->("SELECT string_agg(step || ' ' || status, ', ' ORDER BY step_no) FROM ops.run_steps WHERE run_id = (SELECT max(run_id) FROM ops.runs)") };
# What a sender gets: each alert once.
my $claimed = sub {
	my $got = $query->(q{SELECT string_agg(concat_ws(' ', dedupe_key, state, title), ', ' ORDER BY alert_id) FROM dwh.claim_alerts(100)});
	is($query->('SELECT count(*) FROM dwh.claim_alerts(100)'), '0', 'alerts are claimed once');
	$query->('SELECT dwh.ack_alert(alert_id) FROM ops.alerts WHERE delivered_at IS NULL AND attempts > 0');
	return $got;
};

my $settled = sub { $query->('SELECT dwh.ack_alert(alert_id) FROM ops.alerts WHERE delivered_at IS NULL') };

# ---- what a run says ----
my $first = $new_file->();
my ($out, $err) = sqlstate($node, $db, "SET dwh.progress_notices = on; SELECT * FROM dwh.run_pipeline('$first', run_id => 'morning', trace_id => 'trace-1')", '00000', 'a run');
like($err, qr/NOTICE: .*\b$_: done, \d+ rows in, \d+ out, \d+ rejected, \d+ ms/, "a NOTICE for $_")
  for qw(load_jsonl stage_events apply_scd2 upsert_products load_facts run_quality_checks);
is($last_run->('caller_run_id, trace_id, status'), 'morning|trace-1|succeeded', 'its names are kept');
is($query->(q{SELECT bool_and(wal_bytes > 0), bool_and(sqlstate IS NULL), count(*) FROM ops.run_steps WHERE step <> 'run_quality_checks'}), 't|t|5', 'every step that writes says how much WAL');
is($query->(q{SELECT sum(wal_bytes) BETWEEN 100000 AND pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0') FROM ops.run_steps}), 't', 'as much as there can be');
unlike((run_sql($node, $db, "SELECT * FROM dwh.run_pipeline('$first')"))[2], qr/NOTICE/, 'dwh.progress_notices = off: no word');
is($query->("SET application_name = 'mine'; BEGIN; SELECT count(*) FROM dwh.run_pipeline('$first'); SELECT current_setting('application_name'); COMMIT; SHOW application_name"),
	"6\nmine\nmine", 'application_name is the caller\'s again');
is((run_sql($node, $db, "SET application_name = 'mine'; DO \$\$ BEGIN PERFORM dwh.run_pipeline('missing.jsonl'); EXCEPTION WHEN OTHERS THEN RAISE WARNING '%', current_setting('application_name'); END \$\$"))[2]
	=~ /WARNING: .* mine$/m ? 1 : 0, 1, 'also after an error');
is($query->('SELECT step, status, sqlstate, message IS NOT NULL FROM ops.run_steps WHERE run_id = (SELECT max(run_id) FROM ops.runs)'),
	'load_jsonl|failed|58P01|t', 'the step that failed has SQLSTATE and message');

# ---- the same run_id ----
my $runs = $query->('SELECT count(*) FROM ops.runs');
my $kept = $query->('SELECT step, status, rows_in, rows_out, rejected, elapsed, message FROM ops.run_steps WHERE run_id = 1 ORDER BY step_no');
($out, $err) = sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$first', run_id => 'morning')", '00000', 'the same run_id again');
is($out, $kept, 'gives the first result');
like($err, qr/NOTICE: .*morning.* run 1 /, 'and says so');
is($query->('SELECT count(*) FROM ops.runs'), $runs, 'without another run');
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$dir', run_id => 'morning')", '22023', 'of another source: refused');
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$first', run_id => '')", '22023', 'an empty run_id');
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$first', run_id => repeat('x', 513))", '22023', 'a run_id too long');
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$dir/later.jsonl', run_id => 'later')", '58P01', 'a run that fails');
write_file("$dir/later.jsonl", sample($node, $db, 'events => 10, seed => 77'));
is($query->("SELECT status FROM dwh.run_pipeline('$dir/later.jsonl', run_id => 'later') LIMIT 1"), 'done', 'is tried again under its run_id');
is($query->(q{SELECT string_agg(status, ' ' ORDER BY run_id) FROM ops.runs WHERE caller_run_id = 'later'}), 'failed succeeded', 'and both are kept');
is($query->(q{SELECT count(*) FROM ops.loads WHERE run_id IN (SELECT run_id FROM ops.runs WHERE caller_run_id = 'later')}), '1', 'with one load');
for my $level ('REPEATABLE READ', 'SERIALIZABLE')
{
	is($query->("BEGIN ISOLATION LEVEL $level; SELECT count(*) FROM dwh.run_pipeline('$first', run_id => '$level'); COMMIT;
		BEGIN ISOLATION LEVEL $level; SELECT count(*) FROM dwh.run_pipeline('$first', run_id => '$level'); COMMIT; SELECT count(*) FROM ops.runs WHERE caller_run_id = '$level'"),
		"6\n6\n1", "$level: once");
}

# a snapshot that still sees the run before at work
my $first_run = begin_sql($node, $db, "BEGIN; SELECT count(*) FROM dwh.run_pipeline('$dir/none_*.jsonl'); SELECT pg_sleep(2); COMMIT");
wait_for($first_run, q{wait_event = 'PgSleep'});
my $second_run = begin_sql($node, $db, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM ops.runs; SELECT pg_sleep(4); SELECT count(*) FROM dwh.run_pipeline('$dir/none_*.jsonl'); COMMIT");
end_sql($first_run);
($out, my $said) = (end_sql($second_run))[0, 2];
is($out, '00000', 'REPEATABLE READ: a run after one that has ended meanwhile') or diag($said);

# A run that is stopped before apply_scd2 by somebody's lock; returns its session and pid.
sub blocked_run
{
	my ($arguments) = @_;
	my $blocker = begin_sql($node, $db, 'BEGIN; LOCK TABLE marts.dim_user IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(600)');
	my $blocker_pid = wait_for($blocker, "wait_event = 'PgSleep'");
	my $run = begin_sql($node, $db, "SELECT * FROM dwh.run_pipeline($arguments)");
	my $pid = wait_for($run, "wait_event_type = 'Lock'") // die 'the run ended too early: ' . join ' ', end_sql($run);
	return ($run, $pid, $blocker, $blocker_pid);
}

# ---- two at once ----
my $before = layers_checksum($node, $db);
my ($run, $pid, $blocker, $blocker_pid) = blocked_run("'" . $new_file->() . "', run_id => 'long'");
my $run_id = $last_run->('run_id');
is($steps->(), 'load_jsonl done, stage_events done, apply_scd2 running', 'others see how far a run is');
is($query->("SELECT application_name FROM pg_stat_activity WHERE pid = $pid"), 'dwh: apply_scd2', 'also in application_name');
(undef, $err) = sqlstate($node, $db, "SET statement_timeout = '5s'; SELECT * FROM dwh.run_pipeline('$dir')", 'WH003', 'another run at that time: WH003, without waiting');
like($err, qr/^DETAIL:  Run $run_id holds the lock: backend $pid, since /m, 'names the holder');
sqlstate($node, $db, "SET statement_timeout = '5s'; SELECT * FROM dwh.run_pipeline('$dir', run_id => 'long')", 'WH003', 'the same run_id while it runs: WH003');
($out) = sqlstate($node, $db, "SET statement_timeout = '5s'; SELECT * FROM dwh.run_pipeline('$dir', skip_if_running => true)", '00000', 'skip_if_running');
like($out, qr/^run_pipeline\|skipped\|0\|0\|0\|00:00:00\|Run $run_id holds the lock/, 'is one row that names the holder');
is($last_run->('run_id'), $run_id, 'neither is a run');

# ---- cancelled ----
$settled->();
$query->("SELECT pg_cancel_backend($pid)");
is((end_sql($run))[0], '57014', 'a run is cancelled');
is(layers_checksum($node, $db), $before, 'raw, staging and marts as before') if $query->("SELECT pg_terminate_backend($blocker_pid)");
end_sql($blocker);
is($last_run->('status, sqlstate'), 'failed|57014', 'it says so');
is($steps->(), 'load_jsonl done, stage_events done, apply_scd2 failed', 'and in which step');
my $file = "$dir/$file_no.jsonl";
is($claimed->(), "run:$file first-fail a run failed", 'one alert');
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$file', run_id => 'long')", '00000', 'the next run is fine');
is($claimed->(), "run:$file recovered a run failed", 'and the alert recovers');

# ---- a backend that is told to go, and one that is killed ----
for my $case ([ 'terminated', sub { $query->("SELECT pg_terminate_backend($_[0])") } ], [ 'killed', sub { kill 'KILL', $_[0] } ])
{
	my ($what, $end) = @$case;
	$before = layers_checksum($node, $db);
	$settled->();
	($run, $pid, $blocker, $blocker_pid) = blocked_run("'" . $new_file->() . "'");
	$file = "$dir/$file_no.jsonl";
	$end->($pid);
	end_sql($run);
	if ($what eq 'killed')
	{
		end_sql($blocker);
		$node->poll_query_until('postgres', 'SELECT true') or die 'the server did not come back';
	}
	else
	{
		$query->("SELECT pg_terminate_backend($blocker_pid)");
		end_sql($blocker);
	}
	is(layers_checksum($node, $db), $before, "$what: raw, staging and marts as before");
	is($last_run->('status') . ': ' . $steps->(), 'running: load_jsonl done, stage_events done, apply_scd2 running', "$what: the evidence ends where the run did");
	my $dead = $last_run->('run_id');
	sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$file')", '00000', "$what: the next run is fine");
	is($query->("SELECT status, finished_at IS NOT NULL, message FROM ops.runs WHERE run_id = $dead"),
		'dead|t|it ended without a word: backend gone or transaction rolled back', "$what: and marks the dead one");
	is($query->("SELECT string_agg(step || ' ' || status, ', ' ORDER BY step_no) FROM ops.run_steps WHERE run_id = $dead"),
		'load_jsonl done, stage_events done, apply_scd2 dead', "$what: with the step");
	is($claimed->(), "run:$file first-fail a run died", "$what: one alert");
	is($claimed->(), "run:$file recovered a run died", "$what: and its recovery");
	is_sound($node, $db, "$what: every check passes");
}

# ---- a poisoned file, a failing check ----
for my $case ([ 'a poisoned file', "poison\n" x 20, '' ],
	[ 'a failing check', sample($node, $db, 'events => 30, seed => 31'), q{INSERT INTO ops.quality_checks (name, severity, description, query)
		VALUES ('never', 'error', 'Fails.', 'SELECT 1 AS x')} ])
{
	my ($what, $text, $sql) = @$case;
	$query->($sql) if $sql;
	$before = layers_checksum($node, $db);
	$settled->();
	my $path = write_file("$dir/bad.jsonl", $text);
	sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$path')", 'WH001', "$what: WH001");
	is(layers_checksum($node, $db), $before, "$what: raw, staging and marts as before");
	is($last_run->('status, sqlstate'), 'failed|WH001', "$what: the run says so");
	my $check = $sql ? 'never' : 'reject_share';
	is($claimed->(), "check:$check first-fail quality check $check failed", "$what: one alert");
	$query->(q{DELETE FROM ops.quality_checks WHERE name = 'never'}) if $sql;
	sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('" . $new_file->() . "')", '00000', "$what: the next run is fine");
}
# ---- cancelled twice, the second time while the evidence of the first is written ----
for my $gap (0, 5, 10, 20)
{
	($run, $pid, $blocker, $blocker_pid) = blocked_run("'" . $new_file->() . "'");
	$query->("SELECT pg_cancel_backend($pid), pg_sleep($gap / 1000.0), pg_cancel_backend($pid)");
	is((end_sql($run))[0], '57014', "cancelled twice within $gap ms");
	$query->("SELECT pg_terminate_backend($blocker_pid)");
	end_sql($blocker);
	is($last_run->('status, sqlstate'), 'failed|57014', 'the evidence is written');
}
is($query->(q{SELECT count(*) FROM ops.runs WHERE status = 'running'}), '0', 'no run is left open');
is_sound($node, $db, 'every check passes');

$node->stop;
done_testing();
