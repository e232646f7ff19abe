"""The same range again, in a namespace of its own: the same numbers, nothing else touched."""

import signal
import time

import pytest

import cluster
from cluster import wait_for

WINDOWS = "5m/1s,1h/10s"


def snapshot_of(redis, prefix):
    """Every key below prefix with its content, as bytes that can be compared."""
    return {key: redis.call("DUMP", key) for key in sorted(redis.keys(prefix + "*"))}


def events_at(topic, kafka, times, key=b"k"):
    """One answer at each of these times; records carry the event's time."""
    return kafka.send(topic, [{"key": key, "value": cluster.event("e%d" % i, at_ms=at, score=9), "timestamp": at}
                              for i, at in enumerate(times)])


def test_replay_touches_nothing_else(world):
    """Live stands still meanwhile (stopped), so any byte that changes outside the replay's namespace is a fault; and
    the live group's offsets in Kafka stay."""
    redis, topic = world.redis(), world.topic(3)
    consumer = world.consumer(topic, redis, windows=WINDOWS)
    truth = world.simulate(topic, count=8000).finish()
    world.exact(redis, truth, topic, accepted=8000, windows=WINDOWS)

    def committed():
        from confluent_kafka import TopicPartition
        client = world.kafka.consumer(**{"group.id": "livenps." + world.namespace})
        try:
            return {t.partition: t.offset for t in client.committed([TopicPartition(topic, p) for p in range(3)], 60)}
        finally:
            client.close()

    # Also at its end, but a broker that stands still then is not waited for.
    wait_for(lambda: sum(committed().values()) == 8000, 30, "Kafka knows the offsets")
    assert consumer.stop() == 0
    wait_for(lambda: not redis.call("EXISTS", "nps:{%s}:lease" % world.namespace), 30, "the lease is given back")
    # What expires of itself (health) would look like a change.
    short = [key for key in redis.keys() if 0 < redis.call("PTTL", key) < 60_000]
    assert all(":health" in key for key in short), short
    redis.call("DEL", "none", *short)

    def group_names():
        return {g.id for g in world.kafka.admin.list_groups(timeout=60) if world.unique in g.id}

    before, offsets = snapshot_of(redis, "nps:{%s}" % world.namespace), committed()
    assert len(before) > 10 and sum(offsets.values()) == 8000
    groups = group_names()
    assert groups == {"livenps." + world.namespace}
    end = cluster.now_ms()
    digest, out = world.replay(topic, redis, "again-" + world.unique, end=end, windows=WINDOWS)
    assert "accepted" in out
    assert "end offsets " + ",".join("%s/%d=%d" % (topic, p, offsets[p]) for p in range(3)) in out
    assert snapshot_of(redis, "nps:{%s}" % world.namespace) == before, "a replay wrote into the live namespace"
    assert committed() == offsets
    assert group_names() == groups
    others = [k for k in redis.keys("*") if not k.startswith(("nps:{%s}" % world.namespace, "nps:{again-"))]
    assert others == []
    # Rejected records are quarantined by live only; a dry run and other batches give the same digest.
    dry, _ = world.replay(topic, redis, None, end=end, windows=WINDOWS)
    small, _ = world.replay(topic, redis, "small-" + world.unique, end=end, windows=WINDOWS, commit__interval="7ms",
                            commit__max_cells="50")
    assert digest == dry == small
    # And another range, or other windows, another digest.
    assert world.replay(topic, redis, None, end=end - 1000 * 60, windows=WINDOWS)[0] != digest


def test_replay_bounds_are_inclusive(world):
    """An event at the very millisecond of --from or --to counts; one millisecond outside does not, and is counted as
    out of range."""
    redis, topic = world.redis(), world.topic(1)
    start = (cluster.now_ms() // 1000 - 200) * 1000 + 250
    end = start + 60_500
    events_at(topic, world.kafka, [start - 1, start, start + 1, end - 1, end, end + 1])
    _, out = world.replay(topic, redis, "ns", start=start, end=end, windows=WINDOWS, minimum_n="1")
    assert "accepted 4 " in out
    view = redis.hash("nps:{ns}:all:all:5m")
    assert view["n"] == "4" and view["as_of_ms"] == str(end), view
    assert world.health(redis, "ns")["out_of_range"] == "2"
    # The same bounds as text.
    text = [time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(t // 1000)) + ".%03dZ" % (t % 1000) for t in (start, end)]
    code, out, err = world.run_consumer("replay", "--topic", topic, "--from", text[0], "--to", text[1], "--dry-run",
                                        settings=world.replay_settings(redis, windows=WINDOWS, minimum_n="1"))
    assert code == 0 and "accepted 4 " in out, err
    # Exactly one millisecond, and nothing at all.
    assert "accepted 1 " in world.replay(topic, redis, None, start=start, end=start, windows=WINDOWS)[1]
    assert "accepted 0 " in world.replay(topic, redis, None, start=start + 2, end=start + 2, windows=WINDOWS)[1]


@pytest.mark.sanitize
def test_replay_resumes_after_kill_nine(world):
    """Killed at random moments, a replay goes on where it was and ends with the digest of one that was not; the end
    offsets are those of the first start, whatever came in meanwhile."""
    for attempt in range(5):  # it may be too fast to be killed where we stand still
        if killed_replay(world, "-%d" % attempt) >= 2:
            return
    raise AssertionError("too fast to be killed, each time")


def killed_replay(world, name):
    """How often it was killed."""
    redis, topic = world.redis(name="redis" + name, aof=True), world.topic(3, suffix=name)
    truth = world.simulate(topic, count=60_000).finish(240)
    end = cluster.now_ms() + 60_000
    whole, _ = world.replay(topic, redis, None, end=end, windows=WINDOWS)
    more = dict(windows=WINDOWS, commit__interval="10ms", commit__max_cells="50", aggregate__snapshot="200ms",
                aggregate__tick="50ms", aggregate__lease="400ms")
    args = ["replay", "--topic", topic, "--from", "0", "--to", str(end), "--into", "again", "--digest"]
    settings = cluster.environment(world.replay_settings(redis, **more))
    kills, fraction = 0, 0.1
    while fraction < 0.9:
        program = cluster.Program(world, world.number("replay"), cluster.PREFIX + [cluster.CONSUMER] + args, settings)
        wait_for(lambda: sum(world.positions(redis, "again").values()) >= fraction * 60_000 or not program.running(), 120,
                 "the replay moves on", every=0.005)
        if program.running():
            program.kill()
            kills += 1
        else:
            assert program.process.returncode == 0, program.log()
            break
        if kills == 1:
            world.simulate(topic, count=500, seed=9).finish()
        fraction = max(sum(world.positions(redis, "again").values()) / 60_000, fraction) + 0.15
    digest, out = world.replay(topic, redis, "again", end=end, **more)
    assert digest == whole
    assert "accepted 60000 " in out
    world.equal(redis, truth, "again", windows=WINDOWS)
    # Once more on what is finished: nothing to do, the same answer.
    assert world.replay(topic, redis, "again", end=end, **more)[0] == whole
    return kills


def test_replay_speed_paces(world):
    """--speed 10x: ten seconds of events take a second; the answer is that of max."""
    redis, topic = world.redis(), world.topic(1)
    begin = (cluster.now_ms() // 1000 - 120) * 1000
    events_at(topic, world.kafka, [begin + i * 500 for i in range(81)])  # forty seconds
    began = time.monotonic()
    paced, _ = world.replay(topic, redis, "paced", start=begin, end=begin + 60_000, windows=WINDOWS,
                            options=["--speed", "10x"])
    took = time.monotonic() - began
    assert took > 3.5, took

    def fast():
        began = time.monotonic()
        assert world.replay(topic, redis, None, start=begin, end=begin + 60_000, windows=WINDOWS)[0] == paced
        return time.monotonic() - began < took
    wait_for(fast, 60, "a replay at full speed is faster")


def test_replay_stopped_by_ctrl_c(world):
    """Says how far it got and that the same command goes on; then it does."""
    redis, topic = world.redis(), world.topic(1)
    begin = (cluster.now_ms() // 1000 - 120) * 1000
    events_at(topic, world.kafka, [begin + i * 1000 for i in range(60)])
    args = ["replay", "--topic", topic, "--from", str(begin), "--to", str(begin + 60_000), "--into", "again", "--speed", "1x"]
    program = cluster.Program(world, "replay", cluster.PREFIX + [cluster.CONSUMER] + args,
                              cluster.environment(world.replay_settings(redis, windows=WINDOWS)))
    wait_for(lambda: sum(world.positions(redis, "again").values()) > 2, 30, "the replay reads")
    assert program.stop(signal.SIGINT, away=True) != 0
    assert "the same command goes on from here" in program.log()
    _, out = world.replay(topic, redis, "again", start=begin, end=begin + 60_000, windows=WINDOWS)
    assert "accepted 60 " in out


def test_replay_into_the_live_namespace(world):
    """Refused before anything is written, both by name and when the namespace is not a replay's."""
    redis, topic = world.redis(), world.topic(1)
    consumer = world.consumer(topic, redis, windows=WINDOWS)
    world.simulate(topic, count=100).finish()
    world.caught_up(redis)
    for namespace in (world.namespace, "other"):
        settings = world.replay_settings(redis, windows=WINDOWS)
        settings["namespace"] = namespace
        code, out, err = world.run_consumer("replay", "--topic", topic, "--from", "0", "--to", str(cluster.now_ms()),
                                            "--into", world.namespace, settings=settings)
        assert code != 0 and world.namespace in err.rstrip().split("\n")[-1], err
    world.caught_up(redis)
    assert world.said(redis, "genesis") == "1" and consumer.stop() == 0


def test_replay_into_another_replay(world):
    """One namespace holds one range; another range is refused by a line that says so. A range without events says so too."""
    redis, topic, into = world.redis(), world.topic(1), "again-" + world.unique
    world.simulate(topic, count=100).finish()
    _, out = world.replay(topic, redis, into, start=0, end=1000, windows=WINDOWS)
    assert "no events in any window" in out
    settings = world.replay_settings(redis, windows=WINDOWS)
    code, out, err = world.run_consumer("replay", "--topic", topic, "--from", "0", "--to", "2000", "--into", into,
                                        settings=settings)
    assert code == 6 and "--from, --to" in err and "choose another --into" in err, err


def test_two_namespaces_on_one_topic(world):
    """Two live namespaces read the same topic, each with its own group, rules and windows; one is killed and wiped,
    the other does not notice."""
    redis, topic = world.redis(), world.topic(2)
    names = [world.namespace, world.namespace + "-two"]
    # Nothing that stands still for ten seconds is noticed by this one.
    one = world.consumer(topic, redis, names[0], windows=WINDOWS, redis__timeout="1m", aggregate__lease="1m", set={
        "kafka.session.timeout.ms": 120_000})
    two = world.consumer(topic, redis, names[1], windows="10m/2s", admit__late="1d", rollups="touchpoint,all")
    simulation = world.load(topic, 1600)
    wait_for(lambda: all(int(world.health(redis, n).get("accepted", 0)) > 1000 for n in names), 60, "both count")
    two.kill()
    for key in redis.keys("nps:{%s}*" % names[1]):
        redis.call("DEL", key)
    two = world.consumer(topic, redis, names[1], windows="10m/2s", admit__late="1d", rollups="touchpoint,all")
    truth = simulation.end()
    world.exact(redis, truth, topic, names[0], windows=WINDOWS)
    world.exact(redis, truth, topic, names[1], windows="10m/2s", rollups="touchpoint,all")
    # That it came before the namespace was begun is said, too, by an instance that was quicker with Kafka than with Redis.
    noticed = [line for line in one.log().splitlines() if " warn " in line and "the namespace is empty" not in line]
    assert one.log().count("assigned") == 1 and noticed == [], one.log()
    for consumer in (one, two):
        assert consumer.stop() == 0
