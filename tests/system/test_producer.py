"""livenps-producer against a real broker. What was written is read back by Apache's console consumer, and counted here in a
few lines of Python that know nothing of the C code."""

import calendar
import collections
import fcntl
import glob
import json
import os
import re
import signal
import struct
import subprocess
import termios
import time
from datetime import datetime, timezone

import pytest

from cluster import wait_for
from kafka_fixture import ROOT, Kafka

BUILD = os.environ.get("BUILD_DIR", os.path.join(ROOT, "build", "release"))
PRODUCER = os.path.join(BUILD, "livenps-producer")
EXAMPLES = os.path.join(ROOT, "config", "examples")
HOUR_MS = 3600 * 1000


@pytest.fixture(scope="module")
def kafka(tmp_path_factory):
    kafka = Kafka(tmp_path_factory.mktemp("producer") / "kafka")
    yield kafka
    kafka.down()


@pytest.fixture(scope="module")
def fragile(tmp_path_factory):
    """A broker that may be stopped."""
    kafka = Kafka(tmp_path_factory.mktemp("fragile") / "kafka", private=True)
    yield kafka
    kafka.down()


def environment():
    return {name: value for name, value in os.environ.items() if not name.startswith("LIVENPS_")}


def producer(*arguments, stdin=None, timeout=300):
    return subprocess.run([PRODUCER, *map(str, arguments)], input=stdin, capture_output=True, text=True, timeout=timeout,
                          env=environment(), **({} if stdin is not None else {"stdin": subprocess.DEVNULL}))


def begun(*arguments, **more):
    return subprocess.Popen([PRODUCER, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=environment(), **more)


def to(kafka, topic):
    return ["--bootstrap-servers", kafka.servers, "--topic", topic]


def simulated(*arguments):
    done = producer("simulate", "--dry-run", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def event_ms(event):
    match = re.fullmatch(r"(.{19})(?:\.(\d{1,3})\d*)?Z", event["time"])
    return calendar.timegm(datetime.strptime(match[1], "%Y-%m-%dT%H:%M:%S").timetuple()) * 1000 + \
        int((match[2] or "").ljust(3, "0"))


def flat(value):
    """The event of a plain or structured CloudEvents value."""
    event = json.loads(value)
    if "specversion" in event:
        event = {"id": event["id"], "type": event["type"].rsplit(".", 1)[1], "time": event["time"], **event["data"]}
    return event


# ---- the recount ----

def encoded(name):
    return re.sub(r"[:%{}|]", lambda m: "%%%02X" % ord(m[0]), name)


def hundredths(literal):
    sign = -1 if literal.startswith("-") else 1
    whole, _, decimals = literal.lstrip("-").partition(".")
    return sign * (int(whole) * 100 + int(decimals.ljust(2, "0") or 0))


def recount(values):
    """{(rollup, id, second): counters} of JSON texts."""
    result = {}
    for value in values:
        event = flat(value)
        names = {d: encoded(event[d]) for d in ("touchpoint", "channel", "segment", "stage") if event.get(d) is not None}
        places = [("all", "all")] + list(names.items())
        if "channel" in names:
            places.append(("touchpoint|channel", names["touchpoint"] + "|" + names["channel"]))
        for rollup, identity in places:
            line = result.setdefault((rollup, identity, event_ms(event) // 1000), {
                "histogram": [0] * 11, "csat": [0] * 5, "ces": [0] * 7, "interactions": 0, "invitations": 0, "answers": 0,
                "value_promoters": 0, "value_passives": 0, "value_detractors": 0})
            if event["type"] != "answer":
                line[event["type"] + "s"] += 1
                continue
            line["answers"] += 1
            score = event["score"]
            if event["scale"] == "nps":
                line["histogram"][score] += 1
                if "value" in event:
                    kind = "promoters" if score >= 9 else "passives" if score >= 7 else "detractors"
                    line["value_" + kind] += hundredths(re.search(r'"value":(-?[\d.]+)', value)[1])
            else:
                line[event["scale"]][score - 1] += 1
    return result


def truth_of(path):
    result = {}
    with open(path, encoding="utf-8") as f:
        for line in map(json.loads, f):
            key = (line.pop("rollup"), line.pop("id"), line.pop("second"))
            assert key not in result
            result[key] = line
    return result


# ---- simulate ----

def test_same_options_give_the_same_bytes():
    options = ["--count", 20000, "--start", "2026-01-05T00:00:00Z", "--seed", 42, "--touchpoints", 40]
    events = simulated(*options)
    assert len(events) == 20000
    assert simulated(*options) == events
    assert simulated(*options, "--rate", 100000) == events
    assert simulated(*options[:1], 500, *options[2:]) == events[:500]
    assert simulated(*options[:-3], 43, *options[-2:]) != events
    assert simulated(*options, "--incident") != events
    assert [flat(e) for e in simulated(*options, "--cloudevents")] == [flat(e) for e in events]


@pytest.mark.parametrize("form", [[], ["--cloudevents"]])
def test_truth_is_a_recount_of_what_the_broker_holds(kafka, tmp_path, form):
    topic = kafka.topic(6)
    before_ms = time.time() * 1000
    done = producer("simulate", *to(kafka, topic), "--count", 40000, "--rate", "max", "--truth", tmp_path / "truth",
                    "--seed", 5, *form)
    assert done.returncode == 0, done.stderr
    assert "40000 events sent, 40000 acknowledged, 0 not" in done.stdout
    records = kafka.read(topic)
    after_ms = time.time() * 1000
    assert len(records) == 40000
    assert truth_of(tmp_path / "truth") == recount(record.value for record in records)
    ids = set()
    for record in records:
        event = flat(record.value)
        ids.add(event["id"])
        assert record.key == event.get("customer", event["id"])
        assert before_ms - 1000 <= record.timestamp <= after_ms
        assert -30000 <= record.timestamp - event_ms(event) <= HOUR_MS
    assert len(ids) == 40000
    lateness = sorted(record.timestamp - event_ms(flat(record.value)) for record in records)
    assert lateness[0] < -10000 and lateness[len(lateness) // 2] < 2000 and lateness[-1] > HOUR_MS / 2


def test_history_is_written_as_it_is_printed(kafka, tmp_path):
    topic = kafka.topic(4, retention_ms=-1)
    options = ["--count", 20000, "--start", "2026-01-05T09:00:00Z", "--seed", 3, "--incident"]
    done = producer("simulate", *to(kafka, topic), *options, "--truth", tmp_path / "truth")
    assert done.returncode == 0, done.stderr
    records = kafka.read(topic)
    events = simulated(*options)
    assert sorted(record.value for record in records) == sorted(events)
    assert truth_of(tmp_path / "truth") == recount(events)
    # In each partition in the order of sending, with record timestamps that admit every event.
    place = {event: i for i, event in enumerate(events)}
    last = {}
    for record in records:
        assert record.partition not in last or last[record.partition] < (place[record.value], record.timestamp)
        last[record.partition] = (place[record.value], record.timestamp)
        assert -30000 <= record.timestamp - event_ms(json.loads(record.value)) <= HOUR_MS
    assert min(event_ms(json.loads(e)) for e in events) >= 1767603600000


@pytest.mark.sanitize
def test_a_signal_ends_a_simulation_with_its_truth(kafka, tmp_path):
    topic = kafka.topic(2)
    process = begun("simulate", *to(kafka, topic), "--rate", 3000, "--truth", tmp_path / "truth")
    while kafka.count(topic) < 1000:
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    records = kafka.read(topic)
    assert "%d events sent, %d acknowledged, 0 not" % (len(records), len(records)) in out
    assert truth_of(tmp_path / "truth") == recount(record.value for record in records)


@pytest.mark.long
def test_truth_counts_what_a_broker_that_went_away_has(fragile, tmp_path):
    topic = fragile.topic(2)
    process = begun("simulate", *to(fragile, topic), "--rate", 2000, "--truth", tmp_path / "truth")
    wait_for(lambda: fragile.count(topic) > 1000, 60, "events are written")
    fragile.stop(kill=True)
    time.sleep(1)
    fragile.start()
    # After the signal it waits ten seconds for the broker, not longer.
    before = fragile.count(topic)
    wait_for(lambda: fragile.count(topic) > before + 1000, 60, "events are written again")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    records = fragile.read(topic)
    assert "%d events sent, %d acknowledged, 0 not" % (len(records), len(records)) in out
    assert truth_of(tmp_path / "truth") == recount(record.value for record in records)


# ---- publish ----

def assert_same_lines(kafka, topic, lines):
    records = kafka.read(topic)
    wrote = [record.value for record in records]
    assert collections.Counter(wrote) == collections.Counter(lines)
    # One customer's events stay in one partition and in order.
    order, home = collections.defaultdict(list), {}
    for record in records:
        assert home.setdefault(record.key, record.partition) == record.partition
        order[record.key].append(record.value)
    wanted = collections.defaultdict(list)
    for line in lines:
        event = flat(line)
        wanted[event.get("customer", event["id"])].append(line)
    assert order == wanted


@pytest.mark.sanitize
def test_every_line_arrives_once(kafka, tmp_path):
    topic = kafka.topic(5)
    lines = simulated("--count", 30000)
    (tmp_path / "one").write_text("\n".join(lines[:20000]) + "\n\n")
    (tmp_path / "two").write_text("\r\n".join(lines[20000:25000]))
    begin_ms = time.time() * 1000
    done = producer("publish", *to(kafka, topic), tmp_path / "one", tmp_path / "two", "-", stdin="\n".join(lines[25000:]))
    assert done.returncode == 0, done.stderr
    assert "30000 records read, 30000 acknowledged, 0 not, 0 invalid" in done.stdout
    assert_same_lines(kafka, topic, lines)
    assert all(begin_ms - 1000 <= record.timestamp <= time.time() * 1000 for record in kafka.read(topic))


def test_invalid_lines_are_told_and_skipped(kafka, tmp_path):
    topic = kafka.topic(1)
    good = simulated("--count", 3)
    lines = [good[0], '{"id":"x"', good[1], good[2].replace('"touchpoint"', '"place"'), "[]", good[2]]
    (tmp_path / "mixed").write_text("\n".join(lines) + "\n")
    done = producer("publish", *to(kafka, topic), tmp_path / "mixed")
    assert done.returncode == 1
    told = done.stderr.splitlines()
    assert re.fullmatch(r".*/mixed:2:10: malformed: .*", told[0])
    assert re.fullmatch(r".*/mixed:4:1: missing_field: .*\(touchpoint\)", told[1])
    assert re.fullmatch(r".*/mixed:5:1: not_object: .*", told[2])
    assert "6 records read, 3 acknowledged, 0 not, 3 invalid" in done.stdout
    assert [record.value for record in kafka.read(topic)] == good


def test_broker_restarted_meanwhile(fragile):
    topic = fragile.topic(3)
    lines = simulated("--count", 60000)
    process = begun("publish", *to(fragile, topic), "-", stdin=subprocess.PIPE)
    try:
        # In pieces, so that the restart falls in the middle.
        for i in range(0, len(lines), 1000):
            process.stdin.write("\n".join(lines[i:i + 1000]) + "\n")
            process.stdin.flush()
            if i == 20000:
                fragile.stop(kill=True)
            if i == 30000:
                time.sleep(1)
                fragile.start()
            time.sleep(0.02)
    finally:
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "60000 records read, 60000 acknowledged, 0 not, 0 invalid" in out
    assert_same_lines(fragile, topic, lines)


def how_far(text):
    match = re.search(r"publish: every record up to (.*):(\d+) is acknowledged(?:, and (\d+) after it)?;", text)
    assert match, text
    return match[1], int(match[2]), int(match[3] or 0)


def test_ctrl_c_says_where_to_resume(kafka, tmp_path):
    topic = kafka.topic(3)
    lines = simulated("--count", 50000) * 12
    path = tmp_path / "events"
    path.write_text("\n".join(lines) + "\n")
    # A short queue, so that reading does not run far ahead of the broker; and slowly, so that not all is sent when the signal comes.
    process = begun("publish", *to(kafka, topic), "--set", "kafka.queue.buffering.max.messages=500", "--set", "kafka.linger.ms=200", path)
    while kafka.count(topic) < 1000:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130, out + err
    name, line, after = how_far(err)
    assert name == str(path) and after == 0 and 1000 <= line < len(lines)
    assert kafka.count(topic) == line
    assert "%d records read, %d acknowledged, 0 not" % (line, line) in out or \
        "%d records read, %d acknowledged, 0 not" % (line + 1, line) in out
    # The way it says.
    command = re.search(r"resume with: (tail -n \+\d+ \S+) \| livenps-producer publish", err)[1]
    rest = subprocess.run(command.split(), capture_output=True, text=True, check=True).stdout
    done = producer("publish", *to(kafka, topic), "-", stdin=rest)
    assert done.returncode == 0, done.stderr
    assert kafka.count(topic) == len(lines)


def has_read_all(process):
    """Waits until nothing is left in its stdin, and it sleeps: what it took out of there is handed to its client then."""
    def idle():
        left = struct.unpack("i", fcntl.ioctl(process.stdin, termios.FIONREAD, b"\0" * 4))[0]
        with open("/proc/%d/stat" % process.pid) as f:
            state = f.read().rpartition(")")[2].split()[0]
        times.append(not left and state == "S")
        return all(times[-10:]) and len(times) >= 10
    times = []
    wait_for(idle, 60, "all of stdin is read")


def test_ctrl_c_while_the_broker_is_away(fragile, tmp_path):
    topic = fragile.topic(1)
    path = tmp_path / "events"
    lines = simulated("--count", 3000)
    process = begun("publish", *to(fragile, topic), "-", stdin=subprocess.PIPE)
    process.stdin.write("\n".join(lines[:1000]) + "\n")
    process.stdin.flush()
    while fragile.count(topic) < 1000:
        assert process.poll() is None
    fragile.stop()
    try:
        process.stdin.write("\n".join(lines[1000:]) + "\n")
        process.stdin.flush()
        has_read_all(process)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=300)  # before stdin is closed, which is an end of its own
        out, err = process.communicate()
    finally:
        fragile.start()
    assert process.returncode == 4, out + err
    assert how_far(err) == ("(stdin)", 1000, 0)
    assert "3000 records read, 1000 acknowledged, 2000 not" in out
    path.write_text("\n".join(lines) + "\n")
    done = producer("publish", *to(fragile, topic), "-", stdin="\n".join(lines[1000:]) + "\n")
    assert done.returncode == 0, done.stderr
    assert_same_lines(fragile, topic, lines)


def test_a_stream_that_is_stopped_is_done(kafka):
    topic = kafka.topic(1)
    process = begun("publish", *to(kafka, topic), stdin=subprocess.PIPE)
    for line in simulated("--count", 5):
        process.stdin.write(line + "\n")
    process.stdin.flush()
    while kafka.count(topic) < 5:  # also while nothing more comes
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=300) == 0  # before stdin is closed, which is an end of its own
    assert how_far(process.communicate()[1]) == ("(stdin)", 5, 0)


# ---- history ----

@pytest.fixture
def old(tmp_path):
    path = tmp_path / "old"
    path.write_text("\n".join(simulated("--count", 500, "--start", "2026-01-05T08:00:00Z")) + "\n")
    return path


@pytest.mark.parametrize("config, advice", [
    ({}, "retention.ms=-1"),
    ({"retention_ms": -1, "message_timestamp_before_max_ms": 86400000}, "message.timestamp.before.max.ms"),
    ({"retention_ms": -1, "message_timestamp_type": "LogAppendTime"}, "message.timestamp.type=CreateTime"),
])
def test_history_that_would_not_be_kept_is_refused(kafka, old, config, advice):
    topic = kafka.topic(1, **config)
    for command in (["publish", *to(kafka, topic), "--history", old],
                    ["simulate", *to(kafka, topic), "--start", "2026-01-05T08:00:00Z", "--count", 100]):
        done = producer(*command)
        assert done.returncode == 6, done.stderr
        assert advice in done.stderr and topic in done.stderr and len(done.stderr.splitlines()) == 1
    with open(old, encoding="utf-8") as f:  # a stream cannot be looked through first: refused at its first event
        done = producer("publish", *to(kafka, topic), "--history", "-", stdin=f.read())
    assert done.returncode == 6 and advice in done.stderr
    assert kafka.count(topic) == 0


def test_history_ahead_of_the_broker_is_refused(kafka, tmp_path):
    topic = kafka.topic(1, retention_ms=-1)
    soon = datetime.fromtimestamp(time.time() - 600, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    done = producer("simulate", *to(kafka, topic), "--start", soon, "--count", 300000)
    assert done.returncode == 6 and "message.timestamp.after.max.ms" in done.stderr
    assert kafka.count(topic) == 0
    # Without a count history ends now.
    begun_ms = time.time() * 1000
    done = producer("simulate", *to(kafka, topic), "--start", soon)
    assert done.returncode == 0, done.stderr
    newest_ms = max(record.timestamp for record in kafka.read(topic))
    assert begun_ms - 60000 < newest_ms <= time.time() * 1000


def test_history_carries_the_event_time(kafka, old):
    topic = kafka.topic(2, retention_ms=-1)
    done = producer("publish", *to(kafka, topic), "--history", old)
    assert done.returncode == 0, done.stderr
    records = kafka.read(topic)
    assert len(records) == 500
    assert all(record.timestamp == event_ms(json.loads(record.value)) for record in records)
    # Without --history they are late, and said to be.
    done = producer("publish", *to(kafka, topic), old)
    assert done.returncode == 1 and ": late: " in done.stderr
    assert "500 records read, 0 acknowledged, 0 not, 500 invalid" in done.stdout


def test_a_vendors_payload_by_its_mapping(kafka):
    topic = kafka.topic(1, retention_ms=-1)
    mapping = ["--set", "mappings.%s=%s" % (topic, os.path.join(ROOT, "config", "mappings", "delighted.yaml"))]
    example = os.path.join(EXAMPLES, "delighted.jsonl")
    with open(example, encoding="utf-8") as f:
        lines = f.read().splitlines()
    done = producer("publish", *to(kafka, topic), *mapping, "--history", example)
    assert done.returncode == 0, done.stderr
    assert [record.value for record in kafka.read(topic)] == lines
    assert all(record.key for record in kafka.read(topic))
    # The same lines are no events of the plain contract.
    assert producer("check", example).returncode == 1


# ---- check ----

def test_check_tells_each_event(tmp_path):
    answer = '{"id":"a-%d","type":"answer","time":"%s","touchpoint":"delivery","scale":"nps","score":%d}'
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    # The lines of docs/publishing.md, with times of their length.
    lines = [answer % (1, now, 9), answer % (2, now, 11), (answer % (3, now, 9)).replace('"touchpoint":"delivery",', "")]
    (tmp_path / "events.jsonl").write_text("\n".join(lines) + "\n")
    done = subprocess.run([PRODUCER, "check", "events.jsonl"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    with open(os.path.join(ROOT, "docs", "publishing.md"), encoding="utf-8") as f:
        document = f.read()
    for line in done.stdout.splitlines():
        assert "    %s\n" % line in document
    assert done.stderr == "check: 1 events would be admitted, 2 would not\n"
    (tmp_path / "times.jsonl").write_text("\n".join(
        answer % (4, when, 9) for when in (now, "2020-01-01T00:00:00Z", "2099-01-01T00:00:00Z")))
    done = producer("check", tmp_path / "times.jsonl")
    said = done.stdout.splitlines()
    assert said[0].endswith(":1: admitted")
    assert ":2:1: late: " in said[1] and ", were it sent now (" in said[1]
    assert ":3:1: future: " in said[2] and ", were it sent now (" in said[2]
    (tmp_path / "time.jsonl").write_text(answer % (5, "yesterday", 9))
    assert 'such as "2026-11-21T10:15:00.123Z" (time)\n' in producer("check", tmp_path / "time.jsonl").stdout


def test_check_of_good_events_needs_no_broker():
    events = "\n".join(simulated("--count", 2000) + simulated("--count", 2000, "--cloudevents"))
    done = producer("check", stdin=events)
    assert done.returncode == 0, done.stdout[-500:]
    assert done.stdout.splitlines() == ["(stdin):%d: admitted" % i for i in range(1, 4001)]


# ---- what cannot work is said in one line ----

@pytest.mark.parametrize("command", [["publish"], ["simulate", "--count", "1"]])
def test_readable_failures(kafka, command):
    done = producer(*command, *to(kafka, "no-such-topic"))
    assert done.returncode == 3 and len(done.stderr.splitlines()) == 1
    assert "no-such-topic does not exist" in done.stderr
    done = producer(*command, "--bootstrap-servers", "127.0.0.1:1", "--topic", "t", "--set", "startup_timeout=1s")
    assert done.returncode == 3 and "127.0.0.1:1" in done.stderr.splitlines()[-1]
    done = producer(*command, "--topic", "t")
    assert done.returncode == 2 and "bootstrap.servers" in done.stderr


def test_files_that_cannot_be_used(kafka, tmp_path):
    done = producer("publish", *to(kafka, "t"), tmp_path / "missing")
    assert done.returncode == 2 and "missing: No such file" in done.stderr
    done = producer("simulate", "--dry-run", "--count", "1", "--truth", tmp_path / "no" / "truth")
    assert done.returncode == 2 and "no/truth: No such file" in done.stderr and not done.stdout


# ---- embedded ----

@pytest.mark.sanitize
def test_embedded_cluster(tmp_path):
    from confluent_kafka import Consumer, TopicPartition
    cluster = begun("embedded", "--topic", "answers:3", "--topic", "other:1")
    try:
        servers = cluster.stdout.readline().strip()
        assert re.fullmatch(r"127\.0\.0\.1:\d+", servers)
        begin = time.monotonic()
        done = producer("simulate", "--bootstrap-servers", servers, "--topic", "answers", "--count", 20000,
                        "--truth", tmp_path / "truth")
        assert done.returncode == 0, done.stderr
        assert time.monotonic() - begin > 1.5  # paced: 20,000 events are 3.8 MB, 1.5 MB a second are allowed
        consumer = Consumer({"bootstrap.servers": servers, "group.id": "x", "auto.offset.reset": "earliest"})
        consumer.assign([TopicPartition("answers", p, 0) for p in range(3)])
        values = []
        deadline = time.monotonic() + 180
        while len(values) < 20000 and time.monotonic() < deadline:
            values += [message.value().decode() for message in consumer.consume(5000, timeout=0.5) if not message.error()]
        consumer.close()
        assert truth_of(tmp_path / "truth") == recount(values)
    finally:
        cluster.send_signal(signal.SIGTERM)
        out, err = cluster.communicate(timeout=60)
    assert cluster.returncode == 0, err
    assert out == ""
    done = producer("embedded", "--topic", "answers")
    assert done.returncode == 2 and "answers" in done.stderr


# ---- the programs of docs/publishing.md ----

def jars():
    cache = os.environ.get("LIVENPS_CACHE") or os.path.join(os.path.expanduser("~"), ".cache", "livenps")
    return os.path.join(glob.glob(os.path.join(cache, "kafka-*", ""))[0], "*")


def program(language, folder):
    """Writes the document's program of that language, and builds it; returns the command."""
    with open(os.path.join(ROOT, "docs", "publishing.md"), encoding="utf-8") as f:
        blocks = re.findall(r"^```%s\n(.*?)^```" % language, f.read(), re.M | re.S)
    assert len(blocks) == 1
    source = folder / {"c": "send.c", "python": "send.py", "java": "Send.java"}[language]
    source.write_text(blocks[0])
    if language == "python":
        return ["/usr/bin/python3", str(source)]
    if language == "java":
        return ["java", "-Xmx128m", "-cp", jars(), str(source)]
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "rdkafka"], capture_output=True, text=True, check=True)
    subprocess.run(["cc", "-Wall", "-Wextra", "-Werror", "-o", str(folder / "send"), str(source), *flags.stdout.split()],
                   check=True)
    return [str(folder / "send")]


def test_programs_of_the_document(kafka, tmp_path):
    topic, begun = kafka.topic(8), time.time()
    for language in ("c", "python", "java"):
        command = program(language, tmp_path)
        for customer in ("c-91", "c-2a7be0"):
            done = subprocess.run([*command, kafka.servers, topic, customer], capture_output=True, text=True, timeout=300,
                                  check=False)
            assert done.returncode == 0, "%s: %s%s" % (language, done.stdout, done.stderr)
    records = kafka.read(topic)
    assert len(records) == 6
    # Keyed alike in all three, so one customer is in one partition.
    for customer in ("c-91", "c-2a7be0"):
        mine = [record for record in records if record.key == customer]
        assert len(mine) == 3 and len({record.partition for record in mine}) == 1
        assert sorted(json.loads(record.value)["id"][0] for record in mine) == ["c", "j", "p"]
    for record in records:
        assert json.loads(record.value)["customer"] == record.key
        assert begun * 1000 - 1000 <= record.timestamp <= time.time() * 1000
    done = producer("check", stdin="\n".join(record.value for record in records))
    assert done.returncode == 0, done.stdout
