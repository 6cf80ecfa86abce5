# pg_dump and pg_restore keep everything, and the next load goes on where it was; DROP EXTENSION and CREATE EXTENSION as well.
use strict;
use warnings;
use lib 'test/t';
use DwhTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('dump');
my $db = new_warehouse($node, 'dwh');
my $dir = temp_dir();
my $status = sub { my ($base, $path) = @_; $node->safe_psql($base, "SELECT status, loaded FROM dwh.load_jsonl('$path')") };

# A warehouse with everything in it: rejects of both steps, conflicts, replays, late events, a failed run, a quarantined
# file, and what a user adds.
my $dirty = $node->safe_psql($db, q{SELECT path FROM dwh.generate_events(events => 4000, users => 300, dirty_rate => 0.03, days => 60)});
my $grown = write_file("$dir/grown.jsonl", sample($node, $db, 'events => 200, seed => 7'));
$node->safe_psql($db, "SELECT * FROM dwh.run_pipeline('$dirty'); SELECT * FROM dwh.run_pipeline('$grown')");
write_file("$dir/poisoned.jsonl", "no json\n" x 20);
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$dir/poisoned.jsonl')", 'WH001', 'a poisoned file fails its run');
$node->safe_psql($db, q{
	ALTER TABLE marts.dim_user ADD COLUMN note text DEFAULT 'new';
	UPDATE marts.dim_user SET note = 'seen' WHERE user_key % 7 = 0;
	CREATE INDEX mine ON raw.user_events (loaded_at);
	CREATE INDEX mine_too ON marts.fact_user_events (event_type, event_time);
	UPDATE ops.quality_checks SET severity = 'warn' WHERE name = 'version_intervals';
	INSERT INTO ops.quality_checks (name, severity, description, query) VALUES ('mine', 'warn', 'never', 'SELECT 1 WHERE false');
	CREATE VIEW marts.mine AS SELECT user_id, note FROM marts.dim_user WHERE is_current;
	GRANT SELECT ON marts.kpi_daily TO PUBLIC});

# What a database is made of beside its rows.
sub catalog_of
{
	my ($base) = @_;
	return $node->safe_psql($base, q{
		SET search_path = pg_catalog;
		WITH mine AS (SELECT c.* FROM pg_class AS c WHERE c.relnamespace::regnamespace::text IN ('raw', 'staging', 'marts', 'ops'))
		SELECT concat_ws(' | ', 'relation', c.relkind, c.oid::regclass, c.relowner::regrole, c.reloptions::text, pg_get_expr(c.relpartbound, c.oid),
		       CASE WHEN c.relkind = 'v' THEN pg_get_viewdef(c.oid) END, obj_description(c.oid, 'pg_class'),
		       (SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM unnest(c.relacl) AS a)) AS what
		  FROM mine AS c WHERE c.relkind <> 'i' AND c.relkind <> 'I'
		 UNION ALL
		SELECT concat_ws(' | ', 'column', c.oid::regclass, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
		       a.attcollation::regcollation, col_description(c.oid, a.attnum), pg_get_expr(d.adbin, d.adrelid))
		  FROM mine AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
		  LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum WHERE c.relkind IN ('r', 'p', 'v')
		 UNION ALL SELECT concat_ws(' | ', 'index', i.indexdef) FROM pg_indexes AS i WHERE i.schemaname IN ('raw', 'staging', 'marts', 'ops')
		 UNION ALL SELECT concat_ws(' | ', 'constraint', k.conrelid::regclass, k.conname, pg_get_constraintdef(k.oid))
		             FROM pg_constraint AS k JOIN mine AS c ON c.oid = k.conrelid
		 UNION ALL SELECT concat_ws(' | ', 'sequence', schemaname, sequencename, last_value) FROM pg_sequences WHERE schemaname IN ('raw', 'staging', 'marts', 'ops')
		 UNION ALL SELECT concat_ws(' | ', 'schema', nspname, nspowner::regrole, obj_description(oid, 'pg_namespace')) FROM pg_namespace WHERE nspname !~ '^pg_'
		 ORDER BY 1});
}

my $rows = table_checksum($node, $db, qw(raw staging marts ops));
my $catalog = catalog_of($db);
my $kpi = $node->safe_psql($db, 'SELECT * FROM marts.kpi_daily');
like($rows, qr/^ops\.rejects\|[1-9]/m, 'there are rejects to keep');
like($rows, qr/^ops\.event_conflicts\|[1-9]/m, 'and conflicts');

$node->command_ok([ 'pg_dump', '-Fc', '-f', "$dir/dwh.dump", '-d', $node->connstr($db) ], 'pg_dump');
$node->safe_psql('postgres', 'CREATE DATABASE restored; CREATE DATABASE replayed');
$node->command_ok([ 'pg_restore', '-e', '-d', $node->connstr('restored'), "$dir/dwh.dump" ], 'pg_restore without an error');
$node->command_ok([ 'pg_dump', '-f', "$dir/dwh.sql", '-d', $node->connstr($db) ], 'pg_dump as a script');
$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('replayed'), '-f', "$dir/dwh.sql" ], 'the script runs without an error');
for my $base (qw(restored replayed))
{
	is(table_checksum($node, $base, qw(raw staging marts ops)), $rows, "$base: every row of every table");
	is(catalog_of($base), $catalog, "$base: tables, columns, indexes, constraints, views, comments, sequences, partitions");
	is($node->safe_psql($base, 'SELECT * FROM marts.kpi_daily'), $kpi, "$base: the same answers");
}

# The next load goes on where it was.
is($status->('restored', $dirty), 'already_loaded|0', 'restored: the same file is known');
is($status->('restored', "$dir/poisoned.jsonl"), 'quarantined|0', 'restored: so is the quarantined one');
append_file($grown, sample($node, $db, 'events => 50, seed => 8'));
is($status->('restored', $grown), 'appended|50', 'restored: a grown file gives its new part');
is($node->safe_psql('restored', q{SELECT l.first_line, c.path = l.path FROM ops.loads AS l JOIN ops.loads AS c ON c.load_id = l.continues_load_id}),
	'201|t', 'restored: line numbers go on');
my $new = write_file("$dir/new.jsonl", sample($node, $db, q{events => 60, seed => 9, start_at => '2025-06-01Z'}));
is($status->('restored', $new), 'loaded|60', 'restored: a new file is loaded');
sqlstate($node, 'restored', "SELECT * FROM dwh.run_pipeline('$new')", '00000', 'restored: a run');
is($node->safe_psql('restored', 'SELECT sum(facts) - (SELECT count(*) FROM marts.fact_user_events) FROM ops.loads'), '0', 'restored: all facts');
is_sound($node, 'restored', 'restored: every check passes');
is($node->safe_psql('restored', 'SELECT status FROM dwh.create_warehouse()'), 'already_there', 'restored: create_warehouse() finds all there');

# Without the extension the data stays, and with it all goes on.
sqlstate($node, $db, 'DROP EXTENSION dwh_ext', '00000', 'DROP EXTENSION needs no CASCADE');
is(table_checksum($node, $db, qw(raw staging marts ops)), $rows, 'without the extension: every row');
is($node->safe_psql($db, 'SELECT * FROM marts.kpi_daily'), $kpi, 'without the extension: the KPI views answer');
isnt($node->safe_psql($db, "SET dwh.report_timezone = 'Asia/Seoul'; SELECT md5(string_agg(k::text, '')) FROM marts.kpi_daily AS k"),
	$node->safe_psql($db, "SELECT md5(string_agg(k::text, '')) FROM marts.kpi_daily AS k"), 'without the extension: in the time zone that is set');
is($node->safe_psql($db, "SELECT count(*) FROM pg_namespace WHERE nspname = 'dwh'"), '0', 'nothing of the extension is left');
sqlstate($node, $db, 'CREATE EXTENSION dwh_ext', '00000', 'CREATE EXTENSION again');
is(table_checksum($node, $db, qw(raw staging marts ops)), $rows, 'again: every row');
is($status->($db, $dirty), 'already_loaded|0', 'again: the same file is known');
is($status->($db, $grown), 'appended|50', 'again: a grown file gives its new part');
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$new')", '00000', 'again: a run');
is_sound($node, $db, 'again: every check passes');
is(marts_checksum($node, $db), marts_checksum($node, 'restored'), 'both went the same way');

$node->stop;
done_testing();
