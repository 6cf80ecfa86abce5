# DwhTest: what the tests in this directory share: servers with a warehouse, statements with their SQLSTATE, sessions that
# run beside the test, checksums of what must be the same.
package DwhTest;

use strict;
use warnings;
use Cwd 'abs_path';
use Exporter 'import';
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

our @EXPORT = qw(temp_dir new_server new_warehouse sqlstate run_sql begin_sql end_sql wait_for landing sample write_file append_file
  table_checksum layers_checksum marts_checksum is_conserved is_sound);

# A directory for files, gone afterwards; the server needs its whole path.
sub temp_dir { return abs_path(PostgreSQL::Test::Utils::tempdir()); }

# A started server in UTF-8. fsync stays as PostgreSQL has it where durable is set.
sub new_server
{
	my ($name, %option) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init(extra => [ '-E', 'UTF8', '--locale=C.UTF-8' ], %{ $option{init} // {} });
	$node->append_conf('postgresql.conf', "log_statement = none\nmax_wal_size = '2GB'\ndwh.progress_notices = off\n");
	$node->append_conf('postgresql.conf', "fsync = on\nrestart_after_crash = on\n") if $option{durable};
	$node->append_conf('postgresql.conf', $option{conf}) if $option{conf};
	$node->start;
	return $node;
}

# A database with extension and warehouse.
sub new_warehouse
{
	my ($node, $db) = @_;
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, 'CREATE EXTENSION dwh_ext; SELECT dwh.create_warehouse()');
	return $db;
}

# Runs statements; returns SQLSTATE of the first error ('00000' without one), what they printed, and all messages.
sub run_sql
{
	my ($node, $db, $sql, %option) = @_;
	my @user = $option{user} ? ('-U', $option{user}) : ();
	my ($out, $err) = ('', '');
	IPC::Run::run([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-v', 'VERBOSITY=verbose', @user, '-d', $node->connstr($db), '-f', '-' ],
		'<', \$sql, '>', \$out, '2>', \$err);
	chomp $out;
	my ($state) = $err =~ /^(?:psql:[^ ]* )?(?:ERROR|FATAL):  (\w{5}):/m;
	$state //= '-----' if $err =~ /^psql: error|server closed the connection/m;
	return wantarray ? ($state // '00000', $out, $err) : $state // '00000';
}

# The SQLSTATE with which statements end, as a test.
sub sqlstate
{
	my ($node, $db, $sql, $expected, $name, %option) = @_;
	my ($state, $out, $err) = run_sql($node, $db, $sql, %option);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($state, $expected, $name) or diag($out, $err);
	return ($out, $err);
}

# Starts statements in a session of their own and comes back at once; psql leaves the backend's pid in a file.
sub begin_sql
{
	my ($node, $db, $sql, %option) = @_;
	my $dir = temp_dir();
	my $session = { node => $node, pid_file => "$dir/pid", out => '', err => '' };
	# from a file, so that psql ends with the last statement
	$session->{script} = write_file("$dir/script.sql", "\\o $dir/pid\nSELECT pg_backend_pid();\n\\o\n$sql;\n");
	my @user = $option{user} ? ('-U', $option{user}) : ();
	$session->{run} = IPC::Run::start(
		[ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-v', 'VERBOSITY=verbose', @user, '-d', $node->connstr($db), '-f', $session->{script} ],
		'<', \undef, '>', \$session->{out}, '2>', \$session->{err},
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return $session;
}

# Waits for the end of such a session; returns as run_sql does.
sub end_sql
{
	my ($session) = @_;
	eval { $session->{run}->finish; 1 } or $session->{run}->kill_kill;
	chomp $session->{out};
	my ($state) = $session->{err} =~ /(?:ERROR|FATAL):  (\w{5}):/;
	$state //= '-----' if $session->{err} =~ /server closed the connection|psql: error/;
	return ($state // '00000', $session->{out}, $session->{err});
}

# Waits until a condition about the session's row of pg_stat_activity is true; returns its pid.
sub wait_for
{
	my ($session, $condition) = @_;
	my $node = $session->{node};
	my $end = time + $PostgreSQL::Test::Utils::timeout_default;
	while (time < $end)
	{
		my $pid = -s $session->{pid_file} ? slurp_file($session->{pid_file}) + 0 : 0;
		return $pid if $pid && $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE pid = $pid AND $condition") ne '';
		last unless $session->{run}->pumpable;
		$session->{run}->pump_nb;
		sleep 0.01;
	}
	return;
}

# The landing directory of a database.
sub landing
{
	my ($node, $db) = @_;
	return $node->data_dir . '/dwh_landing/' . $node->safe_psql($db, 'SELECT oid FROM pg_database WHERE datname = current_database()');
}

# Lines of a generated log.
sub sample
{
	my ($node, $db, $arguments) = @_;
	return $node->safe_psql($db, "SELECT dwh.sample_events($arguments)") . "\n";
}

sub write_file
{
	my ($path, $content, $mode) = @_;
	open my $file, $mode // '>', $path or die "$path: $!";
	print $file $content;
	close $file or die "$path: $!";
	return $path;
}

sub append_file { return write_file(@_[ 0, 1 ], '>>'); }

# One line a table of these schemas: its name, rows and a digest of them.
sub table_checksum
{
	my ($node, $db, @schemas) = @_;
	my $list = join ', ', map { "'$_'" } @schemas;
	my $tables = $node->safe_psql($db, qq{
		SELECT format('SELECT %L, count(*), md5(string_agg(t::text, E''\\n'' ORDER BY t::text COLLATE "C")) FROM ONLY %s AS t',
		              c.oid::regclass::text, c.oid::regclass)
		  FROM pg_class AS c WHERE c.relkind = 'r' AND c.relnamespace::regnamespace::text IN ($list)
		 ORDER BY c.relnamespace::regnamespace::text, c.relname});
	return $node->safe_psql($db, "SET datestyle = 'ISO'; SET timezone = 'UTC'; " . join(' UNION ALL ', split /\n/, $tables) . ' ORDER BY 1');
}

sub layers_checksum { return table_checksum(@_, qw(raw staging marts)); }

# What the marts say, keys compared by what they stand for: the same for any way that leads to the same events.
sub marts_checksum
{
	my ($node, $db) = @_;
	return $node->safe_psql($db, q{
		SET timezone = 'UTC';
		SELECT 'facts', count(*), md5(string_agg(concat_ws('|', f.event_id, f.event_time, f.event_type, f.session_id, d.user_id,
		       d.valid_from, p.product_id, f.quantity, trim_scale(f.price), trim_scale(f.revenue), f.attributes), E'\n' ORDER BY f.event_id))
		  FROM marts.fact_user_events AS f JOIN marts.dim_user AS d USING (user_key) JOIN marts.dim_product AS p USING (product_key)
		 UNION ALL
		SELECT 'users', count(*), md5(string_agg(concat_ws('|', d.user_id, coalesce(d.device, '-'), coalesce(d.country, '-'), d.valid_from,
		       d.valid_to, d.is_current), E'\n' ORDER BY d.user_id, d.valid_from))
		  FROM marts.dim_user AS d
		 UNION ALL
		SELECT 'products', count(*), md5(string_agg(concat_ws('|', p.product_id, coalesce(p.category, '-'), coalesce(p.brand, '-'),
		       trim_scale(p.price), p.is_inferred), E'\n' ORDER BY p.product_id))
		  FROM marts.dim_product AS p
		 UNION ALL
		SELECT 'prices', count(*), md5(string_agg(concat_ws('|', p.product_id, trim_scale(h.price), h.valid_from, h.valid_to, h.is_current),
		       E'\n' ORDER BY p.product_id, h.valid_from))
		  FROM marts.dim_product_price AS h JOIN marts.dim_product AS p USING (product_key)
		 ORDER BY 1});
}

# Cheaper than is_sound: every load has the rows that the ledger says, in each table, and no row is of no load.
sub is_conserved
{
	my ($node, $db, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($state, $out, $err) = run_sql($node, $db, q{
		SELECT format('load %s: ledger %s, tables %s', load_id, l.said, t.held)
		  FROM (SELECT load_id, (loaded, rejected + stage_rejected, staged, facts) AS said FROM ops.loads
		         WHERE status NOT IN ('stopped', 'quarantined')) AS l
		  FULL JOIN (SELECT load_id, (count(*) FILTER (WHERE layer = 1), count(*) FILTER (WHERE layer = 2), count(*) FILTER (WHERE layer = 3),
		                              count(*) FILTER (WHERE layer = 4)) AS held
		               FROM (SELECT load_id, 1 AS layer FROM raw.user_events UNION ALL SELECT load_id, 2 FROM ops.rejects UNION ALL
		                     SELECT load_id, 3 FROM staging.user_events UNION ALL SELECT load_id, 4 FROM marts.fact_user_events) AS r
		              WHERE load_id NOT IN (SELECT q.load_id FROM ops.loads AS q WHERE q.status IN ('stopped', 'quarantined'))
		              GROUP BY load_id) AS t USING (load_id)
		 WHERE l.said IS DISTINCT FROM t.held;
		SELECT format('load %s is not conserved', load_id) FROM ops.loads
		 WHERE status NOT IN ('stopped', 'quarantined') AND (lines <> loaded + rejected + blank OR
		       facts_at IS NOT NULL AND (loaded <> staged + replayed + conflicting + stage_rejected + forgotten OR staged <> facts))});
	return is("$state $out", '00000 ', $name) || diag($err);
}

# Every check passes on everything, and the tables hold what the ledger says, also for loads that no check covers.
sub is_sound
{
	my ($node, $db, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($state, $out, $err) = run_sql($node, $db, q{
		SELECT 'failed: ' || name FROM dwh.run_quality_checks("full" => true) WHERE status = 'fail' AND severity = 'error';
		SELECT format('load %s: %s rows of %s', l.load_id, count(r.*), l.loaded)
		  FROM ops.loads AS l FULL JOIN raw.user_events AS r USING (load_id) WHERE l.status IS NULL OR l.status NOT IN ('stopped', 'quarantined')
		 GROUP BY l.load_id, l.loaded HAVING count(r.*) IS DISTINCT FROM l.loaded;
		SELECT 'version: ' || v::text FROM ((SELECT * FROM dwh.user_versions() EXCEPT ALL
		       SELECT user_id, device, country, valid_from, valid_to FROM marts.dim_user) UNION ALL
		       (SELECT user_id, device, country, valid_from, valid_to FROM marts.dim_user EXCEPT ALL SELECT * FROM dwh.user_versions())) AS v
		 WHERE NOT EXISTS (SELECT FROM ops.loads AS l WHERE l.staged_at IS NOT NULL AND l.users_at IS NULL)});
	return is("$state $out", '00000 ', $name) || diag($err);
}

1;
