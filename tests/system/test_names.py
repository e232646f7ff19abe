"""Names that would break keys, terminals and pages; more names than there is room for."""

import json
import os
import sys

import cluster
from cluster import wait_for

sys.path.insert(0, os.path.join(cluster.ROOT, "tests", "oracle"))
from recount import encode  # noqa: E402

HOSTILE = [
    "{other}", "nps:{x}:meta", "a:b:c", "a|b", "100%", "%41", "new\nline", "\r\n*1\r\n$8\r\nFLUSHALL", "\x1b[2J\x1b]0;x\x07",
    "<script>alert(1)</script>", "~other", "~tilde", "\u202egnirts", "\u2028", "'; DROP TABLE x; --", "$(reboot)", "*", "?",
    "[a-z]", "\\", "\"", " leading and trailing ", "\u00e9\u0301\U0001f600", "\x7f\x80", "null", "all", "trend", "x" * 256,
    "delivery", "d\u0435livery", "Delivery", "delivery ", "deliver\u0443", "\uff44elivery",
]


def test_hostile_names(world):
    """Each name is a series of its own, under its encoded id, in views, rank, index and trend; no key outside the
    namespace appears, and the table prints none of it raw."""
    redis, topic = world.redis(), world.topic(2)
    consumer = world.consumer(topic, redis, minimum_n="1", windows="1h/10s", aggregate__tick="100ms")
    world.kafka.send(topic, [{"key": b"%d" % (i % 5), "value": json.dumps(
        {**json.loads(cluster.event("e%d" % i)), "touchpoint": name, "score": i % 11}).encode()}
        for i, name in enumerate(HOSTILE) for _ in range(i % 3 + 1)])
    total = sum(i % 3 + 1 for i in range(len(HOSTILE)))
    too_long = cluster.event("long", "y" * 300)
    # Encoded, this is longer than 256 bytes although it is short raw.
    grows = cluster.event("grows", "%" * 100)
    world.kafka.send(topic, [too_long, grows])
    world.caught_up(redis)
    health = world.ledger(redis, topic, accepted=total, rejected=2)
    assert health["rejected:name_too_long"] == "2"
    prefix = "nps:{%s}:" % world.namespace
    index = {name.encode("utf-8", "surrogateescape").decode() for name in redis.call("SMEMBERS", prefix + "index:touchpoint")}
    expected = {encode(name.encode()): i for i, name in enumerate(HOSTILE)}
    assert index == set(expected)
    for id_, i in expected.items():
        view = redis.hash(prefix + "touchpoint:%s:1h" % id_)
        assert view["n"] == str(i % 3 + 1), (id_, view)
        assert redis.call("ZSCORE", prefix + "rank:touchpoint:1h", id_) is not None
    assert redis.hash(prefix + "all:all:1h")["n"] == str(total)
    keys = redis.keys()
    assert all(key.startswith(prefix) for key in keys)
    for key in keys:
        rest = key[len(prefix):]
        assert not any(ord(c) < 0x20 or c in "{}\x7f" for c in rest), repr(key)
        if rest.startswith("touchpoint:"):
            assert rest.count(":") == 2
    code, out, err = world.run_consumer("table", "--once", "--window", "1h",
                                        settings=world.settings(topic, redis, windows="1h/10s", redis__timeout="1m"))
    assert code == 0, err
    raw = [c for c in out if (ord(c) < 0x20 and c != "\n") or 0x7f <= ord(c) < 0xa0 or c in "\u202e\u2028"]
    assert not raw, raw
    code, out, err = world.run_consumer("log", "--rows", settings=world.settings(topic, redis, windows="1h/10s", redis__timeout="1m"))
    assert code == 0 and "\x1b" not in out and "\r" not in out, err
    assert consumer.stop() == 0


def test_more_names_than_series_max(world):
    """Beyond series_max further names count as ~other: totals stay right, health and the digest's replay say so."""
    redis, topic = world.redis(), world.topic(2)
    settings = {"windows": "1h/10s", "minimum_n": "1", "series_max": "20", "rollups": "touchpoint,channel,all"}
    consumer = world.consumer(topic, redis, **settings)
    world.kafka.send(topic, [{"key": b"%d" % (i % 7), "value": cluster.event("e%d" % i, "t%d" % (i % 60), score=10,
                                                                             channel="c%d" % (i % 3))} for i in range(600)])
    world.caught_up(redis)
    health = world.ledger(redis, topic, accepted=600)
    assert health["capped"] == "1" and int(health["series:touchpoint"]) <= 21
    prefix = "nps:{%s}:" % world.namespace
    index = redis.call("SMEMBERS", prefix + "index:touchpoint")
    assert "~other" in index and len(index) <= 21
    counts = {id_: int(redis.hash(prefix + "touchpoint:%s:1h" % id_)["n"]) for id_ in index}
    assert sum(counts.values()) == 600 and counts["~other"] == 600 - sum(v for k, v in counts.items() if k != "~other")
    assert all(n == 10 for id_, n in counts.items() if id_ != "~other") and counts["~other"] >= 390
    # Roll-ups below their cap are untouched.
    assert {id_: redis.hash(prefix + "channel:%s:1h" % id_)["n"] for id_ in ("c0", "c1", "c2")} == {
        "c0": "200", "c1": "200", "c2": "200"}
    _, out = world.replay(topic, redis, None, end=cluster.now_ms(), **settings)
    assert "over series_max" in out
    # The state survives another aggregator: the same names are kept.
    consumer.kill()
    consumer = world.consumer(topic, redis, **settings)
    world.kafka.send(topic, [cluster.event("more%d" % i, "t%d" % i) for i in range(60)])
    world.caught_up(redis)
    assert set(redis.call("SMEMBERS", prefix + "index:touchpoint")) == set(index)
    assert redis.hash(prefix + "all:all:1h")["n"] == "660"
    assert consumer.stop() == 0


def test_allow_list_makes_it_exact(world):
    """With admit.touchpoints every named touchpoint has its series, whatever else arrives first."""
    redis, topic = world.redis(), world.topic(1)
    consumer = world.consumer(topic, redis, windows="1h/10s", minimum_n="1", series_max="3", rollups="touchpoint,all",
                              admit__touchpoints="a,b,c", )
    world.kafka.send(topic, [cluster.event("x%d" % i, "t%d" % i) for i in range(30)] +
                     [cluster.event("y%d" % i, name) for i, name in enumerate("abcabc")])
    world.caught_up(redis)
    health = world.ledger(redis, topic, accepted=6, rejected=30)
    assert health["capped"] == "0"
    for name in "abc":
        assert redis.hash("nps:{%s}:touchpoint:%s:1h" % (world.namespace, name))["n"] == "2"
    assert consumer.stop() == 0
