# The check of kind volume, against a definition in Perl that goes through every row for every period: random ledgers, times and
# parameters. And what a user sees of it: a verdict that is accepted, and what is learned from it.
use strict;
use warnings;
use lib 'test/t';
use DwhTest;
use List::Util qw(max min);
use POSIX qw(ceil floor);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('volume');
my $db = new_warehouse($node, 'dwh');
my $seed = $ENV{SEED} // 20250101;
srand($seed);
my $monday = 946857600;    # 2000-01-03, where periods are counted from
my $pick = sub { $_[ int rand @_ ] };

sub median
{
	my @sorted = sort { $a <=> $b } @_;
	return @sorted % 2 ? $sorted[ $#sorted / 2 ] : ($sorted[ @sorted / 2 - 1 ] + $sorted[ @sorted / 2 ]) / 2;
}

# The slow definition.
sub expected
{
	my ($ledger, $p, $at) = @_;
	my $first = min map { $_->{at} } grep { $_->{status} !~ /quarantined|stopped/ } @{ $ledger->{loads} };
	my $since = $monday + (floor(($at - $monday) / $p->{period}) - 1) * $p->{period};
	my (@learned, $judged, $is_accepted);
	for my $point (0 .. $p->{points})
	{
		my $begin = $since - $point * $p->{season} * $p->{period};
		my $inside = sub { $_[0] >= $begin && $_[0] < $begin + $p->{period} };
		my @loads = grep { $inside->($_->{at}) } @{ $ledger->{loads} };
		my $events = 0;
		$events += $_->{loaded} for grep { $_->{status} !~ /quarantined|stopped/ } @loads;
		my @verdicts = grep { $_->{name} eq 'volume' && $_->{since} == $begin && $_->{until} == $begin + $p->{period} } @{ $ledger->{results} };
		my $accepted = grep { $_->{accepted} } @verdicts;
		if ($point == 0) { ($judged, $is_accepted) = ($events, $accepted); next; }
		next if !defined $first || $begin + $p->{period} <= $first;
		next if grep { $_->{forced} } @loads;
		next if !$accepted && grep { $_->{status} eq 'fail' } @verdicts;
		my ($last) = sort { $b->{at} <=> $a->{at} || $b->{id} <=> $a->{id} } grep { $inside->($_->{at}) } @{ $ledger->{runs} };
		next if $last && $last->{status} =~ /failed|dead/;
		push @learned, $events;
	}
	return join('|', $judged, $judged, 'f', scalar @learned, '', '', '') if @learned < $p->{min_points};
	my $median = median(@learned);
	my $mad = median(map { abs($_ - $median) } @learned);
	my $spread = $p->{sensitivity} * max(1.4826 * $mad, sqrt($median), 0.05 * $median);
	my ($low, $high) = (max(ceil($median - $spread), 0), floor($median + $spread));
	return join '|', $judged, $high, !$is_accepted && ($judged < $low || $judged > $high) ? 't' : 'f', scalar @learned, $low, 0 + $median, 0 + $mad;
}

my ($script, @cases) = ("SET timezone = 'UTC';");
for my $trial (1 .. 60)
{
	my $period = $pick->(3600, 6 * 3600, 86400, 7 * 86400);
	my %p = (period => $period, season => $pick->(1, 2, 7), points => $pick->(1 .. 8), sensitivity => $pick->(0.5, 1, 3, 4));
	$p{min_points} = $pick->(1 .. $p{points});
	my $span = $period * ($p{points} * $p{season} + 3);
	my $start = $monday + $period * int rand 2000;
	my $moment = sub { $start + (rand() < 0.2 ? $period * int(rand $span / $period) : int(rand $span)) };
	my $usual = $pick->(0, 3, 100, 5000);
	my $ledger = {
		loads => [ map { { at => $moment->(), loaded => int($usual * (rand() < 0.1 ? $pick->(0, 5) : 0.8 + rand() * 0.4)), status => $pick->(('loaded') x 12, 'appended', 'quarantined', 'stopped'),
			forced => rand() < 0.02 ? 1 : 0 } } 1 .. $pick->(0, 2, 20, 200) ],
		runs => [ map { { id => $_, at => $moment->(), status => $pick->(('succeeded') x 5, 'failed', 'dead', 'running', 'nothing_new') } } 1 .. $pick->(0, 30) ],
		results => [ map { my $since = $start + $period * int(rand $span / $period);
			{ name => $pick->('volume', 'volume', 'other'), since => $since, until => $since + $period * $pick->(1, 1, 1, 2), status => $pick->('pass', 'fail'), accepted => rand() < 0.3 ? 1 : 0 } } 1 .. $pick->(0, 20) ] };
	$script .= "BEGIN;\n";
	$script .= join '', map { "INSERT INTO ops.loads (path, lines, loaded, rejected, blank, status, forced, loaded_at) VALUES ('x', $_->{loaded}, $_->{loaded}, 0, 0, '$_->{status}', $_->{forced}::boolean, to_timestamp($_->{at}));\n" } @{ $ledger->{loads} };
	$script .= join '', map { "INSERT INTO ops.runs (run_id, status, started_at) VALUES ($_->{id}, '$_->{status}', to_timestamp($_->{at}));\n" } @{ $ledger->{runs} };
	$script .= join '', map { "INSERT INTO ops.quality_results (name, severity, status, observed, allowed, accepted, limits) VALUES ('$_->{name}', 'warn', '$_->{status}', 0, 0, $_->{accepted}::boolean, jsonb_build_object('since', to_timestamp($_->{since}), 'until', to_timestamp($_->{until})));\n" } @{ $ledger->{results} };
	for (1 .. 6)
	{
		my $at = $start + $span - ($pick->(0, 0, 1, 2) * $period) + (rand() < 0.3 ? 0 : int(rand $period));
		push @cases, [ $trial, expected($ledger, \%p, $at) ];
		$script .= "SELECT concat_ws('|', v.observed, v.allowed, v.has_failed, v.limits ->> 'points', coalesce(v.limits ->> 'low', ''), coalesce((v.limits ->> 'median')::float8::text, ''), coalesce((v.limits ->> 'mad')::float8::text, '')) "
			. "FROM dwh._volume('{\"period\": \"$period seconds\", \"season\": $p{season}, \"points\": $p{points}, \"min_points\": $p{min_points}, \"sensitivity\": $p{sensitivity}}', to_timestamp($at), 'volume') AS v;\n";
	}
	$script .= "ROLLBACK;\n";
}
my ($state, $out, $err) = run_sql($node, $db, $script);
is($state, '00000', 'random ledgers') or diag($err);
my @found = split /\n/, $out;
is(scalar @found, scalar @cases, 'a verdict each');
my @differ = grep { $found[$_] ne $cases[$_][1] } 0 .. $#cases;
diag("trial $cases[$_][0]: $found[$_], expected $cases[$_][1]") for grep { defined } @differ[ 0 .. min(9, $#differ) ];
is(scalar @differ, 0, "as the slow definition (seed $seed)");
cmp_ok(scalar(grep { /^\d+\|\d+\|t/ } @found), '>', 20, 'many of them failures');
cmp_ok(scalar(grep { /^\d+\|\d+\|f\|\d+\|\d/ } @found), '>', 20, 'many of them passes that were judged');
cmp_ok(scalar(grep { /\|\|\|$/ } @found), '>', 20, 'and many that could not be judged');

# ---- as a user sees it: five quiet weeks, and a period of yesterday that is twice as much ----
my $sql = sub { $node->safe_psql($db, "SET client_min_messages = error; $_[0]") };
$sql->(q{INSERT INTO ops.loads (path, lines, loaded, rejected, blank, status, loaded_at, staged, facts, checked_at)
	SELECT 'w' || n, 100, 100, 0, 0, 'loaded', date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' - n * interval '7 days' - interval '12 hours', 0, 0, now() FROM generate_series(1, 6) AS n;
	INSERT INTO ops.loads (path, lines, loaded, rejected, blank, status, loaded_at, checked_at)
	SELECT 'twice', 200, 200, 0, 0, 'loaded', date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' - interval '12 hours', now()});
my $verdict = sub { $sql->(q{SELECT status, observed, allowed, limits ->> 'low', limits ->> 'points', limits ->> 'accepted' FROM dwh.run_quality_checks() WHERE name = 'volume'}) };
is($verdict->(), 'fail|200|140|60|6|', 'twice as much fails: 100, give or take four times its root');
is($verdict->(), 'fail|200|140|60|6|', 'and fails again');
is($sql->(q{SELECT count(*) FROM ops.quality_results WHERE name = 'volume'}), '1', 'kept once, as it is the same verdict');
is($sql->(q{SELECT state, severity, body -> 'limits' ->> 'median', failures FROM ops.alerts WHERE dedupe_key = 'check:volume'}), 'first-fail|warn|100|2', 'with an alert');
$sql->(q{UPDATE ops.quality_results SET accepted = true WHERE name = 'volume'});
is($verdict->(), 'pass|200|140|60|6|true', 'accepted: it passes');
is($sql->(q{SELECT state FROM ops.alerts WHERE dedupe_key = 'check:volume' ORDER BY alert_id DESC LIMIT 1}), 'recovered', 'and the alert has recovered');

$node->stop;
done_testing();
