"""Signals, silence, a log that is full, a lease in other hands."""

import re
import signal
import time

import pytest

import cluster
from cluster import wait_for

WINDOWS = "5m/1s,1h/10s"


def counted(world, redis):
    return int(world.health(redis).get("accepted", 0))


def goes_on(world, redis, amount=300, timeout=30):
    from_here = counted(world, redis)
    wait_for(lambda: counted(world, redis) >= from_here + amount, timeout, "reading goes on")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_signal_under_load(world, number):
    """Exit 0 within five seconds; what was read is committed; the last views are those of the last position, and the
    lease is given back."""
    redis, topic = world.redis(), world.topic(2)
    consumer = world.consumer(topic, redis, windows=WINDOWS, commit__interval="5s", commit__idle="6s", complete_lag="20s")
    simulation = world.load(topic, 1500)
    goes_on(world, redis, 100)
    # With a commit every five seconds there is much in hand.
    assert consumer.stop(number) == 0
    read, accepted = map(int, re.search(r"leaving: (\d+) records read, (\d+) accepted", consumer.log()).groups())
    assert sum(world.positions(redis).values()) == read == accepted
    assert counted(world, redis) == accepted, "what was committed last is in the views"
    assert not redis.call("EXISTS", "nps:{%s}:lease" % world.namespace)
    assert simulation.running(), "the signal came under load"
    consumer = world.consumer(topic, redis, windows=WINDOWS)
    world.exact(redis, simulation.end(), topic, windows=WINDOWS)
    assert consumer.stop(number) == 0


def test_signal_hands_over_at_once(world):
    """A member that leaves says so: the other one has its partitions and the lease without waiting for the session."""
    redis, topic = world.redis(), world.topic(2)
    more = {"windows": WINDOWS, "aggregate__lease": "5m", "set": {"kafka.session.timeout.ms": 300_000}}
    leaving = world.consumer(topic, redis, **more)
    staying = world.consumer(topic, redis, **more)
    wait_for(lambda: world.health(redis).get("instances") == "2", 20, "both write")
    assert leaving.stop() == 0
    # All this waits far less than either of the two.
    staying.wait_log("assigned 2 partitions", 10)
    staying.wait_log("aggregating namespace", 10)
    truth = world.simulate(topic, count=1000).finish()
    wait_for(lambda: counted(world, redis) == 1000, 15, "everything is counted")
    world.exact(redis, truth, topic, accepted=1000, windows=WINDOWS)
    assert staying.stop() == 0


def catches_sigterm(program):
    """Waits until the handler is there: a signal before that ends any program."""
    def caught():
        with open("/proc/%d/status" % program.pid) as f:
            mask = int(re.search(r"SigCgt:\s*([0-9a-f]+)", f.read())[1], 16)
        return mask >> (signal.SIGTERM - 1) & 1
    wait_for(caught, 10, "SIGTERM is caught", every=0.002)


def test_signal_before_the_first_assignment(world):
    """Stopped while it still waits: for Redis, for its first partitions."""
    topic = world.topic(1)
    consumer = world.consumer(topic, "redis://127.0.0.1:%d" % cluster.free_port(), ready=False)
    catches_sigterm(consumer)
    assert consumer.stop() not in (0, -signal.SIGTERM)
    redis = world.redis()
    for strategy in ("range", "cooperative-sticky"):
        for delay in (0, 0.05, 0.1, 0.2, 0.3):
            consumer = world.consumer(topic, redis, ready=False, set={"kafka.partition.assignment.strategy": strategy})
            catches_sigterm(consumer)
            time.sleep(delay)  # a moment somewhere in the start
            assert consumer.stop() in (0, 3, 4), consumer.log()


def test_silence(world):
    """No events at all: health stays fresh, the windows move, a series whose data leaves is published again, and one
    without answers has n=0 and no score."""
    redis, topic = world.redis(), world.topic(2)
    consumer = world.consumer(topic, redis, windows=WINDOWS, minimum_n="1", commit__idle="500ms")
    now = cluster.now_ms()
    # Answers that will be five minutes old in a few seconds, and some that will not; in two series.
    aged = [cluster.event("a%d" % i, "leaving", now - 292_000 + i * 1000, score=10) for i in range(4)]
    fresh = [cluster.event("b%d" % i, "staying", now - 1000 * i, score=2) for i in range(4)]
    world.kafka.send(topic, aged + fresh)
    world.caught_up(redis)
    key = "nps:{%s}:touchpoint:%s:5m"
    leaving, staying = key % (world.namespace, "leaving"), key % (world.namespace, "staying")
    assert redis.hash(leaving)["n"] == "4" and redis.hash(staying)["n"] == "4"
    first, beats = redis.hash(staying), set()
    seen = []

    def emptied():
        beats.add(world.health(redis)["as_of_ms"])
        n = redis.hash(leaving)["n"]
        if not seen or seen[-1] != n:
            seen.append(n)
        return n == "0"

    wait_for(emptied, 40, "the window is empty")
    assert seen == ["4", "3", "2", "1", "0"], "slice by slice: %s" % seen
    view = redis.hash(leaving)
    assert "nps" not in view and "nps_low" not in view and view["n"] == "0" and view["interactions"] == "0"
    assert redis.call("ZSCORE", "nps:{%s}:rank:touchpoint:5m" % world.namespace, "leaving") is None
    assert redis.hash((key % (world.namespace, "leaving")).replace("5m", "1h"))["n"] == "4"
    # The quiet series was not written again, and still holds at health's clock.
    assert redis.hash(staying) == first
    assert len(beats) > 5 and world.health(redis)["complete"] == "1"
    assert int(world.health(redis)["as_of_ms"]) > int(first["as_of_ms"]) + 2000
    # The clock is Redis's, whatever this process believes; and never ahead of it.
    redis_ms = redis.connection().time_ms()
    assert redis_ms - 3000 * cluster.SLOW < int(world.health(redis)["as_of_ms"]) <= redis.connection().time_ms()
    # Idle entries keep the log short: it is trimmed behind the snapshots.
    assert consumer.stop() == 0


def test_publishers_clocks_are_off(world):
    """Record timestamps of another hour move no clock: events stand at their own time, views at Redis TIME."""
    redis, topic = world.redis(), world.topic(2)
    now = cluster.now_ms()
    consumer = world.consumer(topic, redis, windows=WINDOWS, minimum_n="1")
    records = [{"value": cluster.event("e%d" % i, at_ms=now - 100 + offset), "timestamp": now + offset}
               for i, offset in enumerate((-1_800_000, -600_000, 0, 1_800_000))]
    world.kafka.send(topic, records)
    world.caught_up(redis)
    assert redis.hash("nps:{%s}:all:all:5m" % world.namespace)["n"] == "1"
    assert redis.hash("nps:{%s}:all:all:1h" % world.namespace)["n"] == "3"
    assert int(world.health(redis)["as_of_ms"]) <= redis.connection().time_ms()
    assert consumer.stop() == 0


def test_views_expire_without_a_writer(world):
    """Health goes first, then the views; the log, the positions and the snapshot stay for the next start."""
    redis, topic = world.redis(), world.topic(1)
    consumer = world.consumer(topic, redis, windows=WINDOWS, aggregate__view_ttl="3s")
    truth = world.simulate(topic, count=500).finish()
    world.caught_up(redis)
    # Renewed by the sweep as long as somebody writes.
    time.sleep(4)  # longer than their time to live

    def renewed():
        try:
            world.equal(redis, truth, windows=WINDOWS)
            return True
        except AssertionError:  # when everything stood still, they are away until the next sweep
            return False
    wait_for(renewed, 10, "the views are there")
    consumer.kill()
    left = lambda: {key.split(":")[2] for key in redis.keys("nps:{%s}:*" % world.namespace)}  # noqa: E731
    # Trends and what says how far they were written have their own times.
    wait_for(lambda: left() <= {"meta", "positions", "log", "snapshot", "lease", "trend", "published"}, 30, "views are gone: %s" % left())
    assert {"meta", "positions", "log", "snapshot"} <= left()
    consumer = world.consumer(topic, redis, windows=WINDOWS)
    world.exact(redis, truth, topic, accepted=500, windows=WINDOWS)
    assert consumer.stop() == 0


def test_log_full(world):
    """No aggregator trims (the lease is in other hands) and the log reaches its limit: reading pauses, says so, and
    goes on exactly when it is trimmed."""
    redis, topic = world.redis(), world.topic(2)
    first = world.consumer(topic, redis, windows=WINDOWS)
    world.simulate(topic, count=100, seed=3).finish()
    world.caught_up(redis)
    assert first.stop() == 0
    redis.call("SET", "nps:{%s}:lease" % world.namespace, "somebody-else")
    consumer = world.consumer(topic, redis, windows=WINDOWS, commit__log_max="64kb", commit__interval="50ms",
                              commit__max_cells="200")
    second = world.load(topic, 5000, seed=4)
    consumer.wait_log("the commit log is full .*reading pauses", 40)
    stands = world.positions(redis)
    meta = redis.hash("nps:{%s}:meta" % world.namespace)
    assert int(meta["bytes"]) - int(meta["trimmed"]) <= 64 * 1024
    later = time.monotonic() + 2
    wait_for(lambda: time.monotonic() > later, 5, "two seconds pass")
    assert world.positions(redis) == stands, "reading goes on although the log is full"
    assert consumer.running() and consumer.log().count("the commit log is full") < 5
    truth = second.end()
    redis.call("DEL", "nps:{%s}:lease" % world.namespace)
    consumer.wait_log("aggregating namespace", 20)
    consumer.wait_log("commit: going on after", 20)
    world.caught_up(redis, timeout=60)
    world.ledger(redis, topic, accepted=100 + cluster.events_of(truth))
    assert consumer.stop() == 0


def test_lease_taken_away_under_load(world):
    """Another token stands in the lease: the aggregator stands by at once, writes nothing, and takes over again when
    it has run out."""
    redis, topic = world.redis(), world.topic(2)
    consumer = world.consumer(topic, redis, windows=WINDOWS)
    simulation = world.load(topic, 1500)
    goes_on(world, redis)
    redis.call("SET", "nps:{%s}:lease" % world.namespace, "somebody-else", "PX", 3000)
    consumer.wait_log("standing by", 10)
    views = {key: redis.call("DUMP", key) for key in redis.keys("nps:{%s}:all:*" % world.namespace)}
    positions = world.positions(redis)
    wait_for(lambda: sum(world.positions(redis).values()) > sum(positions.values()), 10, "commits go on")
    assert views and {key: redis.call("DUMP", key) for key in views} == views
    consumer.wait_log("aggregating namespace", 20, count=2)
    world.exact(redis, simulation.end(), topic, windows=WINDOWS)
    assert consumer.stop() == 0


def test_windows_and_roll_ups_change(world):
    """What only changes the fold may change from one start to the next: a new window and a new roll-up begin empty or
    whole, but never wrong; those that stay, stay exact."""
    redis, topic = world.redis(), world.topic(2)
    consumer = world.consumer(topic, redis, windows="5m/1s", rollups="touchpoint,all")
    # Old enough that no event is ahead of the clock: such a one waits, and enters the new roll-up when its time comes.
    first = world.simulate(topic, count=150, seed=1, start=cluster.now_ms() - 200_000).finish()
    world.exact(redis, first, topic, accepted=150, windows="5m/1s", rollups="touchpoint,all")
    assert consumer.stop() == 0
    consumer = world.consumer(topic, redis, windows="5m/1s,1h/10s", rollups="touchpoint,channel,all")
    second = world.simulate(topic, count=1000, seed=2).finish()
    whole = cluster.add_truths(first, second)
    world.exact(redis, whole, topic, accepted=1150, windows="5m/1s", rollups="touchpoint,all")
    world.equal(redis, second, windows="5m/1s", rollups="channel")
    health = redis.hash("nps:{%s}:health:1h" % world.namespace)
    assert health["complete"] == "0", "the new window does not hold what came before it"
    assert consumer.stop() == 0
    # And away again: views of what is no longer computed are removed.
    consumer = world.consumer(topic, redis, windows="5m/1s", rollups="all")
    world.caught_up(redis)
    assert redis.keys("nps:{%s}:channel:*" % world.namespace) == set()
    assert redis.keys("nps:{%s}:touchpoint:*" % world.namespace) == set()
    assert redis.keys("nps:{%s}:all:all:1h" % world.namespace) == set()
    assert consumer.stop() == 0
