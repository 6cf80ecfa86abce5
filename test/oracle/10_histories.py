"""Random small histories of many users, as JSON lines and as what they mean.

usage: 10_histories.py directory histories rounds seed

Writes whole.jsonl (every event once), whole.tsv (its meaning), and for the scenarios "verbs" and "runs":
<scenario>/<round>/<part>.jsonl with the events split over rounds and parts in random order, some of them again later
(replays, also spelled differently), and <scenario>.tsv, whose first column is the round in which an event first comes.
A .tsv has: round, event_id, event_time, user_id, device, country, product_id, category, brand, price.
"""
import json
import os
import random
import sys
import uuid
from datetime import datetime, timedelta, timezone

directory, histories, rounds, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
rng = random.Random(seed)
NAMESPACE = uuid.UUID("49ed8e02-15dd-5f18-bfd9-42bd0f565928")
DEVICES = ["mobile", "desktop", "tv"]
COUNTRIES = ["KR", "de", "Ärger \U0001f600"]


def instants():
    """Few distinct instants, some a microsecond apart, some at the edges of days, months and years."""
    base = datetime(2023, 12, 31, 23, 59, 59, 999999, tzinfo=timezone.utc)
    steps = [timedelta(0), timedelta(microseconds=1), timedelta(microseconds=2), timedelta(days=1), timedelta(days=-31),
             timedelta(hours=5), timedelta(days=3650 * -3), timedelta(seconds=1), timedelta(days=200)]
    steps += [timedelta(days=day) for day in range(2, 13)]  # so that products, which many users see, have long histories
    return [base + step for step in rng.sample(steps, rng.randint(1, 5))]


def spell_time(t):
    """The same instant in a random zone and spelling."""
    minutes = rng.choice([0, 0, 0, 540, -570, 959, -959, 330])
    local = t.astimezone(timezone(timedelta(minutes=minutes)))
    text = local.strftime("%Y-%m-%d") + rng.choice("Tt ") + local.strftime("%H:%M:%S")
    fraction = "%06d" % local.microsecond
    if local.microsecond == 0:
        text += rng.choice(["", ".0", ".000000", ".000000999"])
    else:
        text += "." + (fraction.rstrip("0") if rng.random() < .5 else fraction + rng.choice(["", "999"]))
    if minutes == 0:
        return text + rng.choice(["Z", "z", "+00:00", "-00:00"])
    return text + "%s%02d:%02d" % ("-" if minutes < 0 else "+", abs(minutes) // 60, abs(minutes) % 60)


def spell_null(payload, key):
    """No information has three spellings."""
    spelling = rng.randrange(3)
    if spelling == 0:
        payload[key] = None
    elif spelling == 1:
        payload[key] = ""


def respell(payload):
    """Equal as a jsonb value: keys in another order, blanks, escapes."""
    items = list(payload.items())
    rng.shuffle(items)
    return json.dumps(dict(items), ensure_ascii=rng.random() < .5, separators=rng.choice([(",", ":"), (", ", ": "), (" ,\t", " : ")]))


events = []                                 # (meaning, payload)
for number in range(histories):
    user = "u%06d" % number
    times = instants()
    quiet = rng.random()                    # how often an attribute is not told
    devices = rng.sample(DEVICES, rng.randint(1, 3))
    countries = rng.sample(COUNTRIES, rng.randint(1, 3))
    for _ in range(rng.randint(2, 12)):
        raw_id = uuid.UUID(int=rng.getrandbits(128))
        if rng.random() < .8:
            event_id, sent_id = raw_id, (str(raw_id).upper() if rng.random() < .2 else str(raw_id))
        else:
            sent_id = "event %s" % raw_id
            event_id = uuid.uuid5(NAMESPACE, sent_id)
        time = rng.choice(times)
        device = None if rng.random() < quiet else rng.choice(devices)
        country = None if rng.random() < quiet else rng.choice(countries)
        product = None if rng.random() < .3 else "p%04d" % rng.randrange(max(1, histories // 8))
        known = product is not None and rng.random() < .5
        category = rng.choice([None, "toys", "books"]) if known else None
        brand = rng.choice([None, "Acme", "Ember"]) if known else None
        price = rng.choice([None, 10, 10, 20, 20, 30, 0, -5]) if product is not None and rng.random() < .7 else None
        payload = {"event_id": sent_id, "event_time": spell_time(time), "event_type": rng.choice(["page_view", "add_to_cart", "wishlist"]),
                   "user_id": user}
        for key, value in (("device", device), ("country", country), ("product_id", product), ("category", category), ("brand", brand)):
            if value is None:
                spell_null(payload, key)
            else:
                payload[key] = value
        if price is not None:
            payload["price"] = rng.choice([price, "%d.0" % price, "%de0" % price])
        events.append(((str(event_id), time.isoformat(), user, device, country, product, category, brand, price), payload))


def tsv(name, rows):
    with open(os.path.join(directory, name), "w", encoding="utf-8") as out:
        for row in rows:
            out.write("\t".join("\\N" if value is None else str(value) for value in row) + "\n")


def jsonl(path, lines):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as out:
        out.writelines(line + "\n" for line in lines)


jsonl(os.path.join(directory, "whole.jsonl"), [respell(payload) for _, payload in events])
tsv("whole.tsv", [(1,) + meaning for meaning, _ in events])
for scenario in ("verbs", "runs"):
    parts = {(r, p): [] for r in range(1, rounds + 1) for p in range(1, 4)}
    meanings = []
    for meaning, payload in events:
        first = rng.randint(1, rounds)
        meanings.append((first,) + meaning)
        parts[first, rng.randint(1, 3)].append(respell(payload))
        while rng.random() < .25:           # replays: in the same round or a later one
            parts[rng.randint(first, rounds), rng.randint(1, 3)].append(respell(payload))
    for (r, p), lines in parts.items():
        rng.shuffle(lines)
        jsonl(os.path.join(directory, scenario, "%d" % r, "part_%d.jsonl" % p), lines)
    tsv(scenario + ".tsv", meanings)
    print(scenario, len(events), sum(len(lines) for lines in parts.values()))
