"""The independent answer: what Apache's own console consumer reads, counted again in Python, against what is in Redis.

Shares nothing with the program: another client reads, tests/oracle/recount.py counts."""

import heapq
import json
import os
import sys

import cluster

sys.path.insert(0, os.path.join(cluster.ROOT, "tests", "oracle"))
from recount import Recount, detractor, passive, promoter, series_id  # noqa: E402

ROLLUPS = ["touchpoint", "channel", "segment", "stage", "touchpoint|channel", "all"]
# The recount's names of fields that a view has otherwise, or not at all.
ONLY_RECOUNT = {"rollup", "window", "id", "now", "previous"}
LATE_MS, FUTURE_MS = 7 * 86_400_000, 60_000  # the defaults of admit.late and admit.future

# read_committed from the first record on; a line each: CreateTime:T|Partition:P|Offset:O|headers|key|value
READ_ALL = ["--from-beginning", "--isolation-level", "read_committed",
            "--property", "print.timestamp=true", "--property", "print.partition=true",
            "--property", "print.offset=true", "--property", "print.headers=true", "--property", "print.key=true",
            "--property", "key.separator=|"]


def parse_line(line):
    """(timestamp, partition, offset, value) of one line (bytes), None for anything else that is printed."""
    parts = line.split(b"|", 5)
    if len(parts) != 6 or not parts[0].startswith((b"CreateTime:", b"LogAppendTime:")):
        return None
    return (int(parts[0].split(b":")[1]), int(parts[1].split(b":")[1]), int(parts[2].split(b":")[1]), parts[5])


def console_consumer(kafka, topic, messages):
    """[(timestamp, partition, offset, value)] as Apache's own consumer sees the committed records."""
    out = kafka.tool("console-consumer", "--topic", topic, "--max-messages", str(messages), "--timeout-ms", "60000",
                     *READ_ALL)
    found = (parse_line(line.encode("utf-8", "surrogateescape")) for line in out.split("\n"))
    return [record for record in found if record]


def event_of(value):
    """The plain form, as docs/events.md says, in the recount's terms; only well-formed ones are sent here."""
    found = json.loads(value)
    names = {"touchpoint": found["touchpoint"], "channel": found.get("channel"), "segment": found.get("segment"),
             "stage": found.get("stage")}
    for folded in ("channel", "stage"):
        if names[folded]:
            names[folded] = "".join(c.lower() if c.isascii() else c for c in names[folded])
    value_ = found.get("value")
    at = cluster.event_ms(found)
    return {"second": at // 1000, "ms": at, "type": found["type"], "scale": found.get("scale"),
            "score": int(found["score"]) if "score" in found else None,
            "value": round(float(value_) * 100) if value_ is not None else None,
            "dimensions": {name: text.encode() for name, text in names.items() if text}}


def recount_at(records, clock, windows, minimum_n=5):
    """Every view at the clock, by looking at every record again for each of them."""
    recount = Recount(windows, ROLLUPS, minimum_n=minimum_n)
    for record in records:
        recount.add(event_of(record[3]))
    recount.advance(clock)
    return recount.views()


def differences(found, expected, namespace, clock, minimum_n=5):
    """found: {key: hash}; expected: {(rollup, window, id): view}. A view says its numbers at its own as_of_ms, and
    they still hold at the clock."""
    wrong = []
    for (rollup, window, id_), view in expected.items():
        key = "nps:{%s}:%s:%s:%s" % (namespace, rollup, id_, window)
        have = found.get(key)
        if not have:
            # A series is in no view when nothing of it is in this window and the one before.
            if any(view["now"]) or any(view["previous"]):
                wrong.append("%s is missing" % key)
            continue
        if int(have["as_of_ms"]) > clock:
            wrong.append("%s: as_of_ms %s is ahead of %d" % (key, have["as_of_ms"], clock))
        want = {f: v for f, v in view.items() if f not in ONLY_RECOUNT and f not in ("as_of_ms", "window_start_ms")}
        # Below the minimum the other families' means are withheld as well.
        for family, fields in (("csat_n", ("csat_mean", "csat_share")), ("ces_n", ("ces_mean",))):
            want.setdefault(family, 0)
            if want[family] < minimum_n:
                for field in fields:
                    want.pop(field, None)
        for field, value in want.items():
            text = have.get(field)
            if text is None or abs(float(text) - value) > 1e-6 * max(1, abs(value)):
                wrong.append("%s: %s is %s, recounted %s" % (key, field, text, value))
        for field in set(have) - set(want) - {"as_of_ms", "window_start_ms"}:
            wrong.append("%s: %s is %s, recounted as withheld" % (key, field, have[field]))
    return wrong


# Everything in one atomic step: health with its positions, and every view.
READ = """
local found = {}
for _, key in ipairs(KEYS) do
  found[#found + 1] = redis.call('HGETALL', key)
end
return found
"""


def picture(redis, namespace, windows):
    """(health, {key: view}) of one moment between two ticks, or None while a tick is being written."""
    def names():
        return sorted(k for k in redis.keys("nps:{%s}:*" % namespace) if k.rsplit(":", 1)[1] in windows and
                      ":health:" not in k and ":rank:" not in k and ":trend:" not in k)
    health_key, keys = "nps:{%s}:health" % namespace, names()
    reply = redis.call("EVAL", READ, 1 + len(keys), health_key, *keys)
    hashes = [dict(zip(flat[::2], flat[1::2])) for flat in reply]
    health, views = hashes[0], dict(zip(keys, hashes[1:]))
    if not health or any(v and int(v["as_of_ms"]) > int(health["as_of_ms"]) for v in views.values()):
        return None
    # A series that a tick brought between the names and their values would be taken for a lost one.
    if not set(names()) <= set(keys):
        return None
    return health, {k: v for k, v in views.items() if v}


def health_positions(health):
    """{"topic/partition": next offset} as health says."""
    return {field[len("position:"):]: int(value) for field, value in health.items() if field.startswith("position:")}


# ---- counting under way, for long runs ----

class Reader:
    """Apache's console consumer on one topic, running all the time; what it has read so far, by partition. It is a
    group's member and may print a record again after a rebalance: the first time counts."""

    def __init__(self, world, topic):
        self.world, self.topic = world, topic
        self.records = {}  # partition -> [(offset, fate, event)] in the order of offsets
        self.raw = []  # every record as it was read, for a recount of the whole
        self._start()

    def _start(self):
        kafka = self.world.kafka
        self.program = cluster.Program(
            self.world, self.world.number("java-reader"),
            [cluster.KAFKA_TOOL, "console-consumer", "--dir", kafka.directory, "--topic", self.topic, *READ_ALL,
             "--consumer-property", "metadata.max.age.ms=1000"], dict(os.environ))
        self.program.ended_on_purpose = True  # nobody waits for its end
        self.read_to, self.rest = 0, b""

    def refresh(self):
        """Takes in what it has printed since."""
        with open(self.program.out_path, "rb") as out:
            out.seek(self.read_to)
            data = out.read()
        self.read_to += len(data)
        lines = (self.rest + data).split(b"\n")
        self.rest = lines.pop()
        for line in lines:
            record = parse_line(line)
            if record:
                self._take(record)
        if not self.program.running():
            self._start()  # from the first record again

    def _take(self, record):
        timestamp, partition, offset, value = record
        have = self.records.setdefault(partition, [])
        if have and offset <= have[-1][0]:
            return
        try:
            event, fate = event_of(value), "accepted"
            if event["ms"] > timestamp + FUTURE_MS:
                event, fate = None, "rejected"
            elif event["ms"] < timestamp - LATE_MS:
                event, fate = None, "late"
        except (ValueError, KeyError, TypeError):
            event, fate = None, "rejected"
        have.append((offset, fate, event))
        self.raw.append(record)

    def covers(self, positions):
        """True when it has read up to these; positions: {partition: next offset}. Behind a transaction's marker this
        needs a further record."""
        self.refresh()
        return all(next_ == 0 or (self.records.get(p) and self.records[p][-1][0] >= next_ - 1)
                   for p, next_ in positions.items())


class Tally:
    """Counts of every series from all records below some positions, as of a clock; kept up step by step, so that asking
    often is cheap. Asked for less than before, it begins anew."""

    def __init__(self, reader):
        self.reader = reader
        self._begin()

    def _begin(self):
        self.series = {}  # (rollup, id) -> the recount's 29 counters
        self.fates = {"accepted": 0, "rejected": 0, "late": 0}
        self.at, self.positions, self.clock = {}, {}, 0
        self.waiting = []  # (second, number, event) ahead of the clock

    def upto(self, positions, clock):
        if clock < self.clock or any(positions.get(p, 0) < offset for p, offset in self.positions.items()):
            self._begin()
        self.positions, self.clock = dict(positions), clock
        for partition, end in positions.items():
            records, i = self.reader.records.get(partition, []), self.at.get(partition, 0)
            while i < len(records) and records[i][0] < end:
                offset, fate, event = records[i]
                self.fates[fate] += 1
                if event:
                    heapq.heappush(self.waiting, (event["second"], partition, offset, event))
                i += 1
            self.at[partition] = i
        while self.waiting and self.waiting[0][0] <= clock // 1000:
            self._count(heapq.heappop(self.waiting)[3])

    def _count(self, event):
        amounts = [(i, n) for i, n in enumerate(Recount.counters([event])) if n]
        for rollup in ROLLUPS:
            id_ = series_id(rollup, event["dimensions"])
            if id_ is not None:
                counters = self.series.setdefault((rollup, id_), [0] * 29)
                for i, n in amounts:
                    counters[i] += n


def counts_of(counters):
    """The integers that a view shows of the recount's 29 counters (with minimum_n 1), and the two scores."""
    histogram = counters[3:14]
    p = sum(n for score, n in enumerate(histogram) if promoter(score))
    q = sum(n for score, n in enumerate(histogram) if passive(score))
    d = sum(n for score, n in enumerate(histogram) if detractor(score))
    found = {"interactions": counters[0], "invitations": counters[1], "answers": counters[2], "n": p + q + d,
             "csat_n": sum(counters[17:22]), "ces_n": sum(counters[22:29]), "previous_n": 0}
    if p + q + d:
        found.update(promoters=p, passives=q, detractors=d, nps=100 * (p - d) / (p + q + d))
        if sum(counters[14:17]) > 0:
            found["value_nps"] = 100 * (counters[14] - counters[16]) / sum(counters[14:17])
    return found


class Verdict:
    """What differs: lost and double-counted records, and every difference as a sentence."""

    def __init__(self):
        self.lost = self.double = 0
        self.wrong = []


def judge(taken, tally, topic, namespace, window, gap=0):
    """Compares a picture() with all records below its own positions, at its own clock. The window must be one that holds
    everything ever sent; gap: offsets that are known to have gone before anybody could read them. The reader must
    cover the positions."""
    health, views = taken
    verdict = Verdict()
    positions = {int(field.rsplit("/", 1)[1]): offset for field, offset in health_positions(health).items()
                 if field.rsplit("/", 1)[0] == topic}
    clock = int(health["as_of_ms"])
    tally.upto(positions, clock)

    # Every record has one fate, and every offset below the positions is accounted for.
    found = {name: int(health[name]) for name in ("accepted", "late", "duplicate", "out_of_range", "holes", "gap")}
    found["rejected"] = sum(int(v) for f, v in health.items() if f.startswith("rejected:"))
    want = dict(tally.fates, duplicate=0, out_of_range=0, gap=gap)
    want["holes"] = sum(positions.values()) - gap - sum(tally.fates.values())
    for name, value in want.items():
        if found[name] != value:
            verdict.wrong.append("health: %s is %d, recounted %d" % (name, found[name], value))
    verdict.lost = max(0, want["accepted"] - found["accepted"])
    verdict.double = max(0, found["accepted"] - want["accepted"])

    per_rollup = {rollup: [0, 0] for rollup in ROLLUPS}
    names = {"nps:{%s}:%s:%s:%s" % (namespace, *series, window): series for series in tally.series}
    for key in sorted(set(names) | {k for k in views if k.rsplit(":", 1)[1] == window}):
        rollup = names[key][0] if key in names else key.split("}:", 1)[1].split(":", 1)[0]
        expected = counts_of(tally.series[names[key]]) if key in names else counts_of([0] * 29)
        have = views.get(key, {})
        for field, value in expected.items():
            if field in have and abs(float(have[field]) - value) <= 1e-6 * max(1, abs(value)):
                continue
            verdict.wrong.append("%s: %s is %s, recounted %s" % (key, field, have.get(field, "missing"), value))
        for field in ("interactions", "invitations", "answers"):
            off = int(have.get(field, 0)) - expected[field]
            per_rollup[rollup][off > 0] += abs(off)
    # A record counts in up to six roll-ups: the worst of them says how many records.
    verdict.lost = max([verdict.lost] + [lost for lost, _ in per_rollup.values()])
    verdict.double = max([verdict.double] + [double for _, double in per_rollup.values()])
    return verdict
