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


# A process, Redis or Kafka that stands still for ten seconds takes nothing from an instance with these.
PATIENT = {"redis__timeout": "1m", "aggregate__lease": "1m", "set": {"kafka.session.timeout.ms": 60_000}}


def goes_on(world, redis, amount=300, timeout=60):
    from_here = counted(world, redis)
    wait_for(lambda: counted(world, redis) >= from_here + amount, timeout, "reading goes on")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_signal_under_load(world, number):
    """Exit 0 within five seconds; what was read is committed; the last views are those of the last position, and the
    lease is given back."""
    redis, topic = world.redis(), world.topic(2)
    simulation = world.load(topic, 1500)
    for _ in range(5):  # until nothing that it needs stood still while it left
        begun = sum(world.positions(redis).values())
        consumer = world.consumer(topic, redis, windows=WINDOWS, commit__interval="5s", commit__idle="6s", complete_lag="20s", **PATIENT)
        goes_on(world, redis, 100)
        # With a commit every five seconds there is much in hand.
        assert consumer.stop(number) == 0
        if not consumer.held_up:
            break
    read, accepted = map(int, re.search(r"leaving: (\d+) records read, (\d+) accepted", consumer.log()).groups())
    assert sum(world.positions(redis).values()) - begun == read == accepted
    assert counted(world, redis) == begun + accepted, "what was committed last is in the views"
    assert not redis.call("EXISTS", "nps:{%s}:lease" % world.namespace)
    assert simulation.running(), "the signal came under load"
    consumer = world.consumer(topic, redis, windows=WINDOWS)
    world.exact(redis, simulation.end(), topic, windows=WINDOWS)
    assert consumer.stop(number) == 0


def test_signal_hands_over_at_once(world):
    """A member that leaves says so: the other one has its partitions and the lease without waiting for the session."""
    topic = world.topic(2)
    more = {"windows": WINDOWS, "redis__timeout": "1m", "aggregate__lease": "5m", "set": {"kafka.session.timeout.ms": 300_000}}
    for attempt in range(5):  # until nothing that it needs stood still while it left; in a group and a Redis of its own
        world.namespace, redis = "ns-%s-%d" % (world.unique, attempt), world.redis(name="redis-%d" % attempt)
        leaving = world.consumer(topic, redis, **more)
        staying = world.consumer(topic, redis, **more)
        wait_for(lambda: world.health(redis).get("instances") == "2", 60, "both write")
        assert leaving.stop() == 0
        if not leaving.held_up:
            break
        staying.kill()
    # All this waits far less than either of the two.
    staying.wait_log("assigned 2 partitions", 30)
    staying.wait_log("aggregating namespace", 30)
    truth = world.simulate(topic, count=1000).finish()
    wait_for(lambda: counted(world, redis) == 1000, 30, "everything is counted")
    world.exact(redis, truth, topic, accepted=1000, windows=WINDOWS)
    assert staying.stop() == 0


def catches_sigterm(program):
    wait_for(lambda: program.catches(signal.SIGTERM), 30, "SIGTERM is caught", every=0.002)


def test_signal_before_the_first_assignment(world):
    """Stopped while it still waits: for Redis, for its first partitions."""
    topic = world.topic(1)
    consumer = world.consumer(topic, "redis://127.0.0.1:%d" % cluster.free_port(), ready=False)
    catches_sigterm(consumer)
    assert consumer.stop(away=True) not in (0, -signal.SIGTERM)
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
    consumer = world.consumer(topic, redis, windows=WINDOWS, minimum_n="1", commit__idle="500ms", **PATIENT)
    key = "nps:{%s}:touchpoint:%s:5m"
    for spare_s, step_s in ((8, 1), (16, 2), (32, 4), (40, 12)):  # where somebody stood still, once more and with more time
        name = "leaving-%d" % spare_s
        leaving, staying = key % (world.namespace, name), key % (world.namespace, "staying-%d" % spare_s)
        now = cluster.now_ms()
        # Answers that will be five minutes old in a few seconds, and some that will not; in two series.
        aged = [cluster.event("a%d-%d" % (spare_s, i), name, now - (300 - spare_s - i * step_s) * 1000, score=10) for i in range(4)]
        fresh = [cluster.event("b%d-%d" % (spare_s, i), "staying-%d" % spare_s, now - 1000 * i, score=2) for i in range(4)]
        world.kafka.send(topic, aged + fresh)
        world.caught_up(redis)
        first, beats, seen = redis.hash(staying), set(), []
        assert first["n"] == "4"

        def emptied():
            beats.add(world.health(redis).get("as_of_ms"))
            n = redis.hash(leaving)["n"]
            if not seen or seen[-1] != n:
                seen.append(n)
            return n == "0"

        wait_for(emptied, 60, "the window is empty")
        if seen == ["4", "3", "2", "1", "0"]:
            break
        assert seen == sorted(seen, reverse=True), seen
    assert seen == ["4", "3", "2", "1", "0"], "slice by slice: %s" % seen
    view = redis.hash(leaving)
    assert "nps" not in view and "nps_low" not in view and view["n"] == "0" and view["interactions"] == "0"
    wait_for(lambda: redis.call("ZSCORE", "nps:{%s}:rank:touchpoint:5m" % world.namespace, name) is None, 30, "it has no rank")
    assert redis.hash(leaving[:-2] + "1h")["n"] == "4"

    def fresh_and_complete():
        before, health = redis.connection().time_ms(), world.health(redis)
        beats.add(health.get("as_of_ms"))
        # The clock is Redis's, whatever this process believes; and never ahead of it.
        assert int(health.get("as_of_ms", 0)) <= redis.connection().time_ms()
        return (len(beats) > 6 and health.get("complete") == "1" and int(health["as_of_ms"]) > int(first["as_of_ms"]) + 2000 and
                int(health["as_of_ms"]) > before - 3000 * cluster.SLOW)

    wait_for(fresh_and_complete, 30, "health is fresh")
    # The quiet series was not written again, and still holds at health's clock.
    assert redis.hash(staying) == first
    # Idle entries keep the log short: it is trimmed behind the snapshots.
    assert consumer.stop() == 0


def test_publishers_clocks_are_off(world):
    """Record timestamps of another hour move no clock: events stand at their own time, views at Redis TIME."""
    redis, topic = world.redis(), world.topic(2)
    consumer = world.consumer(topic, redis, windows=WINDOWS, minimum_n="1")
    now = cluster.now_ms()
    records = [{"value": cluster.event("e%d" % i, at_ms=now - 100 + offset), "timestamp": now + offset}
               for i, offset in enumerate((-1_800_000, -600_000, 0, 1_800_000))]
    world.kafka.send(topic, records)
    world.caught_up(redis)
    assert redis.hash("nps:{%s}:all:all:5m" % world.namespace)["n"] == "1"
    assert redis.hash("nps:{%s}:all:all:1h" % world.namespace)["n"] == "3"
    assert int(world.said(redis, "as_of_ms")) <= redis.connection().time_ms()
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
            world.equal(redis, truth, windows=WINDOWS, patience_s=1)
            return True
        except AssertionError:  # when everything stood still, they are away until the next sweep
            return False
    wait_for(renewed, 30, "the views are there")
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
    # A smaller commit than the refused one might have room: what is in hand must not be read again in smaller pieces.
    redis.call("SET", "nps:{%s}:lease" % world.namespace, "somebody-else")
    consumer = world.consumer(topic, redis, windows=WINDOWS, commit__log_max="64kb", commit__interval="50ms",
                              commit__max_cells="200", **PATIENT)
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
    consumer.wait_log("aggregating namespace", 40)
    consumer.wait_log("commit: going on after", 40)
    world.caught_up(redis, timeout=60)
    world.ledger(redis, topic, accepted=100 + cluster.events_of(truth))
    assert consumer.stop() == 0


def test_lease_taken_away_under_load(world):
    """Another token stands in the lease: the aggregator stands by at once, writes nothing, and takes over again when
    it has run out."""
    redis, topic = world.redis(), world.topic(2)
    lease = "nps:{%s}:lease" % world.namespace
    consumer = world.consumer(topic, redis, windows=WINDOWS)
    simulation = world.load(topic, 1500)
    goes_on(world, redis)
    redis.call("SET", lease, "somebody-else")
    consumer.wait_log("standing by", 30)
    views = {key: redis.call("DUMP", key) for key in redis.keys("nps:{%s}:all:*" % world.namespace)}
    positions = world.positions(redis)
    wait_for(lambda: sum(world.positions(redis).values()) > sum(positions.values()), 30, "commits go on")
    assert views and {key: redis.call("DUMP", key) for key in views} == views
    redis.call("PEXPIRE", lease, 1000)
    consumer.wait_log("aggregating namespace", 40, count=2)
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
    health = wait_for(lambda: redis.hash("nps:{%s}:health:1h" % world.namespace), 30, "health is there")
    assert health["complete"] == "0", "the new window does not hold what came before it"
    assert consumer.stop() == 0
    # And away again: views of what is no longer computed are removed.
    consumer = world.consumer(topic, redis, windows="5m/1s", rollups="all")
    world.caught_up(redis)
    for gone in ("channel:*", "touchpoint:*", "all:all:1h"):
        wait_for(lambda: redis.keys("nps:{%s}:%s" % (world.namespace, gone)) == set(), 30, "%s is removed" % gone)
    assert consumer.stop() == 0
