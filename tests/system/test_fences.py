"""Late writes: what a process sent before it died, or was taken its partitions and its lease, arrives afterwards."""

import re
import signal

import cluster
from cluster import wait_for
from test_metrics import metrics, sample

WINDOWS = "5m/1s,1h/10s"


def counted(world, redis):
    return int(world.health(redis).get("accepted", 0))


def goes_on(world, redis, amount=300):
    from_here = counted(world, redis)
    wait_for(lambda: counted(world, redis) >= from_here + amount, 60, "reading goes on")


def test_late_commit_and_late_publish(world):
    """The first instance's commit and publish are under way when it is killed; they reach Redis when another one has
    long taken over. Both are refused, whole: no position goes back, no view changes, nothing has to begin anew."""
    redis, topic = world.redis(), world.topic(2)
    way = world.forwarder(redis.port)
    first = world.consumer(topic, way, windows=WINDOWS)
    simulation = world.load(topic, 1500)
    goes_on(world, redis)
    way.hold()
    wait_for(lambda: way.held > 1000, 40, "a commit is under way")
    first.kill()
    second = world.consumer(topic, redis, windows=WINDOWS)
    second.wait_log("aggregating namespace", 40)
    goes_on(world, redis)
    before = world.positions(redis)
    way.release()
    for _ in range(40):
        after = world.positions(redis)
        assert all(after[field] >= before[field] for field in before), "a late commit was taken"
        before = after
    goes_on(world, redis)
    world.exact(redis, simulation.end(), topic, windows=WINDOWS)
    for sign in ("does not continue", "another writer was here", "begun anew"):
        assert sign not in second.log(), second.log()
    assert second.stop() == 0


def test_commit_whose_reply_was_lost(world):
    """The commit happened, its reply did not arrive: adopted, not repeated."""
    redis, topic = world.redis(), world.topic(2)
    way = world.forwarder(redis.port)
    consumer = world.consumer(topic, way, windows=WINDOWS)
    simulation = world.load(topic, 1500)
    cuts, told = 0, lambda: consumer.log().count("commit: going on after")
    while cuts < 8 or told() < 4 and cuts < 40:  # several are one outage where commits wait and the views come late
        goes_on(world, redis, 100)
        way.to(redis.port)  # cuts every connection, whatever is on it
        cuts += 1
    world.exact(redis, simulation.end(), topic, windows=WINDOWS)
    assert told() >= 4
    assert consumer.stop() == 0


def test_lost_publish(world):
    """A failover can lose a publish and keep the log; a late publish can overwrite views. Both leave another publish's
    id in Redis: noticed within ticks, also when nothing changes, and everything is published again."""
    redis, topic = world.redis(), world.topic(1)
    port = cluster.free_port()
    # A Redis or an instance that stands still is no reason to publish everything again.
    consumer = world.consumer(topic, redis, windows=WINDOWS, minimum_n="1", metrics__listen="127.0.0.1:%d" % port, redis__timeout="1m",
                              aggregate__lease="1m")
    now = cluster.now_ms()
    world.kafka.send(topic, [cluster.event("e%d" % i, at_ms=now - 5000, score=9) for i in range(20)])
    world.caught_up(redis)
    key = "nps:{%s}:touchpoint:delivery:1h" % world.namespace
    assert redis.hash(key)["n"] == "20"
    redis.call("HSET", key, "n", 999)
    redis.call("DEL", key.replace("1h", "5m"))
    redis.call("HSET", "nps:{%s}:meta" % world.namespace, "publish", "somebody-else")
    wait_for(lambda: redis.hash(key).get("n") == "20" and redis.hash(key.replace("1h", "5m")).get("n") == "20", 30,
             "everything is published again")
    assert "the last publish is not the one left here: publishing everything again" in consumer.log()
    assert sample(metrics(port), "livenps_republishes_total") == 1
    assert consumer.stop() == 0


def test_publish_whose_answer_was_lost(world):
    """It happened, and nobody heard of it: everything is published again, but Redis did not go back, and no alert shall say so."""
    redis, topic = world.redis(), world.topic(1)
    way, port = world.forwarder(redis.port), cluster.free_port()
    consumer = world.consumer(topic, way, windows=WINDOWS, redis__timeout="1s", metrics__listen="127.0.0.1:%d" % port,
                              aggregate__lease="1m")
    world.kafka.send(topic, [cluster.event("e%d" % i) for i in range(20)])
    world.caught_up(redis)
    answered = lambda: sample(metrics(port), "livenps_publishes_total")
    publish = redis.hash("nps:{%s}:meta" % world.namespace)["publish"].split("-")[0]  # only publishes name it
    for _ in range(10):
        missed = consumer.log().count("no answer within")
        way.hold(publish.encode())
        consumer.wait_log("no answer within", 40, count=missed + 1)
        way.release()
        before = answered()
        wait_for(lambda: answered() > before + 1, 40, "it publishes again")
    assert "a publish happened without an answer" in consumer.log(), consumer.log()
    assert sample(metrics(port), "livenps_republishes_total") == 0 and "the last publish is not" not in consumer.log(), consumer.log()
    assert consumer.stop() == 0


def test_stopped_before_it_saw_that_the_namespace_was_begun_anew(world):
    """What it has in hand is refused. Nobody is away and nothing is lost: its end is no failure, and the next one
    counts what it had."""
    redis, topic = world.redis(), world.topic(2)
    seldom = world.consumer(topic, redis, windows=WINDOWS, commit__interval="10s", commit__idle="10s", complete_lag="30s")
    truth = world.simulate(topic, count=500).finish()
    redis.call("FLUSHALL")
    seldom.wait_log("genesis [0-9]+ of namespace", 40, count=2)
    assert seldom.stop() == 0, seldom.log()
    assert seldom.held_up or re.search("the namespace (was begun anew|is empty)", seldom.log()), seldom.log()
    following = world.consumer(topic, redis, windows=WINDOWS)
    world.exact(redis, truth, topic, genesis=None, windows=WINDOWS)
    assert following.stop() == 0


def test_stopped_before_it_saw_that_others_rules_count_now(world):
    """Redis comes back with the namespace under other rules, and the signal before the next try: what the last look
    finds is said as if it had been found under way."""
    redis, topic = world.redis(), world.topic(2)
    way = world.forwarder(redis.port)
    meta, lease = "nps:{%s}:meta" % world.namespace, "nps:{%s}:lease" % world.namespace
    truth = world.simulate(topic, count=500).finish()
    for _ in range(5):  # until nothing stood still in the four seconds that the instance has
        # Its session must outlast a machine that stands still: without partitions it would have nothing to look for.
        consumer = world.consumer(topic, way, windows=WINDOWS, commit__idle="1s", redis__timeout="1m", set={
            "kafka.session.timeout.ms": 120000})
        world.caught_up(redis)
        consumer.wait_log("aggregating namespace", 40)
        redis.call("SET", lease, "somebody")  # only the reader shall find it
        consumer.wait_log("standing by", 40)
        waited = consumer.log().count("warn commit: ")  # at its start, perhaps, for the namespace to be begun
        way.to(None)
        consumer.wait_log("warn commit: ", 40, count=waited + 1)
        consumer.freeze()
        wait_for(consumer.frozen, 20, "it stands still")
        rules = redis.hash(meta)["admit"]
        redis.call("HSET", meta, "admit", "0" * len(rules))
        way.to(redis.port)
        consumer.ended_on_purpose = True
        consumer.process.send_signal(signal.SIGTERM)
        watch = cluster.Watch(consumer)
        consumer.thaw()
        code = consumer.wait()
        redis.call("HSET", meta, "admit", rules)
        redis.call("DEL", lease)
        if watch.end() < 0.5 or code == 6:
            break
    assert code == 6, consumer.log()
    assert re.search("error run: .*the namespace was begun with other rules", consumer.log()), consumer.log()
    following = world.consumer(topic, redis, windows=WINDOWS)
    world.exact(redis, truth, topic, windows=WINDOWS)
    assert following.stop() == 0
