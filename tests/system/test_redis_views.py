"""docs/redis.md against a live Redis: every key and field that stands there is documented, every documented one stands
there, types and expiries are right, and so is what the pages of numbers promise beyond the truth's reach (rank, index,
trends, updates)."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import termios
import threading
import time

import pytest

import cluster
import compare_truth as ct
from cluster import event, now_ms, wait_for

ROOT = cluster.ROOT
PLACES = {  # what a placeholder of the document stands for
    "rollup": r"[a-z|]+", "id": r"[^:]+", "window": r"\d+[smhd]", "snapshot": r"[0-9a-f]+-\d+", "chunk": r"[\w.]+",
    "partition": r"[\w.-]+/\d+", "reason": r"[a-z_0-9]+"}
TYPES = {"integer": r"-?\d+", "number": r"-?\d+(\.\d+)?(e[+-]?\d+)?", "text": r"(?s)[^\0]*", "binary": r"(?s).*"}


def document():
    with open(os.path.join(ROOT, "docs", "redis.md"), encoding="utf-8") as f:
        return f.read()


def rows(text):
    """The cells of the tables in a text; a `|` in a code span is no border."""
    for line in text.split("\n"):
        if line.startswith("| `"):
            cells = [c.strip() for c in re.sub(r"`[^`]*`", lambda m: m[0].replace("|", "\1"), line).strip("|").split("|")]
            yield [c.replace("\1", "|").strip("`") for c in cells]


def pattern(name, namespace=None):
    """A name of the document as a regular expression."""
    expression = "".join(PLACES[part[1:-1]] if re.fullmatch(r"<\w+>", part) else re.escape(part)
                         for part in re.split(r"(<\w+>)", name))
    if namespace is not None:
        expression = expression.replace(re.escape("{ns}"), re.escape("{%s}" % namespace))
    return expression


def documented_keys():
    return [row[:3] for row in rows(document().split("## Keys")[1].split("\n## ")[0])]


def documented_fields():
    """{key as in the table of keys: {field: type}}"""
    text = document()
    sections = {"A view": "nps:{ns}:<rollup>:<id>:<window>", "A trend": "nps:{ns}:trend:<rollup>:<id>:<window>"}
    found = {}
    for title, body in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", text, re.M | re.S):
        if title == "Keys":
            continue
        # Within a section the key of a table is named by the last line before it that begins with one.
        key = sections.get(title)
        for line in body.split("\n"):
            named = re.match(r"`(nps:\{ns\}[^`]*)`", line)
            key = named[1] if named else key
            for row in rows(line):
                assert len(row) == 5, row
                found.setdefault(key, {})[row[0]] = (row[1], row[2], row[3])
    view = found["nps:{ns}:<rollup>:<id>:<window>"]
    found["nps:{ns}:trend:<rollup>:<id>:<window>"].update(view)
    return found


def duration(text):
    return ct.duration(text) if text else None


def kind_of(key, namespace):
    """The documented pattern a key belongs to: the one with the fewest placeholders wins."""
    matching = [k for k, _, _ in documented_keys() if re.fullmatch(pattern(k, namespace), key)]
    return min(matching, key=lambda k: (k.count("<"), -len(k))) if matching else None


def test_the_tables_can_be_read():
    keys, fields = documented_keys(), documented_fields()
    assert len(keys) >= 14 and len({k for k, _, _ in keys}) == len(keys)
    for key, type_, _ in keys:
        if type_ == "hash":
            assert fields[key], key
    for key, table in fields.items():
        for field, (type_, example, kind) in table.items():
            assert type_ in TYPES and kind in ("gauge", "counter"), (key, field)
            assert type_ == "binary" or re.fullmatch(TYPES[type_], example), (key, field, example)


def check_keys(redis, namespace, expiring):
    """Every key, its type, expiry and fields. Returns what was seen: {documented key: set of documented fields}."""
    connection = redis.connection()
    expected = {k: (t, ttl) for k, t, ttl in documented_keys()}
    fields = documented_fields()
    keys = sorted(connection.scan("*"))
    keys = [k for k in keys if k.startswith("nps:{%s}:" % namespace)]
    seen = {}
    for key in keys:
        kind = kind_of(key, namespace)
        assert kind, "%s is not in docs/redis.md" % key
        type_, ttl = expected[kind]
        have_type, have_ttl = connection.pipeline([("TYPE", key), ("PTTL", key)])
        if have_ttl == -2:
            continue  # a chunk that a new snapshot replaced meanwhile, or what expires while its writer stands still
        assert have_type == type_, key
        if kind.startswith("nps:{ns}:snapshot:"):
            # The list is read afterwards: what expires has been replaced before.
            assert have_ttl == -1 or (0 < have_ttl <= 3600000 and key not in connection.call(
                "HGET", "nps:{%s}:snapshot" % namespace, "chunks")), (key, have_ttl)
        elif not ttl or (not expiring and kind != "nps:{ns}:lease"):
            assert have_ttl == -1, (key, have_ttl)
        else:
            assert 0 < have_ttl <= duration(ttl), (key, have_ttl)
            if kind not in ("nps:{ns}:lease", "nps:{ns}:health", "nps:{ns}:health:<window>"):
                assert have_ttl > duration(ttl) / 2, (key, have_ttl)
        seen.setdefault(kind, set())
        if type_ == "hash":
            entries = [connection.hashes([key])[key]]
        elif type_ == "stream":
            entries = [dict(zip(e[1][::2], e[1][1::2])) for e in connection.call("XRANGE", key, "-", "+")]
        else:
            continue
        for entry in entries:
            for field, value in entry.items():
                names = [n for n in fields[kind] if re.fullmatch(pattern(n), field)]
                assert len(names) == 1, "%s has the field %s: %s" % (key, field, names)
                want = TYPES[fields[kind][names[0]][0]]
                nan = "trend" in kind and value == "NaN"
                assert nan or re.fullmatch(want, value), "%s: %s is %r" % (key, field, value)
                seen[kind].add(names[0])
    return seen


class Listener(threading.Thread):
    """Reads a channel on a connection of its own."""

    def __init__(self, redis, channel):
        super().__init__(daemon=True)
        self.connection = ct.Redis(redis.url, timeout=None)
        assert self.connection.call("SUBSCRIBE", channel)[:2] == ["subscribe", channel]
        self.messages = []
        self.start()

    def run(self):
        try:
            while True:
                self.messages.append(self.connection._reply()[2])
        except (OSError, ct.RedisError, ValueError, TypeError):
            pass


def busy_topic(world):
    """Events of every kind, spread over two windows of 5 minutes, and some that are rejected or late."""
    topic = world.topic(2)
    now = now_ms()
    records = []

    def add(at, **more):
        records.append({"value": event("e-%d" % len(records), at_ms=at, **more), "timestamp": now})

    for i in range(240):
        at = now - (i * 2500) % 590000 - 5000
        place = ("delivery", "a:b|{c}%", "~other")[i % 3]
        more = {"touchpoint": place, "channel": "web", "segment": "vip", "stage": "after"}
        add(at, score=(i * 7) % 11, value=12.5, **more)
        add(at, scale="csat", score=i % 5 + 1, **more)
        add(at, scale="ces", score=i % 7 + 1, **more)
        add(at, type_="invitation", **more)
        add(at, type_="interaction", **more)
    add(now - 1000, touchpoint="quiet", score=3)
    records.append({"value": b"not json", "timestamp": now})
    records.append({"value": event("old", at_ms=now - 8 * 86400000), "timestamp": now})
    world.kafka.send(topic, records)
    return topic, len(records)


@pytest.mark.sanitize
def test_keys_and_fields_are_those_of_the_document(world):
    redis = world.redis()
    topic, records = busy_topic(world)
    listener = Listener(redis, "nps:{%s}:updates" % world.namespace)
    world.consumer(topic, redis, targets="delivery=40")
    world.caught_up(redis)
    prefix = "nps:{%s}:" % world.namespace
    wait_for(lambda: redis.call("XLEN", prefix + "trend:touchpoint:delivery:1h") >= 15, 40, "trends are filled in")
    wait_for(lambda: redis.hash(prefix + "touchpoint:delivery:5m").get("change_verdict"), 20, "a change is shown")

    seen = {}

    def look():
        for key, names in check_keys(redis, world.namespace, expiring=True).items():
            seen.setdefault(key, set()).update(names)
        return seen
    look()
    # Lease and health expire where their writer stands still, and chunks are replaced while they are looked at.
    for key, type_, _ in documented_keys():
        wait_for(lambda: type_ == "channel" or key in seen or key in look(), 20, "%s, which is documented" % key)
    fields = documented_fields()
    for key, names in fields.items():
        for name in names:
            assert name in seen[key] or name == "replay_ends", "%s: %s is documented, but not there" % (key, name)

    # It names an entry; one that was committed since, and one that a snapshot has covered since, are no other.
    wait_for(lambda: redis.hash(prefix + "health")["last_commit_ms"] in {id_.split("-")[0] for id_, _ in redis.call(
        "XRANGE", prefix + "log", "-", "+")}, 20, "the last commit is one of the log's")
    health = redis.hash(prefix + "health")
    assert int(health["accepted"]) == records - 2
    assert health["rejected:malformed"] == "1" and health["late"] == "1"
    view = redis.hash(prefix + "touchpoint:delivery:1h")
    assert view["n"] == "80" and view["csat_n"] == "80" and view["ces_n"] == "80" and view["target"] == "40"
    assert view["invitations"] == "80" and view["response_rate"] == "300"
    # Withheld: absent, not 0.
    quiet = redis.hash(prefix + "touchpoint:quiet:1h")
    assert quiet["n"] == "1" and "nps" not in quiet and "promoters" not in quiet and quiet["reliable"] == "0"
    # Ids: percent-encoded, in index and rank as in the keys.
    encoded = "a%3Ab%7C%7Bc%7D%25"
    assert set(redis.call("SMEMBERS", prefix + "index:touchpoint")) == {"delivery", encoded, "%7Eother", "quiet"}
    assert set(redis.call("ZRANGE", prefix + "rank:touchpoint:1h", 0, -1)) == {"delivery", encoded, "%7Eother"}
    assert redis.call("ZSCORE", prefix + "rank:touchpoint:1h", "delivery") == view["nps"]
    assert redis.call("SMEMBERS", prefix + "index:touchpoint|channel") != []
    assert redis.hash(prefix + "touchpoint|channel:%s|web:1h" % encoded)["n"] == "80"

    # Trends: ids are ends of slices, in even steps, without doubles; complete only where all was read.
    for window, (length, step) in {"5m": (300000, 3000), "1h": (3600000, 30000)}.items():
        entries = redis.call("XRANGE", prefix + "trend:touchpoint:delivery:" + window, "-", "+")
        ends = [int(id_.split("-")[0]) for id_, _ in entries]
        assert all(end % step == 0 for end in ends) and ends == list(range(ends[0], ends[-1] + 1, step))
        assert ends[-1] - ends[0] <= length + 7 * step  # trimmed with every eighth point
        names = {tuple(values[::2]) for _, values in entries}
        assert len(names) == 1 and set(next(iter(names))) == set(fields["nps:{ns}:trend:<rollup>:<id>:<window>"])
        for end, (_, values) in zip(ends, entries):
            entry = dict(zip(values[::2], values[1::2]))
            assert entry["complete"] == "1"
            assert int(entry["window_start_ms"]) == end - length and int(entry["as_of_ms"]) == end - 1

    # Updates: what changed was named.
    wait_for(lambda: listener.messages, 10, "updates are published")
    changed = set()
    for message in map(json.loads, listener.messages):
        assert set(message) <= {"as_of_ms", "changed", "more"} and len(message["changed"]) <= 1000
        changed |= set(message["changed"])
    assert {"touchpoint:delivery:5m", "all:all:90d"} <= changed
    assert all(redis.call("EXISTS", prefix + name) for name in changed)


def test_a_replay_expires_nothing_and_writes_only_its_own_keys(world):
    redis = world.redis()
    topic, records = busy_topic(world)
    end = now_ms()
    world.replay(topic, redis, "one", 0, end)
    assert all(key.startswith("nps:{one}:") for key in redis.keys())
    check_keys(redis, "one", expiring=False)
    assert redis.hash("nps:{one}:touchpoint:delivery:1h")["n"] == "80"
    assert redis.hash("nps:{one}:health")["as_of_ms"] == str(end)
    assert redis.hash("nps:{one}:health")["complete"] == "1"


def test_nobody_writes(world):
    """health ends soon after its writer; the views stay, for a while."""
    redis = world.redis()
    topic, _ = busy_topic(world)
    consumer = world.consumer(topic, redis)
    world.caught_up(redis)
    prefix = "nps:{%s}:" % world.namespace
    table = ["table", "--once", "--window", "1h"]
    settings = world.settings(topic, redis, redis__timeout="1m")

    def written():
        code, out, _ = world.run_consumer(*table, settings=settings)
        assert code == 0, out
        return "nobody writes" not in out and out
    out = wait_for(written, 20, "somebody writes")
    assert re.search(r"delivery +[+-]\d+ ", out)
    assert re.search(r"quiet +fewer than 5 +1 ", out)
    consumer.kill()
    wait_for(lambda: not redis.call("EXISTS", prefix + "health"), 15, "health expires")
    assert redis.hash(prefix + "touchpoint:delivery:1h")["n"] == "80"
    code, out, _ = world.run_consumer(*table, settings=settings)
    assert code == 0 and "nobody writes" in out and "delivery" in out
    code, out, err = world.run_consumer("log", settings=settings)
    assert code == 0 and "lineage=" in out, err
    code, out, err = world.run_consumer(*table, settings=dict(settings, namespace="elsewhere"))
    assert code == 0 and "no data yet" in out
    code, out, err = world.run_consumer("table", "--once", "--window", "2h", settings=settings)
    assert code != 0 and "5m" in err and len(err.strip().split("\n")) == 1


class Terminal:
    """A program on a pseudo-terminal of 100 columns and 20 lines."""

    def __init__(self, command, environment, columns=100, lines=20):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            cluster.die_with_parent()
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
            os.execvpe(command[0], command, environment)
        self.text = ""

    def read(self, seconds=0.2):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if select.select([self.fd], [], [], 0.05)[0]:
                try:
                    self.text += os.read(self.fd, 65536).decode("utf-8", "replace")
                except OSError:
                    break
        return self.text

    def shows(self, pattern, timeout=20):
        wait_for(lambda: re.search(pattern, self.read()), timeout, "the table shows %r" % pattern)

    def end(self, number=signal.SIGINT):
        os.kill(self.pid, number)
        try:
            while more := os.read(self.fd, 65536):
                self.text += more.decode("utf-8", "replace")
        except OSError:  # its end
            pass
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.fd)
        return code


def test_the_table_lives(world):
    """Drawn again in place, within the terminal's width; says when Redis is away, and goes on when it is back."""
    redis = world.redis(aof=True)
    topic, _ = busy_topic(world)
    world.consumer(topic, redis)
    world.caught_up(redis)
    settings = cluster.environment(world.settings(topic, redis))
    settings.update(TERM="xterm", LC_ALL="C.UTF-8")
    settings.pop("NO_COLOR", None)
    terminal = Terminal(cluster.PREFIX + [cluster.CONSUMER, "table", "--window", "1h"], settings)
    try:
        terminal.shows(r"delivery +[+-]\d+ +[+-]\d+\.\.[+-]\d+")
        terminal.shows(r"\033\[\d+A\r")  # back up, to draw over it
        terminal.shows("●")
        terminal.shows("\033\\[32m")
        for line in re.sub(r"\033\[[0-9;?]*[A-Za-z]", "", terminal.text).replace("\r", "").split("\n"):
            assert len(line) <= 100, line
        redis.kill()
        terminal.shows("Redis is away, trying again")
        redis.start()
        terminal.text = ""
        terminal.shows(r"as of .*complete", 20)
    finally:
        code = terminal.end()
    assert code == 0
    assert terminal.text.endswith("\033[?25h"), "the cursor is shown again"

    settings["NO_COLOR"] = "1"
    terminal = Terminal(cluster.PREFIX + [cluster.CONSUMER, "table", "--window", "1h"], settings, columns=60)
    try:
        terminal.shows(r"delivery +[+-]\d+ +[+-]\d+\.\.[+-]\d+")
    finally:
        assert terminal.end(signal.SIGTERM) == 0
    assert not re.search(r"\033\[[0-9;]*m", terminal.text)
    for line in re.sub(r"\033\[[0-9;?]*[A-Za-z]", "", terminal.text).replace("\r", "").split("\n"):
        assert len(line) <= 60, line
