"""Redis answers, but does not do it: out of memory, disk full, scripts flushed, connections cut. Waited for and exact."""

import re
import signal
import time

import pytest

import cluster
from cluster import wait_for

WINDOWS = "5m/1s,1h/10s"


def counted(world, redis):
    return int(world.health(redis).get("accepted", 0))


def goes_on(world, redis, amount=300):
    from_here = counted(world, redis)
    wait_for(lambda: counted(world, redis) >= from_here + amount, 60, "reading goes on")


@pytest.mark.parametrize("setting, broken, mended", [
    ("maxmemory", "1mb", "0"),  # OOM command not allowed
    ("min-replicas-to-write", "1", "0"),  # NOREPLICAS
], ids=["oom", "noreplicas"])
def test_redis_refuses_writes_for_a_while(world, setting, broken, mended):
    redis, topic = world.redis(), world.topic(2)
    # A Redis that stands still is no outage here.
    consumer = world.consumer(topic, redis, windows=WINDOWS, redis__timeout="1m")
    simulation = world.load(topic, 1500)
    goes_on(world, redis)
    before, waited, begun = len(consumer.log()), consumer.log().count("warn commit: "), time.monotonic()
    redis.call("CONFIG", "SET", setting, broken)
    consumer.wait_log("warn commit: ", 40, count=waited + 1)
    stands = world.positions(redis)
    if setting != "maxmemory":  # there the aggregator may go on: it is what makes room
        consumer.wait_log("warn aggregate: ", 40)
    later = time.monotonic() + 5
    wait_for(lambda: time.monotonic() > later, 10, "five seconds pass")
    assert consumer.running() and world.positions(redis) == stands
    # One line at the start, one each ten seconds; not one for each attempt.
    said = consumer.log()[before:]
    assert said.count("warn commit: ") <= 2 + (time.monotonic() - begun) // 10 and "commit: going on" not in said, said
    redis.call("CONFIG", "SET", setting, mended)
    consumer.wait_log("commit: going on after", 40)
    goes_on(world, redis)
    world.exact(redis, simulation.end(), topic, windows=WINDOWS)
    assert consumer.stop() == 0


def test_scripts_flushed_and_connections_killed(world):
    """Nothing of ours has to be loaded in a Redis: scripts come back by themselves, connections are made anew."""
    redis, topic = world.redis(), world.topic(2)
    consumer = world.consumer(topic, redis, windows=WINDOWS)
    simulation = world.load(topic, 1500)
    for _ in range(4):
        goes_on(world, redis, 200)
        redis.call("SCRIPT", "FLUSH")
        goes_on(world, redis, 200)
        redis.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    world.exact(redis, simulation.end(), topic, windows=WINDOWS)
    assert consumer.stop() == 0


def test_slow_script_of_somebody_else(world):
    """Another user's endless script: Redis answers BUSY, until it is killed."""
    redis, topic = world.redis(), world.topic(1)
    redis.call("CONFIG", "SET", "busy-reply-threshold", "200")
    consumer = world.consumer(topic, redis, windows=WINDOWS)
    simulation = world.load(topic, 1500)
    goes_on(world, redis)
    other = cluster.ct.Redis(redis.url)
    other.socket.sendall(b"*3\r\n$4\r\nEVAL\r\n$17\r\nwhile true do end\r\n$1\r\n0\r\n")
    consumer.wait_log("warn commit: .*BUSY", 60)
    assert consumer.running()
    assert redis.call("SCRIPT", "KILL") == "OK"
    assert isinstance(other.file.readline(), bytes)  # the other one is told, and Redis is free
    other.close()
    goes_on(world, redis)
    world.exact(redis, simulation.end(), topic, windows=WINDOWS)
    assert consumer.stop() == 0


def test_password_changed_under_way(world):
    """A new password, for the connections that are made from then on: waited for, until it is given back."""
    redis, topic = world.redis(), world.topic(1)
    consumer = world.consumer(topic, redis, windows=WINDOWS)
    simulation = world.load(topic, 1500)
    goes_on(world, redis)
    keep = redis.connection()
    redis.call("CONFIG", "SET", "requirepass", "new")
    redis.call("AUTH", "new")
    redis.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    consumer.wait_log("warn commit: ", 40)
    assert consumer.running(), "after the start everything is waited for"
    redis.call("CONFIG", "SET", "requirepass", "")
    goes_on(world, redis)
    world.exact(redis, simulation.end(), topic, windows=WINDOWS)
    assert keep and consumer.stop() == 0


@pytest.mark.parametrize("begun", [False, True], ids=["before genesis", "in mid-flight"])
def test_an_aggregator_refused_alone_ends_the_process(world, begun):
    """Somebody's string stands where the snapshot's pointer belongs: commits do not look there, so only the aggregator is
    refused. The process ends with its reason, also while the reader waits within a rebalance for the namespace to be begun."""
    redis, topic = world.redis(), world.topic(2)
    key = "nps:{%s}:" % world.namespace
    simulation = world.load(topic, 1500)
    if begun:
        consumer = world.consumer(topic, redis, windows=WINDOWS, aggregate__snapshot="500ms")
        goes_on(world, redis)
        wait_for(lambda: redis.call("EXISTS", key + "snapshot"), 30, "there is a snapshot")
        # In one step: the pointer is there whenever a script looks.
        redis.call("EVAL", "redis.call('RENAME', KEYS[1], KEYS[2]) redis.call('SET', KEYS[1], 'theirs')", 2, key + "snapshot", key + "kept")
    else:
        redis.call("SET", key + "lease", "somebody")
        consumer = world.consumer(topic, redis, ready=False, windows=WINDOWS)
        consumer.wait_log("warn commit: redis: the namespace is empty; waiting for the aggregator", 60)
        redis.call("SET", key + "snapshot", "theirs")
        assert consumer.running()
        redis.call("DEL", key + "lease")
    consumer.ended_on_purpose = True
    assert consumer.wait() == 6, consumer.log()
    assert "error run: " in consumer.log() and key + "snapshot is a string, not a hash" in consumer.log()
    redis.call("RENAME", key + "kept", key + "snapshot") if begun else redis.call("DEL", key + "snapshot")
    again = world.consumer(topic, redis, windows=WINDOWS)
    goes_on(world, redis)
    world.exact(redis, simulation.end(), topic, windows=WINDOWS)
    assert again.stop() == 0


def test_an_aggregator_refused_while_the_process_leaves(world):
    """Its request is under way at the signal, and the answer refuses it when the reader has already committed and gone: the
    process ends with that reason all the same, not as if nothing were wrong."""
    redis, topic = world.redis(), world.topic(2)
    way = world.forwarder(redis.port)
    lease = "nps:{%s}:lease" % world.namespace
    consumer = world.consumer(topic, way, windows=WINDOWS, redis__timeout="1m")
    truth = world.simulate(topic, count=500).finish()
    for _ in range(5):  # until nothing stood still in the four seconds that the instance has
        world.caught_up(redis)
        already = way.held
        way.hold(lease.encode())  # commits do not look there
        wait_for(lambda: way.held > already, 40, "the aggregator asks")
        redis.call("DEL", lease)
        redis.call("HSET", lease, "by", "somebody")
        consumer.ended_on_purpose = True
        watch = cluster.Watch(consumer)
        consumer.process.send_signal(signal.SIGTERM)
        wait_for(lambda: "run: leaving: " in consumer.log() or not consumer.running(), 30, "it leaves", every=0.01)
        way.release()
        code = consumer.wait()
        redis.call("DEL", lease)
        if not watch.end() >= 0.5 or code == 6:
            break
        consumer = world.consumer(topic, way, windows=WINDOWS, redis__timeout="1m")
    assert code == 6, consumer.log()
    assert re.search("error run: .*WRONGTYPE", consumer.log()), consumer.log()
    again = world.consumer(topic, redis, windows=WINDOWS)
    world.exact(redis, truth, topic, windows=WINDOWS)
    assert again.stop() == 0
