"""The traits of a generated log, measured on its bytes: one line of "name value" each.

usage: 70_generator.py log.jsonl
"""
import collections
import json
import sys

events = [json.loads(line) for line in open(sys.argv[1], encoding="utf-8")]
sessions = collections.OrderedDict()
for event in events:
    sessions.setdefault(event["session_id"], []).append(event)
converted = sum(any(e["event_type"] == "purchase" for e in s) for s in sessions.values())
order = {"page_view": 0, "add_to_cart": 1, "purchase": 2}
times = [e["event_time"] for e in events]
hours = collections.Counter(s[0]["event_time"][11:13] for s in sessions.values())
purchases = [e for e in events if e["event_type"] == "purchase"]
devices, countries = collections.defaultdict(list), collections.defaultdict(list)
for event in events:
    for seen, key in ((devices, "device"), (countries, "country")):
        if seen[event["user_id"]][-1:] != [event[key]]:
            seen[event["user_id"]].append(event[key])
products = collections.defaultdict(set)
for event in events:
    if "category" in event:
        products[event["product_id"]].add((event["category"], event["brand"]))
several = sum(len(d) > 1 for d in devices.values()) / len(devices)


def yes(name, condition, shown=""):
    print(name, "yes" if condition else "no", shown)


print("events", len(events))
print("sessions", len(sessions))
print("purchases", len(purchases))
yes("conversion", .02 <= converted / len(sessions) <= .05, "%.4f" % (converted / len(sessions)))
yes("ordered", times == sorted(times))
yes("seconds", all(len(t) == 20 and t.endswith("Z") for t in times))
yes("funnel", all([order[e["event_type"]] for e in s] == sorted(order[e["event_type"]] for e in s) for s in sessions.values()))
yes("one_user", all(len({e["user_id"] for e in s}) == 1 for s in sessions.values()))
# quiet at night, busy in the evening
night, evening = sum(hours["%02d" % h] for h in (2, 3, 4)), sum(hours["%02d" % h] for h in (19, 20, 21))
yes("curve", evening > 5 * night > 0 and len(hours) == 24, "%d %d" % (night, evening))
yes("anonymous", .015 <= sum("event_id" not in e for e in events) / len(events) <= .025, "%.4f" % (sum("event_id" not in e for e in events) / len(events)))
yes("unique", len({e["event_id"] for e in events if "event_id" in e}) == sum("event_id" in e for e in events))
yes("revenue", purchases and all(e["revenue"] == e["price"] * e["quantity"] > 0 for e in purchases))
yes("no_revenue", all("revenue" not in e for e in events if e["event_type"] != "purchase"))
yes("purchase_keys", all({"product_id", "price", "quantity", "revenue"} <= set(e) for e in purchases))
yes("device_changes", .01 <= several <= .2 and all(len(d) <= 2 for d in devices.values()), "%.4f" % several)
yes("country_changes", 0 < sum(len(c) > 1 for c in countries.values()) / len(countries) < several and all(len(c) <= 2 for c in countries.values()))
yes("products", products and all(len(p) == 1 for p in products.values()))
