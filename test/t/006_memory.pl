# Private memory of a backend stays below 128 MB, however large the file and whatever is in its lines.
use strict;
use warnings;
use lib 'test/t';
use DwhTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

plan skip_all => 'needs /proc/PID/status with RssAnon' unless -e "/proc/$$/status" && `cat /proc/$$/status` =~ /^RssAnon:/m;

use constant LIMIT => 128 * 1024;    # kB

my $node = new_server('memory', conf => "shared_buffers = '128MB'\n");
my $db = new_warehouse($node, 'dwh');
my $dir = temp_dir();

# Runs a statement and reads the private memory of its backend all the while; returns the highest value in kB.
sub peak_of
{
	my ($sql) = @_;
	my $session = begin_sql($node, $db, $sql);
	my $pid = wait_for($session, "state = 'active'");
	my $peak = 0;
	while (defined $pid && open my $status, '<', "/proc/$pid/status")
	{
		my ($now) = join('', <$status>) =~ /^RssAnon:\s+(\d+)/m;
		$peak = $now if defined $now && $now > $peak;
		$session->{run}->pump_nb if $session->{run}->pumpable;
		sleep 0.005;
	}
	my ($state, $out, $err) = end_sql($session);
	return ($peak, $state, $out, $err);
}

sub stays_small
{
	my ($path, $expected, $name, $option) = @_;
	$option //= '';
	# a pause after the load, so that a short one is seen as well
	my ($peak, $state, $out, $err) = peak_of("SELECT status, loaded, rejected FROM dwh.load_jsonl('$path'$option); SELECT pg_sleep(0.1)");
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is("$state $out", "00000 $expected\n", "$name: loaded") or diag($err);
	cmp_ok($peak, '<', LIMIT, "$name: $peak kB");
	cmp_ok($peak, '>', 500, "$name: was measured");
}

$node->safe_psql($db, "SELECT dwh.generate_events('$dir/many.jsonl', events => 300000, seed => 3)");
stays_small("$dir/many.jsonl", 'loaded|300000|0', '300,000 lines');
write_file("$dir/rejects.jsonl", join '', ('x' x 5000 . "\n") x 20000);
stays_small("$dir/rejects.jsonl", 'loaded|0|20000', '20,000 refused lines of 5 kB');
write_file("$dir/giant", '{"a": "');
truncate "$dir/giant", 600_000_000 or die $!;
append_file("$dir/giant", "\"}\n{\"b\": 1}\n");
stays_small("$dir/giant", 'loaded|1|1', 'a line of 600 MB and a short one');
my $fill = 16 * 1024 * 1024 - 100;
write_file("$dir/text.jsonl", '{"a": "' . 'x' x $fill . "\"}\n");
stays_small("$dir/text.jsonl", 'loaded|1|0', 'a line of 16 MB, one text');
write_file("$dir/texts.jsonl", join '', ('{"a": "' . 'y' x $fill . "\"}\n") x 3);
stays_small("$dir/texts.jsonl", 'loaded|3|0', 'three of them');
write_file("$dir/escaped.jsonl", '{"a": "' . '\n' x ($fill / 2) . "\"}\n");
stays_small("$dir/escaped.jsonl", 'loaded|1|0', 'a line of 16 MB of escapes');
# lines of many small values, whose jsonb is up to six times their text
srand 16;
my %dense = (
	ones => '{"a": [' . '1,' x ($fill / 2) . '1]}',
	digits => '{"a": [' . join(',', map { 1 + int rand 9 } 1 .. $fill / 2) . ']}',
	empty => '{"a": [' . '[],' x ($fill / 3) . '[]]}',
	keys => '{' . join(',', map { sprintf '"%06x": 1', $_ * 7919 % 16777213 } 1 .. $fill / 12) . '}',
	nested => '{"a": ' . '[' x 990 . '1,' x ($fill / 2 - 2000) . '1' . ']' x 990 . '}');
for my $kind (sort keys %dense)
{
	write_file("$dir/$kind.jsonl", "$dense{$kind}\n");
	stays_small("$dir/$kind.jsonl", 'loaded|1|0', "a line of 16 MB: $kind");
}
for my $escape ('u0000', 'ud800')
{
	write_file("$dir/$escape.jsonl", '{"a": [' . '1,' x ($fill / 2) . qq(1], "b": "\\$escape"}\n));
	stays_small("$dir/$escape.jsonl", 'loaded|0|1', "a line of 16 MB: refused for \\$escape");
}
stays_small("$dir/$_.jsonl", "loaded|@{[ $_ eq 'many' ? 300000 : 1 ]}|0", "two workers: $_", ', force => true, workers => 2') for qw(many digits text);
stays_small("$dir/texts.jsonl", 'loaded|3|0', 'two workers: three lines of 16 MB', ', force => true, workers => 2');

# archives: a zstd bomb by hand (4 bytes make 128 kB) with the widest window that is read, refused and let through
my $frame = "\x28\xB5\x2F\xFD\0" . chr(26 - 10 << 3) . "\x18\x00\x00" . "{}\n" . "\x02\x00\x10 " x 8000 . "\x03\x00\x10\n";
write_file("$dir/bomb.zst", $frame, '>:raw');
my ($peak, $state) = peak_of("SET dwh.max_archive_ratio = 2000; SELECT * FROM dwh.load_jsonl('$dir/bomb.zst')");
is($state, '54000', 'a bomb is refused');
cmp_ok($peak, '<', LIMIT, "and stays small: $peak kB");
($peak, $state) = peak_of("SET dwh.max_archive_ratio = 0; SELECT * FROM dwh.load_jsonl('$dir/bomb.zst')");
is($state, '00000', 'a bomb of 1 GB is let through');
cmp_ok($peak, '<', LIMIT, "and stays small: $peak kB");

$db = new_warehouse($node, 'runs');
($peak, $state) = peak_of("SELECT * FROM dwh.run_pipeline('$dir/many.jsonl')");
is($state, '00000', 'a run over 300,000 events');
cmp_ok($peak, '<', LIMIT, "stays small: $peak kB");

$node->stop;
done_testing();
