# Loads and runs struck at random moments, with the durability that PostgreSQL has by default: kill -9 of the backend and of
# the postmaster, immediate shutdown, cancel, timeout, a client that is gone, a full disk. Afterwards nothing is half there,
# and going on leads to the same marts as without. CRASH_SEED repeats the choices, CRASH_POINTS says how many hits.
use strict;
use warnings;
use lib 'test/t';
use Compress::Zlib ();
use Cwd ();
use DwhTest;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $small = ($ENV{SCALE} // '') eq 'small';
my $points = $ENV{CRASH_POINTS} // ($small ? 12 : 52);
my $seed = $ENV{CRASH_SEED} // 20250110;
srand $seed;
diag("CRASH_SEED=$seed CRASH_POINTS=$points");

# Small WAL segments: a disk that is full is full for the next one too, not for rows alone.
my $node = new_server('crash', durable => 1,
	conf => "checkpoint_timeout = '30s'\nmin_wal_size = '2MB'\nwal_recycle = off\nrecovery_init_sync_method = 'syncfs'\n",
	init => { extra => [ '-E', 'UTF8', '--locale=C.UTF-8', '--wal-segsize=1' ] });
my $db = new_warehouse($node, 'dwh');
my $calm = new_warehouse($node, 'calm');
my $dir = temp_dir();

# ---- a disk that can be filled (disk_full.c) ----

my $disk = $node->basedir . '/disk';
my $shim = $node->basedir . '/disk_full.so';
my $has_disk = system("cc -std=gnu11 -O1 -shared -fPIC -o '$shim' test/t/disk_full.c -ldl 2>/dev/null") == 0;
use constant { UNLIMITED => 2**62, ALL_FILES => 0, WAL_ALONE => 1, ALL_BUT_WAL => 2 };

sub disk_grown
{
	return 0 unless $has_disk;
	open my $file, '<:raw', $disk or die $!;
	read $file, my $bytes, 8;
	return unpack 'q', $bytes;
}

sub limit_disk
{
	my ($limit, $part) = @_;
	return unless $has_disk;
	open my $file, '+<:raw', $disk or die $!;
	seek $file, 8, 0;
	print $file pack 'qq', $limit, $part // 0;
	close $file or die $!;
}

# ---- the server goes and comes back ----

sub start_server
{
	local @ENV{qw(LD_PRELOAD DISK_FULL)} = ($shim, $disk) if $has_disk;
	$node->start;
}

# Processes of the server, also where their postmaster is gone: they stand in its data directory.
sub server_processes
{
	my $data = Cwd::abs_path($node->data_dir);
	return grep { (readlink("/proc/$_/cwd") // '') eq $data } map { m{/proc/(\d+)$} ? $1 : () } glob '/proc/[0-9]*';
}

# Waits until the server answers, or, where nothing of it is left, starts it. A postmaster that was killed leaves its lock
# files behind, which may go once no child is there that still writes.
sub revive
{
	my $end = time + $PostgreSQL::Test::Utils::timeout_default;
	while (time < $end)
	{
		if (!server_processes())
		{
			$node->kill9;
			unlink $node->data_dir . '/postmaster.pid', glob $node->host . '/.s.PGSQL.' . $node->port . '*';
			start_server();
		}
		return if eval { run_sql($node, 'postgres', 'SELECT 1') eq '00000' };
		sleep 0.02;
	}
	die 'the server does not come back';
}

$node->stop;
write_file($disk, pack('qqq', 0, UNLIMITED, 0), '>:raw');
start_server();

# ---- what is struck ----

my @kinds = split /\n/, $node->safe_psql($db, "SELECT kind FROM dwh.dirty_kinds() WHERE outcome <> 'conflict'");
my $kinds = join ', ', map { "'$_'" } @kinds;
my $no = 0;

# Lines for a new file: few users over overlapping days, so that rounds change what earlier ones wrote.
sub log_of
{
	$no++;
	$node->safe_psql($db, "SELECT dwh.generate_events('$dir/log', events => 700, users => 70, days => 40, seed => $no, dirty_rate => 0.02,
		dirty_kinds => ARRAY[$kinds])");
	return PostgreSQL::Test::Utils::slurp_file("$dir/log");
}
sub plain { return write_file(sprintf('%s/log_%03d.jsonl', $dir, $no + 1), log_of()); }
sub gzipped { return write_file(sprintf('%s/log_%03d.jsonl.gz', $dir, $no + 1), Compress::Zlib::memGzip(log_of()), '>:raw'); }
sub grown { return append_file("$dir/grown.jsonl", log_of()); }

my $run = sub { "SELECT * FROM dwh.run_pipeline('$_[0]')" };
my $load = sub { "SELECT * FROM dwh.load_jsonl('$_[0]')" };
my %target = (
	'the load of a plain file' => [ \&plain, $load ],
	'the load of a plain file by two workers' => [ \&plain, sub { "SELECT * FROM dwh.load_jsonl('$_[0]', workers => 2)" } ],
	'the load of a gzip file' => [ \&gzipped, $load ],
	'the load of a grown file' => [ \&grown, $load ],
	'a run of a file' => [ \&plain, $run ],
	'a run of all files' => [ \&gzipped, sub { $run->($dir) } ],
	'the verbs' => [ \&plain, sub { join '; ', $load->($_[0]), map { "SELECT * FROM dwh.$_()" } qw(stage_events apply_scd2 upsert_products load_facts run_quality_checks) } ]);
my @targets = sort keys %target;

# Starts statements in a session whose backend is known when they begin.
sub begin_known
{
	my ($sql) = @_;
	my $session = begin_sql($node, $db, "SELECT pg_backend_pid();\n$sql");
	while ($session->{run}->pumpable)
	{
		$session->{run}->pump;
		return ($session, $1) if $session->{out} =~ /^(\d+)\n/;
	}
	return ($session, 0);    # a server without disk may be gone already
}

use constant SEGMENT => 1024 * 1024;
sub wal_position { return $node->safe_psql('postgres', q{SELECT pg_current_wal_insert_lsn() - '0/0'}); }

# Fills the disk of the WAL so far that so many bytes are left of a segment, after which there is no other.
sub fill_wal
{
	my ($left) = @_;
	my $fill = SEGMENT - wal_position() % SEGMENT - $left - 1000;
	$node->safe_psql('postgres', "SELECT pg_logical_emit_message(false, 'fill', repeat('x', $fill))") if $fill > 0;
	limit_disk(disk_grown(), WAL_ALONE);
}

# Time, growth and WAL of each, undisturbed, after a run that makes what is made once.
is(scalar run_sql($node, $db, $run->(plain())), '00000', 'a first run');
my (%takes, %grows, %logs);
for my $target (@targets)
{
	my ($file, $call) = @{ $target{$target} };
	my ($session) = begin_known($call->($file->()));
	my ($start, $grown, $lsn) = (time, disk_grown(), wal_position());
	is((end_sql($session))[0], '00000', "undisturbed: $target");
	($takes{$target}, $grows{$target}, $logs{$target}) = (time - $start, disk_grown() - $grown, wal_position() - $lsn);
	is(scalar run_sql($node, $db, $run->($dir)), '00000', '... and the rest of it') if $target =~ /load/;
}

# ---- the blows: each gets session, backend and a moment; true if the statement was still at work ----

# A session that is open already, to act without delay.
sub open_control
{
	my ($in, $out) = ("SELECT 'ready';\n", '');
	my $control = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres') ], '<', \$in, '>', \$out);
	$control->pump until $out =~ /ready/;
	return sub { $in .= "$_[0];\n"; $control->finish };
}

sub wait_until_struck
{
	my ($session, $delay) = @_;
	my $end = time + $delay;
	sleep($end - time) if $end > time;
	$session->{run}->pump_nb;
	return $session->{run}->pumpable;
}

my %blow = (
	'kill -9 of the backend' => sub { my ($session, $pid, $delay) = @_; wait_until_struck($session, $delay) && kill 9, $pid },
	'kill -9 of the postmaster' => sub { my ($session, $pid, $delay) = @_; wait_until_struck($session, $delay) && ($node->kill9, 1) },
	'an immediate stop' => sub { my ($session, $pid, $delay) = @_; wait_until_struck($session, $delay) && ($node->stop('immediate'), 1) },
	'pg_cancel_backend()' => sub {
		my ($session, $pid, $delay, $control) = @_;
		my $at_work = wait_until_struck($session, $delay);
		$control->("SELECT pg_cancel_backend($pid)");
		return $at_work;
	},
	'a killed client' => sub { my ($session, $pid, $delay) = @_; wait_until_struck($session, $delay) && ($session->{run}->signal('KILL'), 1) },
	statement_timeout => sub { 1 },
	$has_disk ? ('a full disk' => sub { 1 }, 'a full disk of the WAL' => sub { 1 }) : ());
my @blows = sort keys %blow;

# Strikes a target once; returns true where it was hit at work, and what happened.
sub strike
{
	my ($blow, $target) = @_;
	my ($file, $call) = @{ $target{$target} };
	my $sql = $call->($file->());
	my $share = rand;
	my $delay = $share * $takes{$target};
	my $control = $blow =~ /cancel/ ? open_control() : undef;
	# verbs are statements of their own, each with its time
	$sql = sprintf('SET statement_timeout = %d; ', 1 + 1000 * $delay / ($target eq 'the verbs' ? 4 : 1)) . $sql if $blow eq 'statement_timeout';
	$sql = "SET client_connection_check_interval = '5ms'; $sql" if $blow eq 'a killed client';
	limit_disk(disk_grown() + int($share * $grows{$target}), rand() < 0.5 ? ALL_FILES : ALL_BUT_WAL) if $blow eq 'a full disk';
	fill_wal(int($share * $logs{$target})) if $blow eq 'a full disk of the WAL';
	my ($session, $pid) = begin_known($sql);
	my $hit = $blow{$blow}->($session, $pid, $delay, $control);
	my ($state) = end_sql($session);
	limit_disk(UNLIMITED);
	# what a killed client leaves, and a backend whose postmaster is gone, may still be at work
	my $end = time + $PostgreSQL::Test::Utils::timeout_default;
	sleep 0.005 while time < $end && grep { $_ == $pid } server_processes();
	revive();
	$hit &&= $state ne '00000' unless $blow =~ /client|postmaster/;
	return ($hit, sprintf '%s at %.0f %% of %s (%s)', $blow, 100 * $share, $target, $state);
}

my (%hit, %state);
my $hits = 0;
for (my $round = 0; $hits < $points && $round < 2 * $points; $round++)
{
	my ($blow, $target) = ($blows[ $round % @blows ], $targets[ $round % @targets ]);
	my ($hit, $told) = strike($blow, $target);
	$hits++, $hit{$blow}++, $hit{$target}++ if $hit;
	$state{$blow}{ $told =~ /\((.{5})\)$/ ? $1 : '' }++ if $hit;
	$told = sprintf 'point %d, %s', $round + 1, $told;
	is_conserved($node, $db, "$told: nothing is half there") or last;
	is(scalar run_sql($node, $db, $run->($dir)), '00000', "$told: going on") or last;
	is_sound($node, $db, "$told: every check passes") or last if $round % 20 == 19;
}
for my $blow (@blows) { diag("$blow: ", join ', ', map { "$_ $state{$blow}{$_}" } sort keys %{ $state{$blow} }); }

is($hits, $points, "$points points hit something at work");
cmp_ok($hit{$_} // 0, '>', 0, "some of them: $_") for $small ? () : (@blows, @targets);
SKIP:
{
	skip 'a full disk needs a C compiler', 2 unless $has_disk;
	skip 'a small scale need not meet both', 2 if $small;
	cmp_ok($state{'a full disk'}{53100} // 0, '>', 0, 'a full disk was an error');
	cmp_ok($state{'a full disk of the WAL'}{'-----'} // 0, '>', 0, 'and, for the WAL, a crash of the server');
}

is($node->safe_psql($db, "SELECT count(*) FROM dwh.load_jsonl('$dir') WHERE status <> 'already_loaded'"), '0', 'every file is known');
is_sound($node, $db, 'every check passes');
sqlstate($node, $calm, $run->($dir), '00000', 'the same directory in one undisturbed run');
is(marts_checksum($node, $db), marts_checksum($node, $calm), 'gives the same marts');
is($node->safe_psql($db, q{SELECT count(*) FROM ops.runs WHERE status = 'running'}), '0', 'no run is said to be running when none is');

$node->stop;
done_testing();
