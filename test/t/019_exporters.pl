# Two exporters for Prometheus, as Debian packs them, with the configurations of docker/exporters: every series of
# dwh.metrics() comes out of both, under its name, with its labels and its value; for a role that may see the ledgers alone.
use strict;
use warnings;
use lib 'test/t';
use DwhTest;
use HTTP::Tiny;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

# Programs: unpacked by make test, or installed.
my %program;
for my $name (qw(prometheus-sql-exporter prometheus-postgres-exporter))
{
	($program{$name}) = grep { -x } map { "$_/$name" } grep { defined } $ENV{EXPORTERS}, split /:/, $ENV{PATH};
	next if $program{$name};
  SKIP: { skip "there is no $name here (Debian 12 and 13 have it as a package)", 1; }
	done_testing();
	exit 0;
}

my $node = new_server('exporters', conf => "autovacuum = off\n");
my $db = new_warehouse($node, 'dwh');
my $dir = temp_dir();
my $file = sub { write_file("$dir/$_[0].jsonl", sample($node, $db, $_[1])) };
$file->('first', 'events => 500, users => 50, dirty_rate => 0.05');
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$dir/first.jsonl')", '00000', 'a run');
write_file("$dir/poisoned.jsonl", "poison\n" x 20);
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$dir/poisoned.jsonl')", 'WH001', 'a run that fails');
$file->('second', 'events => 100, users => 10, seed => 2');
sqlstate($node, $db, "SELECT * FROM dwh.load_jsonl('$dir/second.jsonl'); UPDATE ops.run_steps SET wal_bytes = 4711 * step_no", '00000', 'a load that waits');

# ---- the role: columns of the ledgers without messages, offenders and rows ----
$node->safe_psql($db, q{CREATE ROLE watcher LOGIN; GRANT USAGE ON SCHEMA ops TO watcher; GRANT SELECT ON ops.loads, ops.warehouse, ops.quality_checks TO watcher;
	GRANT SELECT (run_id, status, started_at, finished_at, pid, username, sqlstate, caller_run_id, trace_id) ON ops.runs TO watcher;
	GRANT SELECT (run_id, step_no, step, status, rows_in, rows_out, rejected, elapsed, wal_bytes, sqlstate) ON ops.run_steps TO watcher;
	GRANT SELECT (result_id, run_id, load_ids, name, severity, status, observed, allowed, checked_at, limits, accepted) ON ops.quality_results TO watcher;
	GRANT SELECT (alert_id, run_id, severity, created_at, dedupe_key, state, failures, last_failed_at, attempts, next_at, delivered_at, delivered_to) ON ops.alerts TO watcher});
for my $call ('SELECT item, state FROM dwh.status()', 'SELECT * FROM dwh.explain_pipeline()',
	q{SELECT name, labels, value FROM dwh.metrics() WHERE name !~ '(age|freshness|alert)_seconds$'}, 'SELECT * FROM dwh.help()')
{
	my ($out) = sqlstate($node, $db, $call, '00000', "the watcher may: $call", user => 'watcher');
	is($out, $node->safe_psql($db, $call), 'and sees what the owner sees');
}
sqlstate($node, $db, $_, '42501', "but not: $_", user => 'watcher')
  for 'SELECT offenders FROM ops.quality_results', 'SELECT * FROM ops.rejects', q{SELECT * FROM dwh.trace('00000000-0000-0000-0000-000000000000')};

# ---- nobody is waited for: a run holds its lock, and partitions are being dropped ----
my $session = begin_sql($node, $db, q{BEGIN; SELECT FROM ops.warehouse FOR UPDATE; DROP TABLE marts.fact_user_events_2025_01; SELECT pg_sleep(600)});
my $pid = wait_for($session, q{query LIKE '%pg_sleep%' AND wait_event = 'PgSleep'});
ok($pid, 'a session holds the locks');
sqlstate($node, $db, q{SET lock_timeout = '10s'; SELECT * FROM dwh.status(); SELECT * FROM dwh.metrics(); SELECT * FROM dwh.explain_pipeline()}, '00000',
	'status, metrics and explain_pipeline do not wait', user => 'watcher');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid, 10000)");
end_sql($session);

# ---- the exporters ----
sub config
{
	my ($name) = @_;
	my $text = slurp_file("docker/exporters/$name");
	$text =~ s/interval: '60s'/interval: '1s'/;
	my $host = $node->host;
	my $port = $node->port;
	$text =~ s{postgres://dwh\@localhost:5432/dwh\?sslmode=disable'}{postgres:///$db?host=$host&port=$port&user=watcher&sslmode=disable'};
	return write_file("$dir/$name", $text);
}

sub start
{
	my ($name, @arguments) = @_;
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	s/PORT/$port/ for @arguments;
	my $log = '';
	my $run = IPC::Run::start([ $program{$name}, @arguments ], '<', \undef, '>&', \$log);
	return { name => $name, run => $run, url => "http://127.0.0.1:$port/metrics", log => \$log };
}

# What an exporter says: series as "name{labels} " => value, without the labels that it adds; and the types of the names.
sub scrape
{
	my ($exporter) = @_;
	$exporter->{run}->pump_nb;
	my $answer = HTTP::Tiny->new(timeout => 30)->get($exporter->{url});
	my (%series, %type);
	for (split /\n/, $answer->{success} ? $answer->{content} : '')
	{
		$type{$2} = $3 if /^# TYPE (sql_)?(dwh_\w+) (\w+)$/;
		my ($name, $labels, $value) = /^(?:sql_)?(dwh_\w+?)(?:\{(.*)\})? (\S+)$/ or next;
		my %label;
		$label{$1} = $2 while ($labels // '') =~ /(\w+)="([^"]*)"/g;
		delete @label{qw(col database driver host sql_job user server)};
		$series{ $name . '{' . join(',', map { qq($_="$label{$_}") } sort keys %label) . '}' } = $value;
	}
	return (\%series, \%type);
}

# The same of dwh.metrics().
sub metrics
{
	my %series;
	for (split /\n/, $node->safe_psql($db, q{SELECT format('%s{%s} %s', m.name, (SELECT string_agg(format('%s="%s"', l.key, l.value), ',' ORDER BY l.key COLLATE "C")
		FROM jsonb_each_text(m.labels) AS l), m.value) FROM dwh.metrics() AS m}))
	{
		my ($series, $value) = /^(.*) (\S+)$/;
		$series{$series} = $value;
	}
	return \%series;
}

my @exporters = (
	start('prometheus-sql-exporter', '-config.file', config('sql_exporter.yml'), '-web.listen-address', '127.0.0.1:PORT'),
	do {
		local $ENV{DATA_SOURCE_NAME} = sprintf 'user=watcher dbname=%s host=%s port=%s sslmode=disable', $db, $node->host, $node->port;
		start('prometheus-postgres-exporter', '--extend.query-path', config('postgres_exporter.yml'), '--disable-default-metrics', '--web.listen-address=127.0.0.1:PORT');
	});

# Waits until it says what is the case: it may listen before it is connected, and one of them asks in intervals. Ages rise meanwhile.
sub compare
{
	my ($when) = @_;
	for my $exporter (@exporters)
	{
		my $before = metrics();
		my $end = time + $PostgreSQL::Test::Utils::timeout_default;
		my ($series, $type, @others);
		do
		{
			sleep 0.1 if $series;
			($series, $type) = scrape($exporter);
			my $after = metrics();
			my %all = (%$before, %$series);
			@others = grep { !exists $before->{$_} || !exists $series->{$_} || !exists $after->{$_}
				|| $series->{$_} < $before->{$_} - 1e-6 || $series->{$_} > $after->{$_} + 1e-6 } sort keys %all;
		} while (@others && time < $end);
		is(join("\n", map { "$_: " . ($series->{$_} // 'none') . ' for ' . ($before->{$_} // 'none') } @others), '',
			"$when: $exporter->{name} has every series with its value, and no other") or diag(substr(${ $exporter->{log} }, -2000));
		next unless $exporter->{name} =~ /postgres/;
		my %known = map { split /\|/ } split /\n/, $node->safe_psql($db, 'SELECT DISTINCT name, type FROM dwh.metrics()');
		is_deeply($type, \%known, 'and its type');
	}
}

compare('a load waits');
my %named = map { $_ => 1 } slurp_file('docker/exporters/sql_exporter.yml') =~ /- name: (dwh_\w+)/g;
is(join(' ', sort keys %named), $node->safe_psql($db, q{SELECT string_agg(DISTINCT name, ' ' ORDER BY name) FROM dwh.metrics()}), 'no family is without data in this test');
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$dir/second.jsonl')", '00000', 'a run takes it up');
compare('after the run');

$_->{run}->kill_kill for @exporters;
$node->stop;
done_testing();
