# What a batch costs does not depend on how much is there already: rows read and buffers touched by one run, counted, on a
# history of one month and on one of ten, with the same users at the same rate. Times would say the same less surely.
use strict;
use warnings;
use lib 'test/t';
use DwhTest;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $scale = ($ENV{SCALE} // '') eq 'small' ? 1 : 8;
my ($month, $batch, $users) = (10000 * $scale, 5000 * $scale, 500 * $scale);
my $late = $batch / 100;
my $allowed_growth = 1.2;
my $allowed_buffers = 1.3;    # the checks read all versions of users while they are few beside a batch (dwh._evaluate_checks): up to 1.24 was seen
my %months = (short => 1, long => 10);

# Workers would keep counts of their own; autovacuum would analyze at any time, and here it is a case of its own.
my $node = new_server('growth', conf => "shared_buffers = '256MB'\nautovacuum = off\nmax_parallel_workers_per_gather = 0\n");
my $dir = temp_dir();

# Months of 30 days, the last of which ends with the 15th of January, with rejects and conflicts for their tables to grow.
sub add_month
{
	my ($db, $back) = @_;
	my $path = "$dir/month_$back.jsonl";
	$node->safe_psql($db, "SELECT dwh.generate_events('$path', events => $month, users => $users, products => 200, days => 30,
		start_at => timestamptz '2025-01-16Z' - $back * interval '30 days', seed => $back,
		dirty_rate => 0.02, dirty_kinds => '{truncated_json,no_time_zone,replay,conflict}')") unless -e $path;
	$node->safe_psql($db, "SET client_min_messages = error; SELECT dwh.run_pipeline('$path')");
	return;
}

for my $size (sort keys %months)
{
	new_warehouse($node, $size);
	add_month($size, $_) for reverse 1 .. $months{$size};
	$node->safe_psql('postgres', "CREATE DATABASE ${size}_analyzed TEMPLATE $size");
	$node->safe_psql("${size}_analyzed", 'VACUUM ANALYZE');
}

# The same new events for both, one in a hundred of them from the last month of the history.
sub new_batch
{
	my ($start_at, $seed) = @_;
	return sample($node, 'short', "events => $batch - $late, users => $users, products => 200, days => 10, start_at => '$start_at', seed => $seed")
	  . sample($node, 'short', "events => $late, users => $users, products => 200, days => 25, start_at => '2024-12-17Z', seed => $seed + 1");
}

my $new_month = new_batch('2025-02-01Z', 101);
my %batch = (
	'in a new month' => write_file("$dir/new_month.jsonl", $new_month),
	'in a month that has events' => write_file("$dir/same_month.jsonl", new_batch('2025-01-16Z', 103)),
	'in thirty files' => "$dir/part_*.jsonl");
my @lines = split /^/, $new_month;
write_file(sprintf("$dir/part_%02d.jsonl", $_), join('', splice(@lines, 0, @lines / (31 - $_)))) for 1 .. 30;

# One run in a transaction of its own: shared buffers, and the rows read of each table that grows with the history.
sub count_run
{
	my ($template, $path) = @_;
	my $db = 'measured';
	$node->safe_psql('postgres', "DROP DATABASE IF EXISTS $db; CREATE DATABASE $db TEMPLATE $template");
	my ($plan, @rows) = split /^-- rows\n/m, $node->safe_psql($db, qq{
		BEGIN;
		EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) SELECT * FROM dwh.run_pipeline('$path');
		CREATE TEMPORARY TABLE counted ON COMMIT DROP AS
		SELECT t.relid, t.seq_scan, t.seq_tup_read, coalesce(t.idx_tup_fetch, 0) AS idx_tup_fetch FROM pg_stat_xact_user_tables AS t
		 WHERE t.schemaname IN ('raw', 'staging') OR t.schemaname = 'marts' AND t.relname LIKE 'fact%'
		    OR t.relid IN ('ops.event_conflicts'::regclass, 'ops.rejects'::regclass, 'marts.dim_user'::regclass);
		CREATE TEMPORARY TABLE new_load ON COMMIT DROP AS
		SELECT l.load_id FROM ops.loads AS l WHERE l.run_id = (SELECT max(r.run_id) FROM ops.runs AS r);
		SELECT '-- rows';
		SELECT c.relid::regclass, c.seq_scan, c.seq_tup_read, c.idx_tup_fetch, e.tableoid IS NOT NULL
		  FROM counted AS c
		  LEFT JOIN (SELECT r.tableoid FROM raw.user_events AS r JOIN new_load USING (load_id) UNION
		             SELECT s.tableoid FROM staging.user_events AS s JOIN new_load USING (load_id) UNION
		             SELECT f.tableoid FROM marts.fact_user_events AS f JOIN new_load USING (load_id)) AS e ON e.tableoid = c.relid
		 WHERE c.seq_scan + c.idx_tup_fetch > 0 ORDER BY 1;
		COMMIT});
	my $top = decode_json($plan)->[0]{Plan};
	my %run = (buffers => $top->{'Shared Hit Blocks'} + $top->{'Shared Read Blocks'}, tables => [], fetched => {}, versions => 0);
	for (split /\n/, $rows[0] // '')
	{
		my ($table, $scans, $scanned, $fetched, $has_events) = split /\|/;
		if ($table eq 'marts.dim_user') { $run{versions} = $scanned + $fetched; next; }
		push @{ $run{tables} }, { name => $table, scans => $scans, scanned => $scanned, fetched => $fetched, has_events => $has_events eq 't' };
		my ($layer) = $table =~ /^(\w+)\./;
		$run{fetched}{$layer} += $scanned + $fetched;
	}
	is($node->safe_psql($db, "SELECT sum(facts) FROM ops.loads WHERE run_id = (SELECT max(run_id) FROM ops.runs)"), $batch, 'the batch arrived');
	return \%run;
}

for my $name (sort keys %batch)
{
	for my $statistics ('', '_analyzed')
	{
		next if $name eq 'in thirty files' && $statistics;    # many loads mislead the planner where it knows nothing
		my $case = $name . ($statistics ? ', analyzed' : ', never analyzed');
		my %run = map { $_ => count_run("$_$statistics", $batch{$name}) } keys %months;

		# A table that holds events of the batch may be read from end to end while it is no larger than the batch.
		for my $size (sort keys %months)
		{
			my @too_many;
			for my $table (@{ $run{$size}{tables} })
			{
				my $allowed = $table->{has_events} ? $batch * $table->{scans} : 0;
				push @too_many, "$table->{name}: $table->{scanned} rows read by $table->{scans} sequential scans, allowed $allowed"
					if $table->{scanned} > $allowed;
			}
			is(join("\n", @too_many), '', "$case, $size history: no table is scanned");
		}
		for my $layer (qw(raw staging marts))
		{
			my ($short, $long) = map { $run{$_}{fetched}{$layer} // 0 } qw(short long);
			cmp_ok($long, '<=', int($short * $allowed_growth), "$case: rows read of $layer at ten times the history, at one time $short");
		}
		my ($short, $long) = map { $run{$_}{buffers} } qw(short long);
		cmp_ok($long, '<=', int($short * $allowed_buffers), "$case: buffers at ten times the history, at one time $short");
		note sprintf('%s: %.1f buffers an event, %.2f of them at ten times the history; versions read %d and %d',
			$case, $short / $batch, $long / $short, map { $run{$_}{versions} } qw(short long));
	}
}

is($node->safe_psql('measured', q{SET client_min_messages = error; SELECT count(*) FROM dwh.run_quality_checks("full" => true) WHERE status = 'fail' AND severity = 'error'}), '0', 'and all of it is right');

$node->stop;
done_testing();
