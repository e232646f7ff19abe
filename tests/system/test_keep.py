"""Snapshots in Kafka: what a Redis that lost everything is rebuilt from, when the topic has lost its records too."""

import json
import os
import random
import signal
import time

import pytest

import cluster
from cluster import wait_for

WINDOWS = "5m/1s,1h/10s"
OFTEN = {"aggregate__snapshot": "300ms", "snapshot__kafka_interval": "300ms", "windows": WINDOWS}


def records(world, topic=None):
    """{key: value} of the topic, the newest of each key; those with a tombstone left out."""
    found = {}
    for message in world.kafka.read_all(topic or world.snapshots()):
        found[message.key().decode()] = message.value()
    return {key: value for key, value in found.items() if value is not None}


def manifests(world, topic=None):
    """[(key, manifest)], the furthest last."""
    found = [(key, json.loads(value)) for key, value in records(world, topic).items() if key.startswith("manifest/")]
    return sorted(found, key=lambda each: (each[1]["genesis"], offsets(each[1]), each[1]["ms"]))


def next_of(each):
    return int(each["position"].split(" ")[0])


def offsets(manifest):
    return sum(map(next_of, manifest["partitions"]))


def kept_to(world, topic, total=None, count=1):
    """Waits until a manifest covers the topic to its end (or total offsets), and returns it."""
    end = sum(high for _, high in world.kafka.bounds(topic).values()) if total is None else total

    def covered():
        found = manifests(world)
        return found[-1][1] if len(found) >= count and offsets(found[-1][1]) >= end else None
    return wait_for(covered, 30, "a snapshot in Kafka covers %d offsets" % end, every=0.2)


def forget_up_to(world, topic, manifest):
    """Retention passes everything that the manifest covers."""
    before = {each["partition"]: next_of(each) for each in manifest["partitions"] if next_of(each)}
    assert before
    world.kafka.delete_records(topic, before)


def counted(world, redis):
    return int(world.health(redis).get("accepted", 0))


def complete(world, redis):
    return [redis.hash("nps:{%s}:health:%s" % (world.namespace, w)).get("complete") for w in ("5m", "1h")] == ["1", "1"]


@pytest.mark.parametrize("how", ["FLUSHALL", "restart"])
def test_wiped_redis_and_an_emptied_topic(world, how):
    """Nothing is left but the snapshot in Kafka: every count is back, the windows are complete, one genesis later."""
    redis, topic = world.redis(), world.topic(2)
    consumers = [world.consumer(topic, redis, **OFTEN) for _ in range(2)]
    first = world.simulate(topic, count=3000, seed=1).finish()
    world.exact(redis, first, topic, accepted=3000, windows=WINDOWS)
    forget_up_to(world, topic, kept_to(world, topic))
    if how == "FLUSHALL":
        redis.call("FLUSHALL")
    else:
        redis.restart()
    wait_for(lambda: counted(world, redis) == 3000, 30, "the counts are back")
    world.exact(redis, first, topic, accepted=3000, genesis="2", windows=WINDOWS)
    second = world.simulate(topic, count=1000, seed=2).finish()
    world.exact(redis, cluster.add_truths(first, second), topic, accepted=4000, genesis="2", windows=WINDOWS)
    wait_for(lambda: complete(world, redis), 20, "all windows are complete")
    assert any("restored from the snapshot in Kafka" in c.log() for c in consumers)
    # And again, now from a snapshot of the second genesis.
    forget_up_to(world, topic, kept_to(world, topic))
    redis.call("FLUSHALL")
    wait_for(lambda: counted(world, redis) == 4000, 30, "the counts are back again")
    world.exact(redis, cluster.add_truths(first, second), topic, accepted=4000, genesis="3", windows=WINDOWS)
    for consumer in consumers:
        assert consumer.stop() == 0


def test_flushed_under_load(world):
    """Redis is flushed five times under load; retention follows close behind the snapshots, so that each restore
    needs the one in Kafka and what came since."""
    redis, topic = world.redis(), world.topic(3)
    consumers = [world.consumer(topic, redis, **OFTEN) for _ in range(2)]
    simulation = world.load(topic, 1500)
    total = 0
    for number in range(5):
        wait_for(lambda: counted(world, redis) >= total + 1000, 30, "events are counted")
        manifest = kept_to(world, topic, total=total + 1000)
        total = offsets(manifest)
        forget_up_to(world, topic, manifest)
        redis.call("FLUSHALL")
        wait_for(lambda: world.health(redis).get("genesis") == str(number + 2), 30, "the next genesis")
    truth = simulation.end()
    world.exact(redis, truth, topic, genesis="6", windows=WINDOWS)
    wait_for(lambda: complete(world, redis), 20, "all windows are complete")
    for consumer in consumers:
        assert consumer.stop() == 0


def change(manifest, **fields):
    return json.dumps({**manifest, **fields}).encode()


def head_of(manifest):
    chunk, = [c for c in manifest["chunks"] if c["name"] == "head"]
    return "chunk/%s/%s/0" % (manifest["tenure"], chunk["id"])


def tombstone(world, newest):
    return [(head_of(newest), None)]


def truncated(world, newest):
    key = head_of(newest)
    return [(key, records(world)[key][:-1])]


def wrong_bytes(world, newest):
    key = head_of(newest)
    value = bytearray(records(world)[key])
    value[len(value) // 2] ^= 1
    return [(key, bytes(value))]


def another_chunk(world, newest):
    """Well made, with the right sum and size in the manifest, but of an older snapshot: the head knows better."""
    others = [c for c in newest["chunks"] if c["name"] != "head"]
    names = [c["name"] for c in others]
    swapped = [{**c, "name": names[(i + 1) % len(names)]} for i, c in enumerate(others[:-1])]
    keep = [c for c in newest["chunks"] if c["name"] == "head"]
    return [(manifest_key(newest), change(newest, chunks=keep + swapped))]


def manifest_key(manifest):
    return "manifest/%d/%s/%d" % (manifest["genesis"], manifest["tenure"], manifest["sequence"])


def garbage(world, newest):
    return [(manifest_key(newest), b'{"format": 1, "genesis": 99'), ("manifest/7/x", os.urandom(500)),
            ("manifest/8/" + "e" * 16 + "/1", b"[]"), ("chunk/", b""), ("something else", b"x"), (None, b"y")]


def another_admit_hash(world, newest):
    return [(manifest_key(newest), change(newest, admit="f" * 64))]


def another_namespace(world, newest):
    return [(manifest_key(newest), change(newest, namespace="another"))]


def beyond_the_end(world, newest):
    far = [{**p, "position": "%d 1" % (next_of(p) + 10**6)} for p in newest["partitions"]]
    return [(manifest_key(newest), change(newest, partitions=far, genesis=newest["genesis"] + 3))]


def another_format(world, newest):
    return [(manifest_key(newest), change(newest, format=2))]


@pytest.mark.parametrize("damage", [tombstone, truncated, wrong_bytes, another_chunk, garbage, another_admit_hash,
                                    another_namespace, beyond_the_end, another_format])
def test_damaged_snapshot(world, damage):
    """The furthest snapshot cannot be used: the one before it is, and what came since is read from the topic."""
    redis, topic = world.redis(), world.topic(2)
    consumer = world.consumer(topic, redis, **OFTEN)
    first = world.simulate(topic, count=1500, seed=1).finish()
    older = kept_to(world, topic)
    second = world.simulate(topic, count=1000, seed=2).finish()
    newest = kept_to(world, topic, count=2)
    assert consumer.stop() == 0
    # That of the first load, or a later one of the second: the furthest that is not the newest.
    older = manifests(world)[-2][1]
    assert offsets(older) >= 1500
    forget_up_to(world, topic, older)
    bad = [{k: v for k, v in (("key", key), ("value", value)) if v is not None} for key, value in damage(world, newest)]
    world.kafka.send(world.snapshots(), [record for record in bad if "key" in record])
    redis.call("FLUSHALL")
    more = dict(OFTEN, windows=WINDOWS)
    consumer = world.consumer(topic, redis, **more)
    wait_for(lambda: counted(world, redis) == 2500, 30, "the counts are back")
    world.exact(redis, cluster.add_truths(first, second), topic, accepted=2500, genesis="2", windows=WINDOWS)
    assert "restored from the snapshot in Kafka" in consumer.log()
    assert consumer.stop() == 0


def test_no_snapshot_can_be_used(world):
    """Every manifest is spoilt: begun anew from the topic, which still has all of it."""
    redis, topic = world.redis(), world.topic(2)
    consumer = world.consumer(topic, redis, **OFTEN)
    truth = world.simulate(topic, count=1500, seed=1).finish()
    kept_to(world, topic)
    assert consumer.stop() == 0
    world.kafka.send(world.snapshots(), [{"key": key, "value": change(m, admit="0" * 64)} for key, m in manifests(world)])
    redis.call("FLUSHALL")
    consumer = world.consumer(topic, redis, **OFTEN)
    world.exact(redis, truth, topic, accepted=1500, genesis="1", windows=WINDOWS)
    assert "restored" not in consumer.log() and "other rules" in consumer.log()
    assert consumer.stop() == 0


def test_killed_while_writing(world):
    """kill -9 of the aggregator, over and over, while it writes snapshots; then only they are left."""
    redis, topic = world.redis(), world.topic(2)
    simulation = world.load(topic, 1500)
    often = dict(OFTEN, aggregate__snapshot="200ms", snapshot__kafka_interval="200ms", aggregate__tick="50ms",
                 aggregate__lease="400ms")
    rest = random.Random(4)
    for _ in range(6):
        consumer = world.consumer(topic, redis, **often)
        before = counted(world, redis)
        wait_for(lambda: counted(world, redis) > before + 300, 30, "events are counted")
        time.sleep(rest.random() * 0.5)  # another moment of writing each time
        consumer.kill()
    truth = simulation.end()
    consumer = world.consumer(topic, redis, **often)
    world.exact(redis, truth, topic, windows=WINDOWS)
    forget_up_to(world, topic, kept_to(world, topic))
    consumer.kill()
    redis.call("FLUSHALL")
    consumer = world.consumer(topic, redis, **often)
    world.exact(redis, truth, topic, genesis="2", windows=WINDOWS)
    # What the dead ones left is cleared away: two manifests at most, and no chunk that neither lists.
    wait_for(lambda: len(manifests(world)) <= 3, 30, "old manifests are gone", every=0.3)
    assert consumer.stop() == 0


def test_old_snapshots_are_removed(world):
    """Under load two manifests stay, and exactly the chunks that they list."""
    redis, topic = world.redis(), world.topic(1)
    consumer = world.consumer(topic, redis, **OFTEN)
    simulation = world.load(topic, 500)

    def numbers():
        return [m["sequence"] for _, m in manifests(world)]
    wait_for(lambda: max(numbers() or [0]) >= 8, 40, "several snapshots were kept", every=0.3)
    simulation.end()
    world.caught_up(redis)
    kept_to(world, topic, count=2)
    assert consumer.stop() == 0
    found = records(world)
    stay = manifests(world)
    assert len(stay) == 2
    listed = {"chunk/%s/%s/%d" % (m["tenure"], c["id"], piece) for _, m in stay for c in m["chunks"]
              for piece in range((c["size"] + 524287) // 524288)}
    assert {key for key in found if key.startswith("chunk/")} == listed


def test_kafka_away(own_world):
    """While the broker is away views go on and nothing of the snapshots stands in the way; afterwards they go on."""
    world, kafka = own_world, own_world.kafka
    redis, topic = world.redis(), world.topic(2)
    consumer = world.consumer(topic, redis, **OFTEN)
    simulation = world.load(topic, 500)
    wait_for(lambda: manifests(world), 30, "the first snapshot is kept", every=0.3)
    kafka.tool("stop", "1", "--kill")
    try:
        clock = int(world.health(redis)["as_of_ms"])
        wait_for(lambda: int(world.health(redis)["as_of_ms"]) > clock + 5000, 20, "health is fresh")
        # Redis is wiped meanwhile: no genesis before Kafka can be asked for the snapshot.
        redis.call("FLUSHALL")
        time.sleep(3)
        assert redis.call("EXISTS", "nps:{%s}:meta" % world.namespace) == 0
    finally:
        kafka.tool("start", "1")
    wait_for(lambda: counted(world, redis) > 500, 60, "counted again")
    world.exact(redis, simulation.end(), topic, genesis="2", windows=WINDOWS)
    forget_up_to(world, topic, kept_to(world, topic))
    assert consumer.stop() == 0


def test_zombie_aggregator(world):
    """The aggregator is frozen in the middle of its work, another takes over and writes; the old one wakes up and may
    send what it still has: the newest snapshot stays whole."""
    redis, topic = world.redis(), world.topic(2)
    often = dict(OFTEN, aggregate__snapshot="200ms", snapshot__kafka_interval="200ms", aggregate__tick="50ms",
                 aggregate__lease="400ms")
    first = world.consumer(topic, redis, **often)
    simulation = world.load(topic, 1000)
    wait_for(lambda: len(manifests(world)) >= 2, 30, "snapshots are kept", every=0.2)
    other = world.consumer(topic, redis, **often)
    for _ in range(3):
        first.freeze()
        told = other.log().count("is kept in topic")
        other.wait_log("is kept in topic", 60, count=told + 1)
        first.thaw()
        first, other = other, first
    truth = simulation.end()
    world.exact(redis, truth, topic, windows=WINDOWS)
    forget_up_to(world, topic, kept_to(world, topic))
    redis.call("FLUSHALL")
    world.exact(redis, truth, topic, genesis="2", windows=WINDOWS)
    for consumer in (first, other):
        assert consumer.stop() == 0


def test_late_manifest_of_a_zombie(world):
    """A manifest and its chunks arrive late, at the topic's end, with older positions: the furthest is taken."""
    redis, topic = world.redis(), world.topic(2)
    consumer = world.consumer(topic, redis, **OFTEN)
    first = world.simulate(topic, count=1500, seed=1).finish()
    early = kept_to(world, topic)
    chunks = {key: value for key, value in records(world).items() if key.startswith("chunk/")}
    second = world.simulate(topic, count=1000, seed=2).finish()
    late = kept_to(world, topic)
    assert consumer.stop() == 0
    forget_up_to(world, topic, late)
    world.kafka.send(world.snapshots(), [{"key": key, "value": value} for key, value in chunks.items()] +
                     [{"key": manifest_key(early), "value": json.dumps(early).encode()}])
    redis.call("FLUSHALL")
    consumer = world.consumer(topic, redis, **OFTEN)
    world.exact(redis, cluster.add_truths(first, second), topic, accepted=2500, genesis="2", windows=WINDOWS)
    assert consumer.stop() == 0


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_old_backup_after_retention(world, running):
    """Redis comes back from an old dump, and the topic has lost the records since: the snapshot in Kafka counts them."""
    redis, topic = world.redis(), world.topic(2)
    consumer = world.consumer(topic, redis, **OFTEN)
    first = world.simulate(topic, count=1500, seed=1).finish()
    world.exact(redis, first, topic, accepted=1500, windows=WINDOWS)
    redis.call("SAVE")
    second = world.simulate(topic, count=2000, seed=2).finish()
    world.exact(redis, cluster.add_truths(first, second), topic, accepted=3500, windows=WINDOWS)
    manifest = kept_to(world, topic)
    if not running:
        assert consumer.stop() == 0
    redis.kill()
    forget_up_to(world, topic, manifest)
    redis.start()
    if not running:
        consumer = world.consumer(topic, redis, **OFTEN)
    third = world.simulate(topic, count=500, seed=3).finish()
    wait_for(lambda: counted(world, redis) == 4000, 60, "all is counted again")
    world.exact(redis, cluster.add_truths(first, second, third), topic, accepted=4000, genesis="2", windows=WINDOWS)
    wait_for(lambda: complete(world, redis), 20, "all windows are complete")
    assert "looking for it" in consumer.log() and "restored from the snapshot in Kafka" in consumer.log()
    assert consumer.stop() == 0


def test_old_backup_and_the_topic_has_all(world):
    """Redis comes back from an old dump, and the topic still has everything: read again, no genesis needed."""
    redis, topic = world.redis(), world.topic(2)
    consumer = world.consumer(topic, redis, **OFTEN)
    first = world.simulate(topic, count=1500, seed=1).finish()
    world.exact(redis, first, topic, accepted=1500, windows=WINDOWS)
    redis.call("SAVE")
    second = world.simulate(topic, count=1000, seed=2).finish()
    kept_to(world, topic)
    redis.restart()
    world.exact(redis, cluster.add_truths(first, second), topic, accepted=2500, genesis="1", windows=WINDOWS)
    assert consumer.stop() == 0


def test_partition_added_since(world):
    """A partition that the snapshot does not know is read from its start."""
    redis, topic = world.redis(), world.topic(1)
    consumer = world.consumer(topic, redis, **OFTEN)
    first = world.simulate(topic, count=1000, seed=1).finish()
    manifest = kept_to(world, topic)
    assert consumer.stop() == 0
    forget_up_to(world, topic, manifest)
    world.kafka.add_partitions(topic, 3)
    second = world.simulate(topic, count=1000, seed=2).finish()
    redis.call("FLUSHALL")
    consumer = world.consumer(topic, redis, **OFTEN)
    world.exact(redis, cluster.add_truths(first, second), topic, accepted=2000, genesis="2", windows=WINDOWS)
    assert consumer.stop() == 0


def test_topic_that_would_lose_them(world):
    """A topic with another policy, or several partitions, is refused in one line; none is no topic at all."""
    redis, topic = world.redis(), world.topic(1)
    wrong = world.topic(1, suffix="-delete")
    several = world.topic(2, suffix="-several", cleanup_policy="compact")
    for name, says in ((wrong, "cleanup.policy=delete"), (several, "has 2 partitions"), (topic, "is read as a source")):
        code, _, err = world.run_consumer("run", settings=world.settings(topic, redis, snapshot__topic=name))
        assert code in (2, 3) and says in err and err.count(" error ") <= 1, err
    consumer = world.consumer(topic, redis, snapshot__topic="none", **OFTEN)
    assert "snapshots stay in Redis only" in consumer.log()
    truth = world.simulate(topic, count=500, seed=1).finish()
    world.exact(redis, truth, topic, accepted=500, windows=WINDOWS)
    assert consumer.stop() == 0
    assert world.snapshots() not in world.kafka.admin.list_topics(timeout=20).topics


def test_two_namespaces_one_topic(world):
    """The second says so and leaves the first one's snapshots alone."""
    redis, topic = world.redis(), world.topic(1)
    shared = world.topic(1, suffix="-shared", cleanup_policy="compact")
    consumer = world.consumer(topic, redis, snapshot__topic=shared, **OFTEN)
    world.simulate(topic, count=500, seed=1).finish()
    wait_for(lambda: manifests(world, shared), 30, "the first namespace's snapshot is kept", every=0.2)
    assert consumer.stop() == 0
    before = records(world, shared)
    other = world.namespace + "-b"
    consumer = world.consumer(topic, redis, namespace=other, snapshot__topic=shared, **OFTEN)
    consumer.wait_log("holds snapshots of another namespace", 30)
    world.caught_up(redis, other)
    assert world.health(redis, other)["accepted"] == "500"
    assert consumer.stop() == 0
    assert records(world, shared) == before


def test_replay_keeps_none(world):
    """A replay's namespace has no snapshots in Kafka."""
    redis, topic = world.redis(), world.topic(1)
    world.simulate(topic, count=500, seed=1).finish()
    world.replay(topic, redis, "replayed", end=cluster.now_ms())
    assert world.snapshots("replayed") not in world.kafka.admin.list_topics(timeout=20).topics


def test_signal_while_it_writes(world):
    """SIGTERM under load with snapshots under way: an orderly end within the promised time."""
    redis, topic = world.redis(), world.topic(2)
    consumer = world.consumer(topic, redis, **OFTEN)
    simulation = world.load(topic, 1500)
    wait_for(lambda: manifests(world), 30, "a snapshot is kept", every=0.2)
    assert consumer.stop(signal.SIGTERM) == 0
    assert consumer.stopped_s < 5 * cluster.SLOW
    simulation.end()
