"""What is wrong at the start is told in one line, with an exit code that says whose fault it is."""

import os
import re
import socket
import subprocess

import pytest

import cluster
from cluster import wait_for

USAGE, STARTUP, REFUSED = 2, 3, 6


def one_line(err):
    """The line that tells; before it there may be warnings, never a second error."""
    lines = [line for line in err.rstrip().split("\n") if line]
    assert lines, "nothing was said"
    assert sum(" error " in line or line.startswith("livenps-consumer:") for line in lines) <= 1, err
    assert len(lines[-1]) < 600
    return lines[-1]


# What is said, too, when Kafka or Redis stands still for longer than a start that is refused waits for them.
NO_ANSWER = "no broker answered within|no answer within|kafka: topic list: |whether it is compacted is unknown"


def refuse(world, settings, code, *pieces, args=("run",)):
    def told():
        try:
            found, _, err = world.run_consumer(*args, settings=settings)
        except subprocess.TimeoutExpired as error:  # it started, because it could not know
            found, err = None, (error.stderr or b"").decode(errors="replace")
        line = one_line(err)
        expected = found == code and all(piece in line for piece in pieces)
        return None if not expected and re.search(NO_ANSWER, err) else (found, err)
    found, err = wait_for(told, 60, "Kafka and Redis answer")
    line = one_line(err)
    assert found == code, "exit code %d, not %d: %s" % (found, code, err)
    for piece in pieces:
        assert piece in line, "%r is not in: %s" % (piece, line)
    return line


@pytest.fixture
def settings(world):
    """A start that would succeed, to take something away from."""
    return lambda redis=None, topics="t", **more: world.settings(topics, redis or "redis://127.0.0.1:1", **{
        "startup_timeout": "%dms" % (1000 * cluster.SLOW), **more})


# What is refused before anything is connected to. (settings, pieces of the line)
WRONG = [
    ({"topics": None}, ["topics is not set", "LIVENPS_TOPICS"]),
    ({"topics": "a,a"}, ["topics", "a"]),
    ({"namespace": "no spaces"}, ["namespace", "A-Z a-z 0-9"]),
    ({"namespace": "x" * 65}, ["namespace", "64"]),
    ({"redis.url": "http://127.0.0.1"}, ["redis.url", "redis://"]),
    ({"redis.url": "redis://127.0.0.1:99999"}, ["redis.url", "65535"]),
    ({"redis.url": "redis://127.0.0.1:port"}, ["redis.url"]),
    ({"redis.url": ""}, ["redis.url"]),
    ({"commit.interval": "100"}, ["LIVENPS_COMMIT_INTERVAL", "100", "5ms"]),
    ({"commit.interval": "1ms"}, ["LIVENPS_COMMIT_INTERVAL", "5ms"]),
    ({"commit.interval": "5s", "commit.idle": "1s"}, ["commit.idle", "commit.interval"]),
    ({"commit.idle": "8s"}, ["commit.idle", "complete_lag"]),
    ({"minimum_n": "five"}, ["LIVENPS_MINIMUM_N", "five"]),
    ({"minimum_n": "0"}, ["LIVENPS_MINIMUM_N"]),
    ({"change.q": "0.9"}, ["LIVENPS_CHANGE_Q", "0.5"]),
    ({"windows": "5m/2s"}, ["5m/2s", "300"]),
    ({"windows": "20s/1s"}, ["20s/1s"]),
    ({"windows": "5m/1s,5m/1s"}, ["5m"]),
    ({"windows": "today"}, ["today"]),
    ({"windows": "1h/7s"}, ["1h/7s"]),
    ({"rollups": "touchpoint,colour"}, ["colour", "touchpoint"]),
    ({"rollups": "touchpoint", "trends": "channel"}, ["trends", "channel"]),
    ({"kafka.bootstrap.servers": None}, ["bootstrap.servers is not set"]),
    ({"kafka.group.id": "mine"}, ["group.id", "namespace"]),
    ({"kafka.auto.offset.reset": "latest"}, ["auto.offset.reset"]),
    ({"kafka.isolation.level": "read_uncommitted"}, ["isolation.level"]),
    ({"kafka.session.timeout.ms": "soon"}, ["session.timeout.ms"]),
    ({"kafka.session.timeout.ms": "10s"}, ["kafka.session.timeout.ms", "'10s'", "taken for 10"]),
    ({"kafka.no.such.thing": "1"}, ["no.such.thing"]),
    ({"log_level": "loud"}, ["LIVENPS_LOG_LEVEL", "loud", "debug"]),
    ({"comit.interval": "1s"}, ["LIVENPS_COMIT_INTERVAL"]),
    ({"config": "/nonexistent.yaml"}, ["/nonexistent.yaml"]),
]


@pytest.mark.parametrize("wrong, pieces", WRONG, ids=[",".join("%s=%s" % item for item in w.items())[:40] for w, _ in WRONG])
def test_wrong_setting(world, settings, wrong, pieces):
    line = refuse(world, {**settings(), **wrong}, USAGE, *pieces)
    assert "\n" not in line


FILES = [
    ("topics: [t]\nwindow: [5m/1s]\n", ["livenps.yaml:2", "window", "windows"]),
    ("topics: [t]\n\ncommit:\n  interval: soon\n", ["livenps.yaml:4", "commit.interval", "soon"]),
    ("topics: [t]\ncommit: 5s\n", ["livenps.yaml:2", "commit"]),
    ("topics: [t]\nminimum_n: [1, 2]\n", ["livenps.yaml:2", "minimum_n"]),
    ("topics: [t]\nallow_compacted: yes please\n", ["livenps.yaml:2", "allow_compacted", "true or false"]),
    ("topics: [t]\nminimum_n: 3\nminimum_n: 4\n", ["livenps.yaml:3", "minimum_n"]),
    ("topics: [t\n", ["livenps.yaml:"]),
    ("topics: &a [t]\nmappings: *a\n", ["livenps.yaml:"]),
    ("\ttopics: [t]\n", ["livenps.yaml:1"]),
    ("topics: [t]\nkafka:\n  group.id: mine\n", ["group.id", "namespace"]),
    ("topics: [t]\nmappings:\n  t: missing.yaml\n", ["missing.yaml"]),
]


@pytest.mark.parametrize("text, pieces", FILES, ids=[str(i) for i in range(len(FILES))])
def test_wrong_file(world, settings, text, pieces):
    path = os.path.join(world.folder, "livenps.yaml")
    with open(path, "w") as f:
        f.write(text)
    refuse(world, {**settings(), "topics": None}, USAGE, *pieces, args=("run", "--config", path))


ARGUMENTS = [
    (["run", "--set", "commit.interval"], ["--set", "commit.interval"]),
    (["run", "--set", "commit.intervall=5s"], ["commit.intervall", "commit.interval"]),
    (["run", "--set", "redis.url=redis://:hunter2@127.0.0.1"], ["command line"]),
    (["run", "--redis", "redis://:hunter2@127.0.0.1"], ["command line"]),
    (["run", "--set", "kafka.sasl.password=hunter2"], ["command line"]),
    (["run", "--set", "mappings.t=/nonexistent.mapping"], ["/nonexistent.mapping"]),
    (["run", "--set", "targets.t=400"], ["targets", "100"]),
    (["run", "--frobnicate"], ["--frobnicate"]),
    (["ruin"], ["ruin"]),
    (["replay", "--topic", "t", "--from", "0", "--to", "1"], ["--into"]),
    (["replay", "--from", "0", "--to", "1", "--into", "x"], ["--topic"]),
    (["replay", "--topic", "t", "--from", "noon", "--to", "1", "--into", "x"], ["--from", "noon"]),
    (["replay", "--topic", "t", "--from", "2", "--to", "1", "--into", "x"], ["--from"]),
    (["replay", "--topic", "t", "--from", "0", "--to", "1", "--into", "x", "--speed", "fast"], ["--speed", "fast"]),
    (["replay", "--topic", "t", "--from", "0", "--to", "1", "--into", "a b"], ["--into"]),
    (["table", "--window", "tomorrow"], ["--window", "5m"]),
    (["log", "--count", "0"], ["--count"]),
]


@pytest.mark.parametrize("args, pieces", ARGUMENTS, ids=[" ".join(a)[:50] for a, _ in ARGUMENTS])
def test_wrong_argument(world, settings, args, pieces):
    line = refuse(world, settings(), USAGE, *pieces, args=args)
    assert "hunter2" not in line


def test_redis_away(world, settings):
    topic, port = world.topic(1), cluster.free_port()
    refuse(world, settings("redis://127.0.0.1:%d" % port, topic), STARTUP, "127.0.0.1:%d" % port)
    refuse(world, settings("unix:///nonexistent.socket", topic), STARTUP, "/nonexistent.socket")


def test_redis_is_something_else(world, settings):
    """A port where another protocol answers, or nothing ever does."""
    topic = world.topic(1)
    silent = socket.create_server(("127.0.0.1", 0))
    try:
        url = "redis://127.0.0.1:%d" % silent.getsockname()[1]
        refuse(world, {**settings(url, topic), "redis.timeout": "300ms"}, STARTUP, url)
    finally:
        silent.close()
    host, port = world.kafka.bootstrap.split(",")[0].split(":")
    refuse(world, {**settings("redis://%s:%s" % (host, port), topic), "redis.timeout": "300ms"}, STARTUP, port)


def test_redis_password(world, settings):
    topic = world.topic(1)
    redis = world.redis()
    redis.call("CONFIG", "SET", "requirepass", "right")
    redis.password, redis.client = "right", None
    refuse(world, {**settings(redis, topic), "redis.password_file": "/nonexistent"}, STARTUP, "/nonexistent")
    line = refuse(world, settings(redis, topic), STARTUP, "password")
    wrong = refuse(world, {**settings(redis, topic), "redis.password": "wrong"}, STARTUP, "password")
    assert "wrong" not in wrong.replace("wrong password", "") and line != wrong
    path = os.path.join(world.folder, "password")
    with open(path, "w") as f:
        f.write("right\n")
    for way in ({"redis.password": "right"}, {"redis.password_file": path}):
        consumer = world.consumer(topic, redis, set=way)
        consumer.wait_log("aggregating namespace")
        assert consumer.stop() == 0
        assert "right" not in consumer.log()
    # A user of the access control list, with its own password.
    redis.call("ACL", "SETUSER", "nps", "on", ">other", "~nps:*", "&nps:*", "+@all", "-@dangerous", "+info", "+role", "+config|get")
    consumer = world.consumer(topic, redis, set={"redis.username": "nps", "redis.password": "other"})
    consumer.wait_log("aggregating namespace")
    assert consumer.stop() == 0


def test_redis_may_evict(world, settings):
    topic, redis = world.topic(1), world.redis()
    redis.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    refuse(world, settings(redis, topic), STARTUP, "maxmemory-policy", "allkeys-lru", "noeviction")
    assert redis.keys() == set()
    consumer = world.consumer(topic, redis, allow_eviction=None, set={"redis.allow_eviction": "true"})
    assert "warn" in consumer.log() and "allkeys-lru" in consumer.log()
    assert consumer.stop() == 0


def test_redis_is_a_replica(world, settings):
    topic, primary = world.topic(1), world.redis(name="primary")
    replica = world.redis(name="replica", options=["--replicaof", "127.0.0.1 %d" % primary.port])
    replica.in_step(primary)
    refuse(world, settings(replica, topic), STARTUP, "replica", "127.0.0.1:%d" % replica.port)


def test_topic_missing(world, settings):
    redis = world.redis()
    refuse(world, settings(redis, "t-missing-" + world.unique), STARTUP, "t-missing-" + world.unique, "does not exist")
    refuse(world, settings(redis, [world.topic(1), "t-missing-" + world.unique]), STARTUP, "t-missing-" + world.unique)
    assert redis.keys() == set()


def test_topic_compacted(world, settings):
    redis = world.redis()
    topic = world.topic(1, cleanup_policy="compact")
    refuse(world, settings(redis, topic), STARTUP, topic, "compacted", "allow_compacted")
    both = world.topic(1, suffix="-both", cleanup_policy="compact,delete")
    refuse(world, settings(redis, both), STARTUP, both, "compacted")
    consumer = world.consumer(topic, redis, allow_compacted="true")
    assert "compacted" in consumer.log()
    world.kafka.send(topic, [{"key": b"k", "value": cluster.event("a")}])
    world.caught_up(redis)
    world.ledger(redis, topic, accepted=1)
    assert consumer.stop() == 0


def test_other_admit_rules(world, settings):
    """Instances with other rules for what counts are refused, naming both hashes; with the same ones they join."""
    redis, topic = world.redis(), world.topic(1)
    consumer = world.consumer(topic, redis)
    consumer.wait_log("genesis 1")
    stored = redis.hash("nps:{%s}:meta" % world.namespace)["admit"]
    for name, value in (("admit.late", "1d"), ("admit.future", "61s"), ("admit.max_bytes", "2mb"), ("admit.touchpoints", "a")):
        line = refuse(world, {**settings(redis, topic), name: value}, REFUSED, "admit hash", stored[:16])
        hashes = set(re.findall("[0-9a-f]{16,64}", line))
        assert len(hashes) == 2, line
    # Of no consequence for what counts.
    other = world.consumer(topic, redis, windows="10m/1s", minimum_n="9", commit__interval="50ms")
    assert other.stop() == 0 and consumer.stop() == 0


def test_check_config_and_dump(world, settings):
    """A dump read back is the same configuration; a check needs neither Kafka nor Redis."""
    wanted = {**settings(), "windows": "5m/1s,1h/10s", "kafka.sasl.password": "hunter2"}
    code, out, err = world.run_consumer("--check-config", settings=wanted)
    assert code == 0, err
    code, out, err = world.run_consumer("--dump-config", "--set", "targets.delivery=40", settings=wanted)
    assert code == 0 and "hunter2" not in out + err and "***" in out
    path = os.path.join(world.folder, "dump.yaml")
    with open(path, "w") as f:
        f.write(out)
    code, again, err = world.run_consumer("--config", path, "--dump-config")
    assert code == 0 and again == out, err
    code, _, err = world.run_consumer("--check-config", settings={**settings(), "windows": "5m/2s"})
    assert code == USAGE and "5m/2s" in err
