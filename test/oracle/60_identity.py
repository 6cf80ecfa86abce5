"""Random payloads with what dwh.parse_event must make of them, computed in identity.py from DESIGN's words.

usage: 60_identity.py directory cases seed

payloads.tsv: number, group, payload as sent, event_id, event_time in microseconds, text fields, price, revenue, quantity,
attributes as JSON, flags, reject class. Payloads of one group are the same event spelled otherwise, so they must have
the same event_id. times.tsv: text, microseconds or \\N where it is no RFC 3339 time with a zone.
"""
import decimal
import json
import os
import random
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import identity
from identity import Number

directory, cases, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rng = random.Random(seed)
STRINGS = ["mobile", "a", "u1", "ünïcode", "\U0001f600", 'quo"te', "back\\slash", "sla/sh", "tab\there", "new\nline", "\u0001\u001f\u007f", "\u2028", " ", "null", "\\u0000",
           "x" * 300, "é", "e\u0301", "\ufeff", "0", "1.0", "true", "[]", "\r\b\f"]
NUMBERS = ["0", "-0", "0.0", "-0.00", "1", "1.0", "1.10", "10", "100", "1e2", "1.0e1", "1.00e1", "25e-1", "250e-2", "-1.50", "12345678901234567890.10", "0.1", "1E+3", "0e10", "0.000e2", "1e-7",
           "99999999999999999999", "1e99", "1e-300"]
QUANTITIES = ["0", "1", "1.0", "2", "10e-1", "2147483647", "2.147483647e9", "0.0", "-0", "30e1"]


def random_number():
    return Number(rng.choice(NUMBERS) if rng.random() < .7 else "%s%d.%d%s" % (
        rng.choice(["", "-"]), rng.getrandbits(rng.choice([4, 40])), rng.getrandbits(20), rng.choice(["", "0", "e1", "e-3", "E+5"])))


def random_time():
    year = rng.choice([2025, 2025, 2024, 1999, 1970, 1900, 2000, 1583, 1600, 4, 1, 0, 9999, rng.randint(0, 9999)])
    if rng.random() < .2:
        year = 2024
        month, day = 2, 29
    else:
        month, day = rng.randint(1, 12), rng.randint(1, 28)
    second = 60 if rng.random() < .05 else rng.randint(0, 59)
    text = "%04d-%02d-%02d%s%02d:%02d:%02d" % (year, month, day, rng.choice("Tt "), rng.choice([0, 23, rng.randint(0, 23)]), rng.randint(0, 59), second)
    if rng.random() < .5:
        text += "." + "".join(rng.choice("0123456789") for _ in range(rng.choice([1, 2, 3, 6, 7, 9, 12])))
    return text + rng.choice(["Z", "z", "+09:00", "-08:00", "+00:00", "-00:00", "+15:59", "-15:59", "+05:30", "%s%02d:%02d" % (rng.choice("+-"), rng.randint(0, 15), rng.randint(0, 59))])


def random_beyond(depth=0):
    kind = rng.randrange(7 if depth < 3 else 4)
    if kind == 0:
        return rng.choice([True, False, None])
    if kind == 1:
        return random_number()
    if kind < 4:
        return rng.choice(STRINGS + [""])
    if kind == 4:
        return [random_beyond(depth + 1) for _ in range(rng.randint(0, 3))]
    return {rng.choice(STRINGS + ["", "event_id", "price"]): random_beyond(depth + 1) for _ in range(rng.randint(0, 4))}


def spell_string(text):
    out = '"'
    for c in text:
        how = rng.random()
        if c in '"\\' or c < " ":
            out += json.dumps(c)[1:-1] if how < .7 else "\\u%04X" % ord(c)
        elif how < .1:
            out += "".join(("\\u%04x" if rng.random() < .5 else "\\u%04X") % (unit[0] << 8 | unit[1]) for unit in
                           zip(c.encode("utf-16-be")[::2], c.encode("utf-16-be")[1::2]))
        elif c == "/" and how < .5:
            out += "\\/"
        else:
            out += c
    return out + '"'


def spell_number(text):
    """The same value and the same number of digits after the point, as jsonb keeps it."""
    if rng.random() < .5 and "e" not in text.lower():
        return text + rng.choice(["e0", "E+0", "e-0"])
    return text


def respell_number(text):
    """The same value, perhaps with other trailing zeros."""
    text = spell_number(text)
    if rng.random() < .5 and "e" not in text.lower():
        return text + ("0" if "." in text else ".0")
    return text


def spell(value, number=spell_number):
    blank = rng.choice(["", "", " ", "\t"])
    if isinstance(value, dict):
        items = list(value.items())
        rng.shuffle(items)
        parts = [spell_string(k) + blank + ":" + spell(v, number) for k, v in items]
        if items and rng.random() < .1:     # a key twice: the last one counts
            parts.insert(0, spell_string(items[0][0]) + ":" + rng.choice(["1", '"first"', "null", "{}"]))
        return "{" + blank + ",".join(parts) + "}" + blank
    if isinstance(value, list):
        return "[" + ",".join(spell(v, number) for v in value) + "]"
    if isinstance(value, Number):
        return number(value)
    if isinstance(value, str):
        return spell_string(value)
    return {True: "true", False: "false", None: "null"}[value]


def copy_text(value):
    if value is None:
        return "\\N"
    return str(value).replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def random_payload():
    payload = {"event_time": random_time(), "event_type": rng.choice(["page_view", "purchase", "wishlist"] + STRINGS), "user_id": rng.choice(STRINGS + ["u1"])}
    if rng.random() < .1:
        payload["user_id"] = random_number()
    if rng.random() < .4:
        payload["event_id"] = rng.choice([
            "", None, "%08x-%04x-%04x-%04x-%012x" % tuple(rng.getrandbits(n) for n in (32, 16, 16, 16, 48)),
            "%08X-%04X-%04x-%04X-%012X" % tuple(rng.getrandbits(n) for n in (32, 16, 16, 16, 48)), "%032x" % rng.getrandbits(128),
            "{%08x-%04x-%04x-%04x-%012x}" % tuple(rng.getrandbits(n) for n in (32, 16, 16, 16, 48)), "order 17", Number("17"), Number("1.0"), Number("1e2"),
            " 00000000-0000-0000-0000-000000000000", "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff", "00000000-0000-0000-0000-00000000000g"] + STRINGS)
    for key in ("session_id", "product_id", "device", "country", "category", "brand"):
        if rng.random() < .6:
            payload[key] = rng.choice([None, "", random_number()] + STRINGS)
    for key in ("price", "revenue"):
        if rng.random() < .5:
            number = random_number()
            payload[key] = rng.choice([number, number, str(number), None, ""])
    if rng.random() < .5:
        quantity = rng.choice(QUANTITIES)
        payload["quantity"] = rng.choice([Number(quantity), quantity, None])
    for _ in range(rng.choice([0, 0, 1, 2, 4])):
        payload[rng.choice(["note", "", "a", "ab", "Event_id", "event_id ", "ünknown", "x" * 40, "score"])] = random_beyond()
    return payload


def judge(event_type, money):
    """The flags of price, revenue and quantity as sent; a purchase's missing revenue is filled in."""
    price, revenue, quantity = (None if m is None else decimal.Decimal(m) for m in money)
    flags = set()
    if price is not None and price < 0:
        flags.add("negative_price")
    if revenue is not None:
        if revenue < 0:
            flags.add("negative_revenue")
        if event_type != "purchase":
            flags.add("revenue_outside_purchase")
        if price is not None and quantity is not None and revenue != price * quantity:
            flags.add("revenue_mismatch")
    elif event_type == "purchase" and price is not None and quantity is not None:
        flags.add("revenue_computed")
        money[1] = identity.print_number(str(price * quantity), False)
    return "{" + ",".join(sorted(flags)) + "}" if flags else None


def damage(payload):
    """One field that makes it no event, and the class that says so."""
    text = ["event_type", "user_id", "session_id", "product_id", "device", "country", "category", "brand", "event_id"]
    wrong = rng.choice([True, False, [], {}, ["a"], {"a": Number("1")}])
    choice = rng.randrange(7)
    if choice == 0:
        key = rng.choice(["event_time", "event_type", "user_id"])
        if rng.random() < .3:
            del payload[key]
        else:
            payload[key] = rng.choice([None, ""])
        return "missing_field"
    if choice == 1:
        payload[rng.choice(text)] = wrong
        return "wrong_type"
    if choice == 2:
        payload[rng.choice(["price", "revenue", "quantity"])] = rng.choice([wrong, "cheap", "1,5", "+1", ".5", "5.", "0x10", " 1", "1 ", "NaN", "Infinity", "1e", "01", "--1", "1_0", "\u0661", "1\u0000"[:1] + "a"])
        return "wrong_type"
    if choice == 3:
        payload["event_time"] = rng.choice([wrong, Number("1736512215"), Number("0")])
        return "wrong_type"
    if choice == 4:
        payload["event_time"] = rng.choice(BAD_TIMES)
        return "invalid_time"
    if choice == 5:
        payload["quantity"] = rng.choice([Number, str])(rng.choice(["1.5", "-1", "2147483648", "1e10", "0.1", "-0.5", "99999999999999999999", "1e-1", "1e300", "-1.0", "15e-1"]))
        return "out_of_range"
    payload[rng.choice(["price", "revenue"])] = rng.choice([Number, str])(rng.choice(["1e100", "-1e100", "1" + "0" * 100, "1e131071"]))
    return "out_of_range"


BAD_TIMES = ["now", "infinity", "-infinity", "today", "epoch", "tomorrow", "2025-01-10", "2025-01-10T12:30:15", "2025-01-10T12:30Z", "2025-01-10T12:30:15 Z", "2025-01-10 12:30:15+09", "2025-01-10T12:30:15+0900",
             "2025-01-10T12:30:15+16:00", "2025-01-10T12:30:15-16:00", "2025-01-10T12:30:15+09:60", "2025-01-10T24:00:00Z", "2025-01-10T25:00:00Z", "2025-01-10T12:60:00Z", "2025-01-10T12:30:61Z", "2025-02-29T00:00:00Z",
             "2025-02-30T00:00:00Z", "1900-02-29T00:00:00Z", "2100-02-29T00:00:00Z", "2025-13-01T00:00:00Z", "2025-00-01T00:00:00Z", "2025-01-00T00:00:00Z", "2025-01-32T00:00:00Z", "2025-04-31T00:00:00Z", "25-01-10T00:00:00Z",
             "02025-01-10T00:00:00Z", "2025-1-10T00:00:00Z", "2025-01-10T0:00:00Z", "2025-01-10T12:30:15.Z", "2025-01-10T12:30:15,5Z", "2025-01-10T12:30:15Z ", " 2025-01-10T12:30:15Z", "2025-01-10T12:30:15UTC",
             "2025-01-10T12:30:15 Asia/Seoul", "2025-01-10T12:30:15KST", "20250110T123015Z", "2025/01/10T12:30:15Z", "10.01.2025 12:30:15Z", "2025-W02-5T12:30:15Z", "2025-010T12:30:15Z", "-2025-01-10T12:30:15Z",
             "+2025-01-10T12:30:15Z", "2025-01-10T12:30:15ZZ", "2025-01-10T12:30:15+9:00", "2025-01-10T12:30:15\u221209:00", "2025-01-10T12:30:15+09:00:00", "\u0662025-01-10T12:30:15Z", "2025-01-10T12:30:15.5", "2025-01-10TT12:30:15Z",
             "2025-01-10  12:30:15Z", "Z", "1736512215", "2025-01-10T12:30:15.1.2Z", "2025-01-10_12:30:15Z"]
assert all(identity.micros_of(text) is None for text in BAD_TIMES)

with open(os.path.join(directory, "payloads.tsv"), "w", encoding="utf-8", newline="") as out:
    number = 0
    for group in range(cases):
        payload = random_payload()
        refused = damage(payload) if rng.random() < .2 else None
        for _ in range(3):
            # attributes and texts keep the scale of a number, so spellings within a group keep it too, but for money
            sent = spell(payload)
            number += 1
            if refused:
                row = [number, group, sent] + [None] * 15 + [refused]
            else:
                beyond = {k: v for k, v in payload.items() if k not in identity.MODEL}
                money = [None if payload.get(k) in (None, "") else identity.print_number(payload[k], False) for k in ("price", "revenue", "quantity")]
                if money[2] is not None:
                    money[2] = int(identity.print_number(payload["quantity"], True))
                flags = judge(payload["event_type"], money)
                row = [number, group, sent, identity.event_id(payload), identity.micros_of(payload["event_time"])] + [
                    identity.text_of(payload.get(k)) for k in identity.MODEL[2:10]] + money + [
                        spell(beyond) if beyond else None, flags, None]
            out.write("\t".join(copy_text(v) for v in row) + "\n")

# The same event without an event_id, its numbers and time written otherwise: the canonical text has no trailing zeros.
with open(os.path.join(directory, "respelled.tsv"), "w", encoding="utf-8", newline="") as out:
    for group in range(cases // 4):
        payload = random_payload()
        payload.pop("event_id", None)
        for key in ("user_id", "session_id", "product_id", "device", "country", "category", "brand"):
            if isinstance(payload.get(key), Number):
                payload[key] = "text"       # a number as text keeps its spelling: another one is another text
        micros = identity.micros_of(payload["event_time"])
        for _ in range(3):
            again = dict(payload)
            if rng.random() < .7 and 1000 < int(payload["event_time"][:4]) < 9000:
                again["event_time"] = identity.print_time(micros).replace("T", rng.choice("Tt ")).replace("Z", rng.choice(["Z", "z", "+00:00", "999Z"]))
            for key in ("price", "revenue", "quantity"):
                if again.get(key) not in (None, ""):
                    text = respell_number(again[key])
                    again[key] = rng.choice([Number(text), str(text)])
            for key in ("session_id", "device", "price", "quantity"):
                if again.get(key) in (None, ""):
                    again.pop(key, None)    # nothing said in another way
                    if rng.random() < .5:
                        again[key] = rng.choice([None, ""])
            out.write("%d\t%s\t%s\n" % (group, copy_text(spell(again, respell_number)), identity.event_id(payload)))

with open(os.path.join(directory, "times.tsv"), "w", encoding="utf-8", newline="") as out:
    texts = [random_time() for _ in range(cases)] + BAD_TIMES
    for text in [random_time() for _ in range(cases)]:      # one character changed, taken out or added
        at = rng.randrange(len(text))
        texts.append(text[:at] + rng.choice("0123456789-:+.TZ z") * rng.randint(0, 1) + text[at + rng.randint(0, 1):])
    for year in (0, 1, 3, 4, 99, 100, 400, 1582, 1700, 1900, 1970, 2000, 2024, 2100, 9999):
        for day in ("01-01", "02-28", "02-29", "03-01", "12-31", "06-31"):
            for clock in ("00:00:00Z", "23:59:59.999999Z", "23:59:60Z", "23:59:60.5-15:59", "00:00:00+15:59"):
                texts.append("%04d-%sT%s" % (year, day, clock))
    for text in texts:
        out.write("%s\t%s\n" % (copy_text(text), copy_text(identity.micros_of(text))))
