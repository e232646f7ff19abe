"""Every roll-up and window equals the truth at each view's own clock."""

import json

import cluster
from cluster import wait_for


def test_exact_while_it_runs(world):
    """Three topics, two moments: while events come in, and after the catch-up."""
    redis = world.redis()
    topics = [world.topic(partitions, suffix="-%d" % i) for i, partitions in enumerate((3, 1, 2))]
    consumer = world.consumer(topics, redis)
    simulations = [world.load(topic, rate, seed=i) for i, (topic, rate) in enumerate(zip(topics, (400, 150, 50)))]
    wait_for(lambda: int(world.health(redis).get("accepted", 0)) > 2000, 60, "events are counted")
    # The truth is known at the end only; so the views of now are kept and compared then.
    during = {key: redis.hash(key) for key in redis.keys("nps:{%s}:all:all:*" % world.namespace)}
    assert during and all(s.running() for s in simulations)
    truth = cluster.add_truths(*[s.end() for s in simulations])
    world.exact(redis, truth, topics)
    for key, view in during.items():
        # Events arrive up to seconds after their time: what a view of then had can only be part of the truth.
        place = (int(view[field]) for field in ("window_ms", "slice_ms", "as_of_ms"))
        now, _ = cluster.ct.window_totals(truth, "all", "all", *place)
        assert 0 < int(view["n"]) <= sum(now[cluster.ct.HISTOGRAM]), key
    assert consumer.stop() == 0


def test_exact_after_the_shortest_window_has_emptied(world):
    """History whose last event is nearly five minutes old: the 5m window empties while we look, the others do not."""
    redis, topic = world.redis(), world.topic(2)
    consumer = world.consumer(topic, redis)
    all_5m = "nps:{%s}:all:all:5m" % world.namespace
    # So long before the window leaves the last events behind we look for the first time. If the machine stands still meanwhile, once more.
    truths, counts, n, spare_s = [], 0, 0, 35
    while not n:
        assert spare_s <= 200, "the window was empty too early for this test, each time"
        truth, count = history(world, topic, seed=len(truths) + 1, spare_s=spare_s)
        truths.append(truth)
        counts += count
        truth = cluster.add_truths(*truths)
        world.exact(redis, truth, topic, accepted=counts, minimum_n=5)
        n = int(redis.hash(all_5m)["n"])
        spare_s *= 2
    wait_for(lambda: int(redis.hash(all_5m)["n"]) < n, 120, "slices leave")
    world.equal(redis, truth)
    wait_for(lambda: redis.hash(all_5m)["n"] == "0", 120, "the shortest window is empty")
    result = world.equal(redis, truth)
    assert result.scored > 0
    view = redis.hash(all_5m)
    assert not {"nps", "nps_low", "promoters", "change", "target_state"} & set(view), "no answers, no score"
    assert int(redis.hash("nps:{%s}:all:all:1h" % world.namespace)["n"]) >= n
    wait_for(lambda: not redis.call("ZCARD", "nps:{%s}:rank:all:5m" % world.namespace), 30, "it has no rank")
    assert consumer.stop() == 0


def history(world, topic, seed, spare_s):
    """Sends events of the ten minutes before the last ones have only spare_s left in the 5m window. (truth, how many)"""
    start = cluster.now_ms() - 600_000
    code, out, _ = world.producer("simulate", "--start", str(start), "--seed", str(seed), "--count", "20000", "--dry-run")
    assert code == 0
    # How many come before that depends on the time of day.
    count = 0
    for number, line in enumerate(out.splitlines(), 1):
        if cluster.event_ms(json.loads(line)) > start + 300_000 + spare_s * 1000:
            break
        count = number
    return world.simulate(topic, count=count, seed=seed, start=start).finish(), count
