"""Snapshots in Kafka: what a Redis that lost everything is rebuilt from, when the topic has lost its records too."""

import json
import os
import signal

import pytest

import cluster
from cluster import wait_for
from snapshots import OFTEN, PIECE, WINDOWS, change, complete, counted, forget_up_to, head_of, kept_to, manifest_key
from snapshots import manifests, next_of, offsets, records


@pytest.mark.parametrize("how", [pytest.param("FLUSHALL", marks=pytest.mark.sanitize),
                                 pytest.param("restart", marks=pytest.mark.long)])
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


def test_overtaken_by_retention(world):
    """A partition has lost records that no snapshot counts: the snapshot is used all the same, for nothing that it counts is
    in the topic any more; what is missing is a counted gap, and the windows say so."""
    redis, topic = world.redis(), world.topic(2)
    consumer = world.consumer(topic, redis, **OFTEN)
    first = world.simulate(topic, count=1500, seed=1).finish()
    world.exact(redis, first, topic, accepted=1500, windows=WINDOWS)
    manifest = kept_to(world, topic)
    assert consumer.stop() == 0
    missed = [cluster.event("missed-%d" % i, score=0) for i in range(700)]
    world.kafka.send(topic, [{"value": value, "partition": 0} for value in missed])  # nobody reads these
    ends = {partition: end for partition, (_, end) in world.kafka.bounds(topic).items()}
    assert sum(ends.values()) == offsets(manifest) + 700
    world.kafka.delete_records(topic, ends)
    third = world.simulate(topic, count=500, seed=3).finish()
    redis.call("FLUSHALL")
    consumer = world.consumer(topic, redis, **OFTEN)
    world.caught_up(redis)
    wait_for(lambda: counted(world, redis) == 2000, 30, "all that can be counted is")
    health = world.ledger(redis, topic, accepted=2000, gap=700)
    assert health["genesis"] == "2"
    world.equal(redis, cluster.add_truths(first, third), windows=WINDOWS)
    assert complete(world, redis, "0")
    log = consumer.log()
    assert "restored from the snapshot in Kafka" in log and "700 offsets are lost" in log and "are gone (retention)" in log
    # The gap is looked into, and no snapshot lost fewer: nothing begins anew again. The next one to be kept tells the gap too.
    kept = kept_to(world, topic, genesis=2)
    assert sum(each["gap"] for each in kept["partitions"]) == 700
    forget_up_to(world, topic, kept)
    redis.call("FLUSHALL")
    world.caught_up(redis)
    wait_for(lambda: counted(world, redis) == 2000, 30, "the counts are back")
    assert world.ledger(redis, topic, accepted=2000, gap=700)["genesis"] == "3"
    world.equal(redis, cluster.add_truths(first, third), windows=WINDOWS)
    assert complete(world, redis, "0")
    assert consumer.stop() == 0


def test_chunks_of_many_pieces(world):
    """Many series: chunks go to Kafka in several records and come back whole."""
    redis, topic = world.redis(), world.topic(2)
    names = ["touchpoint-%05d-with-a-name-that-takes-room-in-a-chunk" % i for i in range(20000)]
    more = {**OFTEN, "windows": "90d/6h", "rollups": "touchpoint,all", "trends": "all", "series_max": 100000}
    consumer = world.consumer(topic, redis, **more)
    world.kafka.send(topic, [cluster.event(str(i), name, score=i % 11) for i, name in enumerate(names)])
    manifest = kept_to(world, topic)
    assert max(c["size"] for c in manifest["chunks"]) > PIECE, manifest["chunks"]
    forget_up_to(world, topic, manifest)
    redis.call("FLUSHALL")
    wait_for(lambda: counted(world, redis) == 20000, 30, "the counts are back")
    world.caught_up(redis)
    world.ledger(redis, topic, accepted=20000)
    key = "nps:{%s}:" % world.namespace
    assert world.health(redis)["genesis"] == "2" and redis.hash(key + "all:all:90d")["n"] == "20000"
    assert redis.call("SCARD", key + "index:touchpoint") == 20000
    views = redis.connection().hashes([key + "touchpoint:%s:90d" % name for name in names])
    assert all(view["n"] == "1" for view in views.values())
    assert consumer.stop() == 0


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


def garbage(world, newest):
    return [(manifest_key(newest), b'{"format": 1, "genesis": 99'), ("manifest/7/x", os.urandom(500)),
            ("manifest/8/" + "e" * 16 + "/1", b"[]"), ("chunk/", b""), ("something else", b"x")]


def another_admit_hash(world, newest):
    return [(manifest_key(newest), change(newest, admit="f" * 64))]


def another_namespace(world, newest):
    return [(manifest_key(newest), change(newest, namespace="another"))]


def beyond_the_end(world, newest):
    far = [{**p, "position": "%d 1" % (next_of(p) + 10**6)} for p in newest["partitions"]]
    return [(manifest_key(newest), change(newest, partitions=far, genesis=newest["genesis"] + 3))]


def another_format(world, newest):
    return [(manifest_key(newest), change(newest, format=2))]


def another_snapshots_chunks(world, newest):
    """Whole and with the right sums, but of an older snapshot, whose positions are others."""
    older = manifests(world)[-2][1]
    assert offsets(older) < offsets(newest)
    return [(manifest_key(newest), change(newest, chunks=older["chunks"], tenure=older["tenure"]))]


# The last one makes the topic look like another namespace's, so nothing is written to it any more.
DAMAGES = [tombstone, wrong_bytes, another_snapshots_chunks, garbage, beyond_the_end, another_namespace]
MORE_DAMAGES = [truncated, another_chunk, another_admit_hash, another_format]


@pytest.mark.parametrize("damages", [DAMAGES, pytest.param(MORE_DAMAGES, marks=pytest.mark.long)], ids=["common", "rare"])
def test_damaged_snapshot(world, damages):
    """The furthest snapshot is damaged, each time in another way: the one before it is taken, and what came since is
    read from the topic, which has lost what lies before."""
    redis, topic = world.redis(), world.topic(2)
    consumer = world.consumer(topic, redis, set=cluster.PATIENT, **OFTEN)
    truths = [world.simulate(topic, count=1000, seed=1).finish()]
    kept_to(world, topic)
    for number, damage in enumerate(damages, 1):
        truths.append(world.simulate(topic, count=400, seed=number + 1).finish())
        total = 1000 + 400 * number
        newest = kept_to(world, topic, count=2)
        older = manifests(world)[-2][1]
        assert offsets(older) < offsets(newest)
        forget_up_to(world, topic, older)
        bad = damage(world, newest)
        world.kafka.send(world.snapshots(), [{"key": k, "value": v} if v is not None else {"key": k} for k, v in bad])
        redis.call("FLUSHALL")
        wait_for(lambda: counted(world, redis) == total, 30, "the counts are back after " + damage.__name__)
        world.exact(redis, cluster.add_truths(*truths), topic, accepted=total, genesis=str(older["genesis"] + 1),
                    windows=WINDOWS)
        assert consumer.log().count("restored from the snapshot in Kafka") == number, damage.__name__
        world.kafka.send(world.snapshots(), [{"key": k} for k, _ in bad])
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


def test_topic_made_anew_since(world):
    """The topic was made anew, and has grown beyond the snapshot's positions: that one counts other records. Begun with
    what the topic holds."""
    redis, topic = world.redis(), world.topic(2)
    consumer = world.consumer(topic, redis, **OFTEN)
    world.simulate(topic, count=600, seed=1).finish()
    kept_to(world, topic)
    assert consumer.stop() == 0
    world.kafka.admin.delete_topics([topic], operation_timeout=20)[topic].result()
    wait_for(lambda: topic not in world.kafka.admin.list_topics(timeout=10).topics, 20, "the topic is gone")
    world.kafka.topic(topic, 2)
    truth = world.simulate(topic, count=2000, seed=2).finish()
    redis.call("FLUSHALL")
    consumer = world.consumer(topic, redis, **OFTEN)
    # A snapshot from before the first record counts none, and so may be used: then this is genesis 2.
    world.exact(redis, truth, topic, accepted=2000, genesis=None, windows=WINDOWS)
    assert "counts other records than the topics hold" in consumer.log()
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
    simulation.end()
