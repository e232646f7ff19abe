"""/metrics, /healthz and /readyz of programs that run, what docs/metrics.md says of them, and a real Prometheus and Redis that are asked
what the dashboards and alerts of config/ ask."""

import datetime
import http.client
import json
import os
import re
import subprocess

import pytest

import cluster
from cluster import ROOT, wait_for

HOSTILE = '"} evil{x="\\\n</script>{0:%x}\u202e'


def get(port, path, host=None, token=None, method="GET"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        headers = {"Authorization": "Bearer " + token} if token else {}
        if host:
            headers["Host"] = host
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), dict(answer.getheaders())
    finally:
        connection.close()


def metrics(port):
    """{name: {labels as sorted tuple: value}}"""
    found = {}
    for line in get(port, "/metrics")[1].splitlines():
        if not line.startswith("#"):
            name, labels, value = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line).groups()
            pairs = tuple(sorted(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels or "")))
            found.setdefault(name, {})[pairs] = float(value)
    return found


def sample(found, name, **labels):
    """The sum of the samples that have these labels."""
    return sum(value for pairs, value in found.get(name, {}).items() if set(labels.items()) <= set(pairs))


class Live:
    """An instance that aggregates, one that stands by, a simulator, all with metrics."""

    def __init__(self, world):
        self.world = world
        self.redis = world.redis(aof=True)
        self.topic = world.topic(partitions=2)
        self.port, self.standby_port, self.producer_port = (cluster.free_port() for _ in range(3))
        common = {"windows": "5m/1s,1h/10s", "snapshot__kafka_interval": "1s", "aggregate__snapshot": "1s", "minimum_n": 1}
        self.consumer = world.consumer(self.topic, self.redis, metrics__listen="127.0.0.1:%d" % self.port, **common)
        wait_for(lambda: sample(metrics(self.port), "livenps_aggregator_active") == 1, 30, "it aggregates")
        self.standby = world.consumer(self.topic, self.redis, metrics__listen="127.0.0.1:%d" % self.standby_port, **common)
        # Records that are no events, and an event whose name is meant to break what prints it.
        self.bad = [b"{", b"nonsense", b'{"id":"1"}']
        hostile = {"id": "h", "type": "answer", "scale": "nps", "score": 9, "touchpoint": HOSTILE,
                   "time": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")}
        world.kafka.send(self.topic, self.bad + [json.dumps(hostile).encode()])
        name = world.number("simulator")
        self.simulator = cluster.Program(world, name, cluster.PREFIX + [cluster.PRODUCER, "simulate", "--topic", self.topic, "--rate", "100"],
                                         cluster.environment({"kafka.bootstrap.servers": world.kafka.bootstrap,
                                                              "metrics.listen": "127.0.0.1:%d" % self.producer_port}))
        wait_for(lambda: sample(metrics(self.port), "livenps_namespace_records_total", fate="accepted") > 300, 60, "300 events are counted")
        wait_for(lambda: sample(metrics(self.port), "livenps_namespace_records_rejected_total") == 3, 30, "the bad ones are rejected")


@pytest.fixture(scope="module")
def live(tmp_path_factory, kafka):
    world = cluster.World(str(tmp_path_factory.mktemp("metrics")), kafka, "metrics")
    try:
        yield Live(world)
    except BaseException:
        print(world.report())
        raise
    finally:
        world.close()


def documented(*sections):
    """{name: (type, {labels}, meaning)} of tables of docs/metrics.md."""
    with open(os.path.join(ROOT, "docs", "metrics.md"), encoding="utf-8") as f:
        parts = re.split(r"^## (.*)$", f.read(), flags=re.M)
    found = {}
    for title, text in zip(parts[1::2], parts[2::2]):
        if title in sections:
            for name, kind, labels, meaning in re.findall(r"^\| `(\w+)` \| (\w+) \| ?(.*?) ?\| (.*) \|$", text, re.M):
                found[name] = (kind, set(re.findall(r"`(\w+)`", labels)), meaning)
    return found


def printed(port):
    text = get(port, "/metrics")[1]
    helps, kinds = (dict(re.findall(r"^# %s (\w+) (.*)$" % word, text, re.M)) for word in ("HELP", "TYPE"))
    found = {}
    for name, kind in kinds.items():
        labels = set()
        for given in re.findall(r"^%s%s\{(.*)\} " % (name, "_(?:bucket|sum|count)" if kind == "histogram" else ""), text, re.M):
            labels |= set(re.findall(r'(\w+)="', given)) - {"namespace", "le"}
        found[name] = (kind, labels, helps[name])
    return found


def test_document_says_what_is_printed(live):
    consumer = ("Every instance", "The aggregator", "The namespace", "The process")
    assert printed(live.port) == documented(*consumer)
    assert printed(live.producer_port) == documented("The process", "The producer")


@pytest.mark.parametrize("which", ["port", "standby_port", "producer_port"])
def test_promtool_accepts_it(live, which):
    status, text, headers = get(getattr(live, which), "/metrics")
    assert status == 200 and headers["Content-Type"].startswith("text/plain; version=0.0.4")
    result = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_numbers(live):
    """What Prometheus is told is what Redis and Kafka say."""
    found = metrics(live.port)
    both = [found, metrics(live.standby_port)]
    assert sample(found, "livenps_namespace_records_rejected_total", reason="malformed") == 2
    assert sample(found, "livenps_namespace_records_rejected_total", reason="missing_field") == 1
    assert sum(sample(m, "livenps_records_rejected_total") for m in both) >= 3
    assert sum(sample(m, "livenps_records_quarantined_total") for m in both) >= 3
    assert sum(sample(m, "livenps_partitions_assigned") for m in both) == 2
    assert sum(sample(m, "livenps_aggregator_active") for m in both) == 1
    assert all(sample(m, "livenps_commits_total", result="ok") > 0 for m in both)
    assert sample(found, "livenps_commit_duration_seconds_count") >= sample(found, "livenps_commits_total", result="ok")
    assert sample(found, "livenps_geneses_total", **{"from": "topic"}) == 1 and sample(found, "livenps_namespace_genesis") == 1
    assert sample(found, "livenps_views_written_total") > 0 and sample(found, "livenps_publish_duration_seconds_count") > 0
    wait_for(lambda: all(sample(metrics(live.port), "livenps_snapshots_total", store=store) > 0 for store in ("redis", "kafka")),
             60, "snapshots go to Redis and Kafka")
    # Only who aggregates speaks of the namespace.
    assert not [name for name in both[1] if name.startswith("livenps_namespace_")]

    def same():
        health = live.redis.hash("nps:{%s}:health" % live.world.namespace)
        found = metrics(live.port)
        bounds = live.world.kafka.bounds(live.topic)
        return (int(health["accepted"]) <= sample(found, "livenps_namespace_records_total", fate="accepted") <=
                sum(end for _, end in bounds.values()) and sample(found, "livenps_namespace_partitions") == int(health["partitions"])
                and sample(found, "livenps_namespace_complete") == 1 and sample(found, "livenps_namespace_instances") == 2)
    wait_for(same, 60, "health and metrics agree")
    produced = metrics(live.producer_port)
    assert sample(produced, "livenps_producer_records_sent_total") >= sample(
        produced, "livenps_producer_records_acknowledged_total") > 0
    assert sample(produced, "livenps_producer_acknowledge_duration_seconds_count") > 0


def test_names_of_events_are_no_labels(live):
    """However many names come, no metric grows with them; and none of them is printed."""
    for port in (live.port, live.standby_port, live.producer_port):
        text = get(port, "/metrics")[1]
        assert "evil" not in text and "script" not in text
        for touchpoint in live.redis.connection().call("SMEMBERS", "nps:{%s}:index:touchpoint" % live.world.namespace):
            assert '"%s"' % touchpoint not in text


def test_health_and_readiness(live):
    for port in (live.port, live.standby_port):
        assert get(port, "/healthz")[:2] == (200, "ok\n")
        wait_for(lambda: get(port, "/readyz")[:2] == (200, "ready\n"), 30, "it is ready")
    assert get(live.producer_port, "/healthz")[0] == get(live.producer_port, "/readyz")[0] == 200
    assert get(live.port, "/")[0] == 404
    assert get(live.port, "/metrics", method="POST")[0] == 405
    assert get(live.port, "/metrics", host="evil.example")[0] == 403


def test_port_that_is_taken(live):
    code, _, err = live.world.run_consumer("run", settings=live.world.settings(
        live.topic, live.redis, namespace="other", metrics__listen="127.0.0.1:%d" % live.port))
    assert code == 3
    assert "metrics.listen: cannot listen on 127.0.0.1:%d: Address already in use by another process: choose another port" % live.port in err


def test_token(live):
    settings = live.world.settings(live.topic, live.redis, namespace="other", metrics__listen="0.0.0.0:0")
    code, _, err = live.world.run_consumer("run", settings=settings)
    assert code == 3 and "metrics.token_file or LIVENPS_METRICS_TOKEN" in err
    port = cluster.free_port()
    program = live.world.consumer(live.topic, live.redis, namespace="tok", metrics__listen="0.0.0.0:%d" % port, ready=False,
                                  extra={"LIVENPS_METRICS_TOKEN": "open sesame"})
    wait_for(lambda: get(port, "/healthz")[0] == 200, 30, "it listens")
    assert get(port, "/metrics")[0] == 401
    assert get(port, "/metrics", token="open")[0] == 401
    assert get(port, "/metrics", token="open sesame")[0] == 200
    program.kill()


def test_redis_away(live):
    """The last of this file: the instance stays healthy, is not ready, and says why; and the metrics tell."""
    live.redis.kill()
    wait_for(lambda: get(live.port, "/readyz")[0] == 503, 60, "it is not ready")
    wait_for(lambda: "Redis is away, or refuses what is written (commit)" in get(live.port, "/readyz")[1], 60, "why")
    assert get(live.port, "/healthz")[0] == 200
    wait_for(lambda: sample(metrics(live.port), "livenps_redis_up") == 0, 60, "both connections")
    assert not [name for name in metrics(live.port) if name.startswith("livenps_namespace_")]
    # Empty: Redis has lost everything.
    live.redis.aof = False
    live.redis.start()
    both = (live.port, live.standby_port)
    wait_for(lambda: sum(sample(metrics(port), "livenps_geneses_total") for port in both) >= 2, 120, "the namespace is begun anew")
    wait_for(lambda: sum(sample(metrics(port), "livenps_geneses_total", **{"from": "snapshot"}) for port in both) >= 1, 120, "from a snapshot")
    for port in both:
        wait_for(lambda: get(port, "/readyz")[0] == 200, 120, "ready again")
    assert sum(sample(metrics(port), "livenps_adoptions_total") for port in both) > 2
