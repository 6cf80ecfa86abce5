# A load or run that is cancelled, timed out or terminated leaves nothing half done, ends soon, and the next one is fine.
use strict;
use warnings;
use lib 'test/t';
use DwhTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

# Longest time between asking and the end. An idle machine needs a few milliseconds; this only tells an answer from none.
use constant SOON => 5;

my $node = new_server('cancel', conf => "shared_buffers = '256MB'\n");
my $db = new_warehouse($node, 'dwh');
my $dir = temp_dir();
my $small = write_file("$dir/small.jsonl", sample($node, $db, 'events => 500, users => 50'));
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$small')", '00000', 'a good run');
my $before = layers_checksum($node, $db);
$node->safe_psql($db, "SELECT dwh.generate_events('$dir/big.jsonl', events => 400000, seed => 3)");
my $last_run = sub { $node->safe_psql($db, "SELECT $_[0] FROM ops.runs AS r ORDER BY run_id DESC LIMIT 1") };

# Starts a statement, waits until the condition holds for its backend, asks it to end; returns SQLSTATE and how long it took.
sub interrupt
{
	my ($sql, $condition, $function, $delay) = @_;
	my $session = begin_sql($node, $db, $sql);
	my $pid = wait_for($session, "state = 'active' AND ($condition)") // die 'the statement ended too early: ' . join ' ', end_sql($session);
	sleep($delay // 0.3);
	my $asked = time;
	$node->safe_psql($db, "SELECT $function($pid)");
	my ($state, $out, $err) = end_sql($session);
	return ($state, time - $asked, $err);
}

my $loading = "query LIKE '%load_jsonl%'";
my $writing = "EXISTS (SELECT FROM pg_locks AS l WHERE l.pid = pg_stat_activity.pid AND l.relation IS NOT NULL AND l.mode = 'RowExclusiveLock')";

# A big load.
my ($state, $took) = interrupt("SELECT * FROM dwh.load_jsonl('$dir/big.jsonl')", $writing, 'pg_cancel_backend');
is($state, '57014', 'pg_cancel_backend() in a big load');
cmp_ok($took, '<', SOON, "is answered soon ($took s)");
is(layers_checksum($node, $db), $before, 'no row is left');
is($node->safe_psql($db, 'SELECT count(*) FROM ops.loads'), '1', 'no ledger row either');
sqlstate($node, $db, "SET statement_timeout = '300ms'; SELECT * FROM dwh.load_jsonl('$dir/big.jsonl')", '57014', 'statement_timeout in a big load');
is(layers_checksum($node, $db), $before, 'no row is left');
($state, $took) = interrupt("SELECT * FROM dwh.load_jsonl('$dir/*.jsonl')", $writing, 'pg_cancel_backend');
is($state, '57014', 'in a set of files: the call ends, not only the file');
is(layers_checksum($node, $db), $before, 'no row is left');

# A run: while loading, and in a step that waits for a lock.
($state, $took) = interrupt("SELECT * FROM dwh.run_pipeline('$dir/big.jsonl')", $writing, 'pg_cancel_backend');
is($state, '57014', 'pg_cancel_backend() in a run');
cmp_ok($took, '<', SOON, "is answered soon ($took s)");
is(layers_checksum($node, $db), $before, 'raw, staging and marts as before');
is($last_run->('status, sqlstate, finished_at IS NOT NULL'), 'failed|57014|t', 'the evidence is readable');
is($node->safe_psql($db, 'SELECT step, status FROM ops.run_steps WHERE run_id = (SELECT max(run_id) FROM ops.runs)'), 'load_jsonl|failed', 'with the step');
my $blocker = begin_sql($node, $db, 'BEGIN; LOCK TABLE marts.dim_user IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(3); COMMIT');
wait_for($blocker, "state = 'active' AND wait_event = 'PgSleep'");
my $medium = write_file("$dir/medium.jsonl", sample($node, $db, 'events => 300, seed => 4'));
($state, $took) = interrupt("SELECT * FROM dwh.run_pipeline('$medium')", "wait_event_type = 'Lock'", 'pg_cancel_backend', 0);
is($state, '57014', 'pg_cancel_backend() in a run that waits');
cmp_ok($took, '<', SOON, 'is answered soon');
is($last_run->('status, sqlstate'), 'failed|57014', 'the evidence is readable');
is($node->safe_psql($db, q{SELECT step FROM ops.run_steps WHERE run_id = (SELECT max(run_id) FROM ops.runs) AND status = 'failed'}), 'apply_scd2', 'with the step');
end_sql($blocker);
is(layers_checksum($node, $db), $before, 'raw, staging and marts as before');
sqlstate($node, $db, "SET statement_timeout = '1s'; SELECT * FROM dwh.run_pipeline('$dir/big.jsonl')", '57014', 'statement_timeout in a run');
is($last_run->('status, sqlstate'), 'failed|57014', 'the evidence is readable');
is(layers_checksum($node, $db), $before, 'raw, staging and marts as before');
($state, $took) = interrupt("SELECT * FROM dwh.run_pipeline('$dir/big.jsonl')", $writing, 'pg_terminate_backend');
like($state, qr/^(57P01|-----)$/, 'pg_terminate_backend() in a run');
cmp_ok($took, '<', SOON, 'is answered soon');
is(layers_checksum($node, $db), $before, 'raw, staging and marts as before');

# One giant line: four billion bytes that the file system does not store; and one that is compressed.
write_file("$dir/giant", '{"a": "');
truncate "$dir/giant", 4_000_000_000 or die $!;
($state, $took) = interrupt("SELECT * FROM dwh.load_jsonl('$dir/giant')", $loading, 'pg_cancel_backend', 0.5);
is($state, '57014', 'pg_cancel_backend() inside one giant line');
cmp_ok($took, '<', SOON, "is answered soon ($took s)");
SKIP:
{
	system("head -c 1000000000 /dev/zero | gzip -1 >$dir/giant.gz") == 0 or skip 'there is no gzip', 2;
	($state, $took) = interrupt("SELECT * FROM dwh.load_jsonl('$dir/giant.gz')", $loading, 'pg_cancel_backend', 0.3);
	is($state, '57014', 'pg_cancel_backend() inside one giant compressed line');
	cmp_ok($took, '<', SOON, 'is answered soon');
}

# Inside one giant line that is let through, and beside the thread that parses ahead.
write_file("$dir/dense.jsonl", '{"a": [' . join(',', map { $_ % 10 } 1 .. 8_000_000) . "]}\n");
write_file("$dir/keys.jsonl", '{' . join(',', map { sprintf '"%06x":0', $_ * 7919 % 16777213 } 1 .. 1_500_000) . "}\n");
for my $case ([ 'dense', 1, 0.1 ], [ 'dense', 2, 0.2 ], [ 'keys', 1, 0.4 ], [ 'keys', 2, 0.5 ])
{
	my ($file, $workers, $delay) = @$case;
	($state, $took) = interrupt("SELECT * FROM dwh.load_jsonl('$dir/$file.jsonl', force => true, workers => $workers)", $loading, 'pg_cancel_backend', $delay);
	is($state, '57014', "in a line of 16 MB ($file) with $workers worker(s)");
	cmp_ok($took, '<', SOON, "is answered soon ($took s)");
}
($state, $took) = interrupt("SELECT * FROM dwh.load_jsonl('$dir/big.jsonl', workers => 2)", $writing, 'pg_cancel_backend');
is($state, '57014', 'with two workers');
cmp_ok($took, '<', SOON, "is answered soon ($took s)");
($state, $took) = interrupt("SELECT * FROM dwh.load_jsonl('$dir/big.jsonl', workers => 2)", $writing, 'pg_terminate_backend');
like($state, qr/^(57P01|-----)$/, 'terminated with two workers');
is(layers_checksum($node, $db), $before, 'no row is left');

# Generating, too.
($state, $took) = interrupt("SELECT dwh.generate_events('$dir/never.jsonl', events => 50000000)", "query LIKE '%generate_events%'", 'pg_cancel_backend');
is($state, '57014', 'pg_cancel_backend() in generate_events()');
is(join(' ', glob "$dir/never* $dir/.never*"), '', 'leaves no file');

is(layers_checksum($node, $db), $before, 'after all that raw, staging and marts as before');
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$medium')", '00000', 'the next run is fine');
is_sound($node, $db, 'every check passes');
is($node->safe_psql($db, q{SELECT count(*) FROM ops.runs WHERE status = 'running'}), '0', 'no run is said to be running when none is');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'}), '0', 'no lock is left');

$node->stop;
done_testing();
