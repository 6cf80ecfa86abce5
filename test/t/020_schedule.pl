# A schedule of pg_cron, for real: three databases at the same minute, one with a good file, one with a poisoned one, one whose
# pipeline is at work. Then all of it mended, at the next minute, with jobs that come in through a connection.
use strict;
use warnings;
use lib 'test/t';
use DwhTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('schedule');
unless ($node->safe_psql('postgres', q{SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_cron'}))
{
	$node->stop;
	plan skip_all => 'pg_cron is not installed';
}
my $dir = temp_dir();
$node->safe_psql('postgres', 'CREATE ROLE owner LOGIN; CREATE ROLE scheduler LOGIN');
my $warehouse = sub { my ($db) = @_;
	$node->safe_psql('postgres', "CREATE DATABASE $db OWNER owner");
	$node->safe_psql($db, 'CREATE EXTENSION dwh_ext; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA dwh TO owner WITH GRANT OPTION');
	sqlstate($node, $db, q{SELECT dwh.create_warehouse(); SELECT dwh.grant_roles(operator => 'scheduler')}, '00000', "a warehouse in $db", user => 'owner') };
$warehouse->($_) for qw(dwh poisoned busy);
my $schedule = 'SELECT job, status, schedule, command FROM dwh.schedule_pipeline';
my @op = (user => 'scheduler');

# ---- what is missing is said, each time the next thing ----
my $refused = sub { my ($db, $found, $way, $name, %option) = @_;
	my ($out, $err) = sqlstate($node, $db, "$schedule()", '55000', $name, %option);
	like($err, qr/DETAIL: .*$found/, "$name: what was found");
	like($err, qr/HINT: .*$way/s, "$name: what to do") };
$refused->('dwh', 'not in shared_preload_libraries', q{shared_preload_libraries = 'pg_cron', cron\.database_name = 'dwh'.*CREATE EXTENSION pg_cron}, 'not loaded');
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'pg_cron'\ncron.database_name = 'dwh'\ncron.use_background_workers = on\nmax_worker_processes = 24\ncron.host = '" . $node->host . "'\n");
$node->restart;
$refused->('dwh', 'where the extension is missing', q{CREATE EXTENSION pg_cron; GRANT USAGE ON SCHEMA cron TO }, 'no extension');
$refused->('dwh', 'is hidden from role "scheduler"', q{CREATE EXTENSION pg_cron; GRANT USAGE ON SCHEMA cron TO scheduler}, 'no extension, for a role that sees no settings', @op);
$refused->('busy', 'from database "dwh"', q{SELECT cron\.schedule_in_database\('dwh_run_pipeline_busy', '[^']*', 'SELECT \* FROM dwh\.run_pipeline\(NULL, skip_if_running => true\)', 'busy'}, 'another database');
$node->safe_psql('dwh', 'CREATE EXTENSION pg_cron');
my (undef, $err) = sqlstate($node, 'dwh', "$schedule()", '42501', 'no rights in schema cron', @op);
like($err, qr/HINT: .*GRANT USAGE ON SCHEMA cron TO scheduler/, 'and who grants them');
$node->safe_psql('dwh', 'GRANT USAGE ON SCHEMA cron TO scheduler');
sqlstate($node, 'dwh', q{SELECT * FROM dwh.schedule_pipeline('every now and then')}, '22023', 'no schedule of pg_cron', @op);
is($node->safe_psql('dwh', 'SELECT count(*) FROM cron.job'), '0', 'leaves no job');
sqlstate($node, 'dwh', 'BEGIN READ ONLY; SELECT dwh.schedule_pipeline()', '25006', 'nor does a read-only transaction', @op);

# ---- jobs ----
my $says = sub { my ($sql, $expected, $name) = @_; my ($out) = sqlstate($node, 'dwh', $sql, '00000', $name, @op); is($out, $expected, "$name: says so") };
my $run = 'SELECT * FROM dwh.run_pipeline(NULL, skip_if_running => true)';
my $prune = q{dwh_prune_history|%s|17 3 * * *|SELECT * FROM dwh.prune_history('90 days')};
$says->("$schedule()", "dwh_run_pipeline|scheduled|*/15 * * * *|$run\n" . sprintf($prune, 'scheduled'), 'a schedule');
$says->("SET intervalstyle = 'iso_8601'; $schedule()", "dwh_run_pipeline|unchanged|*/15 * * * *|$run\n" . sprintf($prune, 'unchanged'), 'the same again');
$says->(qq{$schedule('0 * * * *', E'it\\'s a \\\\ path', NULL)}, qq{dwh_run_pipeline|changed|0 * * * *|SELECT * FROM dwh.run_pipeline(E'it''s a \\\\ path', skip_if_running => true)\n} . sprintf($prune, 'unscheduled'), 'another one');
$node->safe_psql('dwh', q{UPDATE cron.job SET active = false});
$says->("$schedule('0 * * * *')", "dwh_run_pipeline|changed|0 * * * *|$run\n" . sprintf($prune, 'scheduled'), 'one that was switched off');
is($node->safe_psql('dwh', q{SELECT string_agg(format('%s %s %s %s', jobname, username, database, active), ', ' ORDER BY jobname) FROM cron.job}),
	'dwh_prune_history scheduler dwh t, dwh_run_pipeline scheduler dwh t', 'jobs of who called');
$says->('SELECT job, status FROM dwh.unschedule_pipeline()', "dwh_run_pipeline|unscheduled\ndwh_prune_history|unscheduled", 'none');
$says->('SELECT job, status FROM dwh.unschedule_pipeline()', "dwh_run_pipeline|not_scheduled\ndwh_prune_history|not_scheduled", 'none again');
is($node->safe_psql('dwh', 'SELECT count(*) FROM cron.job'), '0', 'no job is left');
$node->safe_psql('dwh', qq{SELECT cron.schedule_in_database('dwh_run_pipeline', '0 0 1 1 *', '$run', 'busy', 'scheduler')});
sqlstate($node, 'dwh', "$schedule()", '42710', 'a job of that name for another database is left alone', @op);
$node->safe_psql('dwh', 'SELECT cron.unschedule(jobid) FROM cron.job');

# ---- the clock ticks ----
my $file = sub { my ($db, $name, $content) = @_; $node->safe_psql($db, 'SELECT dwh.landing_directory()'); return write_file(landing($node, $db) . "/$name", $content) };
my $log = sub { my ($db, $arguments, $name) = @_; $file->($db, $name, sample($node, $db, $arguments)) };
$log->('dwh', 'events => 300', 'good.jsonl');
$log->('poisoned', 'events => 300', 'good.jsonl');
$file->('poisoned', 'bad.jsonl', "poison\n" x 20);
$log->('busy', 'events => 300', 'good.jsonl');
sqlstate($node, 'busy', 'SELECT * FROM dwh.run_pipeline()', '00000', 'a run before', @op);
my $facts = sub { $node->safe_psql($_[0], 'SELECT count(*) FROM marts.fact_user_events') };
$log->('busy', 'events => 100, seed => 2', 'more.jsonl');
# the pipeline of one database is at work for the whole first minute
my $holder = begin_sql($node, 'busy', 'BEGIN; SELECT dwh.stage_events(); SELECT pg_sleep(600)');
wait_for($holder, q{query LIKE '%pg_sleep%' AND wait_event = 'PgSleep'});
# what pg_cron says of the next run in each database, once it has ended
my $ended = sub { my ($after) = @_;
	my $runs = "FROM cron.job_run_details WHERE runid > $after AND status IN ('succeeded', 'failed') AND command ~ 'run_pipeline'";
	$node->poll_query_until('dwh', "SELECT count(DISTINCT database) $runs", '3') or die 'no job ran';
	return $node->safe_psql('dwh', "SELECT DISTINCT ON (database) database, status, regexp_replace(return_message, E'\\n.*', '') $runs ORDER BY database, runid") };
$node->safe_psql('dwh', qq{BEGIN; SET LOCAL ROLE scheduler; SELECT dwh.schedule_pipeline('* * * * *'); RESET ROLE;
	UPDATE cron.job SET schedule = '* * * * *' WHERE jobname = 'dwh_prune_history';
	SELECT cron.schedule_in_database('dwh_run_pipeline_' || d, '* * * * *', '$run', d, 'scheduler') FROM unnest(ARRAY['poisoned', 'busy']) AS d; COMMIT});
my $first = $ended->(0);
like($first, qr/^busy\|succeeded\|.*\b1\b.*\ndwh\|succeeded\|.*\b6\b.*\npoisoned\|failed\|.*quality checks failed: reject_share$/, 'each database has its outcome') or diag($first);
ok($node->poll_query_until('dwh', q{SELECT count(*) > 0 FROM cron.job_run_details WHERE command ~ 'prune_history' AND status = 'succeeded'}), 'the other job prunes');
is($facts->('dwh'), '300', 'the good file is in the marts');
is($facts->('busy'), '300', 'a run that another one holds up was skipped');
is($node->safe_psql('busy', 'SELECT count(*) FROM ops.runs'), '1', 'without a trace in the ledger');
is($facts->('poisoned'), '0', 'the poisoned file left the marts as they were');
is($node->safe_psql('poisoned', q{SELECT r.status, r.sqlstate, l.status, (SELECT count(*) FROM ops.rejects), (SELECT count(*) FROM ops.alerts AS a WHERE a.dedupe_key = 'check:reject_share')
	FROM ops.runs AS r, ops.loads AS l}), 'failed|WH001|quarantined|20|1', 'with its evidence');

# ---- and again: mended, and through connections ----
$node->safe_psql('dwh', 'UPDATE cron.job SET active = false');   # a job would read files while they are written
$node->safe_psql('busy', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'});
end_sql($holder);
$log->('dwh', 'events => 100, seed => 2', 'more.jsonl');
$log->('poisoned', 'events => 100, seed => 2', 'bad.jsonl');
$node->append_conf('postgresql.conf', 'cron.use_background_workers = off');
$node->restart;
(undef, $err) = sqlstate($node, 'dwh', q{SELECT dwh.schedule_pipeline('0 0 1 1 *'); SELECT dwh.unschedule_pipeline()}, '00000', 'a schedule, by who sees settings');
like($err, qr/NOTICE:.*pg_cron runs its jobs through connections.*HINT: .*pg_hba\.conf/s, 'what jobs through connections need is said');
my $before = $node->safe_psql('dwh', 'SELECT max(runid) FROM cron.job_run_details');
$node->safe_psql('dwh', 'UPDATE cron.job SET active = true');
my $second = $ended->($before);
like($second, qr/^busy\|succeeded\|.*\ndwh\|succeeded\|.*\npoisoned\|succeeded\|.*$/, 'the next ones all succeed') or diag($second);
is($facts->($_), '400', "$_ has all its events") for qw(dwh busy poisoned);
is_sound($node, 'dwh', 'every check passes');

# ---- the ledger of pg_cron is pruned with those of the runs ----
$node->safe_psql('dwh', 'SELECT cron.unschedule(jobid) FROM cron.job');
$node->safe_psql('dwh', q{UPDATE cron.job_run_details SET start_time = start_time - interval '100 days', end_time = end_time - interval '100 days' WHERE runid <= 3});
$node->safe_psql('dwh', q{INSERT INTO cron.job_run_details (jobid, runid, database, username, command, status, start_time, end_time)
	VALUES (99, 1000, 'dwh', 'scheduler', 'SELECT 1', 'succeeded', now() - interval '1 year', now() - interval '1 year'),
	       (98, 1001, 'dwh', 'owner', 'SELECT * FROM dwh.run_pipeline()', 'succeeded', now() - interval '1 year', now() - interval '1 year')});
$says->('SELECT status, job_runs FROM dwh.prune_history()', 'done|1', 'prune_history() as the operator');
is($node->safe_psql('dwh', q{SELECT string_agg(concat_ws(' ', database, username, left(command, 8)), ', ' ORDER BY database, username) FROM cron.job_run_details WHERE start_time < now() - interval '90 days'}),
	'busy scheduler SELECT *, dwh owner SELECT *, dwh scheduler SELECT 1, poisoned scheduler SELECT *', 'only what is old, of this database, a job of dwh, and the caller\'s');
$says->('SELECT status, job_runs FROM dwh.prune_history()', 'nothing_new|0', 'once');

$node->stop;
done_testing();
