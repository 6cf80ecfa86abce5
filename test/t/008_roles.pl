# Who may do what: everybody nothing that writes or reads files; an owner without superuser rights the whole job, an operator
# the runs, a reader the answers; and somebody who makes schemas first gets neither calls nor data.
use strict;
use warnings;
use lib 'test/t';
use DwhTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('roles');
my $dir = temp_dir();
$node->safe_psql('postgres', q{CREATE ROLE owner LOGIN; CREATE ROLE reader LOGIN; CREATE ROLE mallory LOGIN; CREATE DATABASE dwh;
	GRANT CREATE ON DATABASE dwh TO owner});
my $db = 'dwh';
$node->safe_psql($db, 'CREATE EXTENSION dwh_ext');

# ---- what PUBLIC may call: only what reads its arguments, or tables that its caller may read ----
my %harmless = map { $_ => 1 } qw(sample_events dirty_kinds parse_event event_id typed_events user_versions product_state
  product_prices resolved_facts
  fact_partitions last_known check_kinds held_loads status explain_pipeline metrics help);
my @public = split /\n/, $node->safe_psql($db, q{SELECT DISTINCT proname FROM pg_proc WHERE pronamespace = 'dwh'::regnamespace
	AND has_function_privilege('mallory', oid, 'EXECUTE') ORDER BY 1});
is(join(' ', grep { !$harmless{$_} } @public), '', 'PUBLIC may call nothing that writes or reads files');
is($node->safe_psql($db, q{SELECT count(*) FROM pg_proc WHERE pronamespace = 'dwh'::regnamespace AND prosecdef}), '0', 'no function runs with the rights of its owner');
is($node->safe_psql($db, q{SELECT string_agg(proname, ' ') FROM pg_proc WHERE pronamespace = 'dwh'::regnamespace AND provolatile = 'v'
	AND NOT coalesce(array_to_string(proconfig, ',') ~ 'search_path=pg_catalog, pg_temp', false)
	AND proname NOT IN ('_require_warehouse', '_record_evidence', '_wal_bytes')}), '', 'every function that writes has its search_path pinned');
sqlstate($node, $db, $_, '42501', "mallory may not: $_", user => 'mallory')
  for 'SELECT dwh.create_warehouse()', q{SELECT * FROM dwh.load_jsonl('x')}, q{SELECT * FROM dwh.load_jsonl(1::oid)}, 'SELECT * FROM dwh.run_pipeline()',
  'SELECT dwh.generate_events()', 'SELECT * FROM dwh.stage_events()', 'SELECT * FROM dwh.apply_scd2()', 'SELECT * FROM dwh.upsert_products()',
  'SELECT * FROM dwh.load_facts()', 'SELECT * FROM dwh.run_quality_checks()', 'SELECT * FROM dwh.retry_rejects()', 'SELECT * FROM dwh.trace(gen_random_uuid())',
  q{SELECT * FROM dwh.forget_user('u')}, q{SELECT * FROM dwh.drop_before('raw', now())}, 'SELECT * FROM dwh.claim_alerts()', 'SELECT * FROM dwh.ack_alert(1)',
  'SELECT * FROM dwh.fail_alert(1)', q{SELECT * FROM dwh.add_quality_check('mine', 'SELECT 1')}, q{SELECT dwh._record_evidence('{}')}, q{SELECT dwh._write_evidence('{}')},
  'CREATE FUNCTION dwh.mine() RETURNS int LANGUAGE sql AS $$SELECT 1$$';

# ---- the whole job as an owner without superuser rights, through the landing directory ----
my @as = (user => 'owner');
sqlstate($node, $db, 'SELECT * FROM dwh.run_pipeline()', '42501', 'the owner-to-be may call nothing yet', @as);
$node->safe_psql($db, 'GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA dwh TO owner');
sqlstate($node, $db, 'SELECT * FROM dwh.run_pipeline()', 'WH004', 'without a warehouse: WH004', @as);
sqlstate($node, $db, 'SELECT dwh.create_warehouse()', '00000', 'create_warehouse()', @as);
sqlstate($node, $db, 'SELECT dwh.generate_events(events => 2000, dirty_rate => 0.02)', '00000', 'generate_events()', @as);
sqlstate($node, $db, 'SELECT * FROM dwh.run_pipeline()', '00000', 'run_pipeline()', @as);
sqlstate($node, $db, 'SELECT dwh.generate_events(events => 500, seed => 2)', '00000', 'a second log', @as);
sqlstate($node, $db, 'SELECT * FROM dwh.load_jsonl(NULL); SELECT * FROM dwh.stage_events(); SELECT * FROM dwh.apply_scd2(); SELECT * FROM dwh.upsert_products();
	SELECT * FROM dwh.retry_rejects(); SELECT * FROM dwh.load_facts(); SELECT * FROM dwh.run_quality_checks()', '00000', 'verb by verb', @as);
write_file(landing($node, $db) . '/poisoned.jsonl', "poison\n" x 20);
my (undef, $err) = sqlstate($node, $db, 'SELECT * FROM dwh.run_pipeline()', 'WH001', 'a poisoned file', @as);
unlike($err, qr/WARNING/, 'with its evidence');
sqlstate($node, $db, q{SELECT * FROM dwh.load_jsonl((SELECT lo_from_bytea(0, '{"event_time": "2025-01-01T00:00:00Z", "event_type": "x", "user_id": "u"}')))},
	'42704', 'a large object made by the same statement is not visible to it', @as);
sqlstate($node, $db, q{SELECT lo_from_bytea(4711, '{"event_time": "2025-01-01T00:00:00Z", "event_type": "x", "user_id": "u"}'); SELECT * FROM dwh.load_jsonl(4711::oid)},
	'00000', 'a large object', @as);
sqlstate($node, $db, 'SELECT dwh.create_warehouse()', '00000', 'create_warehouse() again', @as);
is_sound($node, $db, 'every check passes');
is($node->safe_psql($db, q{SELECT count(*) FROM pg_class WHERE relnamespace::regnamespace::text IN ('raw', 'staging', 'marts', 'ops')
	AND relowner <> 'owner'::regrole}), '0', 'all of it is the owner\'s');
is($node->safe_psql($db, q{SELECT count(*) FROM pg_depend AS d JOIN pg_class AS c ON c.oid = d.objid AND d.classid = 'pg_class'::regclass
	WHERE d.deptype = 'e' AND c.relnamespace::regnamespace::text IN ('raw', 'staging', 'marts', 'ops')}), '0', 'and no member of the extension');

# ---- a reader gets what the owner grants, and nothing else ----
sqlstate($node, $db, 'SELECT * FROM marts.kpi_daily', '42501', 'a reader sees nothing by default', user => 'reader');
sqlstate($node, $db, 'GRANT USAGE ON SCHEMA marts TO reader; GRANT SELECT ON marts.kpi_daily, marts.kpi_segment TO reader', '00000', 'the owner grants the KPI views', @as);
sqlstate($node, $db, 'SELECT * FROM marts.kpi_daily', '00000', 'then the reader sees the answers', user => 'reader');
sqlstate($node, $db, 'SELECT * FROM marts.fact_user_events', '42501', 'and not the facts', user => 'reader');
sqlstate($node, $db, 'SELECT * FROM raw.user_events', '42501', 'nor the raw events', user => 'reader');
sqlstate($node, $db, 'SELECT * FROM dwh.user_versions()', '42501', 'nor through a function that he may call', user => 'reader');
# a caller with EXECUTE but without rights to the tables
$node->safe_psql($db, 'GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA dwh TO reader; GRANT USAGE ON SCHEMA ops, raw TO reader; GRANT SELECT ON ops.warehouse TO reader');
sqlstate($node, $db, $_, '42501', "EXECUTE alone is not enough: $_", user => 'reader')
  for 'SELECT * FROM dwh.load_jsonl(NULL)', 'SELECT * FROM dwh.run_pipeline()', 'SELECT dwh.create_warehouse()', 'SELECT * FROM dwh.stage_events()',
  q{SELECT * FROM dwh.forget_user('u')}, q{SELECT * FROM dwh.drop_before('raw', now())};

# ---- a reader and an operator by grant_roles(), in a database where PUBLIC has nothing ----
$node->safe_psql('postgres', q{CREATE ROLE analyst LOGIN; CREATE ROLE scheduler LOGIN; CREATE ROLE stranger LOGIN; CREATE DATABASE closed;
	REVOKE ALL ON DATABASE closed FROM PUBLIC; GRANT CREATE, CONNECT, TEMPORARY ON DATABASE closed TO owner; GRANT CONNECT ON DATABASE closed TO stranger, mallory});
my $closed = 'closed';
$node->safe_psql($closed, 'REVOKE ALL ON SCHEMA public FROM PUBLIC; CREATE EXTENSION dwh_ext; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA dwh TO owner');
sqlstate($node, $closed, q{SELECT * FROM dwh.grant_roles('analyst', 'scheduler')}, 'WH004', 'grant_roles() without a warehouse', @as);
sqlstate($node, $closed, 'SELECT dwh.create_warehouse()', '00000', 'create_warehouse()', @as);
(my $granted, $err) = sqlstate($node, $closed, q{SELECT part, sum(missing) > 0 FROM dwh.grant_roles('analyst', 'scheduler') WHERE kind IN ('function', 'database') GROUP BY 1 ORDER BY 1},
	'00000', 'the owner grants the rights to what is hers', @as);
is($granted, "operator|t\nreader|t", 'those to functions she may not pass on');
like($err, qr/WARNING:  01000: \d+ rights could not be granted.*HINT: .*grant_roles\('analyst', 'scheduler'\)/s, 'and is told who may');
is($node->safe_psql($closed, q{SELECT sum(missing) FROM dwh.grant_roles('analyst', 'scheduler')}), '0', 'a superuser completes them');
is($node->safe_psql($closed, q{SELECT sum(granted) FROM dwh.grant_roles('analyst', 'scheduler')}), '0', 'a repeat has nothing to grant');
sqlstate($node, $closed, q{SELECT * FROM dwh.grant_roles('mallory', 'mallory')}, '42501', 'an operator grants nobody anything', user => 'scheduler');
$node->safe_psql($closed, 'GRANT EXECUTE ON FUNCTION dwh.grant_roles, dwh._require_grantable, dwh._require_writable TO scheduler');
sqlstate($node, $closed, q{SELECT * FROM dwh.grant_roles('mallory', 'mallory')}, '42501', 'also where she may call the function', user => 'scheduler');
$node->safe_psql($closed, 'REVOKE EXECUTE ON FUNCTION dwh.grant_roles FROM scheduler');

# The operator does the whole job, also for times that have no partition yet.
my @op = (user => 'scheduler');
my $job = sub { sqlstate($node, $closed, $_[0], $_[2] // '00000', "operator: $_[1]", @op) };
$job->('SELECT dwh.generate_events(events => 1500, dirty_rate => 0.02)', 'generate_events()');
$job->('SELECT * FROM dwh.run_pipeline()', 'a run');
$job->(q{SELECT dwh.generate_events(events => 300, seed => 2, start_at => '2024-06-15Z'); SET dwh.fact_partition = 'day';
	SELECT dwh.generate_events(events => 300, seed => 3, start_at => '2024-12-20Z'); SELECT * FROM dwh.run_pipeline(run_id => 'late')}, 'late events, by day');
$job->('SELECT dwh.generate_events(events => 200, seed => 4)', 'another log');
$job->('SELECT * FROM dwh.load_jsonl(NULL); SELECT * FROM dwh.stage_events(); SELECT * FROM dwh.apply_scd2(); SELECT * FROM dwh.upsert_products();
	SELECT * FROM dwh.load_facts(); SELECT * FROM dwh.run_quality_checks(); SELECT * FROM dwh.retry_rejects(); SELECT * FROM dwh.run_quality_checks("full" => true);
	SELECT * FROM dwh.run_pipeline(dry_run => true); SELECT * FROM dwh.run_pipeline(skip_if_running => true);
	SELECT * FROM dwh.prune_history(); SELECT dwh._rebuild_event_filter()', 'verb by verb');
$job->(q{SELECT lo_from_bytea(4711, '{"event_time": "1999-01-01T00:00:00Z", "event_type": "x", "user_id": "u"}'); SELECT * FROM dwh.load_jsonl(4711::oid); SELECT * FROM dwh.run_pipeline()}, 'a large object');
write_file(landing($node, $closed) . '/poisoned.jsonl', "poison\n" x 20);
(undef, $err) = $job->('SELECT * FROM dwh.run_pipeline()', 'a poisoned file', 'WH001');
unlike($err, qr/WARNING/, 'leaves its evidence');
is($node->safe_psql($closed, q{SELECT status, sqlstate FROM ops.runs ORDER BY run_id DESC LIMIT 1}), 'failed|WH001', 'in ops.runs');
unlink landing($node, $closed) . '/poisoned.jsonl';
$job->('SELECT * FROM dwh.run_pipeline()', 'the next run');
my $forgotten = $node->safe_psql($closed, 'SELECT user_id FROM staging.user_events GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 1');
sqlstate($node, $closed, "SELECT * FROM dwh.forget_user('$forgotten')", '00000', 'the owner erases a person', @as);
$job->(q{SELECT dwh.generate_events(events => 1000, seed => 5); SELECT * FROM dwh.run_pipeline()}, 'events of an erased person');
is($node->safe_psql($closed, 'SELECT sum(forgotten) > 0 FROM ops.loads'), 't', 'are forgotten');
sqlstate($node, $closed, q{SELECT dwh.generate_events(events => 100, seed => 6, start_at => '2023-03-01Z'); SELECT * FROM dwh.run_pipeline()}, '00000', 'a superuser runs it');
is($node->safe_psql($closed, q{SELECT count(*), count(*) FILTER (WHERE relowner <> 'owner'::regrole) FROM pg_class WHERE relispartition AND relkind = 'r'}) =~ /^(\d+)\|0$/ && $1 > 20, 1,
	'every partition is the owner\'s, whoever needed it');
is($node->safe_psql($closed, q{SELECT string_agg(name, ' ') FROM dwh.run_quality_checks("full" => true) WHERE status = 'fail' AND severity = 'error'}), '', 'every check passes');
sqlstate($node, $closed, $_, '42501', "operator may not: $_", @op)
  for 'DROP TABLE marts.dim_user', 'ALTER TABLE staging.user_events ADD COLUMN x int', 'TRUNCATE raw.user_events', 'GRANT SELECT ON marts.dim_user TO mallory; SET ROLE owner',
  q{INSERT INTO ops.quality_checks (name, severity, description, query) VALUES ('x', 'warn', 'x', 'SELECT 1')}, 'UPDATE ops.quality_checks SET enabled = false',
  'UPDATE ops.warehouse SET model_version = 0', 'DELETE FROM ops.forgotten_users', 'CREATE TABLE marts.mine ()', 'DELETE FROM marts.fact_user_events',
  'CREATE TRIGGER t BEFORE INSERT ON raw.user_events EXECUTE FUNCTION suppress_redundant_updates_trigger()',
  q{SELECT * FROM dwh.drop_before('facts', now())}, q{SELECT * FROM dwh.forget_user('u')}, 'SELECT dwh.create_warehouse()', q{SELECT * FROM dwh._drop_events('marts.fact_user_events', 'facts_dropped', now())};
sqlstate($node, $closed, q{SELECT * FROM dwh.drop_before('staging', '2024-01-01Z'); SELECT * FROM dwh.drop_before('facts', '2024-01-01Z'); SELECT dwh.create_warehouse()}, '00000',
	'the owner drops what others made', @as);

# The reader sees the marts, and of the ledgers what holds no row data.
sqlstate($node, $closed, $_, '00000', "reader: $_", user => 'analyst')
  for 'SELECT * FROM marts.kpi_daily', 'SELECT * FROM marts.kpi_segment', 'SELECT * FROM marts.fact_user_events JOIN marts.dim_user USING (user_key) JOIN marts.dim_product USING (product_key)',
  'SELECT * FROM marts.dim_product_price', 'SELECT * FROM ops.loads', 'SELECT run_id, status, sqlstate FROM ops.runs', 'SELECT name, status, observed, allowed FROM ops.quality_results';
sqlstate($node, $closed, $_, '42501', "reader may not: $_", user => 'analyst')
  for 'SELECT * FROM raw.user_events', 'SELECT * FROM staging.user_events', 'SELECT raw FROM ops.rejects', 'SELECT message FROM ops.runs', 'SELECT offenders FROM ops.quality_results', 'SELECT body FROM ops.alerts',
  'SELECT salt FROM ops.warehouse', 'SELECT * FROM ops.forgotten_users', 'UPDATE ops.loads SET facts = 0', 'SELECT * FROM marts.fact_user_events FOR UPDATE', 'DELETE FROM marts.dim_user';

# Every public function, called by everybody: 42501, unless it is on the list. A new function is on none.
my %may = (
	stranger => [qw(sample_events dirty_kinds parse_event event_id help)],
	analyst => [qw(sample_events dirty_kinds parse_event event_id help fact_partitions held_loads status metrics explain_pipeline)],
	scheduler => [qw(sample_events dirty_kinds parse_event event_id typed_events user_versions product_state product_prices resolved_facts fact_partitions
		landing_directory generate_events load_jsonl stage_events apply_scd2 upsert_products load_facts run_quality_checks run_pipeline retry_rejects
		prune_history schedule_pipeline unschedule_pipeline claim_alerts ack_alert fail_alert check_kinds held_loads status metrics explain_pipeline help trace)]);
my @calls = split /\n/, $node->safe_psql($closed, q{
	SELECT p.proname || ' ' || format('SELECT * FROM dwh.%I(%s)', p.proname, coalesce((SELECT string_agg(format('NULL::%s', format_type(t, NULL)), ', ' ORDER BY n)
	       FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY AS a (t, n) WHERE n <= p.pronargs - p.pronargdefaults), ''))
	  FROM pg_proc AS p WHERE p.pronamespace = 'dwh'::regnamespace AND p.proname !~ '^_' AND p.prokind = 'f' ORDER BY 1});
for my $role (sort keys %may)
{
	my %expected = map { $_ => 1 } @{ $may{$role} };
	my @wrong = grep { my ($name, $call) = split / /, $_, 2; ((run_sql($node, $closed, $call, user => $role))[0] ne '42501') != !!$expected{$name} } @calls;
	is(join("\n", @wrong), '', "$role may call what is for that role, of " . @calls . ' functions');
}

# With the right to pass them on, the owner needs nobody.
$node->safe_psql('postgres', 'CREATE DATABASE passed_on OWNER owner; CREATE ROLE clerk LOGIN');
$node->safe_psql('passed_on', 'CREATE EXTENSION dwh_ext; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA dwh TO owner WITH GRANT OPTION');
($granted, $err) = sqlstate($node, 'passed_on', q{SELECT dwh.create_warehouse(); SELECT sum(missing) FROM dwh.grant_roles(operator => 'clerk')}, '00000', 'an owner who may pass rights on', @as);
is("$granted$err", "(created,4)\n0", 'grants all of them');
sqlstate($node, 'passed_on', 'SELECT dwh.generate_events(events => 100); SELECT * FROM dwh.run_pipeline()', '00000', 'and the operator works', user => 'clerk');

# ---- mallory was here first ----
for my $schema (qw(raw staging marts ops))
{
	$node->safe_psql('postgres', "CREATE DATABASE pre_$schema; GRANT CREATE ON DATABASE pre_$schema TO mallory, owner");
	$node->safe_psql("pre_$schema", "CREATE SCHEMA $schema AUTHORIZATION mallory; CREATE EXTENSION dwh_ext; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA dwh TO owner");
	($err) = (sqlstate($node, "pre_$schema", 'SELECT dwh.create_warehouse()', '42501', "a schema $schema of mallory's is refused", @as))[1];
	like($err, qr/mallory/, 'and she is named');
	is($node->safe_psql("pre_$schema", q{SELECT count(*) FROM pg_namespace WHERE nspname IN ('raw', 'staging', 'marts', 'ops')}), '1', 'nothing is left of the try');
	sqlstate($node, "pre_$schema", 'SELECT dwh.create_warehouse()', '42501', 'also by a superuser');
}
$node->safe_psql('postgres', 'CREATE DATABASE pre_dwh');
$node->safe_psql('pre_dwh', 'CREATE SCHEMA dwh AUTHORIZATION mallory');
sqlstate($node, 'pre_dwh', 'CREATE EXTENSION dwh_ext', '42P06', 'a schema dwh that exists stops CREATE EXTENSION');
$node->safe_psql('postgres', 'CREATE DATABASE pre_table; GRANT CREATE ON DATABASE pre_table TO owner');
$node->safe_psql('pre_table', 'CREATE SCHEMA ops AUTHORIZATION owner; GRANT ALL ON SCHEMA ops TO mallory; CREATE EXTENSION dwh_ext;
	GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA dwh TO owner');
sqlstate($node, 'pre_table', 'CREATE TABLE ops.loads (load_id bigint)', '00000', 'mallory makes a table in a schema open to her', user => 'mallory');
sqlstate($node, 'pre_table', 'SELECT dwh.create_warehouse()', '42501', 'it is refused', @as);

# What she puts into public or pg_temp is not called, whatever the search_path.
$node->safe_psql($db, q{GRANT ALL ON SCHEMA public TO mallory; CREATE TABLE public.caught (what text); GRANT ALL ON public.caught TO PUBLIC});
sqlstate($node, $db, q{
	CREATE FUNCTION public.caught(what text) RETURNS void LANGUAGE sql AS $$INSERT INTO public.caught VALUES (what)$$;
	CREATE FUNCTION public.now() RETURNS timestamptz LANGUAGE sql AS $$SELECT public.caught('now'); SELECT pg_catalog.now()$$;
	CREATE FUNCTION public.count(text) RETURNS bigint LANGUAGE sql AS $$SELECT public.caught('count'); SELECT 1::bigint$$;
	CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $$SELECT public.caught('clock'); SELECT pg_catalog.now()$$;
	CREATE FUNCTION public.same(text, text) RETURNS boolean LANGUAGE sql AS $$SELECT public.caught('='); SELECT true$$;
	CREATE OPERATOR public.= (LEFTARG = text, RIGHTARG = text, FUNCTION = public.same);
	CREATE FUNCTION public.less(timestamptz, timestamptz) RETURNS boolean LANGUAGE sql AS $$SELECT public.caught('<'); SELECT true$$;
	CREATE OPERATOR public.< (LEFTARG = timestamptz, RIGHTARG = timestamptz, FUNCTION = public.less);
	CREATE OPERATOR public.<= (LEFTARG = timestamptz, RIGHTARG = timestamptz, FUNCTION = public.less);
	CREATE FUNCTION public.times(numeric, numeric) RETURNS numeric LANGUAGE sql AS $$SELECT public.caught('*'); SELECT 1::numeric$$;
	CREATE OPERATOR public.* (LEFTARG = numeric, RIGHTARG = numeric, FUNCTION = public.times)}, '00000', 'mallory sets traps', user => 'mallory');
my $path = 'SET search_path = public, pg_temp, pg_catalog';
sqlstate($node, $db, "$path; SELECT dwh.generate_events(events => 300, seed => 3, dirty_rate => 0.1)", '00000', 'the owner works with her schema first', @as);
unlink landing($node, $db) . '/poisoned.jsonl';
sqlstate($node, $db, "$path; SELECT * FROM dwh.run_pipeline()", '00000', 'a run', @as);
sqlstate($node, $db, 'SET search_path = public; SELECT * FROM dwh.user_versions(); SELECT * FROM dwh.typed_events(1); SELECT * FROM dwh.resolved_facts(1);
	SELECT * FROM dwh.product_state(); SELECT * FROM dwh.fact_partitions()', '00000', 'the nouns, which can be inlined and so have the path of their caller', @as);
sqlstate($node, $db, "$path; SELECT * FROM marts.kpi_daily; SELECT * FROM marts.kpi_segment", '00000', 'the views', @as);
sqlstate($node, $db, "$path; SELECT dwh.create_warehouse()", '00000', 'create_warehouse()', @as);
my $user = $node->safe_psql($db, 'SELECT min(user_id) FROM staging.user_events');
my ($erased) = sqlstate($node, $db, "$path; SELECT * FROM dwh.forget_user('$user')", '00000', 'erasure', @as);
like($erased, qr/^done/m, 'of somebody');
sqlstate($node, $db, "$path; SELECT * FROM dwh.drop_before('raw', pg_catalog.now()); SELECT * FROM dwh.drop_before('staging', '2025-02-01Z');
	SELECT * FROM dwh.drop_before('facts', '2025-02-01Z')", '00000', 'retention', @as);
is($node->safe_psql($db, 'SELECT string_agg(DISTINCT what, chr(32)) FROM public.caught'), '', 'nobody fell into one');

# A database that is not UTF-8 is refused with words.
$node->safe_psql('postgres', q{CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0});
$node->safe_psql('latin', 'CREATE EXTENSION dwh_ext');
sqlstate($node, 'latin', 'SELECT dwh.create_warehouse()', '0A000', 'a database in LATIN1');

$node->stop;
done_testing();
