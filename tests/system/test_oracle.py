"""The same answer from readers that share nothing with the program: Apache's console consumer reads the topic, a
brute-force recount in Python counts what it read, and Redis must say the same."""

import cluster
from cluster import wait_for
from recounted import console_consumer, differences, picture, recount_at

WINDOWS = {"5m": (300_000, 1000), "1h": (3_600_000, 10_000)}
WINDOWS_TEXT = "5m/1s,1h/10s"


def test_views_during_load_equal_a_recount_at_their_positions(world):
    """Invariant 4, live: at any moment, under load, the views equal a recount of the topic up to the positions that
    health names, at health's clock."""
    redis, topic = world.redis(), world.topic(3)
    consumers = [world.consumer(topic, redis, windows=WINDOWS_TEXT) for _ in range(2)]
    simulation = world.load(topic, 700, touchpoints=3)
    moments, next_at = [], 400
    while len(moments) < 5:
        wait_for(lambda: int(world.health(redis).get("accepted", 0)) >= next_at, 30, "events are counted")
        taken = wait_for(lambda: picture(redis, world.namespace, WINDOWS), 30, "a moment between two ticks")
        assert simulation.running()
        moments.append(taken)
        next_at = int(taken[0]["accepted"]) + 400
    sent = cluster.events_of(simulation.end())
    world.caught_up(redis)
    moments.append(wait_for(lambda: picture(redis, world.namespace, WINDOWS), 30, "a moment between two ticks"))
    records = console_consumer(world.kafka, topic, sent)
    assert len(records) == sent
    for health, views in moments:
        positions = {p: int(health["position:%s/%d" % (topic, p)]) for p in range(3)}
        below = [r for r in records if r[2] < positions[r[1]]]
        assert len(below) == int(health["accepted"])
        clock = int(health["as_of_ms"])
        wrong = differences(views, recount_at(below, clock, WINDOWS), world.namespace, clock)
        assert not wrong, "%d differences at %d of %d records:\n%s" % (len(wrong), len(below), sent, "\n".join(wrong[:15]))
    assert len({health["accepted"] for health, _ in moments}) >= 4
    for consumer in consumers:
        assert consumer.stop() == 0


def test_aborted_transactions(world):
    """A transactional publisher that commits and aborts: what was aborted is not counted, its offsets and the markers
    are holes, and an open transaction stops reading in front of it, not the clock."""
    redis, topic = world.redis(), world.topic(1)
    consumer = world.consumer(topic, redis, windows=WINDOWS_TEXT, minimum_n="1")
    client = world.kafka.producer(**{"transactional.id": "tx-" + world.unique, "transaction.timeout.ms": 600000})
    client.init_transactions(60)
    kept = 0
    for round_ in range(6):
        client.begin_transaction()
        for i in range(50):
            client.produce(topic, cluster.event("%d-%d" % (round_, i), score=9 if round_ % 2 == 0 else 0))
        assert client.flush(60) == 0
        if round_ % 2 == 0:
            client.commit_transaction(60)
            kept += 50
        else:
            client.abort_transaction(60)
    world.caught_up(redis)
    # 3 x 50 aborted records and six markers.
    world.ledger(redis, topic, accepted=150, holes=156)
    assert redis.hash("nps:{%s}:all:all:1h" % world.namespace)["n"] == "150"
    assert redis.hash("nps:{%s}:all:all:1h" % world.namespace)["nps"] == "100"
    # An open transaction: committed records behind it wait, and complete says that not all is read.
    client.begin_transaction()
    client.produce(topic, cluster.event("open"))
    assert client.flush(60) == 0
    world.kafka.send(topic, [cluster.event("behind")])
    wait_for(lambda: world.health(redis)["complete"] == "0", 20, "complete says that something is unread")
    assert world.health(redis)["accepted"] == "150"
    clock = int(world.health(redis)["as_of_ms"])
    wait_for(lambda: int(world.health(redis)["as_of_ms"]) > clock + 500, 10, "the clock goes on")
    client.commit_transaction(60)
    world.caught_up(redis)
    world.ledger(redis, topic, accepted=152, holes=157)
    wait_for(lambda: world.health(redis).get("complete") == "1", 20, "all is read")
    records = console_consumer(world.kafka, topic, 152)
    assert len(records) == 152
    taken = wait_for(lambda: picture(redis, world.namespace, WINDOWS), 30, "a moment between two ticks")
    clock = int(taken[0]["as_of_ms"])
    assert differences(taken[1], recount_at(records, clock, WINDOWS, 1), world.namespace, clock, 1) == []
    # A replay ends at the last stable offset and counts the same.
    _, out = world.replay(topic, redis, None, end=cluster.now_ms() + 1000, windows=WINDOWS_TEXT)
    assert "accepted 152 " in out and "holes 157 " in out
    assert consumer.stop() == 0
