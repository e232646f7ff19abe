"""`livenps-consumer verify` on the real thing: equal on whatever is right, while it counts; not equal on every number that was changed."""

import json
import signal
import struct

import pytest

import cluster
from cluster import wait_for

WINDOWS = "5m/1s,1h/10s"
EQUAL, DIFFERS, STARTUP, DAMAGED, REFUSED, IN_PART = 0, 1, 3, 5, 6, 8


def verify(world, redis, topics, *more, windows=WINDOWS, **settings):
    """(exit code, the last line, all of stdout and stderr)"""
    topics = topics if isinstance(topics, str) else ",".join(topics)
    # A Redis that stands still for a while is waited for.
    found = world.settings(topics, redis, windows=windows, redis__timeout="1m", startup_timeout="5m", **settings)
    code, out, err = world.run_consumer("verify", "--topic", topics, *more, settings=found, timeout=300)
    return code, (out.rstrip().split("\n") or [""])[-1], out + err


def difference(text):
    return next(line for line in text.split("\n") if line.startswith("difference: "))


# ---- the bytes of entries and chunks, as docs/ and the headers describe them ----

class Bytes:
    def __init__(self, data):
        self.data, self.at = data, 0

    def varint(self):
        value = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def signed(self):
        value = self.varint()
        return (value >> 1) ^ -(value & 1)

    def text(self):
        length = self.varint()
        self.at += length
        return self.data[self.at - length:self.at]

    def packed(self):
        mask = self.varint()
        return {i: self.signed() for i in range(29) if mask >> i & 1}


def varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def signed(value):
    return varint(((value << 1) ^ (value >> 63)) & (2 ** 64 - 1))


def text(value):
    return varint(len(value)) + value


def packed(counters):
    return varint(sum(1 << i for i in counters)) + b"".join(signed(counters[i]) for i in sorted(counters))


COUNTS = ("accepted", "late", "duplicate", "out_of_range", "holes")


def read_entry(data):
    b = Bytes(data)
    entry = {"version": b.varint(), "writer": b.text(), "clock": b.signed()}
    entry["topics"] = [b.text() for _ in range(b.varint())]
    entry["reasons"] = [b.text() for _ in range(b.varint())]
    entry["parts"] = []
    for _ in range(b.varint()):
        part = {"topic": b.varint(), "partition": b.varint(), "incarnation": b.varint(), "flags": b.varint(), "from": b.signed(),
                "advance": b.signed()}
        start = b.at
        for flag in (2, 4):
            if part["flags"] & flag:
                b.signed(), b.signed()
                b.at += 4
        part.update(anchors=data[start:b.at], through=b.signed(), covered=b.signed())
        part.update({name: b.varint() for name in COUNTS}, gap=b.signed())
        part["rejected"] = [(b.varint(), b.varint()) for _ in range(b.varint())]
        entry["parts"].append(part)
    entry["cells"] = []
    for _ in range(b.varint()):
        mask = b.varint()
        entry["cells"].append((mask, [b.text() for i in range(4) if mask >> i & 1]))
    entry["rows"] = [[b.varint(), b.signed(), b.packed()] for _ in range(b.varint())]
    assert b.at == len(data)
    return entry


def write_entry(entry):
    out = varint(entry["version"]) + text(entry["writer"]) + signed(entry["clock"])
    for name in ("topics", "reasons"):
        out += varint(len(entry[name])) + b"".join(map(text, entry[name]))
    out += varint(len(entry["parts"]))
    for part in entry["parts"]:
        out += b"".join(varint(part[name]) for name in ("topic", "partition", "incarnation", "flags"))
        out += signed(part["from"]) + signed(part["advance"]) + part["anchors"] + signed(part["through"]) + signed(part["covered"])
        out += b"".join(varint(part[name]) for name in COUNTS) + signed(part["gap"])
        out += varint(len(part["rejected"])) + b"".join(varint(a) + varint(b) for a, b in part["rejected"])
    out += varint(len(entry["cells"]))
    for mask, names in entry["cells"]:
        out += varint(mask) + b"".join(map(text, names))
    out += varint(len(entry["rows"]))
    return out + b"".join(varint(cell) + signed(step) + packed(counters) for cell, step, counters in entry["rows"])


def fnv(data):
    value = 14695981039346656037
    for byte in data:
        value = (value ^ byte) * 1099511628211 & 2 ** 64 - 1
    return struct.pack("<Q", value)


def change_slices(data):
    """A chunk of slices with one counter of its first slice one higher."""
    b = Bytes(data)
    b.at = 2
    b.text(), b.varint(), b.varint(), b.signed(), b.varint()
    for _ in range(b.varint()):
        b.text()
    b.varint(), b.text(), b.varint(), b.varint()
    start = b.at
    counters = b.packed()
    first = min(counters)
    counters[first] += 1
    return data[:start] + packed(counters) + data[b.at:]


def change_head(data, change):
    """The head chunk with change(numbers) applied to its first partition: start, next, accepted, late ..."""
    b = Bytes(data)
    b.at = 2
    b.varint(), b.signed(), b.signed()
    windows = b.varint()
    for _ in range(windows):
        b.text(), b.varint(), b.varint()
    for _ in range(b.varint()):
        b.text(), b.varint(), b.varint()
        for _ in range(windows):
            b.signed()
    for _ in range(b.varint()):
        b.text()
        b.at += 8
    assert b.varint() > 0
    b.text(), b.varint()
    start = b.at
    numbers = [b.signed() for _ in range(8)]
    change(numbers)
    return data[:start] + b"".join(map(signed, numbers)) + data[b.at:]


class Keys:
    """A namespace's keys as bytes, to be changed and put back."""

    def __init__(self, world, redis):
        import redis as client
        self.client = client.Redis(port=redis.port)
        self.prefix = b"nps:{%s}:" % world.namespace.encode()
        self.kept = {}

    def key(self, name):
        return self.prefix + name

    def keep(self, key):
        self.kept.setdefault(key, self.client.dump(key))

    def put_back(self):
        for key, dump in self.kept.items():
            self.client.delete(key)
            self.client.restore(key, 0, dump)
        self.kept = {}

    def chunks(self):
        """{name: key}"""
        listing = self.client.hget(self.key(b"snapshot"), "chunks").decode()
        return {line.split()[0]: line.split()[1] for line in listing.rstrip().split("\n")}

    def set_chunk(self, name, data):
        """The pointer says its length."""
        key = self.chunks()[name]
        self.keep(key), self.keep(self.key(b"snapshot"))
        self.client.set(key, data)
        listing = self.client.hget(self.key(b"snapshot"), "chunks").decode().rstrip().split("\n")
        listing = ["%s %s %d" % (name, key, len(data)) if line.split()[0] == name else line for line in listing]
        self.client.hset(self.key(b"snapshot"), "chunks", "\n".join(listing) + "\n")

    def entries(self):
        return self.client.xrange(self.key(b"log"))

    def set_entries(self, entries):
        log = self.key(b"log")
        self.keep(log)
        self.client.delete(log)
        for number, fields in entries:
            self.client.xadd(log, fields, id=number)

    def change_entry(self, change, which=lambda entry: entry["rows"]):
        """change(entry) on the first entry that which() takes."""
        entries = self.entries()
        for number, fields in entries:
            entry = read_entry(fields[b"d"])
            assert write_entry(entry) == fields[b"d"]
            if which(entry):
                change(entry)
                fields[b"d"] = write_entry(entry)
                break
        else:
            raise AssertionError("no such entry")
        self.set_entries(entries)


def mixed(world, topic):
    """What is no ordinary event: rejected records of several reasons, late ones, and an aborted transaction between."""
    now = cluster.now_ms()
    bad = [b"no JSON", b"\x00framed", b'{"id":"a"}', b"[]", cluster.event("x", score=11), cluster.event("x", at_ms=now + 3_600_000),
           b'{"id":"a","id":"b"}', b'"\xff"', json.dumps({"revision": 1}).encode()]
    late = [cluster.event("late%d" % i, at_ms=now - 8 * 86_400_000) for i in range(5)]
    world.kafka.send(topic, [{"value": value, "key": b"k%d" % i} for i, value in enumerate(bad + late)])
    client = world.kafka.producer(**{"transactional.id": "t-" + world.unique})
    client.init_transactions(60)
    for commit in (True, False):
        client.begin_transaction()
        for i in range(10):
            client.produce(topic, cluster.event("tx%s%d" % (commit, i), touchpoint="in a transaction"), key=b"k%d" % i)
        assert client.flush(60) == 0
        client.commit_transaction(60) if commit else client.abort_transaction(60)


def counted(world, redis):
    return int(world.health(redis).get("accepted", 0))


def test_equal_while_it_counts(world):
    """Two instances, two topics, a snapshot every second, everything that is not an ordinary event: equal again and again; and
    nothing in Redis or Kafka has changed by being looked at."""
    redis, topics = world.redis(), [world.topic(3), world.topic(1, suffix="-b")]
    more = dict(windows=WINDOWS, aggregate__snapshot="1s")
    consumers = [world.consumer(topics, redis, **more) for _ in range(2)]
    loads = [world.load(topic, 500, seed=i) for i, topic in enumerate(topics)]
    mixed(world, topics[0])
    wait_for(lambda: counted(world, redis) > 2000, 60, "events are counted")
    before = counted(world, redis)
    for i in range(4):
        wait_for(lambda: counted(world, redis) > before, 60, "more is counted")
        code, last, said = verify(world, redis, topics, **more)
        assert code == EQUAL and last.startswith("equal: "), said
    # It read what was counted meanwhile, not what there was at first.
    assert int(said.split("accepted ")[1].split()[0]) > before, said
    truth = cluster.add_truths(*[load.end() for load in loads])
    world.caught_up(redis)
    assert cluster.events_of(truth) > 2000
    for consumer in consumers:
        assert consumer.stop() == 0
    for key in redis.keys():
        if 0 < redis.call("PTTL", key) < 60_000:
            redis.call("DEL", key)  # would expire by itself
    def stand():
        return {key: redis.call("DUMP", key) for key in redis.keys()}, {
            g.id for g in world.kafka.admin.list_groups(timeout=20) if world.unique in g.id}
    keys, groups = stand()
    code, last, said = verify(world, redis, topics, **more)
    assert code == EQUAL, said
    now = stand()
    # The broker may have forgotten a group that is empty; there is none that was not there.
    assert now[0] == keys and now[1] <= groups
    for part in ("rejected 9", "late 5"):
        assert part in said, said
    assert int(said.split("holes ")[1].split()[0]) >= 10, said
    # One topic of two: the series hold both.
    code, last, said = verify(world, redis, topics[0], **more)
    assert code == 2 and "counts topic %s too" % topics[1] in said, said


@pytest.fixture
def stopped(world):
    """(redis, topic, keys): a namespace that nobody writes any more. Its snapshot is old and its log long, because the consumer was killed."""
    redis, topic = world.redis(), world.topic(2)
    more = dict(windows=WINDOWS, aggregate__snapshot="1h")
    consumer = world.consumer(topic, redis, **more)
    truth = world.simulate(topic, count=3000).finish()
    mixed(world, topic)
    world.caught_up(redis)
    assert cluster.events_of(truth) == 3000
    # However few commits the events came in, an idle one is added every second.
    wait_for(lambda: redis.call("XLEN", "nps:{%s}:log" % world.namespace) >= 6, 30, "the log is long")
    consumer.kill()
    return redis, topic, Keys(world, redis)


def test_one_changed_number_in_the_log(world, stopped):
    redis, topic, keys = stopped
    assert verify(world, redis, topic)[0] == EQUAL

    def row(entry):
        return next(row for row in entry["rows"] if 2 in row[2])[2]

    def rich(entry):
        """What can be changed in all of these ways: the first commit may have a few events only."""
        return len(entry["rows"]) > 1 and any(2 in row[2] for row in entry["rows"]) and \
            any(3 <= i < 14 for row in entry["rows"] for i in row[2])

    def more_answers(entry):
        row(entry)[2] += 1

    def other_score(entry):
        counters = next(row[2] for row in entry["rows"] if any(3 <= i < 14 for i in row[2]))
        score = next(i for i in counters if 3 <= i < 14)
        count = counters.pop(score)
        counters[score - 1 if score > 3 else score + 1] = counters.get(score - 1 if score > 3 else score + 1, 0) + count

    def other_second(entry):
        entry["rows"][0][1] -= 400
        if len(entry["rows"]) > 1:
            entry["rows"][1][1] += 400

    def lost(entry):
        """One record counted as a hole."""
        entry["rows"].pop()
        part = next(part for part in entry["parts"] if part["accepted"])
        part["accepted"] -= 1
        part["holes"] += 1

    def doubled(entry):
        """One record counted twice, the one behind it as if it had been the same."""
        counters = row(entry)
        for i in counters:
            counters[i] *= 2

    def other_touchpoint(entry):
        mask, names = entry["cells"][0]
        names[0] = b"nowhere"

    def late(entry):
        part = next(part for part in entry["parts"] if part["accepted"])
        part["accepted"] -= 1
        part["late"] += 1

    def invented(entry):
        part = next(part for part in entry["parts"] if part["accepted"])
        part["accepted"] += 1

    wanted = {more_answers: "answers: ", other_score: "score ", other_second: "window ", lost: "accepted: ", doubled: "window ",
              other_touchpoint: "series ", late: "accepted: ", invented: "what became of them adds up to"}
    for change, part in wanted.items():
        keys.change_entry(change, rich)
        code, last, said = verify(world, redis, topic)
        assert code == DIFFERS and last.startswith("not equal: "), (change.__name__, said)
        assert part in difference(said), (change.__name__, said)
        keys.put_back()
    # An entry taken out of the middle, and one that is not an entry: the log cannot be read.
    entries = keys.entries()
    keys.set_entries(entries[:2] + entries[3:])
    code, last, said = verify(world, redis, topic)
    assert code == DAMAGED and "as its predecessor" in said, said
    entries[2][1][b"d"] = entries[2][1][b"d"][:-1]
    keys.set_entries(entries)
    code, last, said = verify(world, redis, topic)
    assert code == DAMAGED and "log entry %s" % entries[2][0].decode() in said, said
    keys.put_back()
    # A position.
    positions = keys.key(b"positions")
    for step in (-1, 1):
        keys.keep(positions)
        field = sorted(keys.client.hkeys(positions))[0]
        value = keys.client.hget(positions, field).split(b" ")
        keys.client.hset(positions, field, b" ".join([b"%d" % (int(value[0]) + step)] + value[1:]))
        code, last, said = verify(world, redis, topic)
        assert code == DIFFERS and "lead to position" in difference(said), said
        keys.put_back()
    keys.keep(positions)
    keys.client.hset(positions, topic + "/7", "12 1")
    code, last, said = verify(world, redis, topic)
    assert code == DIFFERS and "3 positions are stored" in difference(said), said
    keys.put_back()
    keys.keep(positions)
    keys.client.hset(positions, field, "twelve")
    code, last, said = verify(world, redis, topic)
    assert code == DAMAGED and "is not one that this program writes" in said, said
    keys.put_back()
    code, last, said = verify(world, redis, topic)
    assert code == EQUAL, said
    # Other rules: nobody's fault, but nothing can be said.
    code, last, said = verify(world, redis, topic, admit__late="1d")
    assert code == REFUSED and "counts by other rules" in said, said
    code, last, said = verify(world, redis, topic, "--into", "nobody")
    assert code == REFUSED and "nothing is stored" in said, said


def test_one_changed_number_in_the_snapshot(world, stopped):
    redis, topic, keys = stopped
    # A new instance folds the log and saves it all, also when it is held up where it stops.
    consumer = world.consumer(topic, redis, windows=WINDOWS, aggregate__snapshot="1s")
    world.caught_up(redis)
    wait_for(lambda: len(keys.chunks()) > 2, 30, "it is saved")
    assert consumer.stop() == 0
    assert verify(world, redis, topic)[0] == EQUAL
    chunks = {name: keys.client.get(key) for name, key in keys.chunks().items()}
    slices = sorted(name for name in chunks if name != "head")
    assert len(slices) >= 2
    for name in slices[:1] + slices[-1:]:
        changed = change_slices(chunks[name])
        # The head's hash tells.
        keys.set_chunk(name, changed)
        code, last, said = verify(world, redis, topic)
        assert code == DAMAGED and "belongs to another snapshot" in said, said
        # Whoever changed both wrote a whole, wrong snapshot.
        assert fnv(chunks[name]) in chunks["head"]
        keys.set_chunk("head", chunks["head"].replace(fnv(chunks[name]), fnv(changed)))
        code, last, said = verify(world, redis, topic)
        assert code == DIFFERS and "window %s" % name.split(".")[0] in difference(said), said
        keys.put_back()

    def late(numbers):
        numbers[2] -= 1
        numbers[3] += 1

    def accepted(numbers):
        numbers[2] += 1

    def start(numbers):
        numbers[0] += 1

    for change in (late, accepted, start):
        keys.set_chunk("head", change_head(chunks["head"], change))
        code, last, said = verify(world, redis, topic)
        assert code == DIFFERS, (change.__name__, said)
        keys.put_back()
    key = keys.chunks()[slices[0]]
    keys.keep(key)
    keys.client.delete(key)
    code, last, said = verify(world, redis, topic)
    assert code == DAMAGED and slices[0] in said, said
    keys.put_back()
    assert verify(world, redis, topic)[0] == EQUAL


def test_other_records_in_the_topic(world):
    """The namespace counted what the topic no longer says: one record there twice, one lost, another score; the topic is made anew
    with as many records."""
    from confluent_kafka.admin import NewTopic
    redis, topic = world.redis(), world.topic(1)
    now = cluster.now_ms()
    records = [{"value": cluster.event("e%d" % i, touchpoint="t%d" % (i % 7), at_ms=now - 1000 * i, score=i % 11), "timestamp": now,
                "key": b"k"} for i in range(200)]
    world.kafka.send(topic, records)
    consumer = world.consumer(topic, redis, windows=WINDOWS)
    world.caught_up(redis)
    assert consumer.stop() == 0
    assert verify(world, redis, topic)[0] == EQUAL

    def made_anew(values):
        world.kafka.admin.delete_topics([topic], operation_timeout=20)[topic].result()
        wait_for(lambda: world.kafka.leaders(topic) == 0, 30, "the topic is gone")
        wait_for(lambda: not world.kafka.admin.create_topics([NewTopic(topic, 1, 1)])[topic].exception(), 60, "the topic is there anew")
        wait_for(lambda: world.kafka.leaders(topic) == 1, 30, "it has a leader")
        world.kafka.send(topic, values)
        return verify(world, redis, topic)

    doubled = records[:50] + [records[49]] + records[51:]
    code, last, said = made_anew(doubled)
    assert code == DIFFERS and "series" in difference(said), said
    lost = records[:50] + [dict(records[50], value=b"lost")] + records[51:]
    code, last, said = made_anew(lost)
    assert code == DIFFERS and "accepted: 200 in the namespace, 199 in the topic" in difference(said), said
    anchor = int(redis.hash("nps:{%s}:positions" % world.namespace)[topic + "/0"].split(" ")[2].split(":")[0])
    other = records[:anchor] + [dict(records[anchor], value=records[anchor - 1]["value"])] + records[anchor + 1:]
    code, last, said = made_anew(other)
    assert code == DIFFERS and "the record at offset %d is not the one that was counted" % anchor in difference(said), said
    code, last, said = made_anew(records[:199])
    assert code == DIFFERS and "the topic ends at 199" in difference(said), said
    code, last, said = made_anew(records)
    assert code == EQUAL, said


def test_a_topic_that_has_lost_its_beginning(world):
    """What retention removed cannot be compared, and it is said what could be; what can be compared still is. A window that was added
    later likewise."""
    redis, topic = world.redis(), world.topic(1)
    now = cluster.now_ms()
    times = [now - 3_000_000 + 1000 * i for i in range(100)] + [now - 100_000 + 100 * i for i in range(100)]
    world.kafka.send(topic, [{"key": b"k", "value": cluster.event("e%d" % i, at_ms=at, score=i % 11), "timestamp": at}
                             for i, at in enumerate(times)])
    consumer = world.consumer(topic, redis, windows=WINDOWS)
    world.caught_up(redis)
    assert consumer.stop() == 0
    more = WINDOWS + ",10m/2s"
    consumer = world.consumer(topic, redis, windows=more)
    world.caught_up(redis)
    consumer.kill()
    assert verify(world, redis, topic)[0] == EQUAL
    code, last, said = verify(world, redis, topic, windows=more)
    assert code == IN_PART and last.startswith("equal as far as it can be verified"), said
    assert "window 5m     compared in 6 of 6" in said and "window 10m    compared in 0 of 6" in said, said
    world.kafka.delete_records(topic, {0: 90})
    code, last, said = verify(world, redis, topic)
    assert code == IN_PART and "%s/0: from offset 90 on only; counted were offsets from 0 on" % topic in said, said
    assert "window 5m     compared in 6 of 6 roll-ups, the window before it in 6" in said, said
    assert "window 1h     compared in 0 of 6 roll-ups, the window before it in 0" in said, said
    # It still sees: the newest events lie in the window of five minutes.
    keys = Keys(world, redis)
    name = max((n for n in keys.chunks() if n.startswith("5m.")), key=lambda n: int(n.split(".")[1]))
    chunk, head = (keys.client.get(keys.chunks()[n]) for n in (name, "head"))
    changed = change_slices(chunk)
    keys.set_chunk(name, changed)
    keys.set_chunk("head", head.replace(fnv(chunk), fnv(changed)))
    code, last, said = verify(world, redis, topic)
    assert code == DIFFERS and "window 5m" in difference(said), said
    keys.put_back()
    # Nothing is left.
    world.kafka.delete_records(topic, {0: 200})
    code, last, said = verify(world, redis, topic)
    assert code == IN_PART and "no window can be compared" in said, said


def test_a_replay(world):
    redis, topic = world.redis(), world.topic(2)
    start = cluster.now_ms()
    world.simulate(topic, count=2000).finish()
    end = cluster.now_ms()
    middle = (start + end) // 2
    world.replay(topic, redis, "again", start=0, end=middle, windows=WINDOWS)
    code, last, said = verify(world, redis, topic, "--into", "again", "--from", "0", "--to", str(middle))
    assert code == EQUAL and int(said.split("out of range ")[1].split()[0]) > 0, said
    code, last, said = verify(world, redis, topic, "--into", "again", "--from", "0", "--to", str(end))
    assert code == REFUSED and "--from, --to" in said, said


def test_stopped_by_ctrl_c(world):
    """Ends at once, with a code that is no verdict, however long it would wait for a broker that never answers."""
    redis = world.redis()
    forwarder = world.forwarder(int(world.kafka.bootstrap.rsplit(":", 1)[1]))
    forwarder.hold()
    settings = world.settings("t", redis, windows=WINDOWS, startup_timeout="1h",
                              set={"kafka.bootstrap.servers": "127.0.0.1:%d" % forwarder.port})
    program = cluster.Program(world, "verify", cluster.PREFIX + [cluster.CONSUMER, "verify", "--topic", "t"],
                              cluster.environment(settings))
    wait_for(lambda: forwarder.held, 30, "it asks the broker")
    assert program.stop(signal.SIGINT, timeout=30) == STARTUP
