"""What cannot be counted goes to quarantine before the commit, with its reason and its raw bytes; the program goes on."""

import collections
import json
import os
import time

import pytest

import cluster
from cluster import wait_for

WINDOWS = "5m/1s,1h/10s"


def good(i, **more):
    return cluster.event("good-%d" % i, touchpoint="delivery", score=i % 11, **more)


def changed(**more):
    """An event with fields replaced; None takes one out."""
    found = json.loads(cluster.event("x"))
    found.update(more)
    return json.dumps({k: v for k, v in found.items() if v is not None}).encode()


def ago(ms):
    return json.loads(cluster.event("x", at_ms=cluster.now_ms() - ms))["time"]


# What is sent, and why it is refused. Keys and headers of its own, where they matter.
BAD = [
    (None, "tombstone"),
    (b"", "malformed"),
    (b"{", "malformed"),
    (b"not json at all", "malformed"),
    (b'{"id":"a","type":"answer"} trailing', "malformed"),
    (b"[1,2]", "not_object"),
    (b"\x00\x00\x00\x00\x07{}", "schema_framing"),
    (b'{"a":' * 40 + b"1" + b"}" * 40, "too_deep"),
    (b'{"id":"\xff"}', "invalid_utf8"),
    (cluster.event("x")[:-1] + b',"id":"y"}', "duplicate_key"),
    (changed(touchpoint=None), "missing_field"),
    (changed(id=""), "empty_name"),
    (changed(touchpoint=["a"]), "wrong_type"),
    (changed(type="complaint"), "unknown_type"),
    (changed(scale="stars"), "unknown_scale"),
    (changed(score=11), "bad_score"),
    (changed(score=-1), "bad_score"),
    (changed(score=9.5), "bad_score"),
    (changed(scale="csat", score=0), "bad_score"),
    (changed(value="1e3"), "bad_value"),
    (changed(time="yesterday"), "bad_time"),
    (changed(time="2026-02-30T00:00:00Z"), "bad_time"),
    (changed(touchpoint="x" * 257), "name_too_long"),
    (changed(time=ago(-3_600_000)), "future"),
    (changed(revision=2), "reserved"),
    (changed(deleted=True), "reserved"),
    (b'{"specversion":"1.0","id":"a","type":"answer","source":"/x","time":"2026-11-21T10:15:00Z","data":7}', "cloudevent"),
    (b'{"id":"' + b"x" * 1_100_000 + b'"}', "too_large"),
]


def headers_of(message):
    return {name: value for name, value in message.headers() or []}


@pytest.mark.sanitize
def test_each_reason_in_quarantine(world):
    """Every bad record, between good ones: its key, its reason, its bytes; and the sums add up."""
    redis, topic = world.redis(), world.topic(1, max_message_bytes=4_000_000)
    consumer = world.consumer(topic, redis, windows=WINDOWS, minimum_n="1")
    records, expected = [], {}
    for i, (value, reason) in enumerate(BAD):
        records.append({"value": good(i), "key": b"k"})
        expected[len(records)] = (value, reason)
        records.append({"value": value, "key": b"key \x00 %d" % i, "headers": [("trace", b"\x01\xff"), ("trace", b"2")]})
    late = [{"value": good(99, at_ms=cluster.now_ms() - 8 * 86_400_000), "key": b"k"}] * 3
    world.kafka.send(topic, records + late)
    world.caught_up(redis)
    reasons = collections.Counter(reason for _, reason in expected.values())
    health = world.ledger(redis, topic, accepted=len(BAD), rejected=len(BAD), late=3)
    assert {f[9:]: int(v) for f, v in health.items() if f.startswith("rejected:")} == dict(reasons)
    found = {message.key(): message for message in world.kafka.read_all(topic + ".quarantine")}
    assert set(found) == {b"%s/0/%d" % (topic.encode(), offset) for offset in expected}
    for offset, (value, reason) in expected.items():
        message = found[b"%s/0/%d" % (topic.encode(), offset)]
        headers = headers_of(message)
        assert headers["livenps-reason"] == reason.encode(), (value, headers)
        assert headers["livenps-topic"] == topic.encode() and headers["livenps-partition"] == b"0"
        assert headers["livenps-offset"] == b"%d" % offset and headers["livenps-detail"]
        assert headers["livenps-key"].startswith(b"key \x00 "), "the record's own key, whatever is in it"
        assert abs(int(headers["livenps-timestamp"]) - cluster.now_ms()) < 600_000
        assert message.headers().count(("trace", b"\x01\xff")) == 1 and ("trace", b"2") in message.headers()
        assert message.value() == value, reason
    # Late records are counted, not quarantined: they are true, only not asked for.
    assert len(found) == len(BAD)
    view = redis.hash("nps:{%s}:touchpoint:delivery:1h" % world.namespace)
    assert int(view["n"]) == len(BAD)
    assert consumer.stop() == 0


def test_nothing_but_bad_records(world):
    """A topic full of garbage never stops the program, and what is good behind it is counted at once."""
    redis, topic = world.redis(), world.topic(2)
    began = time.monotonic()
    consumer = world.consumer(topic, redis, windows=WINDOWS, set=cluster.PATIENT)  # what is read twice is in quarantine twice
    values = [b"garbage", b"{}", None, b"\xff\xfe", b'{"id":1e999}']
    world.kafka.send(topic, [{"value": values[i % 5], "key": b"%d" % i} for i in range(20_000)])
    truth = world.simulate(topic, count=500).finish()
    world.caught_up(redis)
    world.ledger(redis, topic, accepted=500, rejected=20_000)
    world.equal(redis, truth, windows=WINDOWS)
    assert sum(high - low for low, high in world.kafka.bounds(topic + ".quarantine").values()) == 20_000
    # Said at a bounded rate: once in five seconds.
    assert consumer.log().count("rejected:") < 20 + (time.monotonic() - began) / 5
    assert consumer.stop() == 0


def test_quarantine_survives_kill_nine(world):
    """Killed under a mix of good and bad: every rejected record below the positions is in quarantine (perhaps twice,
    always under the same key)."""
    redis, topic = world.redis(), world.topic(2)
    consumer = world.consumer(topic, redis, windows=WINDOWS, commit__interval="50ms")
    client = world.kafka.producer()
    sent = 0
    counted = lambda: sum(world.positions(redis).values())  # noqa: E731
    for round_ in range(3):
        before = counted()
        for i in range(1500):
            client.produce(topic, key=b"%d" % i, value=good(i) if i % 3 else b"bad %d" % i)
            client.poll(0)
            sent += 1
        client.flush(90)
        wait_for(lambda: counted() > before, 30, "reading goes on")
        consumer.kill()
        consumer = world.consumer(topic, redis, windows=WINDOWS, commit__interval="50ms")
    world.caught_up(redis)
    world.ledger(redis, topic, accepted=3000, rejected=1500)
    places = {message.key() for message in world.kafka.read_all(topic + ".quarantine")}
    rejected = {b"%s/%d/%d" % (topic.encode(), m.partition(), m.offset()) for m in world.kafka.read_all(topic)
                if m.value().startswith(b"bad")}
    assert len(rejected) == 1500 and places == rejected
    assert consumer.stop() == 0


def test_quarantine_topic_missing(own_world):
    """It is made at the start; deleted under way it is waited for, and what was rejected meanwhile is in it then."""
    world = own_world
    redis, topic = world.redis(), world.topic(1)
    consumer = world.consumer(topic, redis, windows=WINDOWS)
    world.kafka.send(topic, [b"bad"])
    world.caught_up(redis)
    for future in world.kafka.admin.delete_topics([topic + ".quarantine"]).values():
        future.result()
    wait_for(lambda: not world.kafka.leaders(topic + ".quarantine"), 20, "it is gone")
    world.kafka.send(topic, [b"bad again", good(1), good(2)])
    consumer.wait_log("warn", 30)
    assert world.positions(redis)[topic + "/0"] == 1, "committed before the quarantine had it"
    world.kafka.topic(topic + ".quarantine", 1)
    wait_for(lambda: world.positions(redis).get(topic + "/0") == 4, 60, "reading goes on")
    world.caught_up(redis)
    world.ledger(redis, topic, accepted=2, rejected=2)
    assert b"bad again" in [m.value() for m in world.kafka.read_all(topic + ".quarantine")]
    assert consumer.stop() == 0


def lines_of(name):
    with open(os.path.join(cluster.ROOT, "config", "examples", name), "rb") as f:
        return [line.rstrip(b"\n") for line in f if line.strip()]


def shifted(line, to_s):
    """A recorded Delighted payload, as if it were answered now."""
    found = json.loads(line)
    if "created_at" in found["event_data"]:
        found["event_data"]["created_at"] = to_s
    return json.dumps(found).encode()


def test_vendor_payloads_end_to_end(world):
    """Two vendors' topics and a plain one in one namespace, by the presets that are shipped: recorded payloads are
    scored; an update of an answer that was counted is a correction and goes to quarantine."""
    redis = world.redis()
    delighted, plain = world.topic(1, suffix="-delighted"), world.topic(1, suffix="-plain")
    path = os.path.join(world.folder, "livenps.yaml")
    with open(path, "w") as f:
        f.write("topics: [%s, %s]\nmappings:\n  %s: %s\n" % (
            delighted, plain, delighted, os.path.join(cluster.ROOT, "config", "mappings", "delighted.yaml")))
    settings = world.settings([], redis, windows=WINDOWS, minimum_n="1", set=cluster.PATIENT)
    del settings["topics"]
    settings["config"] = path
    consumer = cluster.Program(world, "consumer", cluster.PREFIX + [cluster.CONSUMER], cluster.environment(settings))
    consumer.wait_log("assigned 2 partitions", 30)
    now = cluster.now_ms() // 1000
    accepted = [shifted(line, now - 5) for line in lines_of("delighted.jsonl")]
    refused = [shifted(line, now - 5) for line in lines_of("delighted-refused.jsonl")]
    world.kafka.send(delighted, accepted + refused + [cluster.event("plain form, wrong topic")])
    world.kafka.send(plain, [good(10), accepted[0]])
    world.caught_up(redis)
    health = world.ledger(redis, [delighted, plain], accepted=len(accepted) + 1, rejected=len(refused) + 2)
    assert health["rejected:correction"] == "1"
    reasons = [headers_of(m)["livenps-reason"] for m in world.kafka.read_all(delighted + ".quarantine")]
    assert reasons[:2] == [b"correction", b"no_event"]
    assert [m.value() for m in world.kafka.read_all(delighted + ".quarantine")][:2] == refused
    view = redis.hash("nps:{%s}:touchpoint:checkout:1h" % world.namespace)
    assert view["n"] == "1" and view["promoters"] == "1"
    view = redis.hash("nps:{%s}:touchpoint:delighted:1h" % world.namespace)  # the preset's default
    assert view["n"] == "1" and view["detractors"] == "1"
    assert redis.hash("nps:{%s}:channel:web:1h" % world.namespace)["n"] == "1"
    assert redis.hash("nps:{%s}:all:all:1h" % world.namespace)["n"] == "3"
    assert consumer.stop() == 0
    # Another mapping means other counts: refused in this namespace, naming both rules.
    settings["config"] = None
    settings["topics"] = delighted + "," + plain
    code, _, err = world.run_consumer("run", settings=settings)
    assert code == 6 and "admit hash" in err, err


def test_admit_rules_end_to_end(world):
    """An allow-list, a shorter late and a longer future, from the settings."""
    redis, topic = world.redis(), world.topic(1)
    consumer = world.consumer(topic, redis, windows=WINDOWS, minimum_n="1", admit__touchpoints="delivery,a|b",
                              admit__late="10s", admit__future="5s")
    now = cluster.now_ms()
    world.kafka.send(topic, [{"value": value, "timestamp": now} for value in (
        cluster.event("1", "delivery", now), cluster.event("2", "a|b", now - 10_000), cluster.event("3", "a|b", now - 10_001),
        cluster.event("4", "delivery", now + 5000), cluster.event("5", "delivery", now + 5001),
        cluster.event("6", "elsewhere", now))])
    world.caught_up(redis)
    health = world.ledger(redis, topic, accepted=3, late=1, rejected=2)
    assert health["rejected:future"] == "1" and health["rejected:unknown_touchpoint"] == "1"
    wait_for(lambda: redis.hash("nps:{%s}:touchpoint:delivery:1h" % world.namespace).get("n") == "2", 20,
             "the early event has its second")
    assert redis.hash("nps:{%s}:touchpoint:a%%7Cb:1h" % world.namespace)["n"] == "1"
    assert consumer.stop() == 0
