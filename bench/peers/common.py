"""What the peers share: the arguments, the clock, and the answer as JSON.

    python X_peer.py DATABASE FLAVOUR BATCH FILE

takes one file through all steps into a database that is made where it is missing (BATCH 1) or grows (BATCH 2, ...).
"""
import json
import sys
import time

FIELDS = ["event_id", "event_time", "event_type", "user_id", "session_id", "product_id", "device", "country", "category", "brand",
          "price", "revenue", "quantity"]


def main(open_peer):
    """open_peer(database, flavour) returns (run, tables, steps, state): a function for SQL, and SQL texts by step."""
    database, flavour, batch, path = sys.argv[1:5]
    run, tables, steps, state = open_peer(database, flavour, int(batch), path)
    if batch == "1":
        for sql in tables:
            run(sql)
    taken = {}
    for name, statements in steps:
        began = time.perf_counter()
        for sql in statements:
            run(sql)
        taken[name] = time.perf_counter() - began
    print(json.dumps({"steps": taken, "state": [str(value) for sql in state for value in run(sql)[0]]}))
