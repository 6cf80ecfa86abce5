# kill -9 of the backend and immediate shutdown of the server at random moments of loads and runs, with the durability that
# PostgreSQL has by default: after the restart nothing is half there, and going on leads to the same marts as without.
use strict;
use warnings;
use lib 'test/t';
use DwhTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $rounds = $ENV{CRASH_ROUNDS} // (($ENV{SCALE} // '') eq 'small' ? 8 : 24);
my $seed = $ENV{CRASH_SEED} // 20250110;
srand $seed;
diag("CRASH_SEED=$seed CRASH_ROUNDS=$rounds");

my $node = new_server('crash', durable => 1, conf => "checkpoint_timeout = '30s'\n");
my $db = new_warehouse($node, 'dwh');
my $calm = new_warehouse($node, 'calm');
my $dir = temp_dir();
my @kinds = split /\n/, $node->safe_psql($db, "SELECT kind FROM dwh.dirty_kinds() WHERE outcome <> 'conflict'");
my $kinds = join ', ', map { "'$_'" } @kinds;
my $file = sub {
	my ($no) = @_;
	my $path = sprintf '%s/log_%03d.jsonl', $dir, $no;
	# few users over overlapping days, so that rounds change what earlier ones wrote
	$node->safe_psql($db, "SELECT dwh.generate_events('$path', events => 1500, users => 150, days => 40, seed => $no, dirty_rate => 0.02,
		dirty_kinds => ARRAY[$kinds])");
	return $path;
};
my %call = (
	run => sub { "SELECT * FROM dwh.run_pipeline('$_[0]')" },
	load => sub { "SELECT * FROM dwh.load_jsonl('$_[0]')" },
	verbs => sub { "SELECT * FROM dwh.load_jsonl('$_[0]'); SELECT * FROM dwh.stage_events(); SELECT * FROM dwh.apply_scd2();
		SELECT * FROM dwh.upsert_products(); SELECT * FROM dwh.load_facts(); SELECT * FROM dwh.run_quality_checks()" });

# How long each of them takes undisturbed.
my %takes;
my $no = 0;
for my $how (sort keys %call)
{
	my $sql = $call{$how}->($file->(++$no));
	my $start = time;
	sqlstate($node, $db, $sql, '00000', "undisturbed: $how");
	$takes{$how} = time - $start;
}

my %interrupted = (kill => 0, stop => 0);
for my $round (1 .. $rounds)
{
	my $how = (qw(run load run verbs))[$round % 4];
	my $with = $round % 2 ? 'kill' : 'stop';
	my $path = $file->(++$no);
	my $delay = rand($takes{$how});
	my $session = begin_sql($node, $db, $call{$how}->($path));
	my $pid = wait_for($session, "state = 'active'");
	if (defined $pid)
	{
		sleep $delay;
		$with eq 'kill' ? kill(9, $pid) : $node->stop('immediate');
	}
	my ($state) = end_sql($session);
	$interrupted{$with}++ if $state ne '00000';
	$node->start if $with eq 'stop' && defined $pid;
	# after a killed backend the server restarts by itself
	my $end = time + $PostgreSQL::Test::Utils::timeout_default;
	sleep 0.05 while time < $end && !eval { $node->psql('postgres', 'SELECT 1') == 0 };
	my $told = sprintf 'round %d: %s after %.3f s of %s (%s)', $round, $with, $delay, $how, $state;
	is_sound($node, $db, "$told: nothing is half there") or last;
	is(scalar run_sql($node, $db, $call{run}->($path)), '00000', "$told: going on") or last;
}
diag("interrupted: kill $interrupted{kill}, stop $interrupted{stop}");
cmp_ok($interrupted{kill}, '>', 0, 'some backends were killed at work');
cmp_ok($interrupted{stop}, '>', 0, 'some servers were stopped at work');

sqlstate($node, $db, $call{run}->($dir), '00000', 'a last run of the directory');
is($node->safe_psql($db, "SELECT count(*) FROM dwh.load_jsonl('$dir') WHERE status <> 'already_loaded'"), '0', 'every file is known');
is_sound($node, $db, 'every check passes');
sqlstate($node, $calm, $call{run}->($dir), '00000', 'the same directory in one undisturbed run');
is(marts_checksum($node, $db), marts_checksum($node, $calm), 'gives the same marts');
is($node->safe_psql($db, q{SELECT count(*) FROM ops.runs WHERE status = 'running'}), '0', 'no run is said to be running when none is');

$node->stop;
done_testing();
