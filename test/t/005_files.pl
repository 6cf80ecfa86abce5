# Which files are read, by whom, and what happens to them meanwhile.
use strict;
use warnings;
use lib 'test/t';
use DwhTest;
use Fcntl qw(F_UNLCK F_WRLCK);
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = new_server('files');
my $db = new_warehouse($node, 'dwh');
my $dir = temp_dir();
my $load = sub { my ($path, %o) = @_; run_sql($node, $db, "SELECT status FROM dwh.load_jsonl('$path')", %o) };
my $seed = 100;
my $lines = sub { sample($node, $db, "events => $_[0], seed => " . ++$seed) };

# ---- the landing directory: made on first use, private ----
my $landing = landing($node, $db);
ok(!-e $landing, 'there is no landing directory before its first use');
is($node->safe_psql($db, q{SELECT step || ' ' || status FROM dwh.run_pipeline() LIMIT 1}), 'load_jsonl no_data', 'a run finds it empty');
ok(-d $landing, 'and made it');
is((stat $landing)[2] & 07777, 0700, 'for the server alone');
like($node->safe_psql($db, 'SELECT path FROM dwh.generate_events(events => 100)'), qr/^\Q$landing\E\//, 'generate_events() writes there');
is($node->safe_psql($db, q{SELECT rows_in FROM dwh.run_pipeline() LIMIT 1}), '100', 'run_pipeline() reads there');
write_file("$landing/.hidden.jsonl", "no json\n");
write_file("$landing/notes.txt", "no json\n");
is($node->safe_psql($db, 'SELECT count(*), max(status) FROM dwh.load_jsonl(NULL)'), '1|already_loaded', 'hidden and other files are none of its');

# ---- what is no regular file ----
sqlstate($node, $db, "SELECT * FROM dwh.load_jsonl('$dir/missing.jsonl')", '58P01', 'a missing file');
sqlstate($node, $db, "SELECT * FROM dwh.load_jsonl('$dir/missing/x.jsonl')", '58P01', 'a missing directory');
sqlstate($node, $db, "SELECT * FROM dwh.load_jsonl('')", '22023', 'no path');
isnt(scalar run_sql($node, $db, "SELECT * FROM dwh.load_jsonl('$dir/" . ('x' x 300) . "')"), 'XX000', 'a name that is too long is no internal error');
POSIX::mkfifo("$dir/fifo.jsonl", 0600) or die $!;
sqlstate($node, $db, "SET statement_timeout = '20s'; SELECT * FROM dwh.load_jsonl('$dir/fifo.jsonl')", '42809', 'a FIFO without a writer does not hang');
sqlstate($node, $db, "SELECT * FROM dwh.load_jsonl('/dev/null')", '42809', 'a device');
mkdir "$dir/sub" or die $!;
mkdir "$dir/sub/directory.jsonl" or die $!;
rename "$dir/fifo.jsonl", "$dir/sub/fifo.jsonl" or die $!;
write_file("$dir/sub/good.jsonl", $lines->(10));
write_file("$dir/sub/empty.jsonl", '');
write_file("$dir/sub/blank.jsonl", "\n \t\n");
is($node->safe_psql($db, "SELECT string_agg(regexp_replace(path, '.*/', '') || ' ' || status || coalesce(' ' || left(message, 5), ''), ', ' ORDER BY path COLLATE \"C\") FROM dwh.load_jsonl('$dir/sub')"),
	'blank.jsonl empty, directory.jsonl failed 42809, empty.jsonl empty, fifo.jsonl failed 42809, good.jsonl loaded',
	'in a directory such a file is its own row, the others are loaded');
SKIP:
{
	skip 'root reads everything', 2 if $> == 0;
	my $secret = write_file("$dir/unreadable.jsonl", $lines->(10));
	chmod 0, $secret;
	sqlstate($node, $db, "SELECT * FROM dwh.load_jsonl('$secret')", '42501', 'an unreadable file');
	chmod 0600, $secret;
	is(($load->($secret))[1], 'loaded', 'once it can be read it is loaded');
}

# ---- who may read what ----
$node->safe_psql($db, q{CREATE ROLE bob LOGIN; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA dwh TO bob;
	GRANT USAGE ON SCHEMA raw, staging, marts, ops TO bob; GRANT ALL ON ALL TABLES IN SCHEMA raw, staging, marts, ops TO bob;
	GRANT ALL ON ALL SEQUENCES IN SCHEMA raw, staging, marts, ops TO bob});
my $outside = write_file("$dir/outside.jsonl", $lines->(20));
write_file("$landing/inside.jsonl", $lines->(20));
my @bob = (user => 'bob');
is(($load->('inside.jsonl', @bob))[1], 'loaded', 'bob reads the landing directory');
for my $path ($outside, '/etc/passwd', '../../PG_VERSION', "$landing/../../PG_VERSION", "$landing/../../base", "$dir/*.jsonl", "$dir/missing.jsonl", '/', "$landing-2/x")
{
	is(($load->($path, @bob))[0], '42501', "bob may not read $path");
}
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$dir')", '42501', 'nor by a run', @bob);
sqlstate($node, $db, "SELECT dwh.generate_events('$dir/bob.jsonl', events => 1)", '42501', 'nor write there', @bob);
sqlstate($node, $db, "SELECT dwh.generate_events('../../postgresql.auto.conf', events => 1)", '42501', 'nor over the configuration', @bob);
# whether the library knows its settings yet or not
for my $first ('', 'SELECT * FROM dwh.dirty_kinds();')
{
	for my $setting ("allowed_directories = '$dir'", "landing_directory = '$dir'")
	{
		my ($state, $out, $err) = run_sql($node, $db, "$first SET dwh.$setting; SELECT status FROM dwh.load_jsonl('$outside')", @bob);
		is($state, '42501', "bob may not set dwh.$setting" . ($first ? ', library loaded' : ''));
	}
}
sqlstate($node, $db, "SELECT dwh.generate_events('bob.jsonl', events => 5)", '00000', 'bob writes the landing directory', @bob);
$node->safe_psql($db, "LOAD 'dwh_ext'; ALTER SYSTEM SET dwh.allowed_directories = '/nowhere, $dir/sub'; SELECT pg_reload_conf()");
$node->poll_query_until($db, "SELECT dwh._setting('allowed_directories') <> ''");
is(($load->("$dir/sub/good.jsonl", @bob))[1], 'already_loaded', 'an allowed directory');
is(($load->("$dir/sub/../outside.jsonl", @bob))[0], '42501', 'does not lead out of it');
is(($load->("$dir/sub2/x.jsonl", @bob))[0], '42501', 'nor to one whose name begins alike');

# Links: not for bob, neither to a file nor on the way; not a reason to lose the other files.
symlink $outside, "$landing/link.jsonl" or die $!;
symlink $dir, "$landing/way" or die $!;
symlink "$landing/inside.jsonl", "$dir/sub/back.jsonl" or die $!;
for my $path ('link.jsonl', 'way/outside.jsonl', 'way')
{
	my ($state, $out, $err) = $load->($path, @bob);
	like("$state $out", qr/^(42501|42809) /, "bob does not get through the link $path") or diag($err);
}
write_file("$landing/after.jsonl", $lines->(20));
my ($state, $out, $err) = run_sql($node, $db, q{SELECT regexp_replace(path, '.*/', '') || ' ' || status FROM dwh.load_jsonl(NULL) ORDER BY path COLLATE "C"}, @bob);
is($state, '00000', 'a link in the landing directory does not stop the others') or diag($err);
like($out, qr/^link\.jsonl failed$/m, 'it is its own row');
like($out, qr/^after\.jsonl loaded$/m, 'the others are loaded');
is($node->safe_psql($db, "SELECT count(*) FROM ops.loads WHERE path LIKE '%link%' OR path LIKE '%outside%'"), '0', 'nothing came through a link');
unlink "$landing/link.jsonl", "$landing/way", "$dir/sub/back.jsonl";
is(($load->($outside))[1], 'loaded', 'a role with pg_read_server_files reads it');

# ---- files that change while they are read: a load stopped by a lock after it opened its file ----
my $racing = "$dir/racing.jsonl";
sub change_meanwhile
{
	my ($path, $change) = @_;
	my $blocker = begin_sql($node, $db, q{BEGIN; LOCK TABLE raw.user_events IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(60)});
	my $blocking = wait_for($blocker, "wait_event = 'PgSleep'");
	my $session = begin_sql($node, $db, "SELECT status, loaded FROM dwh.load_jsonl('$path')");
	wait_for($session, "wait_event_type = 'Lock'") // die join ' ', end_sql($session);
	$change->();
	$node->safe_psql($db, "SELECT pg_terminate_backend($blocking)");
	end_sql($blocker);
	return end_sql($session);
}
my $content = $lines->(2000);
my $rows = $node->safe_psql($db, 'SELECT count(*) FROM raw.user_events');
my %change = (
	'replaced by rename' => sub { write_file("$racing.new", $content); rename "$racing.new", $racing or die $! },
	truncated => sub { truncate $racing, 1000 or die $! },
	'removed' => sub { unlink $racing or die $! },
	'rewritten in place with equal size' => sub { sleep 0.02; write_file($racing, join('', reverse split /(?<=\n)/, $content), '+<') },
	'made a link' => sub { rename $racing, "$racing.old" or die $!; symlink "$racing.new2", $racing or die $! });
for my $what (sort keys %change)
{
	unlink $racing;
	write_file($racing, $content);
	($state, $out, $err) = change_meanwhile($racing, $change{$what});
	is($state, 'WH005', "$what: WH005") or diag($out, $err);
	like($err, qr/^DETAIL:/m, "$what: DETAIL");
	is($node->safe_psql($db, 'SELECT count(*) FROM raw.user_events'), $rows, "$what: no row");
}
unlink $racing;
write_file($racing, $content);
my $more = $lines->(10);
($state, $out) = change_meanwhile($racing, sub { append_file($racing, $more) });
is("$state $out", '00000 loaded|2000', 'appended to: what was there when it was opened is loaded');
is($node->safe_psql($db, "SELECT status, loaded FROM dwh.load_jsonl('$racing')"), 'appended|10', 'and the rest next time');

# ---- an unchanged file is not opened, a changed one is never missed ----
my $quick = write_file("$dir/quick.jsonl", $lines->(50));
is(($load->($quick))[1], 'loaded', 'a file that has just been written');
my @times = (stat $quick)[ 8, 9 ];
my $other = join '', reverse split /(?<=\n)/, PostgreSQL::Test::Utils::slurp_file($quick);
write_file($quick, $other, '+<');
utime @times, $quick;
is(($load->($quick))[1], 'rewritten', 'rewritten in place with equal size and time right after: noticed');

my $many = "$dir/many";
mkdir $many or die $!;
my @all = split /(?<=\n)/, $lines->(2000);
write_file(sprintf('%s/old_%04d.jsonl', $many, $_), $all[$_]) for 0 .. 1999;
my $old = write_file("$dir/old.jsonl", $lines->(50));
sleep 2.5;    # until a change must show in the times
is($node->safe_psql($db, "SELECT count(*) FROM dwh.load_jsonl('$many') WHERE status = 'loaded'"), '2000', '2,000 files are loaded');
is(($load->($old))[1], 'loaded', 'an old file is loaded');

# A lease tells whether somebody opens the file: the opening then fails, or waits.
SKIP:
{
	local $SIG{IO} = 'IGNORE';
	my $lease = sub {
		open my $held, '<', $_[0] or die $!;
		return fcntl($held, 1024, F_WRLCK) ? $held : undef;    # F_SETLEASE
	};
	my $held = $lease->($old) or skip "this file system has no leases: $!", 2;
	is(($load->($old))[1], 'already_loaded', 'a known file is not opened');
	close $held;
	$held = $lease->($quick);
	isnt(join(' ', (run_sql($node, $db, "SET statement_timeout = '2s'; SELECT status FROM dwh.load_jsonl('$quick')"))[ 0, 1 ]), '00000 already_loaded',
		'one whose times had not settled is');
	close $held;
}
my $start = time;
is($node->safe_psql($db, "SELECT count(*) FROM dwh.load_jsonl('$many') WHERE status = 'already_loaded'"), '2000', '2,000 old files are known');
cmp_ok(time - $start, '<', 10, 'and cost little');
@times = (stat $old)[ 8, 9 ];
write_file($old, join('', reverse split /(?<=\n)/, PostgreSQL::Test::Utils::slurp_file($old)), '+<');
utime @times, $old;
is(($load->($old))[1], 'rewritten', 'a rewritten old file with equal size and mtime is noticed');
rename "$many/old_0007.jsonl", "$many/renamed.jsonl" or die $!;
is($node->safe_psql($db, "SELECT status FROM dwh.load_jsonl('$many/renamed.jsonl')"), 'already_loaded', 'a renamed one is known by its content');

sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$dir/old.jsonl')", '00000', 'a run over all that');
is_sound($node, $db, 'every check passes');

$node->stop;
done_testing();
