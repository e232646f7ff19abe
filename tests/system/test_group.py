"""Partitions move between instances under load: exact each time."""

import re
import signal

import pytest

import cluster
from cluster import wait_for
from test_metrics import get, metrics, sample

WINDOWS = "5m/1s,1h/10s"


def counted(world, redis):
    return int(world.health(redis).get("accepted", 0))


def goes_on(world, redis, amount=300):
    """Events are counted right now, not only before."""
    from_here = counted(world, redis)
    wait_for(lambda: counted(world, redis) >= from_here + amount, 60, "reading goes on")


def members(world, redis):
    return int(world.health(redis).get("instances", 0))


@pytest.mark.parametrize("strategy", ["range", "cooperative-sticky"])
def test_instances_come_and_go(world, strategy):
    redis, topics = world.redis(), [world.topic(4, suffix="-a"), world.topic(2, suffix="-b")]
    # All leave in order: none of them is waited for, and none shall be taken for gone.
    more = {"windows": WINDOWS, "set": {"kafka.partition.assignment.strategy": strategy, "kafka.session.timeout.ms": 60_000}}
    simulations = [world.load(topic, 2200, seed=i) for i, topic in enumerate(topics)]
    first = world.consumer(topics, redis, **more)
    goes_on(world, redis)
    second = world.consumer(topics, redis, **more)
    wait_for(lambda: members(world, redis) == 2, 60, "both instances write")
    goes_on(world, redis)
    third = world.consumer(topics, redis, **more)
    wait_for(lambda: members(world, redis) == 3, 60, "all three instances write")
    goes_on(world, redis)
    # The aggregator and first member leaves: the lease is given back, the others take its partitions.
    assert first.stop() == 0
    goes_on(world, redis)
    assert second.stop(signal.SIGINT) == 0
    goes_on(world, redis)
    fourth = world.consumer(topics, redis, **more)
    truth = [s.end() for s in simulations]
    health = world.exact(redis, cluster.add_truths(*truth), topics, windows=WINDOWS)
    assert health["partitions"] == "6"
    for consumer in (third, fourth):
        assert consumer.stop() == 0
    for program in world.programs:
        assert "refused" not in program.log()


def test_a_static_member_restarts_without_a_rebalance(world):
    """With instance names a restart gives the partitions back to the same instance; the other one is left alone."""
    redis, topic = world.redis(), world.topic(4)
    # Nothing here waits for a session to end, and none may, however slow the machine is.
    more = {"windows": WINDOWS, "set": {"kafka.session.timeout.ms": 300_000}}
    one = world.consumer(topic, redis, instance="one", **more)
    two = world.consumer(topic, redis, instance="two", **more)
    wait_for(lambda: "assigned 2 partitions" in one.log() and "assigned 2 partitions" in two.log(), 60,
             "two partitions each")
    simulation = world.load(topic, 3000)
    goes_on(world, redis)
    rebalances = one.log().count("assigned")
    two.kill()
    goes_on(world, redis)
    two = world.consumer(topic, redis, instance="two", **more)
    two.wait_log("assigned 2 partitions", 30)
    goes_on(world, redis)
    assert two.stop() == 0  # a clean end of a static member does not leave the group either
    two = world.consumer(topic, redis, instance="two", **more)
    truth = simulation.end()
    world.exact(redis, truth, topic, windows=WINDOWS)
    assert one.log().count("assigned") == rebalances, "the other instance was disturbed"
    for consumer in (one, two):
        assert consumer.stop() == 0


@pytest.mark.sanitize
def test_workers_share_the_partitions(world):
    """One process with two workers: partitions move to and from another instance, kill -9 in between: exact."""
    redis, topic = world.redis(), world.topic(4)
    port = cluster.free_port()
    more = {"windows": WINDOWS, "workers": 2, "instance": "one", "metrics__listen": "127.0.0.1:%d" % port}
    both = world.consumer(topic, redis, **more)
    both.wait_log("assigned 2 partitions", 30, count=2)
    simulation = world.load(topic, 2200)
    goes_on(world, redis)
    wait_for(lambda: members(world, redis) == 2, 60, "both workers write")
    other = world.consumer(topic, redis, windows=WINDOWS)
    wait_for(lambda: members(world, redis) == 3, 60, "two workers and another instance write")
    goes_on(world, redis)
    both.kill()
    both = world.consumer(topic, redis, **more)
    goes_on(world, redis)
    assert other.stop() == 0
    both.wait_log("assigned 2 partitions", 60, count=2)
    goes_on(world, redis)
    truth = simulation.end()
    health = world.exact(redis, truth, topic, windows=WINDOWS)
    ends = {p: int(health["position:%s/%d" % (topic, p)]) for p in range(4)}

    def positions(found):
        return {p: sample(found, "livenps_partition_position", partition=str(p)) for p in range(4)}

    wait_for(lambda: positions(metrics(port)) == ends, 30, "both workers' partitions are among the metrics")
    wait_for(lambda: get(port, "/readyz")[0] == 200, 30, "both workers are ready")
    wait_for(lambda: sample(metrics(port), "livenps_partitions_assigned") == 4, 30, "all partitions are assigned")
    found = metrics(port)
    assert both.stop() == 0
    read = [int(number) for number in re.findall(r"worker [12] leaving: (\d+) records read", both.log())]
    assert len(read) == 2 or both.held_up, both.log()  # who is held up does not come to say it
    assert min(read, default=1) > 0, "a worker read nothing"
    assert len(read) < 2 or sample(found, "livenps_records_consumed_total") == sum(read)
    for program in world.programs:
        assert "refused" not in program.log()


def test_a_worker_that_fails_ends_the_process(world):
    """Another process takes a static worker's name: that worker is fenced, and all of its process ends, with Kafka's reason."""
    redis, topic = world.redis(), world.topic(4)
    # A session that is not lost while something stands still: whoever lost it takes the fencing for its own doing.
    session = {"kafka.session.timeout.ms": 20_000}
    both = world.consumer(topic, redis, windows=WINDOWS, workers=2, instance="one", set=session)
    both.wait_log("assigned 2 partitions", 30, count=2)
    thief = world.consumer(topic, redis, windows=WINDOWS, instance="one.w2", set=session)
    both.ended_on_purpose = True
    assert both.wait() == 6
    assert "worker 2: kafka: " in both.log()
    simulation = world.load(topic, 1000)
    goes_on(world, redis)
    world.exact(redis, simulation.end(), topic, windows=WINDOWS)
    assert thief.stop() == 0


def test_two_instances_of_one_name(world):
    """The older one is fenced by Kafka, says so in one line and ends; the younger one goes on, exact."""
    redis, topic = world.redis(), world.topic(2)
    # As above.
    session = {"kafka.session.timeout.ms": 60_000}
    older = world.consumer(topic, redis, instance="same", windows=WINDOWS, set=session)
    simulation = world.load(topic, 3000)
    goes_on(world, redis)
    younger = world.consumer(topic, redis, instance="same", windows=WINDOWS, set=session)
    older.ended_on_purpose = True
    assert older.wait() != 0
    assert "same instance name" in older.log().strip().split("\n")[-1]
    world.exact(redis, simulation.end(), topic, windows=WINDOWS)
    assert younger.stop() == 0


def test_silence_after_a_kill_is_explained(world):
    """Until the killed member's session is over nobody gets its partitions: the log says what is waited for."""
    redis, topic = world.redis(), world.topic(1)
    said = "waiting for the group to hand out partitions"
    for session_s in (15, 30, 60):  # it may be over before anybody has waited, where the next one stands still
        session = {"kafka.session.timeout.ms": max(session_s * 1000, world.kafka.session_ms)}
        world.consumer(topic, redis, windows=WINDOWS, set=session).kill()
        next_one = world.consumer(topic, redis, windows=WINDOWS, set=session, ready=False)
        next_one.wait_log("assigned 1 partitions", 90)
        assert next_one.stop() == 0
        if said in next_one.log():
            break
    assert re.search(said + "[^$]*assigned 1 partitions", next_one.log()), next_one.log()


def test_frozen_instance_wakes_as_a_zombie(world):
    """An instance stopped for longer than its session believes that its partitions are its own: what it writes then
    is refused by the compare-and-set on positions, and it goes on as an ordinary member."""
    redis, topic = world.redis(), world.topic(2)
    zombie = world.consumer(topic, redis, windows=WINDOWS)
    simulation = world.load(topic, 3000)
    goes_on(world, redis)
    zombie.freeze()
    other = world.consumer(topic, redis, windows=WINDOWS, ready=False)
    other.wait_log("assigned [12] partitions", 60)
    goes_on(world, redis)
    zombie.thaw()
    zombie.wait_log("(another writer was here|revoked|assigned)", 60)
    goes_on(world, redis)
    world.exact(redis, simulation.end(), topic, timeout=60, windows=WINDOWS)
    assert zombie.stop() == 0 and other.stop() == 0


def test_partitions_added_under_load(world):
    """New partitions are read from their first record, and complete says 0 until somebody reads them."""
    redis, topic = world.redis(), world.topic(1)
    consumer = world.consumer(topic, redis, windows=WINDOWS, set={"kafka.topic.metadata.refresh.interval.ms": 2000})
    first = world.load(topic, 1500, seed=1)
    goes_on(world, redis)
    world.kafka.add_partitions(topic, 4)
    second = world.load(topic, 2000, seed=2)
    wait_for(lambda: world.health(redis).get("partitions") == "4", 60, "the new partitions are read")
    wait_for(lambda: all(end for _, end in world.kafka.bounds(topic).values()), 60, "every partition has records")
    truth = cluster.add_truths(first.end(), second.end())
    health = world.exact(redis, truth, topic, windows=WINDOWS)
    assert all(int(health["position:%s/%d" % (topic, p)]) > 0 for p in range(4))
    assert consumer.stop() == 0
