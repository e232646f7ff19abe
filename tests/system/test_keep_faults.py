"""Snapshots in Kafka under faults: flushes and kills, zombies, a broker that is away, a Redis from the past."""

import random
import time

import pytest

import cluster
from cluster import wait_for
from snapshots import OFTEN, PIECE, WINDOWS, complete, counted, forget_up_to, kept_to, manifests, offsets, records


def test_flushed_under_load(world):
    """Redis is flushed again and again under load; retention follows close behind the snapshots, so that each restore
    needs the one in Kafka and what came since."""
    redis, topic = world.redis(), world.topic(3)
    consumers = [world.consumer(topic, redis, **OFTEN) for _ in range(2)]
    simulation = world.load(topic, 1500)
    total = 0
    for number in range(3):
        wait_for(lambda: counted(world, redis) >= total + 1000, 30, "events are counted")
        # A genesis of which nothing is kept before the next flush would give its number to the next one.
        manifest = kept_to(world, topic, total=total + 1000, genesis=number + 1)
        total = offsets(manifest)
        forget_up_to(world, topic, manifest)
        redis.call("FLUSHALL")
        wait_for(lambda: world.health(redis).get("genesis") == str(number + 2), 30, "the next genesis")
    truth = simulation.end()
    world.exact(redis, truth, topic, genesis="4", windows=WINDOWS)
    wait_for(lambda: complete(world, redis), 20, "all windows are complete")
    for consumer in consumers:
        assert consumer.stop() == 0


def test_killed_while_writing(world):
    """kill -9 of the aggregator, over and over, while it writes snapshots; then only they are left."""
    redis, topic = world.redis(), world.topic(2)
    simulation = world.load(topic, 1500)
    # With a name of its own it has its partitions back at once: who dies without one keeps them for a session.
    often = dict(OFTEN, aggregate__snapshot="200ms", snapshot__kafka_interval="200ms", aggregate__tick="50ms",
                 aggregate__lease="400ms", instance="one")
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
              for piece in range((c["size"] + PIECE - 1) // PIECE)}
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


@pytest.mark.parametrize("running", [True, pytest.param(False, marks=pytest.mark.long)], ids=["running", "stopped"])
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
