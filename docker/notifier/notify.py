#!/usr/bin/env python3
"""notify.py: takes what waits in ops.alerts to a Slack-compatible webhook and to a mailbox.

    notify.py          stays, wakes up with NOTIFY dwh_alerts, until SIGTERM
    notify.py --once   sends what is due, at most NOTIFIER_BATCH messages, and ends (for cron)

Promises:
 (1) At least once: an alert is acknowledged after every channel has taken it. Who dies in between leaves it to the end of its
     lease; the message that then comes again has the same Idempotency-Key and Message-ID.
 (2) No storm: NOTIFIER_BATCH messages, then one in NOTIFIER_MIN_INTERVAL seconds. Alerts are claimed one by one, so a sender
     that ends has at most one of them.
 (3) No row data: a message holds names and numbers. A text of an alert's body is shown only under a name of TEXTS.
 (4) No secret leaves the environment but to its server: curl reads addresses and passwords from its standard input, and errors
     are told by number, not in curl's words. No address comes out of the database.
 (5) What others named (a check, a file) forges nothing: no header, no line, no mention.

Exit status: 0; with --once 1 if something could not be delivered or the server not be reached; 2 for wrong settings.
Settings: README.md.
"""
import hashlib
import json
import os
import random
import re
import select
import signal
import subprocess
import sys
import time
import unicodedata
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate
from urllib.parse import urlsplit

import psycopg2
from psycopg2.extensions import parse_dsn

# Texts of a body that are names, not data: of checks, steps, sources.
TEXTS = ("sqlstate", "check", "kind", "step", "source", "failed_since")
CURL_GRACE = 10          # seconds beyond NOTIFIER_TIMEOUT after which a curl that does not end is killed
RECONNECT_MAX = 30       # seconds between two tries to reach the server, at most
CURL_ERRORS = {5: "proxy not found", 6: "host not found", 7: "no connection", 22: "refused by the server", 28: "timed out",
               35: "TLS failed", 51: "certificate refused", 52: "empty answer", 55: "connection lost", 56: "connection lost",
               60: "certificate refused", 64: "TLS refused by the server", 67: "login refused", 78: "not found"}


class SettingError(Exception):
    """A setting that cannot be used; its text names the setting and never its value."""


def log(text):
    """One line to standard error."""
    print("notifier: " + clean(text, 1000), file=sys.stderr, flush=True)


def clean(text, limit):
    """One line without control and formatting characters, at most limit characters."""
    line = "".join(" " if unicodedata.category(c)[0] == "C" or unicodedata.category(c) in ("Zl", "Zp") else c for c in str(text))
    return line if len(line) <= limit else line[:limit - 1] + "…"


# ---- settings ----

def secret(env, name):
    """The value of a setting, or the first line of the file that <name>_FILE names; None without either."""
    path = env.get(name + "_FILE")
    if path and env.get(name):
        raise SettingError(f"{name} and {name}_FILE are both set")
    if not path:
        return env.get(name) or None
    try:
        with open(path, encoding="utf-8") as file:
            return file.readline().rstrip("\r\n") or None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"{name}_FILE cannot be read: {type(error).__name__}") from None


def number(env, name, default, low, high):
    """A setting that is a whole number from low to high."""
    text = env.get(name) or str(default)
    if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
        raise SettingError(f"{name} is not a whole number from {low} to {high}")
    return int(text)


def address(url, name, schemes):
    """A URL with one of these schemes and a host."""
    if not re.fullmatch(r"[!-~]+", url):
        raise SettingError(f"{name} holds characters that no URL has")
    try:
        parts = urlsplit(url)
        valid = parts.scheme in schemes and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid:
        raise SettingError(f"{name} is no URL of {' or '.join(schemes)}")
    return url


def mailbox(text, name):
    """A bare mail address."""
    if not re.fullmatch(r"[!-~]+@[!-~]+", text) or re.search(r'[<>()\[\],;:\\"]', text):
        raise SettingError(f"{name} is no mail address of the form name@host")
    return text


class Settings:
    """All settings, from an environment. Times are in seconds. Raises SettingError."""

    def __init__(self, env):
        self.dsn = secret(env, "NOTIFIER_DSN") or ""
        try:
            # an own value of the connection string goes before these
            self.connection = dict(application_name="dwh notifier", connect_timeout="10", keepalives_idle="30",
                                   keepalives_interval="10", keepalives_count="3") | parse_dsn(self.dsn)
        except psycopg2.Error:
            raise SettingError("NOTIFIER_DSN is no connection string") from None
        self.name = env.get("NOTIFIER_NAME")
        self.timeout = number(env, "NOTIFIER_TIMEOUT", 20, 1, 120)
        self.poll = number(env, "NOTIFIER_POLL", 30, 1, 3600)
        self.batch = number(env, "NOTIFIER_BATCH", 5, 1, 100)
        self.min_interval = number(env, "NOTIFIER_MIN_INTERVAL", 10, 1, 3600)
        self.channels = [c for c in (Webhook.of(env, self.timeout), Mail.of(env, self.timeout)) if c]
        # every channel may take all its time, and the server some of its own
        self.lease = max(300, 2 * len(self.channels) * (self.timeout + CURL_GRACE))


# ---- what a message says ----

def literal(text):
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def question(alert):
    """The SQL that shows what an alert is about."""
    body, run_id = alert["body"], alert["run_id"]
    kind, _, subject = alert["dedupe_key"].partition(":")
    if kind == "check":
        return (f"SELECT run_id, load_ids, observed, allowed, offenders FROM ops.quality_results WHERE name = {literal(clean(subject, 200))} "
                "AND status = 'fail' ORDER BY result_id DESC LIMIT 1;")
    if kind == "load" and isinstance(body.get("load_id"), int):
        return f"SELECT line_no, byte_offset, class, message FROM ops.rejects WHERE load_id = {body['load_id']} ORDER BY line_no LIMIT 10;"
    if run_id is not None:
        return f"SELECT * FROM ops.runs WHERE run_id = {run_id}; SELECT * FROM ops.run_steps WHERE run_id = {run_id} ORDER BY step_no;"
    return f"SELECT * FROM ops.alerts WHERE alert_id = {alert['alert_id']};"


def details(body):
    """The numbers of a body, and the texts that are names."""
    shown = [(clean(key, 40), clean(value if isinstance(value, str) else json.dumps(value), 300)) for key, value in sorted(body.items())
             if isinstance(value, (bool, int, float)) or isinstance(value, str) and key in TEXTS]
    return ", ".join(f"{key} {value}" for key, value in shown[:20]) or "none"


class Message:
    """What is sent of an alert: subject (one line), text (lines), and id, the same with every attempt."""

    def __init__(self, alert, name, warehouse):
        key, title = clean(alert["dedupe_key"], 300), clean(alert["title"], 200)
        worth = f" ({clean(alert['severity'], 20)})" if alert["state"] != "recovered" else ""
        self.subject = f"[{clean(name, 60)}] {alert['state']}{worth}: {title}"
        self.text = "\n".join((
            f"about:       {key}",
            f"state:       {alert['state']}, severity {clean(alert['severity'], 20)}",
            f"failures:    {alert['failures']} so far, the last at {alert['last_failed_at']}" if alert["state"] != "recovered" else
            f"failures:    over; the last at {alert['last_failed_at']}",
            f"run:         {alert['run_id'] if alert['run_id'] is not None else 'none'}",
            f"details:     {details(alert['body'])}",
            f"look closer: {question(alert)}",
            f"alert:       {alert['alert_id']} of {alert['created_at']}, attempt {alert['attempts']}"))
        # the time as well: a server that was restored may give the number again
        self.id = hashlib.sha256(f"{warehouse}/{alert['alert_id']}/{alert['created_at']}".encode()).hexdigest()[:32]


# ---- channels ----

def quoted(value):
    """A value in a configuration of curl."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t") + '"'


def curl(options, timeout, is_success, content=None):
    """Runs curl; returns None, or in a few words why it failed. content is what it uploads: less than a pipe holds."""
    passed = {k: v for k, v in os.environ.items()
              if k in ("PATH", "LANG") or k.lower().endswith("_proxy") or k in ("SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE")}
    options = [("silent", None), ("globoff", None), ("output", os.devnull), ("write-out", "%{response_code}"), ("max-redirs", "0"),
               ("max-time", str(timeout)), ("connect-timeout", str(timeout))] + options
    upload = None
    if content is not None:
        upload, writing = os.pipe()
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(content)
        options.append(("upload-file", f"/dev/fd/{upload}"))
    config = "".join(name + (f" = {quoted(value)}" if value is not None else "") + "\n" for name, value in options)
    try:
        # a session of its own: a signal for the notifier does not cut a message
        done = subprocess.run(["curl", "--disable", "--config", "-"], input=config.encode(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              timeout=timeout + CURL_GRACE, env=passed, pass_fds=() if upload is None else (upload,), start_new_session=True)
    except subprocess.TimeoutExpired:
        return "timed out"
    except OSError as error:
        return f"curl could not be started: {error.strerror}"
    finally:
        if upload is not None:
            os.close(upload)
    code = done.stdout.decode("ascii", "replace")[-3:]
    if done.returncode == 0 and is_success(code):
        return None
    why = CURL_ERRORS.get(done.returncode, "answered") if done.returncode else "answered"
    return f"{why} (curl {done.returncode}, status {code if re.fullmatch('[0-9]{3}', code) else '000'})"


class Webhook:
    """A Slack-compatible webhook: a POST of {"text": ...}; any 2xx is success, a redirect is none."""

    name = "webhook"

    def __init__(self, url, timeout):
        self.url, self.timeout = url, timeout

    @classmethod
    def of(cls, env, timeout):
        """From the environment; None where it has no URL."""
        url = secret(env, "NOTIFIER_WEBHOOK_URL")
        return cls(address(url, "NOTIFIER_WEBHOOK_URL", ("http", "https")), timeout) if url else None

    @staticmethod
    def escaped(text):
        """Text in which nothing is markup or a mention, of Slack or of those that read its format."""
        return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("`", "'").replace("@", "@\u200b")

    def send(self, message):
        """Returns None, or why it failed."""
        text = f"*{self.escaped(message.subject).replace('*', '∗')}*\n```\n{self.escaped(message.text)}\n```"
        return curl([("url", self.url), ("proto", "=http,https"), ("request", "POST"), ("header", "Content-Type: application/json"),
                     ("header", f"Idempotency-Key: {message.id}"), ("data-raw", json.dumps({"text": text}))],
                    self.timeout, lambda code: code[:1] == "2")


class Mail:
    """A mail server; TLS is required with a password, and used where offered without one."""

    name = "smtp"
    TLS = {"required": [("ssl-reqd", None)], "offered": [("ssl", None)], "off": []}

    def __init__(self, url, sender, receivers, login, tls, timeout):
        self.url, self.sender, self.receivers, self.login, self.tls, self.timeout = url, sender, receivers, login, tls, timeout

    @classmethod
    def of(cls, env, timeout):
        """From the environment; None where it has no URL."""
        url = secret(env, "NOTIFIER_SMTP_URL")
        if not url:
            return None
        url = address(url, "NOTIFIER_SMTP_URL", ("smtp", "smtps"))
        sender = mailbox(env.get("NOTIFIER_SMTP_FROM") or "", "NOTIFIER_SMTP_FROM")
        receivers = [mailbox(r.strip(), "NOTIFIER_SMTP_TO") for r in (env.get("NOTIFIER_SMTP_TO") or "").split(",")]
        user, password = env.get("NOTIFIER_SMTP_USER"), secret(env, "NOTIFIER_SMTP_PASSWORD")
        if bool(user) != bool(password):
            raise SettingError("NOTIFIER_SMTP_USER and NOTIFIER_SMTP_PASSWORD go together")
        if user and not re.fullmatch(r"[!-9;-~]+", user):
            raise SettingError("NOTIFIER_SMTP_USER holds a colon, or a character that is not ASCII")
        tls = env.get("NOTIFIER_SMTP_TLS") or ("required" if user else "offered")
        if tls not in cls.TLS:
            raise SettingError(f"NOTIFIER_SMTP_TLS is none of {', '.join(cls.TLS)}")
        return cls(url, sender, receivers, f"{user}:{password}" if user else None, cls.TLS[tls], timeout)

    def letter(self, message):
        """The mail as bytes."""
        letter = EmailMessage(policy=SMTP)
        letter["From"], letter["To"], letter["Subject"] = self.sender, ", ".join(self.receivers), message.subject
        letter["Date"] = formatdate()
        letter["Message-ID"] = f"<dwh-{message.id}@{self.sender.rpartition('@')[2]}>"
        letter["Auto-Submitted"] = "auto-generated"
        letter.set_content(message.text + "\n", cte="quoted-printable")
        return letter.as_bytes()

    def send(self, message):
        """Returns None, or why it failed."""
        options = [("url", self.url), ("proto", "=smtp,smtps"), ("mail-from", f"<{self.sender}>")]
        options += [("mail-rcpt", f"<{receiver}>") for receiver in self.receivers] + self.tls
        if self.login:
            options.append(("user", self.login))
        return curl(options, self.timeout, lambda code: True, self.letter(message))


# ---- the outbox ----

class Outbox:
    """ops.alerts, through dwh.claim_alerts(), ack_alert() and fail_alert(). Methods raise psycopg2.Error."""

    CLAIM = """
        SELECT alert_id, dedupe_key, state, severity, title, body::text, failures, run_id, attempts, delivered_to,
               to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
               to_char(last_failed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
          FROM dwh.claim_alerts(n => 1, lease => make_interval(secs => %s))"""
    COLUMNS = ("alert_id", "dedupe_key", "state", "severity", "title", "body", "failures", "run_id", "attempts", "delivered_to",
               "created_at", "last_failed_at")

    def __init__(self, settings):
        self.settings = settings
        self.connection = None
        self.outcomes = []       # what was sent and is not said yet: (alert_id, error or None, channels)

    def connect(self):
        """Connects where there is no connection, and listens from then on."""
        if self.connection is not None:
            return
        self.connection = psycopg2.connect(**self.settings.connection)
        self.connection.autocommit = True
        self.execute("SET statement_timeout = '30s'; SET search_path = pg_catalog, pg_temp; LISTEN dwh_alerts")
        try:
            server = self.execute("SELECT system_identifier::text FROM pg_control_system()")
        except psycopg2.errors.InsufficientPrivilege:
            server = "0"
        database, oid = self.execute("SELECT current_database(), d.oid FROM pg_database AS d WHERE d.datname = current_database()", all_columns=True)
        self.warehouse = f"{server}/{oid}"
        self.name = self.settings.name or database

    def drop(self):
        """Ends a connection that failed."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def execute(self, sql, values=None, all_columns=False):
        """Runs a statement; returns the first row, or its first column; None without a row."""
        with self.connection.cursor() as cursor:
            cursor.execute(sql, values)
            row = cursor.fetchone() if cursor.description else None
        return row if all_columns or row is None else row[0]

    def claim(self):
        """The next alert as a dict; None where none is due."""
        row = self.execute(self.CLAIM, (self.settings.lease,), all_columns=True)
        if row is None:
            return None
        alert = dict(zip(self.COLUMNS, row))
        body = json.loads(alert["body"])
        alert["body"] = body if isinstance(body, dict) else {}
        return alert

    def settle(self):
        """Says what became of the alerts that were sent; keeps what cannot be said now."""
        for outcome in list(self.outcomes):
            alert_id, error, channels = outcome
            try:
                if error is None:
                    self.execute("SELECT status FROM dwh.ack_alert(%s, %s::text[])", (alert_id, channels))
                else:
                    self.execute("SELECT status FROM dwh.fail_alert(%s, %s, %s::text[])", (alert_id, error, channels))
            except (psycopg2.errors.LockNotAvailable, psycopg2.errors.SerializationFailure):
                continue
            except psycopg2.errors.NoDataFound:
                log(f"alert {alert_id} is gone")
            self.outcomes.remove(outcome)

    def wait(self, seconds, wake):
        """Until there is a NOTIFY, a byte in the file descriptor wake, or that time is over."""
        select.select([self.connection, wake], [], [], seconds)
        self.connection.poll()
        del self.connection.notifies[:]


class Pace:
    """NOTIFIER_BATCH messages at once, then one in NOTIFIER_MIN_INTERVAL seconds; what is not used comes back at that rate."""

    def __init__(self, batch, min_interval):
        self.batch, self.min_interval, self.free, self.since = batch, min_interval, float(batch), time.monotonic()

    def delay(self):
        """Seconds until the next message may go."""
        now = time.monotonic()
        self.free = min(float(self.batch), self.free + (now - self.since) / self.min_interval)
        self.since = now
        return max(0.0, (1 - self.free) * self.min_interval)

    def take(self):
        """Counts a message."""
        self.free -= 1


def deliver(alert, outbox, channels):
    """Sends an alert through the channels that do not have it yet, and notes the outcome; True if all of them took it."""
    message = Message(alert, outbox.name, outbox.warehouse)
    taken, errors = [], []
    for channel in channels:
        if channel.name in alert["delivered_to"]:
            continue
        error = channel.send(message)
        if error is None:
            taken.append(channel.name)
        else:
            errors.append(f"{channel.name}: {error}")
    outbox.outcomes.append((alert["alert_id"], "; ".join(errors) or None, taken))
    log(f"alert {alert['alert_id']} ({alert['dedupe_key']}, {alert['state']}): delivered to {', '.join(taken) or 'nobody'}"
        + (f"; {'; '.join(errors)}" if errors else ""))
    return not errors


def said(error):
    """A database's error in one line without its context, which could quote a value."""
    return f"{error.pgcode or ''} {(str(error).strip() or type(error).__name__).splitlines()[0]}".strip()


def once(settings):
    """Sends what is due, at most one batch; returns the exit status."""
    outbox = Outbox(settings)
    is_well = True
    try:
        outbox.connect()
        for _ in range(settings.batch):
            alert = outbox.claim()
            if alert is None:
                break
            is_well = deliver(alert, outbox, settings.channels) and is_well
            outbox.settle()
    except psycopg2.Error as error:
        log(said(error))
        is_well = False
    for pause in (1, 2, 4):
        if not outbox.outcomes:
            break
        time.sleep(pause)
        try:
            outbox.drop()
            outbox.connect()
            outbox.settle()
        except psycopg2.Error as error:
            log(said(error))
    outbox.drop()
    return 0 if is_well and not outbox.outcomes else 1


class Ending:
    """True once SIGTERM or SIGINT has come; wake is a file descriptor that can be read from then on."""

    def __init__(self):
        self.has_come = False
        self.wake, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing)
        for number_ in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number_, self.come)

    def come(self, _signal, _frame):
        """Ends the work after the message that is under way."""
        self.has_come = True

    def pause(self, seconds):
        """Sleeps until then, or until the end has come."""
        if not self.has_come:
            select.select([self.wake], [], [], seconds)


def serve(settings, ending):
    """Sends what is due, and waits for more, until the end has come."""
    outbox, pace, tries = Outbox(settings), Pace(settings.batch, settings.min_interval), 0
    while not ending.has_come:
        ending.pause(pace.delay())
        if ending.has_come:
            break
        try:
            outbox.connect()
            outbox.settle()
            alert = outbox.claim()
            if alert is not None:
                pace.take()
                deliver(alert, outbox, settings.channels)
                outbox.settle()
            else:
                outbox.wait(1 if outbox.outcomes else settings.poll, ending.wake)
            tries = 0
        except psycopg2.Error as error:
            log(said(error))
            outbox.drop()
            ending.pause(min(RECONNECT_MAX, 2 ** tries) * random.uniform(0.5, 1))
            tries = min(tries + 1, 5)
    outbox.drop()
    if outbox.outcomes:
        log(f"{len(outbox.outcomes)} messages were sent and could not be acknowledged: they will be sent again")
    log("ended")
    return 0


def main(arguments):
    """Returns the exit status."""
    if arguments not in ([], ["--once"]):
        log("usage: notify.py [--once]")
        return 2
    try:
        settings = Settings(os.environ)
    except SettingError as error:
        log(str(error))
        return 2
    if not settings.channels:
        log("no channel is configured (NOTIFIER_WEBHOOK_URL, NOTIFIER_SMTP_URL): alerts stay where they are")
        if arguments:
            return 0
        ending = Ending()
        while not ending.has_come:
            ending.pause(3600)
        return 0
    log(f"channels: {', '.join(c.name for c in settings.channels)}")
    return once(settings) if arguments else serve(settings, Ending())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
