"""A public shop log (CSV of retentioneering-tools) as JSON lines with the seed's fields: platform as device, times as UTC.

usage: ecom_to_jsonl.py log.csv.gz out.jsonl meaning.tsv

Columns that the model does not know go along under their own names. meaning.tsv is for the oracle: round, event_id,
event_time, user_id, device, country, product_id, category, brand, price. Prints counts taken here: rows, different
events, users, sessions, users with more than one platform.
"""
import csv
import gzip
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import identity

platforms, sessions, events = {}, set(), {}
rows = 0
with gzip.open(sys.argv[1], "rt", encoding="utf-8", newline="") as log, open(sys.argv[2], "w", encoding="utf-8") as out:
    for row in csv.DictReader(log):
        rows += 1
        event = {"event_time": row.pop("timestamp").replace(" ", "T") + "Z", "event_type": row.pop("event"),
                 "user_id": row.pop("user_id"), "session_id": row.pop("session_id"), "device": row.pop("platform")}
        event.update(row)
        out.write(json.dumps(event) + "\n")
        platforms.setdefault(event["user_id"], set()).add(event["device"])
        sessions.add((event["user_id"], event["session_id"]))
        events[identity.event_id(event)] = event
with open(sys.argv[3], "w", encoding="utf-8") as out:
    for key, event in events.items():
        out.write("\t".join(["1", str(key), event["event_time"], event["user_id"], event["device"], *["\\N"] * 5]) + "\n")
print(rows, len(events), len(platforms), len(sessions), sum(len(p) > 1 for p in platforms.values()))
