"""The broker goes away and comes back; records go away and do not come back."""

import re
import signal
import time

import pytest

import cluster
from cluster import wait_for

WINDOWS = "5m/1s,1h/10s"


def counted(world, redis):
    return int(world.health(redis).get("accepted", 0))


def goes_on(world, redis, amount=300, timeout=60):
    from_here = counted(world, redis)
    wait_for(lambda: counted(world, redis) >= from_here + amount, timeout, "reading goes on")


def whole(world, redis, window):
    return redis.hash("nps:{%s}:health:%s" % (world.namespace, window))


@pytest.mark.parametrize("how", [pytest.param((), id="stop", marks=pytest.mark.long), pytest.param(("--kill",), id="kill")])
def test_kafka_restart(own_world, how):
    """The broker is restarted under load: producer and consumers wait, nothing is lost, nothing counted twice."""
    world, kafka = own_world, own_world.kafka
    redis, topic = world.redis(), world.topic(2)
    consumers = [world.consumer(topic, redis, windows=WINDOWS) for _ in range(2)]
    simulation = world.load(topic, 1600)
    goes_on(world, redis)
    kafka.tool("stop", "1", *how)
    try:
        wait_for(lambda: world.health(redis).get("complete") == "0", 30, "complete says 0 while Kafka is away")
        time.sleep(8)  # shorter than that no end of an outage is told
        assert all(c.running() for c in consumers)
        # Idle commits go on, so that the clocks of the views do.
        clock = int(world.said(redis, "as_of_ms"))
        wait_for(lambda: int(world.health(redis).get("as_of_ms", 0)) > clock + 1000, 30, "health is fresh")
    finally:
        kafka.tool("start", "1")
    goes_on(world, redis)
    world.exact(redis, simulation.end(), topic, timeout=90, windows=WINDOWS)
    for consumer in consumers:
        # Both ends of the outage are in the log: whoever reads it at night must not have to guess.
        assert any(words in consumer.log() for words in ("Connection refused", "brokers are down"))
        consumer.wait_log("Kafka answers again after [0-9]+ s", 30)
        assert consumer.stop() == 0


def test_sigterm_while_kafka_is_away(own_world):
    world, kafka = own_world, own_world.kafka
    redis, topic = world.redis(), world.topic(1)
    consumer = world.consumer(topic, redis, windows=WINDOWS)
    truth = world.simulate(topic, count=2000).finish()
    world.caught_up(redis)
    kafka.tool("stop", "1", "--kill")
    try:
        # What was read is committed: Redis is there.
        assert consumer.stop(signal.SIGINT) == 0
    finally:
        kafka.tool("start", "1")
    consumer = world.consumer(topic, redis, windows=WINDOWS)
    world.exact(redis, truth, topic, accepted=2000, timeout=60, windows=WINDOWS)
    assert consumer.stop() == 0


def test_no_kafka(world):
    """No broker at the start: one readable line within startup_timeout, exit code 3."""
    redis = world.redis()
    port = cluster.free_port()
    code, out, err = world.run_consumer("run", timeout=600, settings=world.settings(
        "t", redis, startup_timeout="2s", set={"kafka.bootstrap.servers": "127.0.0.1:%d" % port}))
    said = re.search("no broker answered within ([0-9]+) s", err)
    assert code == 3 and said and int(said[1]) < 30, err  # what it waits for otherwise
    last = err.rstrip().split("\n")[-1]
    assert "127.0.0.1:%d" % port in last and "error run: kafka" in last, err
    assert redis.keys() == set(), "nothing was begun"


def test_retention_passes_the_position(world):
    """Records that Kafka deleted before they were read: an explicit, counted gap; complete stays 0 for the windows
    that it falls in; what is left is counted exactly."""
    redis, topic, begun = world.redis(), world.topic(2), cluster.now_ms()
    consumer = world.consumer(topic, redis, windows=WINDOWS)
    first = world.simulate(topic, count=3000, seed=1).finish()
    world.exact(redis, first, topic, accepted=3000, windows=WINDOWS)
    wait_for(lambda: world.health(redis).get("complete") == "1" and whole(world, redis, "1h").get("complete") == "1", 30,
             "complete: read from the topic's first record")
    assert consumer.stop() == 0
    starts = {p: end for p, (_, end) in world.kafka.bounds(topic).items()}
    world.simulate(topic, count=2000, seed=2).finish()  # nobody reads these
    gone = {p: end for p, (_, end) in world.kafka.bounds(topic).items()}
    world.kafka.delete_records(topic, gone)
    third = world.simulate(topic, count=1000, seed=3).finish()
    consumer = world.consumer(topic, redis, windows=WINDOWS, aggregate__snapshot="500ms")
    world.caught_up(redis)
    wait_for(lambda: counted(world, redis) == 4000, 40, "what is left is counted")
    health = world.ledger(redis, topic, accepted=4000, gap=2000)
    assert sum(gone.values()) - sum(starts.values()) == 2000 and health["gap"] == "2000"
    for window in ("5m", "1h"):
        wholeness = wait_for(lambda: whole(world, redis, window), 30, "health is there")
        assert wholeness["complete"] == "0" and int(wholeness["covered_since_ms"]) > begun
    assert "are gone (retention)" in consumer.log()
    world.equal(redis, cluster.add_truths(first, third), windows=WINDOWS)
    # The gap is part of the state: another aggregator knows it too.
    assert consumer.stop() == 0
    consumer = world.consumer(topic, redis, windows=WINDOWS)
    world.caught_up(redis)
    assert world.said(redis, "gap") == "2000"
    assert wait_for(lambda: whole(world, redis, "1h"), 30, "health is there")["complete"] == "0"
    assert consumer.stop() == 0


def test_retention_passes_the_position_under_way(world):
    """The same while the instance runs but is frozen: Kafka answers that the offset is out of range."""
    redis, topic = world.redis(), world.topic(1)
    consumer = world.consumer(topic, redis, windows=WINDOWS)
    first = world.simulate(topic, count=1000, seed=1).finish()
    world.exact(redis, first, topic, accepted=1000, windows=WINDOWS)
    consumer.freeze()
    wait_for(consumer.frozen, 20, "it stands still")
    # The fetch that may still wait at the broker is answered with this one; a frozen client asks for no more.
    extra = world.simulate(topic, count=1, seed=4).finish()
    world.simulate(topic, count=2000, seed=2).finish()
    (_, gone), = world.kafka.bounds(topic).values()
    assert gone == 3001
    world.kafka.delete_records(topic, {0: gone})
    consumer.thaw()
    wait_for(lambda: int(world.health(redis).get("position:%s/0" % topic, 0)) == 3001, 60, "the position is at the end")
    third = world.simulate(topic, count=500, seed=3).finish()
    world.caught_up(redis)
    health = world.ledger(redis, topic)
    fetched = 2001 - int(health["gap"])
    assert fetched in (0, 1) and int(health["accepted"]) == 1500 + fetched
    world.equal(redis, cluster.add_truths(first, *([extra] if fetched else []), third), windows=WINDOWS)
    assert consumer.stop() == 0


def test_genesis_on_a_topic_that_has_lost_its_beginning(world):
    """Started on a topic whose first records are gone: counted from what is there; not complete, and says so."""
    redis, topic, begun = world.redis(), world.topic(1), cluster.now_ms()
    world.simulate(topic, count=1000, seed=1).finish()
    world.kafka.delete_records(topic, {0: 1000})
    truth = world.simulate(topic, count=1000, seed=2).finish()
    consumer = world.consumer(topic, redis, windows=WINDOWS)
    world.caught_up(redis)
    world.ledger(redis, topic, accepted=1000, starts={topic + "/0": 1000})
    world.equal(redis, truth, windows=WINDOWS)
    wholeness = wait_for(lambda: whole(world, redis, "5m"), 30, "health is there")
    assert wholeness["complete"] == "0" and int(wholeness["covered_since_ms"]) > begun
    assert consumer.stop() == 0
