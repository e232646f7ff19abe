"""Redis goes away, comes back empty, comes back in the past: exact each time."""

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


def test_redis_restart(world):
    """kill -9 of a Redis with an append-only file, three times: nothing is lost, nothing counted twice."""
    redis, topic = world.redis(aof=True), world.topic(2)
    consumers = [world.consumer(topic, redis, windows=WINDOWS, aggregate__snapshot="500ms") for _ in range(2)]
    simulation = world.load(topic, 2500)
    for _ in range(3):
        goes_on(world, redis)
        redis.restart()
    world.exact(redis, simulation.end(), topic, windows=WINDOWS)
    for consumer in consumers:
        assert consumer.stop() == 0


@pytest.mark.parametrize("command", ["FLUSHALL", "log", *[pytest.param(command, marks=pytest.mark.long) for command in (
    "FLUSHALL ASYNC", "meta", "positions", "snapshot")]])
def test_redis_flushed(world, command):
    """Everything or one key is gone under load, with the connections open: a new genesis from the topic's start."""
    redis, topic = world.redis(), world.topic(2)
    consumers = [world.consumer(topic, redis, windows=WINDOWS, aggregate__snapshot="500ms") for _ in range(2)]
    simulation = world.load(topic, 2500)
    goes_on(world, redis, 2000)
    lineage = world.said(redis, "lineage")
    if command.startswith("FLUSHALL"):
        redis.call(*command.split())
    else:
        assert redis.call("DEL", "nps:{%s}:%s" % (world.namespace, command)) == 1
    goes_on(world, redis)
    health = world.exact(redis, simulation.end(), topic, genesis=None, windows=WINDOWS)
    # The snapshot alone is written again from memory; without the others the namespace begins anew.
    if command != "snapshot":
        assert health["lineage"] != lineage and (int(health["genesis"]) > 1 or command not in ("log", "positions"))
    for consumer in consumers:
        assert consumer.stop() == 0


def test_redis_start_after(world):
    """Redis is away for ten seconds: waited for, with a line at the start and one at the end of the outage."""
    redis, topic = world.redis(aof=True), world.topic(2)
    # A Redis that stands still is no outage here.
    consumer = world.consumer(topic, redis, windows=WINDOWS, redis__timeout="1m")
    simulation = world.load(topic, 1500)
    goes_on(world, redis)
    before, begun, watch = len(consumer.log()), time.monotonic(), cluster.Watch(consumer)
    redis.kill()
    time.sleep(10)  # the outage is ten seconds long, or longer; there is nothing to wait for
    assert consumer.running()
    redis.start()
    consumer.wait_log("commit: going on after", 40)
    consumer.wait_log("aggregate: going on after", 40)
    longest_s, still_s = time.monotonic() - begun, watch.end()
    world.exact(redis, simulation.end(), topic, windows=WINDOWS)
    for stage in ("commit", "aggregate"):
        said = consumer.log()[before:]
        lasted = re.findall("info %s: going on after ([0-9.]+)" % stage, said)
        # Who stood still noticed it later.
        assert len(lasted) == 1 and 9 - still_s <= float(lasted[0]) <= longest_s + 1, (said, still_s)
        # One at the start, and at most one each ten seconds that it still lasts.
        told = re.findall("warn %s: .*" % stage, said)
        assert 1 <= len(told) <= 2 + longest_s / 10 and "127.0.0.1:%d" % redis.port in told[0], told
    assert consumer.stop() == 0


def test_redis_hangs(world):
    """Redis stops answering without closing anything: the same as away, after redis.timeout; a commit whose reply
    was lost counts once."""
    redis, topic = world.redis(), world.topic(2)
    consumer = world.consumer(topic, redis, windows=WINDOWS, redis__timeout="%dms" % (700 * cluster.SLOW))
    simulation = world.load(topic, 2000)
    for _ in range(3):
        goes_on(world, redis)
        outages = consumer.log().count("warn commit:")
        redis.program.freeze()
        wait_for(lambda: consumer.log().count("warn commit:") > outages, 40, "the outage is noticed")
        redis.program.thaw()
    world.exact(redis, simulation.end(), topic, windows=WINDOWS)
    assert consumer.stop() == 0


def replica_of(world, primary):
    """A replica in step, and the link that it gets its writes by."""
    link = world.forwarder(primary.port)
    primary.call("CONFIG", "SET", "repl-diskless-sync-delay", 0)
    replica = world.redis(name="replica", options=["--replicaof", "127.0.0.1 %d" % link.port])
    replica.in_step(primary)
    return replica, link


@pytest.mark.parametrize("writers", [1, 2])
def test_redis_lost_acknowledged_writes(world, writers):
    """A replica that replication had stopped reaching is promoted: acknowledged commits, publishes and snapshots
    are lost. The programs keep their address and find a Redis in the past."""
    primary, topic = world.redis(name="primary"), world.topic(2)
    address = world.forwarder(primary.port)
    consumers = [world.consumer(topic, address, windows=WINDOWS, aggregate__snapshot="700ms") for _ in range(writers)]
    simulation = world.load(topic, 2500)
    replica, link = replica_of(world, primary)
    goes_on(world, primary, 2000)
    link.to(None)  # from here on writes are acknowledged that the replica never gets
    wait_for(lambda: "master_link_status:down" in replica.call("INFO", "replication"), 30, "the replica has read what was on its way")
    has = sum(world.positions(replica).values())
    wait_for(lambda: sum(world.positions(primary).values()) >= has + 3000, 60, "the primary is ahead")
    address.to(None)
    last = world.positions(primary)
    primary.kill()
    assert replica.call("REPLICAOF", "NO", "ONE") == "OK"
    kept = world.positions(replica)
    assert sum(kept.values()) <= sum(last.values()) - 3000, "nothing was lost, so nothing was tried"
    address.to(replica.port)
    goes_on(world, replica)
    world.exact(replica, simulation.end(), topic, windows=WINDOWS)
    assert any("warn aggregate" in c.log() or "warn publish" in c.log() for c in consumers)
    for consumer in consumers:
        assert consumer.stop() == 0


def test_redis_comes_back_from_an_old_backup(world):
    """An old append-only file is put in place: the same as lost writes, but also of the lease and of minutes."""
    redis, topic = world.redis(), world.topic(2)
    consumer = world.consumer(topic, redis, windows=WINDOWS, aggregate__snapshot="700ms")
    simulation = world.load(topic, 2000)
    goes_on(world, redis, 1500)
    redis.call("SAVE")
    kept = world.positions(redis)
    goes_on(world, redis, 4000)
    assert sum(world.positions(redis).values()) > sum(kept.values())
    redis.restart()  # loads the dump of then
    goes_on(world, redis)
    world.exact(redis, simulation.end(), topic, windows=WINDOWS)
    assert consumer.stop() == 0


def test_redis_becomes_a_replica(world):
    """A primary that was demoted refuses writes: waited for, until it or another takes them again."""
    primary, topic = world.redis(name="primary"), world.topic(1)
    consumer = world.consumer(topic, primary, windows=WINDOWS)
    simulation = world.load(topic, 1500)
    goes_on(world, primary)
    other = world.redis(name="other")
    # Of a master that does not answer, so that it keeps its data.
    other.program.freeze()
    primary.call("REPLICAOF", "127.0.0.1", other.port)
    consumer.wait_log("warn commit", 40)
    time.sleep(1)
    assert consumer.running(), "a Redis that is a replica after the start is waited for"
    primary.call("REPLICAOF", "NO", "ONE")
    consumer.wait_log("commit: going on after", 40)
    world.exact(primary, simulation.end(), topic, windows=WINDOWS)
    assert consumer.stop() == 0


def test_sigterm_while_redis_is_away(world):
    """The promised non-zero exit within five seconds; nothing is lost."""
    redis, topic = world.redis(aof=True), world.topic(1)
    consumer = world.consumer(topic, redis, windows=WINDOWS)
    simulation = world.load(topic, 1500)
    goes_on(world, redis)
    redis.kill()
    consumer.wait_log("warn commit", 40)
    assert consumer.stop(signal.SIGTERM, away=True) not in (0, -signal.SIGTERM)
    redis.start()
    consumer = world.consumer(topic, redis, windows=WINDOWS)
    world.exact(redis, simulation.end(), topic, windows=WINDOWS)
    assert consumer.stop() == 0
