# From the outbox to a webhook and a mailbox: every alert at least once, in order, as one message, and without row data; through
# refusals, silence, broken connections, a notifier that dies, two at once, and a server that restarts.
use strict;
use warnings;
use lib 'test/t';
use DwhTest;
use JSON::PP ();
use POSIX ':sys_wait_h';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes 'sleep';

my $node = new_server('alerts');
my $db = new_warehouse($node, 'dwh');
my $dir = temp_dir();
my $sql = sub { $node->safe_psql($db, $_[0]) };
# a sender's own role, with what docker/notifier/README.md gives it
$sql->(q{CREATE ROLE sender LOGIN; GRANT USAGE ON SCHEMA dwh, ops TO sender; GRANT SELECT, UPDATE ON ops.alerts TO sender;
	GRANT SELECT (model_version) ON ops.warehouse TO sender; GRANT EXECUTE ON FUNCTION dwh.claim_alerts, dwh.ack_alert, dwh.fail_alert,
	dwh._settle_alert, dwh._require_warehouse TO sender});

# ---- sinks and notifiers ----

my @python = ('/usr/bin/python3');
delete $ENV{$_} for grep { /proxy$/i || /^NOTIFIER_/ } keys %ENV;
my %children;   # ended with the test, however it ends
END { local $?; kill 'KILL', keys %children; }
my $sinks = fork // die;
if (!$sinks) { exec @python, 'test/t/sinks.py', $dir or POSIX::_exit(1); }
$children{$sinks} = 1;
my $wait_until = sub {
	my ($condition, $name) = @_;
	my $tries = 20 * $PostgreSQL::Test::Utils::timeout_default;
	while ($tries-- > 0) { return ok(1, $name) if $condition->(); sleep 0.05; }
	ok(0, $name);
	die 'what follows would wait in vain; the notifier said: ' . (-e "$dir/notifier.out" ? slurp_file("$dir/notifier.out") : 'nothing');
};
$wait_until->(sub { -e "$dir/ports" }, 'the sinks are there');
my ($http, $smtp) = split / /, slurp_file("$dir/ports");
write_file("$dir/password", "pass-SECRET\n");
my %settings = (NOTIFIER_DSN => $node->connstr($db) . ' user=sender', NOTIFIER_POLL => 3600, NOTIFIER_BATCH => 100, NOTIFIER_TIMEOUT => 60,
	NOTIFIER_WEBHOOK_URL => "http://127.0.0.1:$http/hook/url-SECRET",
	NOTIFIER_SMTP_URL => "smtp://127.0.0.1:$smtp", NOTIFIER_SMTP_FROM => 'dwh@example.org', NOTIFIER_SMTP_TO => 'a@example.org, b@example.org',
	NOTIFIER_SMTP_USER => 'user', NOTIFIER_SMTP_PASSWORD_FILE => "$dir/password", NOTIFIER_SMTP_TLS => 'off');
my $log = "$dir/notifier.out";
my $start = sub {
	my ($arguments, %change) = @_;
	my $pid = fork // die;
	if ($pid) { $children{$pid} = 1; return $pid; }
	%ENV = (%ENV, %settings, %change);
	open STDERR, '>>', $log or POSIX::_exit(1);
	exec @python, 'docker/notifier/notify.py', @$arguments or POSIX::_exit(1);
};
my $end = sub { my ($pid, $signal) = @_; kill $signal, $pid if $signal; waitpid $pid, 0; delete $children{$pid}; return $? & 127 ? "signal " . ($? & 127) : $? >> 8 };
my $once = sub { $end->($start->(['--once'], @_)) };
my $behave = sub { my ($sink, @todo) = @_; write_file("$dir/$sink.next", join '', map { "$_\n" } @todo); rename "$dir/$sink.next", "$dir/$sink.behaviour" or die };
my $received = sub { my ($sink) = @_; return -e "$dir/$sink.log" ? map { JSON::PP::decode_json($_) } split /\n/, slurp_file("$dir/$sink.log") : () };
# texts of the webhook, mails with their content, that are about a key; both as [id, what was said, what it met]
my $texts = sub { my ($key) = @_;
	return grep { $_->[1] =~ /^about: +\Q$key\E$/m } map { [ $_->{headers}{'Idempotency-Key'}, JSON::PP::decode_json($_->{body})->{text}, $_->{met} ] } $received->('http') };
my $mails = sub { my ($key) = @_;
	return grep { $_->[1] =~ /^about: +\Q$key\E\r?$/m } map { [ $_->{content} =~ /^Message-ID: <dwh-(\w+)\@/m, $_->{content}, $_->{met} ] } $received->('smtp') };
my $fail = sub { my ($key) = @_; $sql->("SELECT dwh._raise_alert('$key', 'error', 'it failed', '{\"sqlstate\": \"WH001\"}', NULL)") };
my $alert = sub { my ($key, $columns) = @_; $sql->("SELECT $columns FROM ops.alerts WHERE dedupe_key = '$key' ORDER BY alert_id DESC LIMIT 1") };
my $is_delivered = sub { my ($key, $name) = @_;
	$wait_until->(sub { $sql->("SELECT count(*) FROM ops.alerts WHERE dedupe_key = '$key' AND delivered_at IS NULL") eq '0' }, $name) };
my $due = sub { my ($key) = @_; $sql->("UPDATE ops.alerts SET next_at = clock_timestamp() WHERE dedupe_key = '$key'; NOTIFY dwh_alerts") };

# ---- what needs no delivery ----

$fail->('nobody');
is($once->(NOTIFIER_WEBHOOK_URL => '', NOTIFIER_SMTP_URL => ''), '0', 'without a channel there is nothing to do');
like(slurp_file($log), qr/no channel is configured/, 'and it says so');
is($alert->('nobody', 'attempts'), '0', 'and claims nothing');
is($once->(@$_), '2', "wrong settings: $_->[0]")
  for [ NOTIFIER_WEBHOOK_URL => 'ftp://host/url-SECRET' ], [ NOTIFIER_WEBHOOK_URL => "http://host/url-SECRET\n x" ], [ NOTIFIER_SMTP_TO => "a\@example.org\r\nBcc: x\@example.org" ],
  [ NOTIFIER_SMTP_USER => '' ], [ NOTIFIER_SMTP_PASSWORD => 'pass-SECRET' ], [ NOTIFIER_SMTP_TLS => 'perhaps' ], [ NOTIFIER_POLL => '0' ], [ NOTIFIER_DSN => 'pass-SECRET' ];
is($once->(NOTIFIER_DSN => "host=$dir dbname=dwh"), '1', 'a server that is not there');
is($once->(), '0', 'one shot, through both channels');
is(join(' ', map { scalar @$_ } [ $texts->('nobody') ], [ $mails->('nobody') ]), '1 1', 'one message each');
is($alert->('nobody', 'delivered_at IS NOT NULL, delivered_to, attempts'), 't|{smtp,webhook}|1', 'and it is acknowledged');
my ($mail) = $received->('smtp');
is(join(' ', $mail->{from}, @{ $mail->{to} }), 'MAIL FROM:<dwh@example.org> RCPT TO:<a@example.org> RCPT TO:<b@example.org>', 'to every receiver');
is($mail->{auth}, 'AHVzZXIAcGFzcy1TRUNSRVQ=', 'with the password');

# ---- a run with a poisoned file, a check that goes on failing, reminds, recovers ----

my $notifier = $start->([]);
my $poisoned = write_file("$dir/poisoned.jsonl", sample($node, $db, 'events => 40, seed => 5') . join '', map { "row data $_\n" } 1 .. 20);
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$poisoned')", 'WH001', 'a poisoned file');
$is_delivered->('check:reject_share', 'NOTIFY alone wakes the notifier: the alert arrives');
is(join(' ', map { scalar @$_ } [ $texts->('check:reject_share') ], [ $mails->('check:reject_share') ]), '1 1', 'once at both');
my ($text) = $texts->('check:reject_share');
my ($letter) = $mails->('check:reject_share');
is($text->[0], $letter->[0], 'under one id');
like($text->[1], qr/^\*\[dwh\] first-fail \(error\): quality check reject_share failed\*\n/, 'title, state, severity');
like($text->[1], qr/^run: +\d+\n.*^details: +.*observed 1.*sqlstate WH001.*^look closer: SELECT .* FROM ops\.quality_results WHERE name = 'reject_share'/ms, 'run, counts, and the SQL to look closer');
like($letter->[1], qr/^Subject: \[dwh\] first-fail \(error\): quality check reject_share failed\r$/m, 'the mail likewise');

$sql->(q{INSERT INTO ops.quality_checks (name, severity, description, query) VALUES ('mine', 'error', 'never', 'SELECT ''row data'' AS n')});
my $good = write_file("$dir/good.jsonl", sample($node, $db, 'events => 100, seed => 6'));
my $failing = sub { sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$good')", 'WH001', $_[0]) };
$failing->('a check of the user fails');
$is_delivered->('check:mine', 'that arrives');
$failing->('it fails again');
$failing->('and again');
$fail->('after that');
$is_delivered->('after that', 'what failed later arrives');
is(scalar(() = $texts->('check:mine')), 1, 'but no second message of the check');
is($alert->('check:mine', 'state, failures'), 'first-fail|3', 'its failures are counted');
$sql->(q{UPDATE ops.alerts SET created_at = created_at - interval '2 days' WHERE dedupe_key = 'check:mine'});
$failing->('it fails after dwh.alert_interval');
$is_delivered->('check:mine', 'that arrives');
$sql->(q{DELETE FROM ops.quality_checks WHERE name = 'mine'});
$sql->(q{INSERT INTO ops.quality_checks (name, severity, description, query) VALUES ('mine', 'error', 'always', 'SELECT 1 WHERE false')});
sqlstate($node, $db, "SELECT * FROM dwh.run_pipeline('$good')", '00000', 'then it is well');
$is_delivered->('check:mine', 'that arrives');
is(join(' ', map { $_->[1] =~ /^state: +([a-z-]+)/m } $texts->('check:mine')), 'first-fail still-failing recovered', 'three messages, in order');
is(join(' ', map { $_->[1] =~ /^state: +([a-z-]+)/m } $mails->('check:mine')), 'first-fail still-failing recovered', 'by mail as well');
like(($texts->('check:mine'))[2][1], qr/^details: .*failed_since \S+Z, failures 4,/m, 'the last one says how often it had failed, and since when');

# ---- refusals: the channel that took it does not get it again ----

for my $case ([ 'http', '500' ], [ 'http', '404' ], [ 'http', '302' ], [ 'http', 'cut' ], [ 'http', 'close' ], [ 'smtp', 'reject' ], [ 'smtp', 'temporary' ],
	[ 'smtp', 'cut' ], [ 'smtp', 'close' ])
{
	my ($sink, $todo) = @$case;
	my ($channel, $other) = $sink eq 'http' ? qw(webhook smtp) : qw(smtp webhook);
	$behave->($sink, $todo, $todo);
	$fail->("$sink $todo");
	$wait_until->(sub { $alert->("$sink $todo", 'last_error IS NOT NULL') eq 't' }, "$sink: $todo");
	like($alert->("$sink $todo", "delivered_to, last_error, attempts, next_at - clock_timestamp() BETWEEN '0' AND '30 seconds'"),
		qr/^\{$other\}\|$channel: [a-z ]+ \(curl \d+, status \d{3}\)\|1\|t$/, 'is said, and it waits for another try of that channel');
	$due->("$sink $todo");
	$wait_until->(sub { $alert->("$sink $todo", 'attempts, last_error IS NOT NULL') eq '2|t' && $alert->("$sink $todo", "next_at > clock_timestamp() + interval '31 seconds' AND next_at < clock_timestamp() + interval '1 minute'") eq 't' },
		'again: it waits longer');
	$due->("$sink $todo");
	$is_delivered->("$sink $todo", 'then it is delivered');
	my @got = $sink eq 'http' ? $texts->("$sink $todo") : $mails->("$sink $todo");
	my @others = $sink eq 'http' ? $mails->("$sink $todo") : $texts->("$sink $todo");
	is(scalar(grep { $_->[2] eq 'ok' } @got), 1, 'once by this channel');
	is(scalar(@others), 1, 'once by the other');
	is(scalar(keys %{ { map { $_->[0] => 1 } @got, @others } }), 1, 'always under one id');
}
is(scalar(grep { $_->{path} ne '/hook/url-SECRET' } $received->('http')), 0, 'no redirect was followed');

# What follows in an incident waits for what is not delivered yet.
$behave->('http', '500');
$fail->('order');
$wait_until->(sub { $alert->('order', 'last_error IS NOT NULL') eq 't' }, 'a first-fail that is not taken');
$sql->(q{SELECT dwh._recover_alert('order', NULL)});
$fail->('meanwhile');
$is_delivered->('meanwhile', 'others pass');
is($alert->('order', 'state, attempts'), 'recovered|0', 'its recovery does not');
$due->('order');
$is_delivered->('order', 'both arrive');
is(join(' ', map { $_->[1] =~ /^state: +([a-z-]+)/m } grep { $_->[2] eq 'ok' } $texts->('order')), 'first-fail recovered', 'in order');

# ---- a server that restarts, at rest and while a message is under way ----

$behave->('http', 'hold');
$fail->('restart');
$wait_until->(sub { $texts->('restart') > 0 }, 'a message is under way');
$node->restart;
write_file("$dir/release", '');
$is_delivered->('restart', 'the server restarts: the alert is acknowledged all the same');
unlink "$dir/release";
is($alert->('restart', 'attempts'), '1', 'at the first attempt');
is(join(' ', map { scalar @$_ } [ $texts->('restart') ], [ $mails->('restart') ]), '1 1', 'so nothing is sent again');
$fail->('restarted');
$is_delivered->('restarted', 'and the notifier listens again');

# ---- SIGTERM: the message that is under way is finished ----

$behave->('smtp', 'hold');
$fail->('end');
$wait_until->(sub { $mails->('end') > 0 }, 'a message is under way');
kill 'TERM', $notifier;
write_file("$dir/release", '');
is($end->($notifier), '0', 'SIGTERM ends the notifier');
unlink "$dir/release";
is($alert->('end', 'delivered_at IS NOT NULL'), 't', 'after the message');
$notifier = $start->([]);
$wait_until->(sub { $sql->(q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dwh notifier' AND state = 'idle' AND query LIKE '%claim_alerts%'}) eq '1' },
	'a notifier that has nothing to do');
is($end->($notifier, 'TERM'), '0', 'ends at once');

# ---- a notifier that dies between sending and acknowledging; what others can see of it meanwhile ----

$behave->('http', 'hang');
$notifier = $start->([]);
$fail->('killed');
$wait_until->(sub { $texts->('killed') > 0 }, 'a message is under way');
# what ps shows; a process may end meanwhile
my @processes = map { my $file; open($file, '<', $_) ? join(' ', split /\0/, <$file> // '') : () } glob '/proc/[0-9]*/cmdline';
ok(scalar(grep { /^curl --disable --config -$/ } @processes), 'curl is at work');
is(join('', grep { /SECRET/ } @processes), '', 'and no process shows a secret among its arguments');
is($end->($notifier, 'KILL'), 'signal 9', 'the notifier is killed');
write_file("$dir/release", '');
is($once->(), '0', 'another one, while the lease lasts');
is(scalar(() = $texts->('killed')), 1, 'does not send it');
unlink "$dir/release";
like($alert->('killed', "attempts, next_at - clock_timestamp() BETWEEN '1 minute' AND '5 minutes'"), qr/^1\|t$/, 'the lease is of minutes');
$due->('killed');
is($once->(), '0', 'when it has ended');
is(scalar(() = $texts->('killed')), 2, 'it is sent again');
is(($texts->('killed'))[0][0], ($texts->('killed'))[1][0], 'under the same id');
is($alert->('killed', 'attempts, delivered_at IS NOT NULL'), '2|t', 'and acknowledged');

# ---- a sink that is silent; a batch; strange names ----

$behave->('http', 'hang');
$fail->('silent');
is($once->(NOTIFIER_TIMEOUT => 1), '1', 'a sink that does not answer ends in NOTIFIER_TIMEOUT');
is($alert->('silent', 'last_error, delivered_to'), 'webhook: timed out (curl 28, status 000)|{smtp}', 'and is a failure of its channel');
write_file("$dir/release", '');
$due->('silent');
$fail->("batch $_") for 1 .. 5;
is($once->(NOTIFIER_BATCH => 2), '0', 'one shot of at most two');
is($sql->('SELECT count(*) FROM ops.alerts WHERE delivered_at IS NULL'), '4', 'leaves the others to the next one');
my $nasty = "load:x\r\nBcc: evil\@example.org\r\n\r\n<!channel> \@here `*_ \x{27}; --";
$sql->("SELECT dwh._raise_alert(E'" . ($nasty =~ s/\r/\\r/gr =~ s/\n/\\n/gr =~ s/'/''/gr) . q{', 'error', E'one\r\nBcc: evil@example.org\r\n\r\n<!everyone> 경고',
	'{"sqlstate": "WH002\r\nX: y", "line": "row data", "raw": {"row data": 1}, "load_id": 7}', NULL)});
is($once->(), '0', 'one shot for the rest');
my ($odd) = grep { /everyone/ } map { JSON::PP::decode_json($_->{body})->{text} } $received->('http');
unlike($odd, qr/<|>|\@(?!\x{200b})|^Bcc/m, 'a strange name makes neither markup nor mention');
like($odd, qr/FROM ops\.rejects WHERE load_id = 7 /, 'and its SQL is there');
my ($strange) = map { $_->{content} } grep { $_->{content} =~ /ops\.rejects/ } $received->('smtp');
my ($head) = split /\r\n\r\n/, $strange;
unlike($head, qr/^(Bcc|X):/mi, 'nor a header');
like($head, qr/^Subject: [^\r]*\r\n =\?utf-8\?b\?\S+\r$/m, 'a title in Korean is encoded');
unlike($head, qr/[^\x20-\x7e\r\n]/, 'in ASCII');
is(scalar(() = $head =~ /^To: a\@example\.org, b\@example\.org\r?$/mg), 1, 'and the receivers are those of the settings');

# ---- two at once ----

$fail->("pair $_") for 1 .. 30;
my @pair = map { $start->([]) } 1 .. 2;
$wait_until->(sub { $sql->('SELECT count(*) FROM ops.alerts WHERE delivered_at IS NULL') eq '0' }, 'two notifiers deliver thirty alerts');
is(join(' ', map { $end->($_, 'TERM') } @pair), '0 0', 'and end');
is(scalar(grep { $texts->("pair $_") != 1 || $mails->("pair $_") != 1 } 1 .. 30), 0, 'each once through each channel');
is($sql->(q{SELECT max(attempts) FROM ops.alerts WHERE dedupe_key LIKE 'pair %'}), '1', 'at the first attempt');

# ---- a run that is cancelled: its alert is claimed once ----

$sql->(q{UPDATE ops.quality_checks SET query = 'SELECT pg_sleep(300)' WHERE name = 'mine'});
my $third = write_file("$dir/third.jsonl", sample($node, $db, 'events => 20, seed => 7'));
my $run = begin_sql($node, $db, "SELECT * FROM dwh.run_pipeline('$third')");
my $backend = wait_for($run, q{wait_event = 'PgSleep'});
$sql->("SELECT pg_cancel_backend($backend)");
is((end_sql($run))[0], '57014', 'a run is cancelled');
is($sql->(q{SELECT dedupe_key LIKE 'run:%third.jsonl', state, body ->> 'sqlstate' FROM dwh.claim_alerts()}), 't|first-fail|57014', 'its alert is claimed');
is($sql->(q{SELECT count(*) FROM dwh.claim_alerts()}), '0', 'once');

# ---- a transaction around a failing run that has raised the same key itself, and ends in a rollback ----

$sql->(q{UPDATE ops.quality_checks SET enabled = false WHERE name = 'mine'});
my $again = write_file("$dir/again.jsonl", sample($node, $db, 'events => 40, seed => 8') . join '', map { "row data $_\n" } 1 .. 20);
my (undef, $words) = sqlstate($node, $db, qq{DO \$\$ BEGIN
	PERFORM dwh._raise_alert('check:reject_share', 'error', 'of a transaction that is rolled back', '{}', NULL);
	BEGIN PERFORM FROM dwh.run_pipeline('$again'); EXCEPTION WHEN SQLSTATE 'WH001' THEN NULL; END;
	RAISE EXCEPTION 'rolled back'; END \$\$}, 'P0001', 'a key that the caller holds');
unlike($words, qr/could not be written/, 'keeps no evidence from being written');
is($alert->('check:reject_share', q{title, body ->> 'sqlstate'}), 'quality check reject_share failed|WH001', 'and the failure is in the outbox');

# ---- what nobody may find in what was sent or logged ----

my $sent = join '', map { s/=\\r\\n//gr } slurp_file("$dir/http.log"), slurp_file("$dir/smtp.log");   # lines of mails are folded
like($sent, qr/reject_share/, 'the sinks received messages');
unlike($sent, qr/row(?: |=20)data/, 'without row data');
unlike($sent, qr/pass-SECRET/, 'without the password');
unlike(join('', map { JSON::PP::decode_json($_->{body})->{text} } $received->('http')), qr/SECRET/, 'or the address');
unlike(slurp_file($log), qr/SECRET|row data/, 'the log holds neither');
unlike($sql->(q{SELECT string_agg(a::text, ' ') FROM ops.alerts AS a WHERE dedupe_key NOT LIKE 'load:x%'}), qr/SECRET|row data/, 'nor does the outbox');

$end->($sinks, 'TERM');
$node->stop;
done_testing();
