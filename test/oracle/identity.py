"""The identity of an event, computed independently of the extension from its description.

A UUID in its usual form is itself; any other string or number is the version 5 UUID of its text; without an event_id it is
the version 5 UUID of the canonical text: the JSON array, as jsonb prints it, of every modelled field and the object of
all other keys.

Numbers must come as Number (json.loads(text, parse_float=Number, parse_int=Number)), so that their spelling is known.
"""
import decimal
import re
import uuid
from datetime import date

NAMESPACE = uuid.UUID("49ed8e02-15dd-5f18-bfd9-42bd0f565928")
MODEL = ["event_id", "event_time", "event_type", "user_id", "session_id", "product_id", "device", "country", "category", "brand",
         "price", "revenue", "quantity"]
USUAL_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z", re.I | re.A)
JSON_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?\Z", re.A)
RFC3339 = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(\.\d+)?([Zz]|[+-]\d\d:\d\d)\Z", re.A)
decimal.getcontext().prec = 400000
decimal.getcontext().Emax = decimal.MAX_EMAX
decimal.getcontext().Emin = decimal.MIN_EMIN


class Number(str):
    """A JSON number as it was spelled."""


def print_number(text, trimmed):
    """As numeric prints it; trimmed: without trailing zeros after the point."""
    value = decimal.Decimal(text)
    scale = max(0, -value.as_tuple().exponent)
    if value == 0:
        printed = "0" + ("." + "0" * scale if scale else "")
    else:
        printed = format(value, "f")
    if trimmed and "." in printed:
        printed = printed.rstrip("0").rstrip(".")
    return printed


def print_string(text):
    short = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return '"' + "".join(short.get(c, "\\u%04x" % ord(c) if c < " " else c) for c in text) + '"'


def print_value(value):
    if isinstance(value, dict):
        keys = sorted(value, key=lambda k: (len(k.encode()), k.encode()))
        return "{" + ", ".join(print_string(k) + ": " + print_value(value[k]) for k in keys) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(print_value(v) for v in value) + "]"
    if isinstance(value, Number):
        return print_number(value, True)
    if isinstance(value, str):
        return print_string(value)
    return {True: "true", False: "false", None: "null"}[value]


def micros_of(text):
    """Microseconds since 1970-01-01 UTC of an RFC 3339 text with a zone; None where it is none."""
    match = RFC3339.match(text)
    if not match:
        return None
    year, month, day, hour, minute, second = (int(g) for g in match.groups()[:6])
    try:
        # date has no year 0: the calendar repeats every 400 years of 146,097 days
        days = date(year + 400, month, day).toordinal() - 146097 - date(1970, 1, 1).toordinal()
    except ValueError:
        if year + 400 <= 9999:
            return None
        try:
            days = date(year, month, day).toordinal() - date(1970, 1, 1).toordinal()
        except ValueError:
            return None
    if hour > 23 or minute > 59 or second > 60:
        return None
    offset, zone = 0, match.group(8)
    if zone not in "Zz":
        if int(zone[1:3]) > 15 or int(zone[4:]) > 59:
            return None
        offset = (int(zone[1:3]) * 60 + int(zone[4:])) * 60
        offset = -offset if zone[0] == "-" else offset
    fraction = int(((match.group(7) or ".")[1:] + "000000")[:6])
    return ((days * 86400 + hour * 3600 + minute * 60 + second - offset) * 1000000) + fraction


def print_time(micros):
    """In UTC with microseconds."""
    days, rest = divmod(micros, 86400 * 1000000)
    shift = 0
    ordinal = days + date(1970, 1, 1).toordinal()
    if ordinal < 1:
        ordinal, shift = ordinal + 146097, 400
    if ordinal > date.max.toordinal():
        ordinal, shift = ordinal - 146097, -400
    d = date.fromordinal(ordinal)
    seconds, fraction = divmod(rest, 1000000)
    return "%04d-%02d-%02dT%02d:%02d:%02d.%06dZ" % (d.year - shift, d.month, d.day, seconds // 3600, seconds // 60 % 60, seconds % 60, fraction)


def text_of(value):
    """A text field: a string, or a number as jsonb prints it; None where it says nothing."""
    if value is None or value == "":
        return None
    return print_number(value, False) if isinstance(value, Number) else value


def canonical(payload):
    parts = [print_string(print_time(micros_of(payload["event_time"])))]
    for key in MODEL[2:]:
        value = payload.get(key)
        if value is None or value == "":
            parts.append("null")
        elif key in ("price", "revenue", "quantity"):
            parts.append(print_number(value, True))
        else:
            parts.append(print_string(text_of(value)))
    beyond = {key: value for key, value in payload.items() if key not in MODEL}
    parts.append(print_value(beyond) if beyond else "null")
    return "[" + ", ".join(parts) + "]"


def event_id(payload):
    sent = text_of(payload.get("event_id"))
    if sent is None:
        return uuid.uuid5(NAMESPACE, canonical(payload))
    return uuid.UUID(sent) if USUAL_UUID.match(sent) else uuid.uuid5(NAMESPACE, sent)
