# Compressed files: every way to pack the same lines, archives that end early or are followed by something else, damaged
# ones, and bombs. zstd frames are built by hand (RFC 8878), so that every trap can be set and no tool is needed.
use strict;
use warnings;
use lib 'test/t';
use Compress::Zlib ();
use DwhTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use constant MB => 1024 * 1024;
use constant INPUT_BYTES => 128 * 1024;    # read at once by src/source.c

my $node = new_server('archives');
my $db = new_warehouse($node, 'dwh');
my $dir = temp_dir();
my $no = 0;

# ---- the two formats ----

sub gz { return Compress::Zlib::memGzip($_[0]); }

# A gzip member of an exact size: a comment fills its header.
sub gz_of_size
{
	my ($content, $size) = @_;
	my ($deflate) = Compress::Zlib::deflateInit(-WindowBits => -Compress::Zlib::MAX_WBITS());
	my $body = join '', map { $_ // '' } ($deflate->deflate($content))[0], ($deflate->flush)[0];
	my $trailer = pack 'VV', Compress::Zlib::crc32($content), length $content;
	return "\x1F\x8B\x08\x10" . "\0" x 6 . 'c' x ($size - 11 - length($body . $trailer)) . "\0" . $body . $trailer;
}

# A zstd frame of blocks; window: its size as a power of two.
sub zst_frame
{
	my ($window, @blocks) = @_;
	my $bytes = "\x28\xB5\x2F\xFD\0" . chr($window - 10 << 3);
	for my $i (0 .. $#blocks)
	{
		my ($type, $size, $content) = @{ $blocks[$i] };
		$bytes .= substr(pack('V', ($i == $#blocks) | $type << 1 | $size << 3), 0, 3) . $content;
	}
	return $bytes;
}
sub stored { return [ 0, length $_[0], $_[0] ]; }
sub repeated { return [ 1, $_[1], $_[0] ]; }    # one byte so many times, in a block of four bytes
sub zst { return zst_frame(17, map { stored($_) } @_); }
sub zst_skipped { return pack('VV', 0x184D2A5A, length $_[0]) . $_[0]; }

# ---- loading ----

sub file
{
	my ($bytes, $name) = @_;
	return write_file($name // sprintf('%s/file_%03d.jsonl', $dir, ++$no), $bytes, '>:raw');
}

# What one file comes to: "SQLSTATE status|lines|loaded".
sub outcome
{
	my ($path, $settings) = @_;
	my ($state, $out) = run_sql($node, $db, ($settings // '') . "SELECT status, lines, loaded FROM dwh.load_jsonl('$path')");
	return "$state $out";
}

sub count_of { return $node->safe_psql($db, "SELECT count(*) FROM $_[0]"); }

# Fails as a whole, saying what was found and what to do, and leaves nothing.
sub fails
{
	my ($path, $state, $name, $settings) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $before = count_of('raw.user_events') . ' ' . count_of('ops.loads') . ' ' . count_of('ops.rejects');
	my ($out, $err) = sqlstate($node, $db, ($settings // '') . "SELECT * FROM dwh.load_jsonl('$path')", $state, $name);
	like($err, qr/^DETAIL:.*^HINT:/ms, '... with DETAIL and HINT');
	is(count_of('raw.user_events') . ' ' . count_of('ops.loads') . ' ' . count_of('ops.rejects'), $before, '... and leaves nothing');
	return $err;
}

# ---- one content, however it is packed ----

my @lines = map { qq({"n": $_}\n) } 1 .. 40;
my $content = join '', @lines;
my ($front, $back) = (substr($content, 0, 205), substr($content, 205));    # in the middle of a line
is(outcome(file($content)), '00000 loaded|40|40', 'the lines as they are');
my %packed = (
	'gzip' => gz($content),
	'gzip in two members' => gz($front) . gz($back),
	'gzip in a member a line' => join('', map { gz($_) } @lines),
	'gzip between empty members' => gz('') x 50 . gz($front) . gz('') . gz($back) . gz(''),
	'gzip that fills a read' => gz_of_size($front, INPUT_BYTES) . gz($back),
	'gzip whose second member begins at the end of a read' => gz_of_size($front, INPUT_BYTES - 1) . gz($back),
	'zstd' => zst($content),
	'zstd in two frames' => zst($front) . zst($back),
	'zstd in a block a line' => zst(@lines),
	'zstd between empty frames' => zst('') x 50 . zst($front) . zst('') . zst($back) . zst(''),
	'zstd after a frame to be skipped' => zst_skipped('an index') . zst($content),
	'zstd among frames to be skipped' => zst_skipped('') . zst($front) . zst_skipped('x' x 300_000) . zst($back) . zst_skipped("\0" x 9),
	'zstd whose second frame begins at the end of a read' => zst_skipped('x' x (INPUT_BYTES - 8 - 1 - length zst($front))) . zst($front) . zst($back));
for my $how (sort keys %packed)
{
	is(outcome(file($packed{$how}, sprintf '%s/packed_%03d.%s', $dir, ++$no, (qw(jsonl txt gz zst))[ $no % 4 ])),
		'00000 already_loaded|0|0', "$how, under any extension");
}
is(outcome(file(gz('') x 5)), '00000 empty|0|0', 'nothing but empty members is an empty file');
is(outcome(file(zst_skipped('x'))), '00000 empty|0|0', 'so is a frame to be skipped');

# ---- archives that end early ----

# Every cut is a file: each is a beginning of the next, so each line is loaded once, and none that is half.
for my $kind ('gzip', 'zstd')
{
	my @own = map { qq({"$kind": $_}\n) } 1 .. 12;
	my ($one, $two) = (join('', @own[ 0 .. 5 ]), join('', @own[ 6 .. 11 ]));
	my $whole = $kind eq 'gzip' ? gz($one) . gz($two) : zst(@own[ 0 .. 5 ]) . zst_skipped('index') . zst($two);
	mkdir "$dir/$kind" or die $!;
	# from the magic bytes on; what is shorter is no archive
	file(substr($whole, 0, $_), sprintf '%s/%s/cut_%04d.jsonl', $dir, $kind, $_) for 4 .. length($whole) - 1;
	my $statuses = $node->safe_psql($db, "SELECT string_agg(DISTINCT status, ' ' ORDER BY status) FROM dwh.load_jsonl('$dir/$kind')");
	like($statuses, qr/^already_loaded (appended )?(partial_tail )?truncated$/, "$kind cut at every byte is no error: $statuses");
	like(outcome(file($whole)), qr/^00000 (already_loaded\|0\|0|appended\|1\|1)$/, '... the whole brings the last line at most');
	is($node->safe_psql($db, "SELECT count(*), count(DISTINCT payload) FROM raw.user_events WHERE payload ? '$kind'"), '12|12', '... and each line is there once');
	is($node->safe_psql($db, qq(SELECT count(*) FROM raw.user_events WHERE payload ? '$kind' AND payload <> jsonb_build_object('$kind', line_no))), '0', '... in its place');
	is($node->safe_psql($db, "SELECT count(*) FROM ops.rejects"), '0', '... and no half line is a reject');
}

# An archive that ends before its trailer: what has no LF may not be all of its line, even where it is an object.
my $stored = Compress::Zlib::memGzip(qq({"n": 1001}\n{"n": 1002}));
is(outcome(file(substr $stored, 0, length($stored) - 8)), '00000 truncated|1|1', 'the last line of a cut archive is held back, whole or not');

# ---- what follows an archive ----

my %after = (
	'text' => 'some text', 'a line' => qq({"n": 41}\n), 'zeros' => "\0" x 1000, 'one byte' => 'x', 'the first byte of gzip' => "\x1F",
	'gzip and no method' => "\x1F\x8B\xFF\xFF\xFF", 'no gzip' => "\x1Fxxxxxxxxx", 'a part of a zstd magic' => "\x28\xB5");
for my $what (sort keys %after)
{
	my $first = qq({"before": "$what"}\n);
	my %archive = (gzip => gz($first), 'gzip that fills a read but a byte' => gz_of_size($first, INPUT_BYTES - 1),
		zstd => zst($first), 'zstd that fills a read but a byte' => zst_skipped('x' x (INPUT_BYTES - 9 - length zst($first))) . zst($first));
	my @told = map { outcome(file($archive{$_} . $after{$what})) } sort keys %archive;
	is("@told", '00000 truncated|1|1' . ' 00000 already_loaded|0|0' x 3, "$what after gzip and zstd is said, and is no line");
}

# ---- damaged ----

my $damaged = sub { my ($bytes, $at) = @_; substr($bytes, $at, 1) ^= "\xFF"; return $bytes };
fails(file($damaged->(gz($content), -6)), '22P03', 'a wrong checksum');
fails(file(gz("{}\n") . $damaged->(gz($content), 20)), '22P03', 'damage in a second member is no end');
fails(file(zst("{}\n") . zst_frame(17, [ 3, 5, 'xxxxx' ])), '22P03', 'a block of no type');
fails(file(substr(gz($content), 0, 3) . "\xE0"), '22P03', 'flags that there are not');

# ---- bombs ----

my %bomb = (
	gzip => gz("{}\n" . ' ' x (80 * MB)),
	'gzip, each member small' => gz(' ' x (8 * MB)) x 10,
	zstd => zst_frame(17, stored("{}\n"), (repeated(' ', 128 * 1024)) x 8000),    # 1 GB in 32 kB
	'zstd, each frame small' => zst_frame(17, (repeated("\n", 128 * 1024)) x 8) x 80,
	'zstd behind an honest part' => zst($content) . zst_frame(17, (repeated("\0", 128 * 1024)) x 8000));
for my $what (sort keys %bomb)
{
	my $start = time;
	like(fails(file($bomb{$what}), '54000', "bomb: $what"), qr/dwh\.max_archive_ratio/, '... naming the setting');
	cmp_ok(time - $start, '<', 10, '... soon');
}
my $bomb = file($bomb{zstd}, "$dir/bomb.zst");
$node->safe_psql($db, "SELECT lo_from_bytea(4711, pg_read_binary_file('$bomb'))");
sqlstate($node, $db, 'SELECT * FROM dwh.load_jsonl(large_object => 4711)', '54000', 'a bomb in a large object');
is(outcome(file(zst_frame(17, stored(qq({"small": 1}\n)), (repeated("\r", 128 * 1024)) x 400, stored("\n")))), '00000 loaded|2|1',
	'a ratio of 30,000 is nothing to refuse where it makes 50 MB');
# the size is what all members make, whatever the ratio
my $member = gz(join '', map { sprintf qq({"member": %d, "text": "%08x"}\n), $_, $_ * 2654435761 % 2**32 } 1 .. 9000);
like(fails(file($member x 4), '54000', 'members that are too large together', "SET dwh.max_archive_size = '1MB'; "),
	qr/dwh\.max_archive_size allows 1 MB/, '... naming the other setting');
is(outcome(file($member x 3), "SET dwh.max_archive_size = '1MB'; "), '00000 loaded|27000|27000', 'just below it they are loaded');
fails(file(zst_skipped('x' x MB) . $bomb{zstd}), '54000', 'a bomb that is padded to look modest', "SET dwh.max_archive_size = '100MB'; ");
# a limit of the set's one file is not the others'
mkdir "$dir/set" or die $!;
file(gz(qq({"set": 1}\n)), "$dir/set/a.jsonl");
file($bomb{zstd}, "$dir/set/b.jsonl");
file($bomb{gzip}, "$dir/set/c.jsonl");
file(zst(qq({"set": 2}\n)), "$dir/set/d.jsonl");
is($node->safe_psql($db, "SELECT string_agg(status || coalesce(' ' || left(message, 5), ''), ', ' ORDER BY path COLLATE \"C\") FROM dwh.load_jsonl('$dir/set')"),
	'loaded, failed 54000, failed 54000, loaded', 'in a set bombs are their own rows, the others are loaded');
is($node->safe_psql($db, "SELECT count(*) FROM raw.user_events WHERE payload ? 'set'"), '2', 'and nothing of the bombs');
# without limits they are files like any other, and can be cancelled
my $endless = file(zst_frame(17, (repeated("\0", 128 * 1024)) x 100_000), "$dir/endless");    # 13 GB, three reads
my $start = time;
sqlstate($node, $db, "SET dwh.max_archive_ratio = 0; SET statement_timeout = '500ms'; SELECT * FROM dwh.load_jsonl('$endless')", '57014', 'a bomb that is let through can be cancelled');
cmp_ok(time - $start, '<', 5, 'soon');
is(outcome($bomb, 'SET dwh.max_archive_ratio = 0; '), '00000 partial_tail|1|1', 'or loaded');

# ---- windows ----

my $wide = sub { my ($window) = @_; zst_frame($window, stored(qq({"window": $window}\n))) };
is(outcome(file($wide->(26))), '00000 loaded|1|1', 'a zstd window of 64 MB');
fails(file($wide->($_)), '54000', "a zstd window of 2^$_ bytes") for 27, 31, 41;
fails(file(zst($content) . $wide->(27)), '54000', 'also in a later frame');

$node->stop;
done_testing();
