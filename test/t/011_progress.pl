# What a load says of itself: pg_stat_progress_copy while it runs, a NOTICE at its end.
use strict;
use warnings;
use lib 'test/t';
use DwhTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $node = new_server('progress', conf => "shared_buffers = '256MB'\ndwh.progress_notices = on\n");
my $db = new_warehouse($node, 'dwh');
my $dir = temp_dir();
$node->safe_psql($db, "SELECT dwh.generate_events('$dir/big.jsonl', events => 300000, dirty_rate => 0.01, dirty_kinds => '{truncated_json}')");
my $size = -s "$dir/big.jsonl";

for my $workers (1, 2)
{
	my $session = begin_sql($node, $db, "SELECT status FROM dwh.load_jsonl('$dir/big.jsonl', force => true, workers => $workers)");
	my @seen;
	while (!@seen || $seen[-1] ne '')
	{
		my $row = $node->safe_psql($db, q{SELECT relid::regclass, command, type, bytes_total, bytes_processed, tuples_processed, tuples_excluded
			FROM pg_stat_progress_copy WHERE bytes_processed > 0});
		push @seen, $row if $row ne '' || @seen;
		last if !defined $session->{run} || !$session->{run}->pumpable;
		$session->{run}->pump_nb;
		sleep 0.01;
	}
	my ($state) = end_sql($session);
	is($state, '00000', "a load with $workers worker(s)");
	my @rows = map { [ split /\|/ ] } grep { $_ ne '' } @seen;
	cmp_ok(scalar @rows, '>', 1, 'was seen from another session');
	is(join('|', @{ $rows[0] }[ 0 .. 3 ]), "raw.user_events|COPY FROM|FILE|$size", 'as COPY shows itself, with the bytes to come');
	my $rising = 1;
	for my $i (1 .. $#rows)
	{
		for my $column (4 .. 6) { $rising = 0 if $rows[$i][$column] < $rows[ $i - 1 ][$column] }
	}
	ok($rising, 'bytes, rows and rejects only rise');
	cmp_ok($rows[-1][5], '>', $rows[0][5], 'rows were counted');
	cmp_ok($rows[-1][6], '>', 0, 'rejects were counted');
	cmp_ok($rows[-1][4], '<=', $size, 'no more bytes than there are');
}
my $object = $node->safe_psql($db, "SELECT lo_import('$dir/big.jsonl')");
my $session = begin_sql($node, $db, "SELECT status FROM dwh.load_jsonl(large_object => $object, force => true)");
my ($shown, $done) = ('', '');
while ($session->{run}->pumpable)
{
	($shown, $done) = split /\|/, $node->safe_psql($db, 'SELECT bytes_total, bytes_processed FROM pg_stat_progress_copy WHERE bytes_processed > 1000000') || '|';
	last if $shown;
	$session->{run}->pump_nb;
}
end_sql($session);
is($shown, $size, 'a large object shows its size, too');
ok($done > 0 && $done <= $size, 'and how much of it was read');
is($node->safe_psql($db, 'SELECT count(*) FROM pg_stat_progress_copy'), '0', 'nothing is said to be going on afterwards');

write_file("$dir/small.jsonl", qq({"a": 1}\nx\n\n));
my ($state, $out, $err) = run_sql($node, $db, "SELECT status FROM dwh.load_jsonl('$dir/small.jsonl')");
like($err, qr/NOTICE: +00000: \Q$dir\E\/small\.jsonl: 1 of 3 lines loaded, 1 rejected, 1 blank\nDETAIL: .* MB in .* s: \d+ lines a second, load_id \d+\./, 'a NOTICE at the end');
($state, $out, $err) = run_sql($node, $db, "SELECT status FROM dwh.load_jsonl('$dir/small.jsonl')");
unlike($err, qr/NOTICE/, 'none for what is known');
($state, $out, $err) = run_sql($node, $db, "SET dwh.progress_notices = off; SELECT status FROM dwh.load_jsonl('$dir/small.jsonl', force => true)");
unlike($err, qr/NOTICE/, 'quiet by setting');

$node->stop;
done_testing();
