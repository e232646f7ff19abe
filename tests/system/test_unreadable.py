"""Batches of records that Kafka hands out and librdkafka cannot read: damaged on the broker's disk, with a right checksum. The
partition must not stand still for ever: they are left out, counted as holes, and said out loud."""

import concurrent.futures
import glob
import gzip
import os
import re
import struct

import pytest

import cluster
from cluster import wait_for

WINDOWS = "5m/1s,1h/10s"
HEADER = 61  # of a batch: everything before its records
BATCH, BATCHES = 20, 5


def crc32c(data, table=[]):
    if not table:
        for n in range(256):
            for _ in range(8):
                n = (n >> 1) ^ 0x82F63B78 if n & 1 else n >> 1
            table.append(n)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 255] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def scramble(batch):
    """Bytes that no decompressor accepts."""
    batch[HEADER + 2:] = bytes(b ^ 0x5A for b in batch[HEADER + 2:])


def unknown_codec(batch):
    batch[22] = batch[22] & ~7 | 6


def end_early(batch):
    """Decompresses well, and ends in the middle of a record."""
    whole = gzip.decompress(bytes(batch[HEADER:]))
    batch[HEADER:] = gzip.compress(whole[:len(whole) // 2])


def damage(kafka, topic, partition, change, first):
    """Changes the batch that begins at this offset or the next one behind it, on the disk of a broker that does not run.
    Returns its (first, behind)."""
    path, = glob.glob("%s/broker-1.data/%s-%d/*.log" % (kafka.directory, topic, partition))
    with open(path, "rb") as f:
        data = f.read()
    out, at, found = b"", 0, None
    while at < len(data):
        base, length = struct.unpack_from(">qi", data, at)
        batch = bytearray(data[at:at + 12 + length])
        at += len(batch)
        if base >= first and found is None:
            found = base, base + struct.unpack_from(">i", batch, 23)[0] + 1
            assert found[1] - base == BATCH, "a batch came in pieces: %d to %d" % (base, found[1] - 1)
            change(batch)
            struct.pack_into(">i", batch, 8, len(batch) - 12)
            struct.pack_into(">I", batch, 17, crc32c(bytes(batch[21:])))
        out += bytes(batch)
    with open(path, "wb") as f:
        f.write(out)
    os.remove(path[:-4] + ".index") if len(out) != len(data) else None  # the broker makes it anew
    return found


def fill(world, topic, partition, codec):
    """Events in several batches; returns [(offset, score)]."""
    sent = []

    def placed(score):
        def report(error, message):
            assert not error, error
            sent.append((message.offset(), score))
        return report

    for b in range(BATCHES):
        # Sent by flush() and not before, and none waits for its partition to be known: or a busy broker gets them in pieces.
        client = world.kafka.producer(**{"compression.type": codec, "linger.ms": 60000})
        wait_for(lambda: partition in client.list_topics(topic, 10).topics[topic].partitions, 30, "the partition is known")
        for i in range(BATCH):
            score = (b * BATCH + i) % 11
            client.produce(topic, cluster.event("%s-%d-%d" % (codec, b, i), score=score), partition=partition,
                           on_delivery=placed(score))
        assert client.flush(60) == 0
    return sorted(sent)


def view_of(world, redis):
    return redis.hash("nps:{%s}:all:all:1h" % world.namespace)  # the test may take minutes


def expect(world, redis, topic, sent, left_out):
    """Exactly what was sent outside of the ranges that are left out; those are holes, and nothing else is."""
    kept = [score for p, records in sent.items() for offset, score in records
            if not any(first <= offset < behind for first, behind in left_out.get(p, []))]
    health = world.ledger(redis, topic)
    assert int(health["holes"]) == sum(behind - first for some in left_out.values() for first, behind in some)
    assert int(health["accepted"]) == len(kept) and health["gap"] == "0"
    view = view_of(world, redis)
    assert (int(view["n"]), int(view["promoters"]), int(view["detractors"])) == (
        len(kept), sum(s >= 9 for s in kept), sum(s <= 6 for s in kept))
    return health


def verify(world, redis, topic):
    """(exit code, all that was said)"""
    found = world.settings(topic, redis, windows=WINDOWS, redis__timeout="1m")
    code, out, err = world.run_consumer("verify", "--topic", topic, settings=found, timeout=400)
    return code, out + err


def test_batches_that_cannot_be_decompressed(own_world):
    """A damaged batch of each codec, two in a row, one at the end of its partition, one of a codec that nobody has, one behind the
    marker of a transaction, so that its error names another offset than the one that is waited for. A recount meets the same, and
    agrees."""
    world, kafka, redis = own_world, own_world.kafka, own_world.redis()
    codecs = ["gzip", "lz4", "snappy", "zstd", "none"]
    topic = world.topic(len(codecs) + 1)
    sent = {p: fill(world, topic, p, codec) for p, codec in enumerate(codecs + ["gzip"])}
    client = kafka.producer(**{"transactional.id": "tx-" + world.unique})
    client.init_transactions(60)
    client.begin_transaction()
    client.produce(topic, cluster.event("aborted"), partition=5)
    assert client.flush(60) == 0
    client.abort_transaction(60)
    marked = BATCH * BATCHES + 2
    wait_for(lambda: kafka.bounds(topic)[5][1] == marked, 30, "the marker is written")
    sent[5] += fill(world, topic, 5, "gzip")
    kafka.tool("stop", "1")
    left_out = {0: [damage(kafka, topic, 0, scramble, 40)],
                1: [damage(kafka, topic, 1, scramble, 0)],
                2: [damage(kafka, topic, 2, scramble, 21)]}
    left_out[2].append(damage(kafka, topic, 2, scramble, left_out[2][0][1]))
    left_out[3] = [damage(kafka, topic, 3, scramble, 80)]
    left_out[4] = [damage(kafka, topic, 4, unknown_codec, 30)]
    left_out[5] = [damage(kafka, topic, 5, scramble, marked)]
    assert left_out[5][0][0] == marked
    never = {**left_out, 5: [(marked - 2, marked)] + left_out[5]}
    kafka.tool("start", "1")
    consumer = world.consumer(topic, redis, windows=WINDOWS, set=cluster.PATIENT)  # nothing is asked for twice
    ends = {"%s/%d" % (topic, p): high for p, (_, high) in kafka.bounds(topic).items()}
    wait_for(lambda: world.positions(redis) == ends, 60, "reading goes on behind what cannot be read")
    # Partition by partition in the log, with the offsets.
    for p, ranges in left_out.items():
        for first, behind in ranges:
            consumer.wait_log(re.escape("%s/%d: offsets %d to %d cannot be read" % (topic, p, first, behind - 1)), 10)
    world.caught_up(redis)
    health = expect(world, redis, topic, sent, never)
    assert redis.hash("nps:{%s}:health:1h" % world.namespace)["complete"] == "0"
    # What comes from now on counts as ever, and another instance does not ask again.
    assert consumer.stop() == 0
    asked = consumer.log().count("cannot be read (")
    consumer = world.consumer(topic, redis, windows=WINDOWS)
    for p in sent:
        sent[p] += fill(world, topic, p, "lz4")
    world.caught_up(redis)
    expect(world, redis, topic, sent, never)
    assert "cannot be read (" not in consumer.log() and asked == sum(map(len, left_out.values()))
    # A replay finds the same, and a recount too, which says which. Side by side: each hunts for the ends of all these batches again.
    with concurrent.futures.ThreadPoolExecutor() as pool:
        replayed = pool.submit(world.replay, topic, redis, None, end=cluster.now_ms() + 1000, windows=WINDOWS)
        code, said = verify(world, redis, topic)
        _, out = replayed.result()
    assert "accepted %d " % sum(len(r) for r in sent.values()) not in out
    assert "holes %s" % health["holes"] in out, out
    assert code == 0 and "\nequal: " in said and "holes %s\n" % health["holes"] in said, said
    for p, ranges in left_out.items():
        for first, behind in ranges:
            assert "%s/%d: offsets %d to %d cannot be read" % (topic, p, first, behind - 1) in said, said
    assert consumer.stop() == 0
    # What was counted before it was damaged is not a hole that was counted: nobody can say any more whether it was counted well.
    kafka.tool("stop", "1")
    later = damage(kafka, topic, 4, unknown_codec, 60)
    kafka.tool("start", "1")
    code, said = verify(world, redis, topic)
    assert code == 8 and "equal as far as it can be verified" in said, said
    assert "%s/4: offsets %d to %d cannot be read" % (topic, later[0], later[1] - 1) in said, said
    assert "%s/4: %d offsets cannot be read any more" % (topic, sum(b - a for a, b in left_out[4] + [later])) in said, said


@pytest.mark.long
def test_a_batch_that_makes_no_sense(own_world):
    """It decompresses, and librdkafka stops without a word: found out after half a minute."""
    world, kafka, redis = own_world, own_world.kafka, own_world.redis()
    topic = world.topic(2)
    sent = {p: fill(world, topic, p, "gzip") for p in range(2)}
    kafka.tool("stop", "1")
    first, behind = damage(kafka, topic, 1, end_early, 40)
    kafka.tool("start", "1")
    consumer = world.consumer(topic, redis, windows=WINDOWS)
    ends = {"%s/%d" % (topic, p): high for p, (_, high) in kafka.bounds(topic).items()}
    wait_for(lambda: world.positions(redis) == ends, 240, "reading goes on behind what cannot be read")
    world.caught_up(redis)
    # The records before the damage are read.
    said = re.search(re.escape("%s/1: offsets " % topic) + r"(\d+) to %d cannot be read" % (behind - 1), consumer.log())
    assert said and first < int(said.group(1)) < behind
    expect(world, redis, topic, sent, {1: [(int(said.group(1)), behind)]})
    code, recounted = verify(world, redis, topic)
    assert code == 0 and "%s/1: offsets %s to %d cannot be read" % (topic, said.group(1), behind - 1) in recounted, recounted
    assert consumer.stop() == 0


def test_waiting_for_a_transaction_is_something_else(world):
    """What stands behind an open transaction is readable: it is waited for, however long, and the log says so."""
    redis, topic = world.redis(), world.topic(1)
    consumer = world.consumer(topic, redis, windows=WINDOWS)
    client = world.kafka.producer(**{"transactional.id": "tx-" + world.unique, "transaction.timeout.ms": 600000})
    client.init_transactions(60)
    client.begin_transaction()
    client.produce(topic, cluster.event("open"))
    assert client.flush(60) == 0
    world.kafka.send(topic, [cluster.event("behind")])
    consumer.wait_log(re.escape("%s/0 stands still at offset 0 although it has more: the records are there" % topic), 60)
    assert world.positions(redis) == {topic + "/0": 0} and world.health(redis)["complete"] == "0"
    client.commit_transaction(60)
    world.caught_up(redis)
    world.ledger(redis, topic, accepted=2, holes=1)
    assert consumer.stop() == 0
