# A load that fails a check of the user's is quarantined: its run fails, the next one goes on without it, until the check is
# changed. Whose offenders are whose; what is never quarantined.
use strict;
use warnings;
use lib 'test/t';
use DwhTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('quarantine');
my $db = new_warehouse($node, 'dwh');
my $dir = temp_dir();
my $number = 0;

# A file of so many events, the first ones of them from a device that the check forbids.
sub events
{
	my ($name, $count, $bad) = @_;
	return write_file("$dir/$name.jsonl", join '', map { $number++; sprintf qq({"event_id": "e%d", "event_time": "2025-01-10T00:00:00Z", "event_type": "x", "user_id": "u%d", "device": "%s"}\n),
		$number, $number % 50, $_ <= $bad ? 'tv' : 'pc' } 1 .. $count);
}
my $sql = sub { $node->safe_psql($db, $_[0]) };
my $state = sub { $sql->(q{SELECT string_agg(format('%s:%s:%s', regexp_replace(path, '^.*/|\.jsonl$', '', 'g'), status, quarantined_by), ' ' ORDER BY load_id) FROM ops.loads}) };
my $query = q{SELECT s.user_id, s.load_id FROM staging.user_events AS s WHERE s.device = 'tv' AND ($1 IS NULL OR s.load_id = ANY ($1))};
my $add = sub { $sql->("SELECT status FROM dwh.add_quality_check('no_tv', \$q\$$query\$q\$, $_[0])") };

# A limit by count that many loads keep is not one that all of them keep together.
sub sound
{
	$sql->(q{UPDATE ops.quality_checks SET enabled = false WHERE name = 'no_tv'});
	is_sound($node, $db, 'every other check passes');
	$sql->(q{UPDATE ops.quality_checks SET enabled = true WHERE name = 'no_tv'});
}

# ---- one bad file among good ones ----
events('a', 100, 0);
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$dir')", '00000', 'a good run');
$add->('max_offenders => 2');
my $before = layers_checksum($node, $db);
events('b', 100, 2);
events('c', 100, 3);
my ($out, $err) = sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$dir')", 'WH001', 'five of two loads: more than two');
like($err, qr/^HINT: .*c\.jsonl \(load \d+, by no_tv\)/m, 'HINT names the load that alone has too many');
unlike($err, qr/^HINT: .*b\.jsonl/m, 'and not the one that has not');
is(layers_checksum($node, $db), $before, 'raw, staging and marts as before');
is($state->(), 'a:loaded: c:quarantined:no_tv', 'the ledger: one load is quarantined, by that check');
is($sql->(q{SELECT staged, facts, lines, loaded, length(quarantine_rule), run_id = (SELECT max(run_id) FROM ops.runs), checked_at IS NOT NULL FROM ops.loads WHERE status = 'quarantined'}),
	'0|0|100|100|64|t|t', 'with its counts, nothing of it staged');
is($sql->(q{SELECT observed, allowed, limits FROM ops.quality_results WHERE name = 'no_tv' AND status = 'fail'}), '5|2|{"max_offenders": 2}', 'the verdict with its limits');
($out, $err) = sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$dir')", '00000', 'the next run');
like($err, qr/NOTICE: .*left out: .*c\.jsonl/, 'says what it leaves out');
is($sql->('SELECT count(*) FROM marts.fact_user_events'), '200', 'and takes the other file');
is($sql->("SELECT status FROM dwh.load_jsonl('$dir/c.jsonl')"), 'quarantined', 'load_jsonl says so');
system('cp', "$dir/c.jsonl", "$dir/c2.jsonl") == 0 or die;
is($sql->("SELECT status FROM dwh.load_jsonl('$dir/c2.jsonl')"), 'quarantined', 'by any name');
unlink "$dir/c2.jsonl";
sound();

# ---- what releases it: any change of the check's own; not of its words ----
$sql->(q{UPDATE ops.quality_checks SET description = 'No TV.', position = 7 WHERE name = 'no_tv'});
is($sql->("SELECT status FROM dwh.load_jsonl('$dir/c.jsonl')"), 'quarantined', 'other words: still quarantined');
for my $case ('max_offenders = 3', 'max_percent = 5', "severity = 'warn'", 'enabled = false', "query = query || ' AND true'", "population = 'SELECT 1'")
{
	is($sql->("BEGIN; UPDATE ops.quality_checks SET $case WHERE name = 'no_tv'; SELECT status FROM dwh.load_jsonl('$dir/c.jsonl'); ROLLBACK"), 'loaded', "released by $case");
}
is($sql->("BEGIN; DELETE FROM ops.quality_checks WHERE name = 'no_tv'; SELECT status FROM dwh.load_jsonl('$dir/c.jsonl'); ROLLBACK"), 'loaded', 'released as the check is gone');
is($sql->("BEGIN; SET client_min_messages = error; SELECT status FROM dwh.load_jsonl('$dir/c.jsonl', force => true); ROLLBACK"), 'loaded', 'force loads it all the same');
$add->('max_offenders => 3');
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$dir')", '00000', 'with a larger limit the next run takes it');
is($sql->('SELECT count(*) FROM marts.fact_user_events'), '300', 'all of it');
sound();

# ---- limits in percent; loads that fail together ----
$add->('max_percent => 10');
events('d', 100, 20);    # 20 %
events('e', 300, 30);    # 10 %: 50 of 400 are 12.5 %
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$dir')", 'WH001', 'percent');
like($state->(), qr/d:quarantined:no_tv$/, 'the one that alone is beyond the share');
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$dir')", '00000', 'the rest is within');
$add->('max_offenders => 5');
events('f', 20, 3);
events('g', 20, 4);
events('h', 20, 0);
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$dir')", 'WH001', 'the changed check releases d, which fails it again');
like($state->(), qr/ e:loaded: d:quarantined:no_tv$/, 'and is quarantined again, alone');
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$dir')", 'WH001', 'none alone, seven together');
like($state->(), qr/ f:quarantined:no_tv g:quarantined:no_tv$/, 'both are quarantined, and not the one without offenders');
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$dir')", '00000', 'then the rest is fine');

# ---- a grown file: its new part is quarantined, and is looked at again when it grows on ----
my $grown = events('grown', 30, 0);
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$dir')", '00000', 'a file');
append_file($grown, join '', map { qq({"event_id": "grown$_", "event_time": "2025-01-10T00:00:00Z", "event_type": "x", "user_id": "u", "device": "tv"}\n) } 1 .. 6);
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$dir')", 'WH001', 'which grew by six bad events');
is($sql->(q{SELECT status, lines, continues_load_id IS NOT NULL FROM ops.loads ORDER BY load_id DESC LIMIT 1}), 'quarantined|6|t', 'its new part is quarantined');
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$dir')", '00000', 'the next run leaves it out');
sound();

# ---- what is never quarantined ----
my $i = events('i', 20, 9);
$sql->("SELECT status FROM dwh.load_jsonl('$i', force => true)");
my $facts = $sql->('SELECT count(*) FROM marts.fact_user_events');
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$dir')", 'WH001', 'a load that was forced fails its run') for 1 .. 2;
is($sql->(q{SELECT status, quarantined_by IS NULL FROM ops.loads WHERE forced}), 'loaded|t', 'and is not quarantined');
$add->('max_offenders => 9');
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$dir/i.jsonl')", '00000', 'with another limit it goes through');
is($sql->('SELECT count(*) FROM marts.fact_user_events'), $facts + 20, 'whole');
events('j', 20, 10);
$sql->(q{UPDATE ops.quality_checks SET severity = 'warn' WHERE name = 'no_tv'});
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$dir/j.jsonl')", '00000', 'a check of severity warn stops nothing');
$sql->(q{SELECT dwh.add_quality_check('by_user', $q$SELECT s.user_id FROM staging.user_events AS s WHERE s.user_id = 'u7' AND s.load_id = ANY ($1)$q$)});
events('k', 60, 0);
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$dir/k.jsonl')", 'WH001', 'offenders that name no load');
$sql->(q{DELETE FROM ops.quality_checks WHERE name = 'by_user'; UPDATE ops.quality_checks SET severity = 'error' WHERE name = 'event_conflicts'});
append_file("$dir/k.jsonl", qq({"event_id": "e$number", "event_time": "2025-01-10T00:00:00Z", "event_type": "x", "user_id": "another"}\n));
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$dir/k.jsonl')", 'WH001', 'a failure of a built-in kind, whose offenders name the load');
is($sql->(q{SELECT count(*) FROM ops.loads WHERE status = 'quarantined' AND path LIKE '%/k.jsonl'}), '0', 'neither quarantines a load');
$sql->(q{UPDATE ops.quality_checks SET severity = 'warn' WHERE name = 'event_conflicts'});
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$dir/k.jsonl')", '00000', 'the same file goes through afterwards');
sound();

# ---- it outlives a dump ----
$sql->(q{UPDATE ops.quality_checks SET severity = 'error', max_offenders = 5 WHERE name = 'no_tv'});
events('l', 20, 8);
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$dir/l.jsonl')", 'WH001', 'one more');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'pg_dump', '-Fc', '-f', "$dir/dwh.dump", '-d', $node->connstr($db) ], 'pg_dump');
$node->command_ok([ 'pg_restore', '-e', '-d', $node->connstr('restored'), "$dir/dwh.dump" ], 'pg_restore without an error');
is($node->safe_psql('restored', "SELECT status FROM dwh.load_jsonl('$dir/l.jsonl')"), 'quarantined', 'restored: still quarantined');
is($node->safe_psql('restored', 'SELECT status FROM dwh.create_warehouse()'), 'already_there', 'restored: create_warehouse() finds all there');
is(scalar run_sql($node, 'restored', q{SELECT dwh.add_quality_check('bad', 'SELECT nothing')}), '42703', 'restored: checks are tried as before');
is(scalar run_sql($node, 'restored', q{INSERT INTO ops.quality_checks (name, severity, description, query) VALUES ('bad', 'warn', 'Bad.', 'SELECT nothing')}), '42703', 'restored: by row as well');

# ---- data that end the check's query with an error ----
my $last = sub { $sql->("SELECT $_[0] FROM ops.runs ORDER BY run_id DESC LIMIT 1") };
my $incidents = sub { $sql->(q{SELECT coalesce(string_agg(dedupe_key || ' ' || state, ', ' ORDER BY dedupe_key), '') FROM (SELECT DISTINCT ON (dedupe_key) * FROM ops.alerts
	WHERE dedupe_key IN ('check:age', 'check:never_tv', 'check:must') ORDER BY dedupe_key, alert_id DESC) AS a}) };
$sql->(q{DELETE FROM ops.quality_checks WHERE kind = 'query'});
my $shop = temp_dir();
my $aged = sub { write_file("$shop/$_[0].jsonl", qq({"event_id": "$_[0]", "event_time": "2025-01-10T00:00:00Z", "event_type": "x", "user_id": "u1", "age": $_[1]}\n)) };
$sql->(q{SELECT dwh.add_quality_check('age', $$SELECT s.load_id FROM staging.user_events AS s WHERE (s.attributes ->> 'age')::int > 150 AND ($1 IS NULL OR s.load_id = ANY ($1))$$)});
$aged->('young', 20);
$aged->('wrong', '"abc"');
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$shop')", 'WH001', 'a check that ends in an error because of one load fails');
is($sql->(q{SELECT regexp_replace(path, '^.*/', ''), quarantined_by FROM ops.loads WHERE status = 'quarantined' ORDER BY load_id DESC LIMIT 1}), 'wrong.jsonl|age', 'and quarantines that load');
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$shop')", '00000', 'the next run goes on without it');
is($incidents->(), 'check:age first-fail', 'the incident is open while the load is held');
is($sql->(q{SELECT path ~ 'wrong', quarantined_by FROM dwh.held_loads() ORDER BY load_id DESC LIMIT 1}), 't|age', 'which held_loads() lists');
$sql->(q{UPDATE ops.quality_checks SET enabled = false WHERE name = 'age'});
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$shop')", '00000', 'switched off, the check releases it');
is($incidents->(), 'check:age recovered', 'and the incident has ended');

# ---- a load that was there before the run ----
$sql->(q{SELECT dwh.add_quality_check('never_tv', $$SELECT s.load_id FROM staging.user_events AS s WHERE s.device = 'tv' AND ($1 IS NULL OR s.load_id = ANY ($1))$$)});
my $early = events('early', 5, 1);
$sql->("SELECT * FROM dwh.load_jsonl('$early')");
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$shop')", 'WH001', 'loaded before, staged by the run');
is($sql->(q{SELECT status, quarantined_by, staged FROM ops.loads ORDER BY load_id DESC LIMIT 1}), 'quarantined|never_tv|0', 'it is quarantined all the same');
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$shop')", '00000', 'and the next run is fine');
# the rule that counts is the one that the verdict was by
$sql->(q{SELECT dwh.add_quality_check('slow', 'SELECT x FROM pg_sleep(2) AS x WHERE x IS NULL', sort_order => 2000)});
my $raced = events('raced', 5, 1);
my $run = begin_sql($node, $db, "SELECT * FROM dwh.run_pipeline('$raced')");
wait_for($run, q{wait_event = 'PgSleep'});
$sql->(q{UPDATE ops.quality_checks SET max_offenders = 5 WHERE name = 'never_tv'});
is((end_sql($run))[0], 'WH001', 'a check that is relaxed while the run works');
$sql->(q{DELETE FROM ops.quality_checks WHERE name = 'slow'});
is($sql->("SELECT status FROM dwh.run_pipeline('$raced') LIMIT 1"), 'done', 'has released the load');
$sql->(q{UPDATE ops.quality_checks SET max_offenders = NULL WHERE name = 'never_tv'});

# ---- forced: it is said what blocks ----
my $forced = events('forced', 5, 1);
$sql->("SELECT * FROM dwh.load_jsonl('$forced', force => true)");
(undef, $err) = sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$shop')", 'WH001', 'a forced load is not quarantined');
like($err, qr/^HINT: .*forced load.*\(forced\.jsonl\).*'never_tv'/m, 'and HINT names it');
$sql->(q{DELETE FROM ops.quality_checks WHERE name = 'never_tv'});
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$shop')", '00000', 'without the check the run is fine');
is($incidents->(), 'check:age recovered, check:never_tv recovered', 'a check that is gone has no incident');

# ---- an assertion is a failure like others ----
$sql->(q{CREATE FUNCTION public.must(b boolean) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN ASSERT b, 'must hold'; RETURN b; END$$});
$sql->(q{SELECT dwh.add_quality_check('must', $$SELECT s.load_id FROM staging.user_events AS s WHERE NOT public.must(s.device <> 'tv') AND ($1 IS NULL OR s.load_id = ANY ($1))$$)});
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('" . events('assert', 5, 1) . "')", 'P0004', 'an assertion in a check');
is($last->('status, sqlstate'), 'failed|P0004', 'leaves evidence');
$sql->(q{UPDATE ops.quality_checks SET severity = 'warn' WHERE name = 'must'});
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('" . events('assert2', 5, 1) . "')", '00000', 'of severity warn it stops nothing');
is($incidents->(), 'check:age recovered, check:must first-fail, check:never_tv recovered', 'and is told');
sqlstate($node, $db, q{SELECT dwh.add_quality_check('conservation', 'SELECT 1 AS x WHERE false')}, '22023', 'a built-in check is not replaced');
# reject_share as a warning: a quarantined load is checked once
$sql->(q{UPDATE ops.quality_checks SET severity = 'warn' WHERE name = 'reject_share'});
my $bad = write_file("$shop/bad.jsonl", "poison\n" x 20);
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$bad')", '00000', 'reject_share as a warning stops nothing');
is($sql->("SELECT status FROM dwh.run_pipeline('$bad') WHERE step = 'run_quality_checks'"), 'nothing_new', 'and the load is checked once');
# ---- what is no fault of a load ----
$sql->(q{UPDATE ops.quality_checks SET severity = 'error' WHERE name = 'reject_share'; DELETE FROM ops.quality_checks WHERE kind = 'query'});
my $priced = write_file("$shop/priced.jsonl", join '', map { qq({"event_time": "2025-01-1${_}T00:00:00Z", "event_type": "purchase", "user_id": "u$_", "price": 5, "quantity": 1}\n) } 1 .. 3);
$sql->("SELECT * FROM dwh.load_jsonl('$priced'); SELECT * FROM dwh.stage_events()");
is($sql->(q{SELECT coalesce(string_agg(name, ' '), '') FROM dwh.run_quality_checks("full" => true) WHERE status = 'fail' AND severity = 'error'}), '', 'a load between two steps is none for the full checks');
my $quarantined = $sql->(q{SELECT count(*) FROM ops.loads WHERE status = 'quarantined'});
$sql->(q{CREATE TABLE public.pop (n bigint); INSERT INTO public.pop VALUES (1000);
	SELECT dwh.add_quality_check('share', $$SELECT s.load_id FROM staging.user_events AS s WHERE $1 IS NULL OR s.load_id = ANY ($1)$$, max_percent => 50, population => 'SELECT n FROM public.pop'); DROP TABLE public.pop});
(undef, $err) = sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$shop')", '42P01', 'a population that is broken by now');
like($err, qr/"share" could not be run/, 'is named');
is($sql->(q{SELECT count(*) FROM ops.loads WHERE status = 'quarantined'}), $quarantined, 'and quarantines nothing');
$sql->(q{DELETE FROM ops.quality_checks WHERE name = 'share'; CREATE TABLE public.conf (n integer); INSERT INTO public.conf VALUES (1);
	SELECT dwh.add_quality_check('ratio', $$SELECT s.load_id FROM staging.user_events AS s WHERE s.load_id = ANY ($1) AND s.device = 'none' UNION ALL SELECT 0 FROM public.conf AS c WHERE 1 / c.n > 5$$, severity => 'warn');
	UPDATE public.conf SET n = 0});
(undef, $err) = sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$shop')", '00000', 'a check of severity warn that is broken by now stops nothing');
like($err, qr/WARNING: .*ratio/, 'and is named');
# a check that would write while it is asked what load it fails by
$sql->(q{DELETE FROM ops.quality_checks WHERE name = 'ratio'; CREATE TABLE public.written (what text);
	CREATE FUNCTION public.sly(what bigint[]) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN INSERT INTO public.written VALUES (what::text); RETURN false; EXCEPTION WHEN read_only_sql_transaction THEN RAISE division_by_zero; END$$;
	INSERT INTO ops.quality_checks (name, severity, description, query) VALUES ('sly', 'warn', 'Writes.', 'SELECT 1 AS x FROM ops.warehouse AS w WHERE public.sly($1)')});
events('sly', 3, 0);
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$dir/sly.jsonl')", '00000', 'a run with a check that would write');
is($sql->('SELECT count(*) FROM public.written'), '0', 'which cannot');
$sql->(q{DELETE FROM ops.quality_checks WHERE name = 'sly'});
# a timely check looks at the clock, however it was asked
$sql->(q{UPDATE ops.quality_checks SET enabled = true WHERE name = 'freshness_event'; SELECT count(*) FROM dwh.run_quality_checks("full" => true);
	UPDATE ops.quality_checks SET parameters = '{"max_age": "10000 days"}' WHERE name = 'freshness_event'});
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$shop')", '00000', 'a run after a failure of freshness');
is($sql->(q{SELECT string_agg(state, ' ' ORDER BY alert_id) FROM ops.alerts WHERE dedupe_key = 'check:freshness_event'}), 'first-fail recovered', 'ends its incident');
$sql->(q{UPDATE ops.quality_checks SET enabled = false WHERE name = 'freshness_event'});

# whatever the role or the database has by default
$sql->("ALTER DATABASE $db SET default_transaction_read_only = on");
(undef, $err) = sqlstate($node, $db, "SET default_transaction_read_only = off; SELECT * FROM dwh.run_pipeline('$shop/none.jsonl')", '58P01', 'in a database that is read-only by default');
unlike($err, qr/WARNING/, 'evidence is written');
$node->safe_psql('postgres', "ALTER DATABASE $db RESET default_transaction_read_only");

$node->stop;
done_testing();
