"""kill -9 of instances at random moments under load: exact each time."""

import random
import time

import pytest

import cluster
from cluster import wait_for

WINDOWS = "5m/1s,1h/10s"


def kill_often(world, redis, topic, consumers, kills, seed, restart):
    """Kills one of the consumers after a random while, the aggregator every second time, and starts another."""
    draw = random.Random(seed)
    for number in range(kills):
        before = int(world.health(redis).get("accepted", 0))
        wait_for(lambda: int(world.health(redis).get("accepted", 0)) > before, 90, "reading goes on")
        time.sleep(draw.uniform(0, 0.7))  # the moment is the point; nothing is waited for
        lease = redis.call("GET", "nps:{%s}:lease" % world.namespace)
        holder = world.health(redis).get("aggregator")
        aggregators = [i for i, c in enumerate(consumers) if "instance %s reads" % holder in c.log()]
        victim = aggregators[0] if number % 2 == 0 and aggregators else draw.randrange(len(consumers))
        consumers[victim].kill()
        assert lease is None or len(lease) > 10
        consumers[victim] = restart(victim)


def kill_nine(world, count, rate, kills, names=("", ""), **settings):
    """At least count events, and as many more as the kills take: a machine that stands still must not leave the last
    of them without anything to read."""
    redis, topic = world.redis(), world.topic(4)

    def start(i, ready=False):
        return world.consumer(topic, redis, ready=ready, instance=names[i] or None, windows=WINDOWS,
                              aggregate__snapshot="700ms", **settings)

    consumers = [start(i, True) for i in range(len(names))]
    simulation = world.load(topic, rate)
    kill_often(world, redis, topic, consumers, kills, 7, start)
    wait_for(lambda: int(world.health(redis).get("accepted", 0)) >= count, 120, "all events were read")
    truth = simulation.end()
    world.exact(redis, truth, topic, timeout=90, windows=WINDOWS)
    assert sum("aggregating namespace" in p.log() for p in world.programs) > 1, "the aggregator was never killed"
    for consumer in consumers:
        consumer.wait_log("assigned [0-9]+ partitions", 60)  # the last one may have begun only now
        assert consumer.stop() == 0
    return redis, topic, truth


def test_kill_nine_of_dynamic_members(world):
    kill_nine(world, count=90_000, rate=6000, kills=3)


@pytest.mark.sanitize
def test_kill_nine_of_static_members(world):
    """Restarted under its name, an instance has its partitions back at once; commits may be in flight meanwhile."""
    kill_nine(world, count=60_000, rate=4000, kills=5, names=("one", "two"), commit__interval="20ms")


def replays_equal_live(world, redis, topic, truth):
    """Two replays, with other batches, give one digest and the live counts."""
    count = cluster.events_of(truth)
    end = cluster.now_ms() + 60_000
    first, out = world.replay(topic, redis, "replay-a-" + world.unique, end=end, windows=WINDOWS)
    assert "accepted %d " % count in out
    second, _ = world.replay(topic, redis, "replay-b-" + world.unique, end=end, windows=WINDOWS,
                             commit__interval="13ms", commit__max_cells="777")
    assert first == second
    for name in ("replay-a-", "replay-b-"):
        world.equal(redis, truth, name + world.unique, windows=WINDOWS)
        assert int(world.health(redis, name + world.unique)["accepted"]) == count


def test_one_hundred_thousand_then_two_replays(world):
    redis, topic, truth = kill_nine(world, count=100_000, rate=20_000, kills=2, names=("one", "two"))
    replays_equal_live(world, redis, topic, truth)


@pytest.mark.long
def test_one_million_five_kills_two_replays(world):
    """The criterion by which the whole is called done."""
    redis, topic, truth = kill_nine(world, count=1_000_000, rate=25_000, kills=5)
    replays_equal_live(world, redis, topic, truth)
