"""Random small logs of a few users, and what is done with them: loaded in several files, with users erased at random moments.

usage: 80_erasure.py directory trials seed

Writes for each trial <trial>/<n>.jsonl, and <trial>/clean/<n>.jsonl, the same lines without those of the users that are
erased in the end; and trials.sql, which plays all trials in one session: the one with erasures, then the clean one, and
what both leave behind into public.meaning. Needs the functions of 80_erasure.sql.
"""
import json
import os
import random
import sys

directory, trials, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rng = random.Random(seed)
USERS = ["u1", "u10", "u100", "ann@x.org", "김", "김철", 987654321, 'say "hi"']
TIMES = ["2024-11-30T23:59:59Z", "2024-12-01T00:00:00Z", "2025-01-10T00:00:00Z", "2025-01-10T00:00:00.000001Z", "2025-02-01T09:00:00+09:00",
         "2025-02-14T12:00:00Z", "2025-03-01T00:00:00Z"]
script = open(os.path.join(directory, "trials.sql"), "w", encoding="utf-8")


def say(statement):
    script.write(statement + ";\n")


def event(user, event_id):
    payload = {"event_time": rng.choice(TIMES), "event_type": rng.choice(["page_view", "purchase"]), "user_id": user}
    if event_id is not None:
        payload["event_id"] = event_id
    for key, values in (("device", ["mobile", "tv"]), ("country", ["KR", "DE"]), ("product_id", ["p1", "p2", "p3", "p4"]),
                        ("category", ["c1", "c2"]), ("brand", ["b1", "b2"]), ("price", [1, 2.5, 300])):
        if rng.random() < .5:
            payload[key] = rng.choice(values)
    return payload


def spell(payload):
    items = list(payload.items())
    rng.shuffle(items)
    return json.dumps(dict(items), ensure_ascii=rng.random() < .5)


def make_file(number, users, known):
    """Lines of one file as (user or None, text). known: payloads that were sent before, by anybody."""
    lines = [("stay", spell(dict(event("stay", "first of %d" % number))))]
    for _ in range(rng.randint(2, 14)):
        user = rng.choice(users)
        what = rng.random()
        if what < .5 or not known:
            payload = event(user, rng.choice([None, "e%d" % rng.randrange(10 ** 6)]))
            known.append(payload)
        elif what < .65:    # replay
            payload = rng.choice(known)
        elif what < .75:    # conflict, with oneself or with somebody who stays
            first = rng.choice([p for p in known if "event_id" in p] or known)
            payload = dict(event(first["user_id"] if first["user_id"] != "stay" else user, first.get("event_id")))
            payload["x"] = rng.randrange(10 ** 6)
            if "event_id" not in payload:
                known.append(payload)
        elif what < .87:    # no event
            payload = dict(event(user, None), event_time="never")
        else:               # no JSON
            lines.append((user, rng.choice(['{"user_id": %s, ', "[%s]", '{"user_id": %s, "nul": "\\u0000"}', '{"nobody": ', "not %s"]) .replace(
                "%s", json.dumps(user, ensure_ascii=rng.random() < .5))))
            continue
        lines.append((payload["user_id"], spell(payload)))
    if rng.random() < .2:
        lines.append((None, "  "))
    return lines


def write(path, lines):
    with open(path, "w", encoding="utf-8", newline="\n") as f:
        f.write("".join(text + "\n" for _, text in lines))


STEPS = ["dwh.stage_events()", "dwh.apply_scd2()", "dwh.upsert_products()", "dwh.load_facts()", "dwh.run_quality_checks()"]
for trial in range(trials):
    base = os.path.join(directory, str(trial))
    os.makedirs(os.path.join(base, "clean"))
    users = rng.sample(USERS, rng.randint(1, 4)) + ["stay"]
    erasable = users[:-1]
    erased = []
    known = []
    files = [make_file(n, users, known) for n in range(rng.randint(1, 5))]
    for n, lines in enumerate(files):
        write(os.path.join(base, "%d.jsonl" % n), lines)

    def maybe_forget(chance):
        if rng.random() < chance:
            user = str(rng.choice(erasable))
            if user not in erased:
                erased.append(user)
            say("SELECT dwh.forget_user('%s')" % user)

    say("SELECT public.begin()")
    for n in range(len(files)):
        say("SELECT dwh.load_jsonl('%s/%d.jsonl')" % (base, n))
        maybe_forget(.15)
        mode = rng.random()
        if mode < .2:
            continue                       # staged with the next
        if mode < .5:
            say("SELECT dwh.run_pipeline('none_*.jsonl')")
        else:
            for step in STEPS:
                say("SELECT " + step)
                maybe_forget(.1)
        maybe_forget(.3)
    say("SELECT dwh.run_pipeline('none_*.jsonl')")
    if not erased:
        maybe_forget(1)
    # the old files once more
    if rng.random() < .5:
        say("SELECT dwh.load_jsonl('%s/%d.jsonl', force => true)" % (base, rng.randrange(len(files))))
        say("SELECT dwh.run_pipeline('none_*.jsonl')")
    say("SELECT public.keep(%d, true)" % trial)
    for user in erased:
        say("SELECT public.search(%d, '%s')" % (trial, user))

    say("SELECT public.begin()")
    for n, lines in enumerate(files):
        write(os.path.join(base, "clean", "%d.jsonl" % n), [line for line in lines if str(line[0]) not in erased])
        say("SELECT dwh.run_pipeline('%s/clean/%d.jsonl')" % (base, n))
    say("SELECT public.keep(%d, false)" % trial)
script.close()
