"""The same answer from readers that share nothing with the program: Apache's console consumer reads the topic, a
brute-force recount in Python counts what it read, and Redis must say the same."""

import json
import os
import sys

import cluster
from cluster import wait_for

sys.path.insert(0, os.path.join(cluster.ROOT, "tests", "oracle"))
from recount import Recount  # noqa: E402

WINDOWS = {"5m": (300_000, 1000), "1h": (3_600_000, 10_000)}
WINDOWS_TEXT = "5m/1s,1h/10s"
ROLLUPS = ["touchpoint", "channel", "segment", "stage", "touchpoint|channel", "all"]
# The recount's names of fields that a view has otherwise, or not at all.
ONLY_RECOUNT = {"rollup", "window", "id", "now", "previous"}


def console_consumer(kafka, topic, messages):
    """[(timestamp, partition, offset, value)] as Apache's own consumer sees the committed records."""
    out = kafka.tool("console-consumer", "--topic", topic, "--from-beginning", "--max-messages", str(messages),
                     "--timeout-ms", "60000", "--isolation-level", "read_committed",
                     "--property", "print.timestamp=true", "--property", "print.partition=true",
                     "--property", "print.offset=true", "--property", "print.key=false",
                     "--property", "key.separator=|")
    records = []
    for line in out.splitlines():
        if not line.startswith("CreateTime:"):
            continue
        time_, partition, offset, value = line.split("|", 3)
        records.append((int(time_.split(":")[1]), int(partition.split(":")[1]), int(offset.split(":")[1]),
                        value.encode("utf-8", "surrogateescape")))
    return records


def event_of(value):
    """The plain form, as docs/events.md says, in the recount's terms; only well-formed ones are sent here."""
    found = json.loads(value)
    names = {"touchpoint": found["touchpoint"], "channel": found.get("channel"), "segment": found.get("segment"),
             "stage": found.get("stage")}
    for folded in ("channel", "stage"):
        if names[folded]:
            names[folded] = "".join(c.lower() if c.isascii() else c for c in names[folded])
    value_ = found.get("value")
    at = cluster.event_ms(found)
    return {"second": at // 1000, "type": found["type"], "scale": found.get("scale"),
            "score": int(found["score"]) if "score" in found else None,
            "value": round(float(value_) * 100) if value_ is not None else None,
            "dimensions": {name: text.encode() for name, text in names.items() if text}}


def recount_at(records, clock, minimum_n=5):
    recount = Recount(WINDOWS, ROLLUPS, minimum_n=minimum_n)
    for record in records:
        recount.add(event_of(record[3]))
    recount.advance(clock)
    return recount.views()


def differences(found, expected, namespace, clock, minimum_n=5):
    """found: {key: hash}; expected: {(rollup, window, id): view}. A view says its numbers at its own as_of_ms, and
    they still hold at the clock."""
    wrong = []
    for (rollup, window, id_), view in expected.items():
        key = "nps:{%s}:%s:%s:%s" % (namespace, rollup, id_, window)
        have = found.get(key)
        if not have:
            # A series is in no view when nothing of it is in this window and the one before.
            if any(view["now"]) or any(view["previous"]):
                wrong.append("%s is missing" % key)
            continue
        if int(have["as_of_ms"]) > clock:
            wrong.append("%s: as_of_ms %s is ahead of %d" % (key, have["as_of_ms"], clock))
        want = {f: v for f, v in view.items() if f not in ONLY_RECOUNT and f not in ("as_of_ms", "window_start_ms")}
        # Below the minimum the other families' means are withheld as well.
        for family, fields in (("csat_n", ("csat_mean", "csat_share")), ("ces_n", ("ces_mean",))):
            want.setdefault(family, 0)
            if want[family] < minimum_n:
                for field in fields:
                    want.pop(field, None)
        for field, value in want.items():
            text = have.get(field)
            if text is None or abs(float(text) - value) > 1e-6 * max(1, abs(value)):
                wrong.append("%s: %s is %s, recounted %s" % (key, field, text, value))
        for field in set(have) - set(want) - {"as_of_ms", "window_start_ms"}:
            wrong.append("%s: %s is %s, recounted as withheld" % (key, field, have[field]))
    return wrong


# Everything in one atomic step: health with its positions, and every view.
READ = """
local found = {}
for _, key in ipairs(KEYS) do
  found[#found + 1] = redis.call('HGETALL', key)
end
return found
"""


def picture(redis, namespace):
    """(health, {key: view}) of one moment between two ticks, or None while a tick is being written."""
    health_key = "nps:{%s}:health" % namespace
    keys = sorted(k for k in redis.keys("nps:{%s}:*" % namespace) if k.rsplit(":", 1)[1] in WINDOWS and
                  ":health:" not in k and ":rank:" not in k and ":trend:" not in k)
    reply = redis.call("EVAL", READ, 1 + len(keys), health_key, *keys)
    hashes = [dict(zip(flat[::2], flat[1::2])) for flat in reply]
    health, views = hashes[0], dict(zip(keys, hashes[1:]))
    if not health or any(v and int(v["as_of_ms"]) > int(health["as_of_ms"]) for v in views.values()):
        return None
    return health, {k: v for k, v in views.items() if v}


def test_views_during_load_equal_a_recount_at_their_positions(world):
    """Invariant 4, live: at any moment, under load, the views equal a recount of the topic up to the positions that
    health names, at health's clock."""
    redis, topic = world.redis(), world.topic(3)
    consumers = [world.consumer(topic, redis, windows=WINDOWS_TEXT) for _ in range(2)]
    simulation = world.load(topic, 700, touchpoints=3)
    moments = []
    while len(moments) < 5:
        wait_for(lambda: int(world.health(redis).get("accepted", 0)) >= 400 * (len(moments) + 1), 30, "events are counted")
        taken = wait_for(lambda: picture(redis, world.namespace), 10, "a moment between two ticks")
        assert simulation.running()
        moments.append(taken)
    sent = cluster.events_of(simulation.end())
    world.caught_up(redis)
    moments.append(wait_for(lambda: picture(redis, world.namespace), 10, "a moment between two ticks"))
    records = console_consumer(world.kafka, topic, sent)
    assert len(records) == sent
    for health, views in moments:
        positions = {p: int(health["position:%s/%d" % (topic, p)]) for p in range(3)}
        below = [r for r in records if r[2] < positions[r[1]]]
        assert len(below) == int(health["accepted"])
        clock = int(health["as_of_ms"])
        wrong = differences(views, recount_at(below, clock), world.namespace, clock)
        assert not wrong, "%d differences at %d of %d records:\n%s" % (len(wrong), len(below), sent, "\n".join(wrong[:15]))
    assert len({health["accepted"] for health, _ in moments}) >= 4
    for consumer in consumers:
        assert consumer.stop() == 0


def test_aborted_transactions(world):
    """A transactional publisher that commits and aborts: what was aborted is not counted, its offsets and the markers
    are holes, and an open transaction stops reading in front of it, not the clock."""
    redis, topic = world.redis(), world.topic(1)
    consumer = world.consumer(topic, redis, windows=WINDOWS_TEXT, minimum_n="1")
    client = world.kafka.producer(**{"transactional.id": "tx-" + world.unique})
    client.init_transactions(20)
    kept = 0
    for round_ in range(6):
        client.begin_transaction()
        for i in range(50):
            client.produce(topic, cluster.event("%d-%d" % (round_, i), score=9 if round_ % 2 == 0 else 0))
        client.flush(20)
        if round_ % 2 == 0:
            client.commit_transaction(20)
            kept += 50
        else:
            client.abort_transaction(20)
    world.caught_up(redis)
    # 3 x 50 aborted records and six markers.
    health = world.ledger(redis, topic, accepted=150, holes=156)
    assert redis.hash("nps:{%s}:all:all:5m" % world.namespace)["n"] == "150"
    assert redis.hash("nps:{%s}:all:all:5m" % world.namespace)["nps"] == "100"
    # An open transaction: committed records behind it wait, and complete says that not all is read.
    client.begin_transaction()
    client.produce(topic, cluster.event("open"))
    client.flush(20)
    world.kafka.send(topic, [cluster.event("behind")])
    wait_for(lambda: world.health(redis)["complete"] == "0", 20, "complete says that something is unread")
    assert world.health(redis)["accepted"] == "150"
    clock = int(world.health(redis)["as_of_ms"])
    wait_for(lambda: int(world.health(redis)["as_of_ms"]) > clock + 500, 10, "the clock goes on")
    client.commit_transaction(20)
    world.caught_up(redis)
    health = world.ledger(redis, topic, accepted=152, holes=157)
    assert health["complete"] == "1"
    records = console_consumer(world.kafka, topic, 152)
    assert len(records) == 152
    taken = wait_for(lambda: picture(redis, world.namespace), 10, "a moment between two ticks")
    clock = int(taken[0]["as_of_ms"])
    assert differences(taken[1], recount_at(records, clock, 1), world.namespace, clock, 1) == []
    # A replay ends at the last stable offset and counts the same.
    _, out = world.replay(topic, redis, None, end=cluster.now_ms() + 1000, windows=WINDOWS_TEXT)
    assert "accepted 152 " in out and "holes 157 " in out
    assert consumer.stop() == 0
