"""Bad input on a real broker: every case of the decoder's table, sizes and headers at their edges, nothing but rubbish, a
flood of names. Each offset is accounted for, no record stops a partition, and the operator sees it."""

import json
import os
import re
import threading
import time

import pytest

import cluster
from cluster import event, wait_for

CASES = os.path.join(cluster.ROOT, "tests", "cases", "decode")
WINDOWS = "5m/1s,1h/10s"
DAY_MS = 86_400_000


def counted(world, redis):
    return int(world.health(redis).get("accepted", 0))


def rejections(health):
    return {field[9:]: int(value) for field, value in health.items() if field.startswith("rejected:")}


def quarantined(world, topic):
    """{offset: (reason, value)}; each rejected record once, under its place as key."""
    found = {}
    for message in world.kafka.read_all(topic + ".quarantine"):
        name, partition, offset = message.key().decode().rsplit("/", 2)
        assert (name, partition) == (topic, "0") and int(offset) not in found, message.key()
        found[int(offset)] = dict(message.headers())["livenps-reason"].decode(), message.value()
    return found


# ---- every case ----

class Case:
    """A directory of tests/cases/decode as a record, with what must become of it by docs/events.md."""

    def __init__(self, name, stamp_ms):
        self.name, folder = name, os.path.join(CASES, name)
        self.files = {}
        for file in os.listdir(folder):
            with open(os.path.join(folder, file), "rb") as f:
                self.files[file] = f.read()
        self.value = self.files.get("input")
        if "input.hex" in self.files:
            self.value = bytes.fromhex(self.files["input.hex"].decode())
        self.headers = [tuple(line.split(b": ", 1)) for line in self.files.get("headers", b"").split(b"\n") if line]
        self.stamp_ms = int(self.files.get("timestamp", b"%d" % stamp_ms))
        self.fate = None
        if "reason" in self.files:
            self.fate = self.files["reason"].split()[0].decode()
        elif "fate" in self.files:
            self.fate = "late"
        else:
            # Where the case says nothing of the record timestamp, the defaults judge it by the one it is sent with.
            ahead = json.loads(self.files["expected.json"])["time_ms"] - self.stamp_ms
            self.fate = "future" if ahead > 60_000 else "late" if ahead < -7 * DAY_MS else "accepted"


def test_every_case_of_the_table(world):
    """What the decoder's tests say of the bytes holds on the wire: fate, reason, quarantine, and the sums."""
    redis = world.redis()
    kinds = {}  # a topic for each mapping and for the allow-list; most cases need neither
    stamp_ms = 1795256100123  # of most cases' events
    for name in sorted(os.listdir(CASES)):
        case = Case(name, stamp_ms)
        if "max_bytes" in case.files:
            continue  # smaller limits than the settings allow: the next test has the real one
        needs = [case.files.get(file, b"").decode().strip() for file in ("mapping", "touchpoints")]
        kinds.setdefault(tuple(needs), []).append(case)
    assert sum(map(len, kinds.values())) >= 234
    reasons = set()
    for i, ((mapping, listed), cases) in enumerate(sorted(kinds.items())):
        # Whenever this runs, the broker must neither delete these records for their age nor refuse them.
        topic = world.topic(1, suffix="-%d" % i, retention_ms=-1, message_timestamp_after_max_ms=2**63 - 1)
        namespace = "%s-%d" % (world.namespace, i)
        # What is read twice is in quarantine twice.
        settings = world.settings(topic, redis, namespace, windows=WINDOWS, set=cluster.PATIENT,
                                  admit__touchpoints=listed.replace("\n", ",") or None)
        if mapping:
            # A topic's name in the environment would lose its dashes.
            settings["config"] = os.path.join(world.folder, "livenps-%d.yaml" % i)
            with open(settings["config"], "w") as f:
                f.write("mappings:\n  %s: %s\n" % (topic, os.path.join(cluster.ROOT, mapping)))
        consumer = cluster.Program(world, world.number("consumer"), cluster.PREFIX + [cluster.CONSUMER, "run"],
                                   cluster.environment(settings))
        consumer.wait_log("assigned [0-9]+ partitions", 30)
        world.kafka.send(topic, [{"value": case.value, "timestamp": case.stamp_ms, "headers": [
            (name.decode(), value) for name, value in case.headers]} for case in cases])
        world.caught_up(redis, namespace)
        wanted = [case.fate for case in cases]
        rejected = len(cases) - wanted.count("accepted") - wanted.count("late")
        health = world.ledger(redis, topic, namespace, accepted=wanted.count("accepted"), late=wanted.count("late"),
                              rejected=rejected)
        got = quarantined(world, topic)
        for offset, case in enumerate(cases):
            if case.fate in ("accepted", "late"):
                assert offset not in got, (case.name, got[offset])
            else:
                assert got.pop(offset) == (case.fate, case.value), case.name
                reasons.add(case.fate)
        assert not got and sum(rejections(health).values()) == rejected
        assert consumer.stop() == 0
    with open(os.path.join(cluster.ROOT, "docs", "events.md")) as f:
        blocks = f.read().split("\n## Rejections\n")[1].split("\n\n")
    table = next(re.findall("^\\| `(\\w+)` \\|", block, re.M) for block in blocks if block.startswith("| Reason"))
    assert len(table) >= 24 and set(table) == reasons | {"too_large"}, "each reason came up"


# ---- sizes and headers ----

@pytest.mark.sanitize
def test_sizes_and_headers_at_their_edges(world):
    """A value of exactly the limit, one byte more, a megabyte in a name, ten thousand headers, long and hostile keys and
    headers: each between good events, which are all counted."""
    redis, topic = world.redis(), world.topic(1, max_message_bytes=4_000_000)
    limit = 1024 * 1024
    head = event("padded")[:-1] + b',"x":"'
    full = head + b"y" * (limit - len(head) - 2) + b'"}'
    headers = [("h%d" % (i % 7), b"\xff" * (i % 3)) for i in range(10_000)]
    records = [
        ({"value": full}, None),
        ({"value": full[:-2] + b'y"}'}, "too_large"),
        ({"value": b" " * limit}, "malformed"),
        ({"value": b"[" * limit}, "too_deep"),
        ({"value": b'{"a":' + b"9" * (limit - 6) + b"}"}, "missing_field"),
        ({"value": event("name", "y" * (limit - 200))}, "name_too_long"),
        ({"value": event("name", "\u202e" * (limit // 8))}, "name_too_long"),
        ({"value": b"{" + b",".join(b'"%x":0' % i for i in range(90_000)) + b"}"}, "missing_field"),
        ({"value": event("headers"), "headers": headers}, None),
        ({"value": b"bad", "headers": headers}, "malformed"),
        ({"value": event("odd headers"), "headers": [("", b""), ("x" * 30_000, None), ("ce_", b"1"), ("\x00", b"\x00")]},
         None),
        ({"value": event("ce twice"), "headers": [("ce_id", b"1"), ("ce_id", b"2")]}, "cloudevent"),
        ({"value": event("ce latin"), "headers": [("ce_id", b"\xe9"), ("ce_specversion", b"1.0")]}, "invalid_utf8"),
        ({"value": event("key"), "key": b"\x00" * 1_000_000}, None),
        ({"value": b"bad", "key": os.urandom(200_000)}, "malformed"),
        ({"value": None, "key": b"", "headers": headers[:100]}, "tombstone"),
    ]
    consumer = world.consumer(topic, redis, windows=WINDOWS, minimum_n="1", set=cluster.PATIENT)
    world.kafka.send(topic, [record for pair in zip(records, [({"value": event("good")}, None)] * len(records))
                             for record, _ in pair])
    world.caught_up(redis)
    bad = {2 * i: reason for i, (_, reason) in enumerate(records) if reason}
    good = 2 * len(records) - len(bad)
    world.ledger(redis, topic, accepted=good, rejected=len(bad))
    got = quarantined(world, topic)
    assert {offset: reason for offset, (reason, _) in got.items()} == bad
    assert all(got[offset][1] == records[offset // 2][0]["value"] for offset in bad)
    view = redis.hash("nps:{%s}:touchpoint:delivery:1h" % world.namespace)
    assert int(view["n"]) == good
    assert consumer.stop() == 0


# ---- nothing but rubbish ----

def test_the_operator_sees_it(world):
    """Not one good record for a while: the program runs on, health and log say what comes in, views stay empty, the picture
    is complete; the first good event is counted."""
    redis, topic = world.redis(), world.topic(3)
    began = time.monotonic()
    consumer = world.consumer(topic, redis, windows=WINDOWS, minimum_n="1")
    values = [b"<xml/>", b"\x00\x00\x00\x00\x01avro", b'{"id":"a","score":11}', b"\xff" * 50]
    for _ in range(3):
        world.kafka.send(topic, [{"value": values[i % 4], "key": b"%d" % i} for i in range(2000)])
        world.caught_up(redis)
        assert consumer.running()
    health = world.ledger(redis, topic, accepted=0, rejected=6000)
    assert rejections(health) == {"malformed": 3000, "schema_framing": 1500, "missing_field": 1500}
    wait_for(lambda: world.health(redis)["complete"] == "1", 20, "everything is read")
    consumer.wait_log("rejected: ")
    told = re.findall(".* (warn|error) .*rejected: .*", consumer.log())
    # Once in five seconds at most.
    assert 1 <= len(told) < 20 + (time.monotonic() - began) / 5, consumer.log()
    assert not redis.keys("nps:{%s}:touchpoint:*" % world.namespace)
    world.kafka.send(topic, [event("at last")])
    wait_for(lambda: counted(world, redis) == 1, 20, "the good event is counted")
    assert consumer.stop() == 0


# ---- a flood of names ----

def flood(world, topic, names, seconds, ahead_ms=0):
    """Distinct names, spread over a while; every fifth event is of one that is there already."""
    client = world.kafka.producer(**{"queue.buffering.max.messages": 1_000_000, "linger.ms": 50})
    sent, failed, began = 0, [], time.monotonic()

    def report(error, _):
        if error:
            failed.append(error)
    for i in range(names):
        if i % 1000 == 0:
            # Everything but the name is made once: whoever makes a million JSON texts one by one needs minutes.
            known, other = (event("e%", name, score=9, channel=channel, at_ms=cluster.now_ms() + ahead_ms).replace(
                b"e%", b"e%d") for name, channel in (("known-%d", "web"), ("name %d of a flood \u00e9\U0001f600", "c%d")))
        value = known % (i, i % 20) if i % 5 == 4 else other % (i, i, i)
        while True:
            try:
                client.produce(topic, value, key=b"%d" % i, on_delivery=report)
                break
            except BufferError:
                client.poll(0.1)
        sent += 1
        if i % 1000 == 0:
            client.poll(0)
            time.sleep(max(0, began + seconds * i / names - time.monotonic()))
    assert client.flush(180) == 0 and not failed
    return sent


def memory_kb(pid, field="VmRSS"):
    with open("/proc/%d/status" % pid) as f:
        return int(re.search(field + r":\s+([0-9]+) kB", f.read())[1])


def flooded(world, names, seconds, ahead_ms=0):
    """Sends them, and returns what it cost: (figures, consumer, redis, events)."""
    redis, topic = world.redis(), world.topic(4)
    settings = {"windows": "5m/1s,1h/10s", "minimum_n": "1", "series_max": "1000", "admit__future": "60s"}
    consumer = world.consumer(topic, redis, **settings)
    world.kafka.send(topic, [event("k%d" % i, "known-%d" % (i % 20), channel="web") for i in range(40)])
    world.caught_up(redis)
    before = memory_kb(consumer.pid), int(info(redis, "used_memory"))
    largest = [0, 0]
    done = threading.Event()

    def watch():
        while not done.wait(0.25):
            largest[0] = max(largest[0], memory_kb(consumer.pid))
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    began = time.monotonic()
    sent = flood(world, topic, names, seconds, ahead_ms)
    sending_s = time.monotonic() - began
    world.caught_up(redis, timeout=120)
    done.set()
    watcher.join()
    world.ledger(redis, topic, accepted=sent + 40)
    figures = {"names": names, "sent_s": round(sending_s, 1), "caught_up_s": round(time.monotonic() - began, 1),
               "rss_before_mb": before[0] // 1024, "rss_largest_mb": max(largest[0], memory_kb(consumer.pid, "VmHWM")) // 1024,
               "redis_before_mb": before[1] >> 20, "redis_peak_mb": int(info(redis, "used_memory_peak")) >> 20}
    print(json.dumps(figures))
    return figures, consumer, redis, sent + 40


def info(redis, name):
    return re.search("^%s:(.*?)\r?$" % name, redis.call("INFO", "memory"), re.M)[1]


def totals_are_right(world, redis, expected):
    """What was counted is in the whole, and what has no series of its own in ~other."""
    prefix = "nps:{%s}:" % world.namespace
    wait_for(lambda: int(redis.hash(prefix + "all:all:1h").get("n", 0)) == expected, 90, "the whole has all answers")
    health = world.health(redis)
    assert health["capped"] == "1" and int(health["series:touchpoint"]) <= 1001
    for rollup in ("touchpoint", "channel"):
        ids = redis.call("SMEMBERS", prefix + "index:" + rollup)
        assert "~other" in ids and len(ids) <= 1001
        keys = [prefix + "%s:%s:1h" % (rollup, id_) for id_ in ids]
        # A tick is written in pieces.
        wait_for(lambda: sum(int(view.get("n", 0)) for view in redis.connection().hashes(keys).values()) == expected, 30,
                 "the parts by %s add up to the whole" % rollup)
    views = redis.connection().hashes([prefix + "touchpoint:known-%d:1h" % i for i in range(20)])
    assert all(int(view["n"]) >= 2 for view in views.values())


def test_a_flood_of_names(world):
    """Forty thousand names in seconds: the totals are right, further names are ~other, memory is bounded."""
    figures, consumer, redis, expected = flooded(world, 40_000, 4)
    totals_are_right(world, redis, expected)
    if "asan" not in cluster.BIN and "tsan" not in cluster.BIN:
        assert figures["rss_largest_mb"] - figures["rss_before_mb"] < 150, figures
    assert figures["redis_peak_mb"] < 100, figures
    assert consumer.stop() == 0


def test_a_flood_of_names_that_wait(world):
    """The same, ahead of the clock: what waits for its second waits in memory, and is counted when it comes."""
    figures, consumer, redis, expected = flooded(world, 20_000, 2, ahead_ms=10_000)
    totals_are_right(world, redis, expected)
    assert figures["redis_peak_mb"] < 100, figures
    assert consumer.stop() == 0


@pytest.mark.long
def test_a_million_names_in_a_minute(world):
    """As above; its figures are printed (-s), and limits that a program which kept every name would exceed."""
    figures, consumer, redis, expected = flooded(world, 1_000_000, 60)
    totals_are_right(world, redis, expected)
    assert figures["rss_largest_mb"] - figures["rss_before_mb"] < 300, figures
    assert figures["redis_peak_mb"] < 300, figures
    assert consumer.stop() == 0
