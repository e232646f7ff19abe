"""What happens to the topic: more partitions, transactions that are aborted or hang, and more events than the log holds
while nobody aggregates."""

import time

import cluster
from cluster import wait_for
from harness import RECOVERY_S, scenario

WAIT_S = RECOVERY_S * cluster.PATIENCE  # for Kafka's answer
LONG_MS = 900_000  # what a broker grants a transaction: none of ours ends by itself


@scenario("partitions", short=2, fault="partitions added under load")
def partitions(bed, count, row):
    """Each new partition is read from its first record on; complete says 0 until somebody reads it."""
    soon = {"set": {"kafka.topic.metadata.refresh.interval.ms": 1000}}
    while row.tried < count:
        with bed.stage("partitions", partitions=2, settings=soon) as stage:
            stage.start_all()
            stage.goes_on(50)
            total = 2
            while total < 12 and row.tried < count:
                total += bed.draw.choice((1, 2))
                since = time.monotonic()
                stage.kafka.add_partitions(stage.topic, total)
                # A publisher that knows the topic learns of it later: a new one writes to all of them at once.
                stage.new_sender()
                for partition in range(total):
                    stage.send_event(partition)
                row.tried += 1
                row.exact(stage, since)
                wait_for(lambda: stage.health()["partitions"] == str(total), 60, "health says %d partitions" % total)
            stage.close_load_and_compare(row)
            stage.stop_all()


def stood(stage):
    """The positions, if none has moved for five seconds: long enough for many commits, were they taken."""
    stands = stage.positions()
    time.sleep(5)
    return stands if stage.positions() == stands else None


@scenario("full", short=1, fault="no aggregator for an hour of traffic: the log is full, ingest waits")
def full(bed, count, row):
    """108,000 events are an hour at 30 a second, here of a quieter centre and more of its hours. The log takes 64 kB: reading pauses far before the end, and no position
    moves until somebody aggregates again."""
    for _ in range(count):
        with bed.stage("full", load=False, settings={"commit__log_max": "64kb", "commit__max_cells": 200,
                                                     "commit__interval": "20ms"}) as stage:
            stage.start_all()
            stage.begin_load(count=200)
            stage.end_load(finish=True)
            row.exact(stage)
            # The lease is in other hands, which do nothing with it.
            lease = "nps:{%s}:lease" % stage.world.namespace
            stage.redis.call("SET", lease, "somebody-else")
            stage.begin_load(count=108_000, rate=None, start=cluster.now_ms() - 12 * 3_600_000)
            for consumer in stage.consumers:
                consumer.wait_log("the commit log is full .*reading pauses", 60)
            stage.end_load(finish=True)
            # Whoever had no answer from Redis for a moment begins a smaller batch, and that one may have room; but not for long.
            stands = wait_for(lambda: stood(stage), 60, "nobody reads on while the log is full")
            ends = stage.ends()
            left = sum(ends.values()) - sum(stands.values())
            assert left > 50_000, "only %d offsets were left waiting" % left
            meta = stage.redis.hash("nps:{%s}:meta" % stage.world.namespace)
            assert int(meta["bytes"]) - int(meta["trimmed"]) <= 64 * 1024
            stage.redis.call("DEL", lease)
            row.tried += 1
            row.exact(stage)
            stage.close_load_and_compare(row)
            stage.stop_all()
            row.note("%d offsets waited" % left)


def send_transactions(stage, client, draw, amount):
    """Transactions of some records over several partitions, about half of them aborted; how many offsets they leave
    that are no records: each has a marker in each of its partitions at the end, and what was aborted counts as well."""
    holes = 0
    for _ in range(amount):
        client.begin_transaction()
        size = draw.choice((1, 5, 40))
        places = [draw.randrange(6) for _ in range(size)]
        for partition in places:
            stage.send_event(partition, client)
        if client.flush(WAIT_S):
            raise AssertionError("the transaction's records were not sent")
        if draw.random() < 0.5:
            client.commit_transaction(WAIT_S)
        else:
            client.abort_transaction(WAIT_S)
            holes += size
        holes += len(set(places))
    return holes


def behind_the_markers(stage):
    """One ordinary record in each partition, so that the oracle can tell that it has read up to a marker."""
    for partition in stage.ends():
        stage.send_event(partition)


@scenario("aborted", short=20, fault="transactions committed and aborted in the topic under load, consumers killed meanwhile")
def aborted(bed, count, row):
    with bed.stage("aborted") as stage:
        stage.start_all()
        client = bed.kafka.producer(**{"transactional.id": "tx-" + stage.world.unique, "transaction.timeout.ms": LONG_MS})
        client.init_transactions(WAIT_S)
        holes = 0
        while row.tried < count:
            some = min(5, count - row.tried)
            holes += send_transactions(stage, client, bed.draw, some)
            victim = bed.draw.randrange(2)
            stage.kill(victim)
            stage.start(victim)
            behind_the_markers(stage)
            row.tried += some
            row.exact(stage)
        behind_the_markers(stage)
        stage.close_load_and_compare(row)
        # The oracle knows the holes as what Java's consumer did not hand out; this is what was really sent.
        assert stage.health()["holes"] == str(holes)
        row.note("%d offsets were markers or aborted" % holes)
        stage.stop_all()


@scenario("hanging", short=1, fault="a transaction that stays open: lag is told, nothing is skipped; then it is aborted")
def hanging(bed, count, row):
    with bed.stage("hanging", rate=100) as stage:
        stage.start_all()
        stage.goes_on(50)
        longest = 0
        for number in range(count):
            client = bed.kafka.producer(**{"transactional.id": "hang-%d-%s" % (number, stage.world.unique),
                                           "transaction.timeout.ms": LONG_MS})
            client.init_transactions(WAIT_S)
            client.begin_transaction()
            partition = bed.draw.randrange(6)
            places = []
            for _ in range(10):
                stage.send_event(partition, client, lambda error, message: places.append(message.offset()))
            assert client.flush(WAIT_S) == 0 and len(places) == 10, places
            # Behind it come records that are committed already; reading stops in front of it all the same.
            wait_for(lambda: stage.positions().get(partition) == min(places), 60, "reading has come to the open transaction")
            stage.goes_on(200)  # on the other partitions
            health = wait_for(lambda: (lambda h: h if h.get("complete") == "0" and int(h.get("lag_ms", 0)) > 5000 else None)(
                stage.world.health(stage.redis)), 60, "complete says 0, and the lag rises")
            longest = max(longest, int(health["lag_ms"]))
            assert stage.positions()[partition] == min(places), "something was skipped"
            assert int(health["position:%s/%d" % (stage.topic, partition)]) <= min(places)
            client.abort_transaction(WAIT_S)
            since = time.monotonic()
            behind_the_markers(stage)
            row.tried += 1
            row.exact(stage, since)
            wait_for(lambda: stage.world.health(stage.redis).get("complete") == "1", 60, "complete says 1 again")
        behind_the_markers(stage)
        stage.close_load_and_compare(row)
        stage.stop_all()
        row.note("lag of up to %.1f s was shown" % (longest / 1000))
