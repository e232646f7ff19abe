"""Promises at their edges: hostile record timestamps, an emptied topic, a quarantine slower than the reading, claims
that land late, the signal in a bad moment."""

import re
import time

import cluster
from cluster import event, wait_for

WINDOWS = "5m/1s,1h/10s"


def counted(world, redis):
    return int(world.health(redis).get("accepted", 0))


def test_record_timestamp_beyond_all_years(world):
    """A broker that allows it stores any record timestamp. Such a record has its fate like any other, and what is
    written of it must be readable: else one record would stop every aggregator for ever."""
    redis = world.redis()
    topic = world.topic(1, message_timestamp_after_max_ms=2**63 - 1)
    consumer = world.consumer(topic, redis, windows=WINDOWS)
    world.kafka.send(topic, [{"value": event("far", score=9), "timestamp": 4 * 10**18}])
    world.kafka.send(topic, [event("near", score=9)])
    wait_for(lambda: counted(world, redis) == 1, 20, "the record behind it is counted")
    world.ledger(redis, topic, accepted=1, late=1)
    assert consumer.stop() == 0


def test_genesis_on_a_topic_that_holds_nothing_any_more(world):
    """Everything that was ever in the topic is gone: nothing is known of the time before now, and complete says so."""
    redis, topic = world.redis(), world.topic(1)
    world.simulate(topic, count=500, seed=1).finish()
    world.kafka.delete_records(topic, {0: 500})
    began = cluster.now_ms()
    consumer = world.consumer(topic, redis, windows=WINDOWS)
    wait_for(lambda: world.health(redis).get("complete") == "1", 30, "everything there is was read")
    for window in ("5m", "1h"):
        wholeness = redis.hash("nps:{%s}:health:%s" % (world.namespace, window))
        assert wholeness["complete"] == "0" and int(wholeness["covered_since_ms"]) >= began, wholeness
    assert consumer.stop() == 0


def test_quarantine_slower_than_reading(world):
    """The quarantine's producer takes a few records at a time: reading waits for it, and goes on."""
    redis, topic = world.redis(), world.topic(1)
    world.kafka.send(topic, [b"not an event"] * 1000 + [event("good")])
    consumer = world.consumer(topic, redis, windows=WINDOWS, set={"kafka.queue.buffering.max.messages": 50,
                                                                   "kafka.linger.ms": 300})
    wait_for(lambda: counted(world, redis) == 1, 40, "the good record behind the bad ones is counted")
    world.ledger(redis, topic, accepted=1, rejected=1000)
    keys = {message.key() for message in world.kafka.read_all(topic + ".quarantine")}
    assert len(keys) == 1000
    assert consumer.stop() == 0


def test_a_topic_is_left_out(world):
    """Topics that are not read any more do not hold complete down; what they brought still counts."""
    redis, one, two = world.redis(), world.topic(1, suffix="-a"), world.topic(1, suffix="-b")
    consumer = world.consumer([one, two], redis, windows=WINDOWS)
    for topic in (one, two):
        world.kafka.send(topic, [event("x")])
    wait_for(lambda: counted(world, redis) == 2 and world.health(redis)["complete"] == "1", 20, "both are read")
    assert consumer.stop() == 0
    consumer = world.consumer([one], redis, windows=WINDOWS, set={"complete_lag": "1500ms"})
    time.sleep(2.5)  # longer than complete_lag
    wait_for(lambda: world.health(redis).get("complete") == "1", 60, "complete")
    assert counted(world, redis) == 2
    assert consumer.stop() == 0


def test_replay_of_another_topic_into_the_same_namespace(world):
    """A namespace holds one replay; another topic's must not be added to it."""
    redis, one, two = world.redis(), world.topic(1, suffix="-a"), world.topic(1, suffix="-b")
    for topic in (one, two):
        world.kafka.send(topic, [event("x-%d" % i) for i in range(50)])
    end = cluster.now_ms() + 1000
    into = world.namespace + "-r"
    world.replay(one, redis, into, end=end)
    settings = world.replay_settings(redis)
    code, out, err = world.run_consumer("replay", "--topic", two, "--from", "0", "--to", str(end), "--into", into,
                                        settings=settings)
    assert code != 0 and one in err and into in err, (code, out, err)
    _, again = world.replay(one, redis, into, end=end)
    assert "accepted 50 " in again


def test_signal_behind_a_rejected_record(world):
    """The record is acknowledged by the quarantine and committed before the instance leaves."""
    redis, topic = world.redis(), world.topic(1)
    consumer = world.consumer(topic, redis, windows=WINDOWS)
    wait_for(lambda: world.health(redis).get("complete") == "1", 30, "read")
    world.kafka.send(topic, [b"not an event"])
    consumer.wait_log("rejected:")
    assert consumer.stop() == 0, consumer.log()
    assert world.positions(redis) == {"%s/0" % topic: 1} or consumer.held_up


def test_signal_while_redis_hangs_patiently(world):
    """However long a single answer may take, the signal ends the instance within the promised time."""
    redis, topic = world.redis(), world.topic(1)
    consumer = world.consumer(topic, redis, windows=WINDOWS, set={"redis.timeout": "20s"})
    wait_for(lambda: world.health(redis).get("complete") == "1", 30, "read")
    redis.program.freeze()
    time.sleep(1.5)  # a commit is on its way by then
    try:
        # Its own guard ends it; without that it would wait for the answer.
        assert consumer.stop(away=True) != 0
        assert "did not finish within 4 s" in consumer.log()
    finally:
        redis.program.thaw()


def test_a_claim_lands_late(world):
    """An idle commit says that everything was read. Redis hangs and takes it seconds later, when records have come that
    nobody has read: the claim is of the moment when it was made."""
    redis, topic = world.redis(), world.topic(1)
    # The one that aggregates stays the one.
    more = {"windows": WINDOWS, "set": {"kafka.session.timeout.ms": 30_000, "redis.timeout": "5s", "aggregate.lease": "2m"}}
    aggregator = world.consumer(topic, redis, instance="b", **more)
    wait_for(lambda: world.health(redis).get("complete") == "1", 30, "read")
    reader = world.consumer(topic, redis, instance="a", **more)
    reader.wait_log("assigned 1 partitions")
    wait_for(lambda: world.health(redis).get("aggregator") == "b" and world.health(redis)["complete"] == "1", 30, "read")
    redis.program.freeze()
    time.sleep(1.3)  # the idle commit of this second waits in Redis's socket
    reader.freeze()
    frozen_ms = cluster.now_ms()
    world.kafka.send(topic, [event("unread")])
    time.sleep(4)
    redis.program.thaw()
    thawed_ms = cluster.now_ms()
    wait_for(lambda: int(world.health(redis).get("as_of_ms", 0)) > thawed_ms, 20, "the aggregator goes on")
    health = world.health(redis)
    assert int(health["low_watermark_ms"]) <= frozen_ms, (frozen_ms, thawed_ms, health)
    reader.thaw()
    wait_for(lambda: counted(world, redis) == 1 and world.health(redis)["complete"] == "1", 30, "read again")
    assert reader.stop() == 0 and aggregator.stop() == 0


def test_signal_before_there_is_a_namespace(world):
    """Somebody else holds the lease and begins nothing: nothing is in hand, so the signal is not a failure."""
    redis, topic = world.redis(), world.topic(1)
    redis.call("SET", "nps:{%s}:lease" % world.namespace, "somebody", "PX", 3_600_000)
    consumer = world.consumer(topic, redis, windows=WINDOWS)
    consumer.wait_log("the namespace is empty")
    assert consumer.stop() == 0, consumer.log()


def test_genesis_of_many_partitions_that_lost_their_beginning(world):
    """Every one of them is asked for its first record, together: three instances agree within seconds on who begins."""
    redis, count = world.redis(), 64
    topic = world.topic(count)
    began = cluster.now_ms()
    world.kafka.send(topic, [{"value": event("x-%d" % i), "partition": i % count} for i in range(4 * count)])
    sent = cluster.now_ms()
    world.kafka.delete_records(topic, {p: 2 for p in range(count)})
    consumers = [world.consumer(topic, redis, ready=False, windows=WINDOWS) for _ in range(3)]
    wait_for(lambda: any("genesis 1 " in c.log() for c in consumers), 15, "a genesis")
    wait_for(lambda: counted(world, redis) == 2 * count, 40, "all is counted")
    since = int(redis.hash("nps:{%s}:health:1h" % world.namespace)["covered_since_ms"])
    assert began - 60_000 < since - 60_000 < sent + 60_000, "the first records' time and the skew"
    for consumer in consumers:
        assert consumer.stop() == 0


def test_quarantine_that_takes_small_records_only(world):
    """Larger records than its topic takes are cut, whatever made them large: no record may stop a partition for ever."""
    redis, topic = world.redis(), world.topic(1)
    world.kafka.topic(topic + ".quarantine", 1, max_message_bytes=20_000)
    world.kafka.send(topic, [{"value": b"small"}, {"value": b"v" * 200_000},
                             {"value": b"h", "headers": [("x", b"h" * 200_000)]},
                             {"value": b"k", "key": b"k" * 200_000}, {"value": event("good")}])
    consumer = world.consumer(topic, redis, windows=WINDOWS)
    wait_for(lambda: counted(world, redis) == 1, 30, "the good record behind the bad ones is counted")
    world.ledger(redis, topic, accepted=1, rejected=4)
    found = {message.key(): message for message in world.kafka.read_all(topic + ".quarantine")}
    assert sorted(found) == [b"%s/0/%d" % (topic.encode(), i) for i in range(4)]
    large = found[b"%s/0/1" % topic.encode()]
    assert set(large.value()) == {ord("v")} and dict(large.headers())["livenps-cut-from"] == b"200000"
    assert consumer.stop() == 0


def test_replay_flushed_between_its_genesis_and_its_first_position(world):
    """The namespace goes just after it was begun: it is begun again, not waited for."""
    redis, topic = world.redis(), world.topic(2)
    world.kafka.send(topic, [event("x-%d" % i) for i in range(100)])
    end, into = cluster.now_ms() + 1000, world.namespace + "-r"
    settings = cluster.environment(world.replay_settings(redis))
    for attempt in range(4):
        replay = cluster.Program(world, world.number("replay"), cluster.PREFIX + [
            cluster.CONSUMER, "replay", "--topic", topic, "--from", "0", "--to", str(end), "--into", into], settings)
        wait_for(lambda: re.search("genesis [0-9]+ of", replay.log()), 20, "it has begun the namespace", every=0.002)
        replay.freeze()
        redis.call("FLUSHALL")
        replay.thaw()
        assert replay.wait(25) == 0
        assert "accepted 100 " in replay.out()
        redis.call("FLUSHALL")


def test_no_positions_for_longer_than_the_poll_interval(world):
    """Inside the rebalance an instance waits for positions, so long that Kafka takes its partitions: it comes back."""
    redis, topic = world.redis(), world.topic(2)
    redis.call("SET", "nps:{%s}:lease" % world.namespace, "somebody", "PX", 14_000)
    # Shorter than the lease is in other hands; and the session is no longer than that.
    consumer = world.consumer(topic, redis, windows=WINDOWS, set={"kafka.max.poll.interval.ms": 7000, "kafka.session.timeout.ms": 6000})
    truth = world.simulate(topic, count=3000, seed=1).finish()
    world.exact(redis, truth, topic, accepted=3000, timeout=60, windows=WINDOWS)
    assert consumer.stop() == 0


def test_transactions(world):
    """Aborted records and markers are holes; behind an open transaction nothing is claimed to be read; a replay agrees."""
    from confluent_kafka import Producer
    redis, topic = world.redis(), world.topic(1)
    consumer = world.consumer(topic, redis, windows=WINDOWS)
    client = Producer({"bootstrap.servers": world.kafka.bootstrap, "transactional.id": world.unique, "log_level": 0,
                       "transaction.timeout.ms": 600000})
    client.init_transactions(60)

    def transaction(amount, end):
        client.begin_transaction()
        for i in range(amount):
            client.produce(topic, event("x-%d" % i))
        assert client.flush(60) == 0
        if end:
            end(60)
    transaction(10, client.commit_transaction)
    transaction(7, client.abort_transaction)
    transaction(5, client.commit_transaction)
    wait_for(lambda: counted(world, redis) == 15, 20, "what was committed is counted")
    place = "position:%s/0" % topic
    wait_for(lambda: world.health(redis)[place] == "25" and world.health(redis)["complete"] == "1", 20, "the marker")
    world.ledger(redis, topic, accepted=15, holes=10)
    transaction(4, None)
    wait_for(lambda: world.health(redis)["complete"] == "0", 20, "an open transaction is not read")
    end = cluster.now_ms() + 60_000
    first, out = world.replay(topic, redis, world.namespace + "-r", end=end)
    assert "accepted 15 " in out and "holes 10 " in out, out
    assert world.replay(topic, redis, None, end=end)[0] == first
    client.commit_transaction(60)
    wait_for(lambda: world.health(redis)[place] == "30" and world.health(redis)["complete"] == "1", 30, "read behind it")
    world.ledger(redis, topic, accepted=19, holes=11)
    assert consumer.stop() == 0


def test_quarantine_made_anew_under_way(world):
    """Its topic is deleted and made anew while the instance runs: later rejected records go to the new one."""
    redis, topic = world.redis(), world.topic(1)
    consumer = world.consumer(topic, redis, windows=WINDOWS)
    world.kafka.send(topic, [b"bad"] * 5)
    wait_for(lambda: world.health(redis).get("rejected:malformed") == "5", 20, "five are rejected")
    world.kafka.admin.delete_topics([topic + ".quarantine"], operation_timeout=20)[topic + ".quarantine"].result()
    wait_for(lambda: not world.kafka.leaders(topic + ".quarantine"), 20, "it is gone")
    world.kafka.topic(topic + ".quarantine", 1)
    world.kafka.send(topic, [b"worse"] * 5 + [event("good")])
    wait_for(lambda: counted(world, redis) == 1, 40, "the good record behind them is counted")
    world.ledger(redis, topic, accepted=1, rejected=10)
    assert {m.key() for m in world.kafka.read_all(topic + ".quarantine")} == {
        b"%s/0/%d" % (topic.encode(), i) for i in range(5, 10)}
    assert consumer.stop() == 0
