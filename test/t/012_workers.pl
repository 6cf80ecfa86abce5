# The thread that parses ahead: it ends with the load, however that ends, takes no signal, and its lack of memory is an error.
use strict;
use warnings;
use lib 'test/t';
use DwhTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

plan skip_all => 'needs /proc/PID/task' unless -d "/proc/$$/task";

my $node = new_server('workers', conf => "shared_buffers = '128MB'\n");
my $db = new_warehouse($node, 'dwh');
my $dir = temp_dir();
$node->safe_psql($db, "SELECT dwh.generate_events('$dir/log.jsonl', events => 200000, dirty_rate => 0.01)");
write_file("$dir/long.jsonl", '{"a": "' . 'x' x 15_000_000 . "\"}\n");
write_file("$dir/damaged.jsonl", "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03" . "\xff" x 100);
write_file("$dir/set_$_.jsonl", qq({"set": $_}\n) x 3) for 1 .. 5;

sub threads
{
	my ($pid) = @_;
	my @threads = glob "/proc/$pid/task/*";
	return scalar @threads;
}

# While a load runs there are two threads, and the second one has all signals blocked.
my $session = begin_sql($node, $db, "SELECT status FROM dwh.load_jsonl('$dir/log.jsonl', workers => 2, force => true); SELECT pg_sleep(1)");
my $pid = wait_for($session, "state = 'active' AND query LIKE '%load_jsonl%'");
my ($most, $blocked) = (0, '');
while ($node->safe_psql('postgres', "SELECT query LIKE '%load_jsonl%' FROM pg_stat_activity WHERE pid = $pid") eq 't')
{
	$most = threads($pid) if threads($pid) > $most;
	for my $task (glob "/proc/$pid/task/*")
	{
		next if $task =~ m|/$pid$|;
		open my $status, '<', "$task/status" or next;
		($blocked) = join('', <$status>) =~ /^SigBlk:\s+(\w+)/m;
	}
	sleep 0.005;
}
is($most, 2, 'a load with two workers has two threads');
# all of the first 31 but those that cannot be blocked, SIGKILL and SIGSTOP
is(substr($blocked, -8), '7ffbfeff', 'the second one hears no signal');
is(threads($pid), 1, 'it is gone when the load has ended');
my ($state) = end_sql($session);
is($state, '00000', 'the load itself is fine');

# However loads end, in one session, none of them leaves a thread.
my $ends = join ";\n", map { "DO \$\$ BEGIN PERFORM FROM $_; EXCEPTION WHEN OTHERS THEN RAISE NOTICE 'ended with %', SQLSTATE; END \$\$" }
	("dwh.load_jsonl('$dir/log.jsonl', workers => 2, force => true, on_error => 'abort')",
	"dwh.load_jsonl('$dir/log.jsonl', workers => 2, force => true, reject_limit => 100)",
	"dwh.load_jsonl('$dir/damaged.jsonl', workers => 2)",
	"dwh.load_jsonl('$dir/*.jsonl', workers => 2)",
	"dwh.load_jsonl('$dir/set_*.jsonl', workers => 2, validate_only => true)",
	"dwh.load_jsonl('$dir/long.jsonl', workers => 2, force => true)");
$session = begin_sql($node, $db, "BEGIN; SAVEPOINT s; SELECT status FROM dwh.load_jsonl('$dir/set_1.jsonl', workers => 2); ROLLBACK TO s; COMMIT;\n$ends;\nSELECT 'threads', pg_sleep(1)");
$pid = wait_for($session, "query LIKE '%threads%' AND wait_event = 'PgSleep'");
is(threads($pid), 1, 'no thread is left by loads that fail, are rolled back, or write nothing');
my ($out, $err);
($state, $out, $err) = end_sql($session);
is(join(' ', $err =~ /ended with (\w+)/g), 'WH002 WH002 22P03', 'they failed as they should');

# A thread that gets no memory: an error of the load, and the session goes on.
SKIP:
{
	skip 'there is no prlimit', 4 if system('prlimit --version >/dev/null 2>&1');
	$session = begin_sql($node, $db, "SELECT 'limit', pg_sleep(2);
		DO \$\$ DECLARE why text; BEGIN PERFORM FROM dwh.load_jsonl('$dir/long.jsonl', workers => 2, force => true);
			EXCEPTION WHEN out_of_memory THEN GET STACKED DIAGNOSTICS why := PG_EXCEPTION_DETAIL; RAISE NOTICE 'out of memory: %', why; END \$\$;
		SELECT status FROM dwh.load_jsonl('$dir/set_2.jsonl', workers => 2, force => true); SELECT 'after', pg_sleep(1)");
	$pid = wait_for($session, "query LIKE '%limit%' AND wait_event = 'PgSleep'");
	open my $status, '<', "/proc/$pid/status" or die $!;
	my ($size) = join('', <$status>) =~ /^VmSize:\s+(\d+) kB/m;
	# room for the thread and its stack of 8 MB, not for the line
	my $limit = $size * 1024 + 20_000_000;
	system("prlimit --pid $pid --as=$limit:unlimited") == 0 or skip 'the limit cannot be set', 4;
	$pid = wait_for($session, "query LIKE '%after%' AND wait_event = 'PgSleep'");
	ok(defined $pid, 'the session goes on');
	is(threads($pid), 1, 'without a thread') if defined $pid;
	($state, $out, $err) = end_sql($session);
	is($state, '00000', 'and what follows is fine') or diag($err);
	like($err, qr/out of memory: The second worker failed to get memory/, 'a thread without memory is an error of the load');
}
is($node->safe_psql($db, "SELECT count(*) FROM ops.loads WHERE lines <> loaded + rejected + blank AND status <> 'stopped'"), '0', 'the counts add up');

$node->stop;
done_testing();
