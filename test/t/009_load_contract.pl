# What an expert expects of a loader, case by case: what goes in, what comes out. Other files here look closer at some of it:
# 002_crash, 003_cancel, 005_files, 006_memory, 010_archives.
use strict;
use warnings;
use lib 'test/t';
use Compress::Zlib ();
use DwhTest;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $small = ($ENV{SCALE} // '') eq 'small';
my $node = new_server('contract', conf => "restart_after_crash = on\n");
my $db = new_warehouse($node, 'dwh');
my $dir = temp_dir();
my $query = sub { $node->safe_psql($db, $_[0]) };

# Loads a file; returns these columns of its row, or the SQLSTATE where it ends with one.
sub load
{
	my ($path, $columns, $arguments) = @_;
	my ($state, $out, $err) = run_sql($node, $db, sprintf "SELECT %s FROM dwh.load_jsonl('%s'%s)", $columns // 'status, lines, loaded, rejected, blank', $path, $arguments // '');
	return $state eq '00000' ? $out : $state;
}
sub file { return write_file("$dir/$_[0]", $_[1], '>:raw'); }
# Rows of the latest load in raw, and its rejects.
my $latest = '(SELECT max(load_id) FROM ops.loads)';
sub rows { return $query->("SELECT line_no, byte_offset, payload FROM raw.user_events WHERE load_id = $latest ORDER BY line_no"); }
sub rejects { return $query->("SELECT line_no, class FROM ops.rejects WHERE load_id = $latest ORDER BY line_no"); }
sub event { return sprintf qq({"event_time": "2025-01-%02dT00:00:00Z", "event_type": "page_view", "user_id": "u1", "event_id": "e%d"}\n), @_[ 0, 0 ]; }
sub facts { return $query->('SELECT count(*), count(DISTINCT event_id) FROM marts.fact_user_events'); }
sub run { sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$_[0]')", '00000', $_[1]); }

# ---- 1: the same content again: renamed, compressed, compressed in another way ----

my $content = join '', map { event($_) } 1 .. 20;
is(load(file('same.jsonl', $content), 'load_id, status, loaded'), '1|loaded|20', 'same content: loaded once');
my %again = (
	'under its own name' => 'same.jsonl', 'renamed' => file('other.jsonl', $content),
	'compressed' => file('same.jsonl.gz', Compress::Zlib::memGzip($content)),
	'compressed again, member by member' => file('again.gz', join '', map { Compress::Zlib::memGzip($_) } $content =~ /(.{1,100})/gs));
is(load($_ eq 'under its own name' ? "$dir/same.jsonl" : $again{$_}, 'load_id, status, loaded'), '1|already_loaded|0', "same content $_: known as the first load") for sort keys %again;
is($query->('SELECT count(*), (SELECT count(*) FROM ops.loads) FROM raw.user_events'), '20|1', 'same content: no new row, no new ledger row');

# ---- 2: grown, shrunk, changed at the front ----

my $log = file('growing.jsonl', $content);
$query->("SELECT count(*) FROM dwh.run_pipeline('$log')");
my $growth = join '', map { event($_) } 21 .. 25;
append_file($log, $growth);
is(load($log, 'status, lines, bytes'), 'appended|5|' . length $growth, 'grown: the new lines alone');
is($query->("SELECT first_line, continues_load_id, content_bytes FROM ops.loads WHERE load_id = $latest"), '21|1|' . -s $log, 'grown: it goes on after the first load');
is($query->("SELECT min(line_no), max(line_no), bool_and(payload = convert_from(substring(f.bytes FROM r.byte_offset::int + 1 FOR length(l.text) - 1), 'UTF8')::jsonb)
	FROM raw.user_events AS r, pg_read_binary_file('$log') AS f (bytes), (VALUES ('@{[ event(21) =~ s/\n/ /r ]}')) AS l (text) WHERE load_id = $latest"),
	'21|25|t', 'grown: line numbers and byte offsets go on');
run($log, 'grown: taken to the facts');
is(facts(), '25|25', 'grown: each event once');
file('growing.jsonl', join '', map { event($_) } 1 .. 7, 9);
is(load($log, 'status, lines'), 'rewritten|8', 'shrunk: a rewritten file');
run($log, 'shrunk: a run');
is(facts(), '25|25', 'shrunk: no fact more, none less');
file('growing.jsonl', join '', map { event($_) } 31, 1 .. 20);
is(load($log, 'status, lines'), 'rewritten|21', 'changed at the front: a rewritten file');
run($log, 'changed at the front: a run');
is(facts(), '26|26', 'changed at the front: the one new event is a fact');

# ---- 3: a last line that is half written ----

my $tail = file('tail.jsonl', qq({"n": 1}\n{"n": 2, "half));
is(load($tail, 'status, lines, loaded, rejected, held_back_bytes'), 'partial_tail|1|1|0|14', 'partial tail: held back, no reject');
append_file($tail, qq(": true}\n{"n": 3}\n));
is(load($tail, 'status, lines, loaded, rejected, held_back_bytes'), 'appended|2|2|0|0', 'partial tail: resumed there');
is(rows(), qq(2|9|{"n": 2, "half": true}\n3|32|{"n": 3}), 'partial tail: each line in its place');
is(load(file('open.jsonl', qq({"open": 1}\n{"open": 2})), 'status, lines, held_back_bytes'), 'loaded|2|0', 'a whole last line without its end: loaded');

# ---- 4: one bad row among many ----

my $many = $small ? 50_000 : 1_000_000;
my $bad = int $many / 3;
my $lines = join '', map { $_ == $bad ? "{\"n\": $_, oops}\n" : "{\"n\": $_}\n" } 1 .. $many;
my $big = file('one_bad.jsonl', $lines);
my $rows = $query->('SELECT count(*) FROM raw.user_events');
is(load($big, '*', ", on_error => 'abort'"), 'WH002', 'one bad row, abort: WH002');
is($query->('SELECT count(*) FROM raw.user_events'), $rows, 'one bad row, abort: no row');
my $reject = sprintf '%d|%d|invalid_json|{"n": %d, oops}', $bad, index($lines, "{\"n\": $bad, oops}"), $bad;
my $kept = "SELECT line_no, byte_offset, class, convert_from(raw, 'UTF8') FROM ops.rejects WHERE load_id = $latest";
is($query->($kept), $reject, 'one bad row, abort: the reject can be read, in another session');
is(load($big), sprintf('loaded|%d|%d|1|0', $many, $many - 1), "one bad row among $many: all others are loaded");
is($query->($kept), $reject, 'one bad row: kept with line, offset, class and bytes');

# ---- 5: NUL escapes ----

is(load(file('nul.jsonl', qq({"a": "x\\u0000y"}\n{"a": "x\\\\u0000y"}\n{"a": "x\\\\\\u0000y"}\n{"\\u0000": 1}\n))), 'loaded|4|1|3|0', 'NUL escape: refused');
is(rejects(), "1|nul_escape\n3|nul_escape\n4|nul_escape", 'NUL escape: class nul_escape');
is(rows(), '2|18|{"a": "x\\\\u0000y"}', 'NUL escape: the text \\u0000 behind a backslash is left as it is');

# ---- 6: encodings and line ends ----

is(load(file('ends.jsonl', "\xEF\xBB\xBF" . qq({"n": 1}\r\n{"n": 2}\n\r\n \t\n{"n": "\\ud800"}\n{"n": "\xFF"}\n{"n": "\xE2\x80\xA8"}\n{"n": "\\ud83d\\ude00"}\r\n))),
	'loaded|8|4|2|2', 'line ends: BOM and CR dropped, blank lines counted, U+2028 ends no line');
is(rejects(), "5|lone_surrogate\n6|invalid_utf8", 'lone surrogate and bad byte: one reject each');
is(rows(), qq(1|0|{"n": 1}\n2|13|{"n": 2}\n7|54|{"n": "\xE2\x80\xA8"}\n8|67|{"n": "\xF0\x9F\x98\x80"}), 'their neighbours are unharmed');

# ---- 7: duplicate keys ----

is(load(file('keys.jsonl', qq({"price": 1, "price": 2, "a": {"b": 1, "b": [2]}}\n)), 'status, loaded'), 'loaded|1', 'duplicate keys: loaded');
is(rows(), '1|0|{"a": {"b": [2]}, "price": 2}', 'duplicate keys: the last one stays, as with ::jsonb');

# ---- 8: no object, no JSON, too deep ----

my @refused = (
	[ '5', 'not_object' ], [ '"x"', 'not_object' ], [ '[]', 'not_object' ], [ 'null', 'not_object' ], [ '[{"a": 1}]', 'not_object' ],
	[ '{"a": 1} text', 'invalid_json' ], [ '{"a": 1}{"a": 2}', 'invalid_json' ], [ '{"a": NaN}', 'invalid_json' ], [ '{"a": -Infinity}', 'invalid_json' ],
	[ '{"a": 1e200000}', 'invalid_json' ], [ '{"a": ' . '[' x 20_000 . ']' x 20_000 . '}', 'too_deep' ]);
is(load(file('refused.jsonl', qq({"before": 1}\n) . join('', map { "$_->[0]\n" } @refused) . qq({"after": 1}\n)), 'status, loaded, rejected'),
	'loaded|2|' . @refused, 'no object, trailing text, NaN, 1e200000, 20,000 arrays: refused one by one, and no more than they');
is(rejects(), join("\n", map { $_ + 2 . "|$refused[$_][1]" } 0 .. $#refused), 'each with its class');

# ---- 9: a huge line ----

my $huge = file('huge.jsonl', qq({"n": 1}\n{"text": "));
truncate $huge, 1_000_000_000 or die $!;    # zeros that the file system does not store
append_file($huge, qq("}\n{"n": 3}\n));
my ($state, $out) = run_sql($node, $db, "SELECT lines, loaded, rejected FROM dwh.load_jsonl('$huge'); SELECT substring(pg_read_file('/proc/self/status') FROM 'RssAnon:\\s*(\\d+)')");
my ($counts, $anonymous) = split /\n/, $out;
is($counts, '3|2|1', 'a line of 1 GB: refused, the others are loaded');
is($query->("SELECT line_no, class, raw_bytes, octet_length(raw) FROM ops.rejects WHERE load_id = $latest"), '2|too_long|' . (1_000_000_000 - 9 + 2) . '|4096', 'a line of 1 GB: its beginning is kept');
cmp_ok($anonymous || 0, '<', 128 * 1024, 'a line of 1 GB: it was never held');
my $text = file('text.jsonl', '{"text": "' . 'x' x 300_000_000 . qq("}\n{"n": 2}\n));
is(load($text), 'loaded|2|1|1|0', 'a text longer than jsonb takes: refused, the other is loaded');
is(rejects(), '1|too_long', 'a text longer than jsonb takes: too_long');
unlink $huge, $text;

# ---- 10: archives under any name, in members, cut off ----

my @lines = map { qq({"archive": $_}\n) } 1 .. 3000;
my $members = Compress::Zlib::memGzip(join '', @lines[ 0 .. 999 ]) . Compress::Zlib::memGzip(join '', @lines[ 1000 .. 2999 ]);
is(load(file('members.txt', $members), 'status, lines'), 'loaded|3000', 'gzip under another name: all members are read');
my $zstd = "\x28\xB5\x2F\xFD\x20\x0D\x69\x00\x00" . qq({"zstd": 12}\n);
is(load(file('zstd.gz', $zstd), 'status, lines'), 'loaded|1', 'zstd under the name of gzip: told by its first bytes');
my $cut = Compress::Zlib::memGzip(join '', map { qq({"cut": $_}\n) } 1 .. 3000);
is(load(file('cut.jsonl.gz', substr $cut, 0, length($cut) / 2), "status, lines = loaded AND lines BETWEEN 100 AND 2900"), 'truncated|t', 'an archive that is cut off: whole lines are loaded, and it says so');
is($query->("SELECT truncated, status FROM ops.loads WHERE load_id = $latest"), 't|truncated', 'the ledger too');
file('cut.jsonl.gz', $cut);
is(load("$dir/cut.jsonl.gz", 'status'), 'appended', 'once it is whole, the rest comes');
is($query->(q{SELECT count(*), count(DISTINCT payload) FROM raw.user_events WHERE payload ? 'cut'}), '3000|3000', 'each line once');

# ---- 12: two sessions ----

my $two = file('two.jsonl', qq({"two": 1}\n{"two": 2}\n));
my $other = file('two_other.jsonl', qq({"other": 1}\n));
my $first = begin_sql($node, $db, "BEGIN; SELECT load_id, status FROM dwh.load_jsonl('$two'); SELECT pg_sleep(60); COMMIT");
my $first_pid = wait_for($first, "wait_event = 'PgSleep'");
my $second = begin_sql($node, $db, "SELECT load_id, status FROM dwh.load_jsonl('$two')");
ok(wait_for($second, "wait_event_type = 'Lock'"), 'two sessions, one file: the second waits');
is(load($other, 'status'), 'loaded', 'two sessions, two files: nobody waits');
$query->("SELECT pg_cancel_backend($first_pid)");
end_sql($first);
like((end_sql($second))[1], qr/^\d+\|loaded$/, 'two sessions, one file: where the first rolls back, the second loads');
file("two_$_.jsonl", qq({"two": 3}\n)) for 'a', 'b';
$first = begin_sql($node, $db, "BEGIN; SELECT load_id, status FROM dwh.load_jsonl('$dir/two_a.jsonl'); SELECT pg_sleep(1); COMMIT");
wait_for($first, "wait_event = 'PgSleep'");
$second = begin_sql($node, $db, "SELECT load_id, status FROM dwh.load_jsonl('$dir/two_b.jsonl')");
my ($loaded) = (end_sql($first))[1] =~ /^(\d+)\|loaded/;
is((end_sql($second))[1], "$loaded|already_loaded", 'two sessions, one content: where the first commits, the second finds it loaded');

# ---- 13: unsafe paths ----

$query->(q{CREATE ROLE bob LOGIN; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA dwh TO bob; GRANT USAGE ON SCHEMA raw, staging, marts, ops TO bob;
	GRANT ALL ON ALL TABLES IN SCHEMA raw, staging, marts, ops TO bob; GRANT ALL ON ALL SEQUENCES IN SCHEMA raw, staging, marts, ops TO bob});
my @bob = (user => 'bob');
my $error_of = sub { my ($path) = @_; ((run_sql($node, $db, "SELECT * FROM dwh.load_jsonl('$path')", @bob))[2] =~ s/\Q$path\E/PATH/gr) };
my $safe = $query->('SELECT dwh.landing_directory()');
sqlstate($node, $db, "SELECT * FROM dwh.load_jsonl('$log')", '42501', 'unsafe path: not without the right to read server files', @bob);
is($error_of->("$dir/no_such.jsonl"), $error_of->($log), 'unsafe path: told before it is looked at, so nothing is learnt of what exists');
sqlstate($node, $db, "SELECT * FROM dwh.load_jsonl('$safe/../../PG_VERSION')", '42501', 'unsafe path: not out of the directory', @bob);
symlink $log, "$safe/link.jsonl" or die $!;
symlink $dir, "$safe/way" or die $!;
like(scalar run_sql($node, $db, "SELECT * FROM dwh.load_jsonl('$_')", @bob), qr/^(42501|42809)$/, "unsafe path: not through the link $_") for 'link.jsonl', 'way/growing.jsonl';
POSIX::mkfifo("$dir/fifo", 0600) or die $!;
mkdir "$dir/set" or die $!;
mkdir "$dir/set/directory.jsonl" or die $!;
is(load($_), '42809', "unsafe path: $_ is no regular file") for "$dir/fifo", '/dev/null';
like(load("$dir/set", 'status, message'), qr/^failed\|42809/, 'unsafe path: nor is a directory in a set');
my $racing = file('racing.jsonl', qq({"racing": 1}\n));
my $blocker = begin_sql($node, $db, 'BEGIN; LOCK TABLE raw.user_events IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(60)');
my $blocking = wait_for($blocker, "wait_event = 'PgSleep'");
my $reader = begin_sql($node, $db, "SELECT * FROM dwh.load_jsonl('$racing')");
wait_for($reader, "wait_event_type = 'Lock'");
rename file('racing.new', qq({"racing": 2}\n)), $racing or die $!;
$query->("SELECT pg_terminate_backend($blocking)");
end_sql($blocker);
is((end_sql($reader))[0], 'WH005', 'a file that is replaced while it is read: WH005');
is($query->(q{SELECT count(*) FROM raw.user_events WHERE payload ? 'racing'}), '0', 'and nothing of it');

# ---- 11: cancel and crash in the middle of a load (last, as it ends every session) ----

my $long = file('long.jsonl', join '', map { qq({"long": $_}\n) } 1 .. 400_000);
my $before = $query->('SELECT count(*) FROM raw.user_events') . ' ' . $query->('SELECT count(*) FROM ops.loads');
for my $how ('pg_cancel_backend()', 'kill -9')
{
	my $session = begin_sql($node, $db, "SELECT * FROM dwh.load_jsonl('$long')");
	my $pid = wait_for($session, "EXISTS (SELECT FROM pg_locks AS l WHERE l.pid = pg_stat_activity.pid AND l.mode = 'RowExclusiveLock')");
	$how eq 'kill -9' ? kill(9, $pid) : $query->("SELECT pg_cancel_backend($pid)");
	is((end_sql($session))[0], $how eq 'kill -9' ? '-----' : '57014', "$how in the middle of a load");
	$node->poll_query_until('postgres', 'SELECT true') or die 'the server does not come back';
	is($query->('SELECT count(*) FROM raw.user_events') . ' ' . $query->('SELECT count(*) FROM ops.loads'), $before, "$how: no row, no ledger row");
}
is(load($long, 'status, loaded'), 'loaded|400000', 'and the next time all of it is loaded');
is($query->(q{SELECT count(*), count(DISTINCT payload) FROM raw.user_events WHERE payload ? 'long'}), '400000|400000', 'once');
is_conserved($node, $db, 'every row is of a load, every load has its rows');

$node->stop;
done_testing();
