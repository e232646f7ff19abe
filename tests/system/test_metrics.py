"""/metrics, /healthz and /readyz of programs that run, what docs/metrics.md says of them, and a real Prometheus and Redis that are asked
what the dashboards and alerts of config/ ask."""

import datetime
import http.client
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import urllib.parse

import pytest
import yaml

import cluster
from cluster import ROOT, wait_for

HOSTILE = '"} evil{x="\\\n</script>{0:%x}\u202e'


def get(port, path, host=None, token=None, method="GET"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
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


CONFIG = os.path.join(ROOT, "config")
GRAFANA = os.path.join(CONFIG, "grafana")


class Live:
    """An instance that aggregates, one that stands by, a simulator, all with metrics, and a Prometheus that reads them."""

    def __init__(self, world):
        self.world = world
        # Its file is copied while it is written, so it must stay the same one.
        self.redis = world.redis(aof=True, options=["--auto-aof-rewrite-percentage", "0"])
        self.topic = world.topic(partitions=2)
        self.port, self.standby_port, self.producer_port = (cluster.free_port() for _ in range(3))
        common = {"windows": "5m/1s,1h/10s", "snapshot__kafka_interval": "1s", "aggregate__snapshot": "1s", "minimum_n": 1,
                  # On a machine that stands still the one that aggregates stays the one, and Redis is waited for.
                  "aggregate__lease": "2m", "redis__timeout": "1m"}
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
        self.prometheus_port = cluster.free_port()
        self.prometheus = self.start_prometheus()
        wait_for(lambda: sample(metrics(self.port), "livenps_namespace_records_total", fate="accepted") > 300, 60, "300 events are counted")
        wait_for(lambda: sample(metrics(self.port), "livenps_namespace_records_rejected_total") == 3, 30, "the bad ones are rejected")

    def start_prometheus(self):
        """With the configuration that is shipped, only faster, and with the targets of this test."""
        with open(os.path.join(CONFIG, "prometheus", "prometheus.yml"), encoding="utf-8") as f:
            config = yaml.safe_load(f)
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [os.path.join(CONFIG, "prometheus", name) for name in config["rule_files"]]
        targets = {"livenps-consumer": [self.port, self.standby_port], "livenps-producer": [self.producer_port]}
        assert {job["job_name"] for job in config["scrape_configs"]} == set(targets)
        for job in config["scrape_configs"]:
            job["static_configs"] = [{"targets": ["127.0.0.1:%d" % port for port in targets[job["job_name"]]]}]
        folder = os.path.join(self.world.folder, "prometheus")
        os.makedirs(folder)
        with open(os.path.join(folder, "prometheus.yml"), "w", encoding="utf-8") as f:
            yaml.safe_dump(config, f)
        return cluster.Program(self.world, "prometheus", [
            "prometheus", "--config.file", os.path.join(folder, "prometheus.yml"), "--storage.tsdb.path", os.path.join(folder, "data"),
            "--web.listen-address", "127.0.0.1:%d" % self.prometheus_port], dict(os.environ))

    def ask(self, path, **parameters):
        status, body, _ = get(self.prometheus_port, "/api/v1/%s?%s" % (path, urllib.parse.urlencode(parameters)))
        answer = json.loads(body)
        assert status == 200 and answer["status"] == "success", (path, parameters, body)
        return answer["data"]


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
    # Of one and the same moment: a partition may move to the other instance.
    found = wait_for(lambda: (now := printed(live.port)).keys() >= {"livenps_partition_position", "livenps_partition_lag_records"} and now,
                     30, "it reads a partition")
    assert found == documented(*consumer)
    assert printed(live.producer_port) == documented("The process", "The producer")


@pytest.mark.parametrize("which", ["port", "standby_port", "producer_port"])
def test_promtool_accepts_it(live, which):
    status, text, headers = get(getattr(live, which), "/metrics")
    assert status == 200 and headers["Content-Type"].startswith("text/plain; version=0.0.4")
    result = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=300)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_numbers(live):
    """What Prometheus is told is what Redis and Kafka say."""
    def settled():
        both = [metrics(live.port), metrics(live.standby_port)]
        return both if all(sample(m, "livenps_commits_total", result="ok") > 0 for m in both) and \
            sum(sample(m, "livenps_records_quarantined_total") for m in both) >= 3 else None
    both = wait_for(settled, 60, "both have committed, and what was rejected is in quarantine")
    found = both[0]
    assert sample(found, "livenps_namespace_records_rejected_total", reason="malformed") == 2
    assert sample(found, "livenps_namespace_records_rejected_total", reason="missing_field") == 1
    assert sum(sample(m, "livenps_records_rejected_total") for m in both) >= 3
    wait_for(lambda: sum(sample(metrics(port), "livenps_partitions_assigned") for port in (live.port, live.standby_port)) == 2, 30,
             "both partitions are read")
    assert sum(sample(m, "livenps_aggregator_active") for m in both) == 1
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
    assert get(live.producer_port, "/healthz")[0] == 200
    wait_for(lambda: get(live.producer_port, "/readyz")[0] == 200, 30, "the simulator is ready")
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


# ---- Prometheus, and the dashboards -----------------------------------------------------------------------------------

def dashboards():
    folder = os.path.join(GRAFANA, "dashboards")
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), encoding="utf-8") as f:
            yield name, json.load(f)


def panel_targets(kind):
    """(where it stands, panel, target) of every query of one kind of data source."""
    return [pytest.param(panel, target, id="%s/%s/%s" % (name.partition(".")[0], panel["title"], target["refId"]))
            for name, dashboard in dashboards() for panel in dashboard["panels"] for target in panel.get("targets", [])
            if target["datasource"]["type"] == kind]


@pytest.mark.parametrize("panel,target", panel_targets("prometheus"))
def test_panel_of_prometheus(live, panel, target):
    """Every expression gives a number."""
    expression = target["expr"].replace("$__rate_interval", "10s").replace("$namespace", ".*")

    def found():
        values = [float(each["value"][1]) for each in live.ask("query", query=expression)["result"]]
        return any(math.isfinite(value) for value in values)
    wait_for(found, 60, "%s answers" % expression)
    # What the legend names is a label of the answer.
    for each in live.ask("query", query=expression)["result"]:
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= set(each["metric"])


def test_variables_of_prometheus(live):
    for _, dashboard in dashboards():
        for variable in dashboard["templating"]["list"]:
            if variable.get("datasource", {}).get("type") == "prometheus":
                metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()
                assert live.ask("label/%s/values" % label, **{"match[]": metric}) == [live.world.namespace]


def test_rules_in_prometheus(live):
    """It takes them, and nothing fires while all is well."""
    def rules():
        return [rule for group in live.ask("rules")["groups"] for rule in group["rules"]]
    wait_for(lambda: rules() and all(rule["health"] == "ok" for rule in rules()), 60, "all rules were evaluated")
    assert [rule["name"] for rule in rules() if rule["state"] == "firing"] == []
    wait_for(lambda: sample_of(live, 'up{job="livenps-consumer"}') == [1, 1] and sample_of(live, 'up{job="livenps-producer"}') == [1],
             60, "all three are scraped")


def sample_of(live, expression):
    return [float(each["value"][1]) for each in live.ask("query", query=expression)["result"]]


class RedisDataSource:
    """What the plugin redis-datasource (2.2) asks Redis for a panel's query, and the columns that it makes of the reply; as a user
    who may do what config/grafana says, and no more."""

    def __init__(self, live):
        with open(os.path.join(GRAFANA, "provisioning", "datasources", "livenps.yaml"), encoding="utf-8") as f:
            rule = re.search(r"ACL SETUSER (\S+) (.*)", f.read())
        live.redis.call("ACL", "SETUSER", rule[1], *rule[2].replace("PASSWORD", "secret").split())
        self.redis = cluster.ct.Redis("redis://%s:secret@127.0.0.1:%d" % (rule[1], live.redis.port))

    @staticmethod
    def number(text):
        try:
            return float(text)
        except ValueError:
            return text

    def columns(self, target, variables):
        def fill(text):
            return re.sub(r"\$(\w+)", lambda m: variables[m[1]], text)
        assert target["type"] == "command" and target["query"] == ""
        command, key = target["command"], fill(target["keyName"])
        if command == "info":
            lines = self.redis.call("INFO", target["section"]).splitlines()
            return {name: [self.number(value)] for name, _, value in (line.partition(":") for line in lines) if value}
        if command == "hmget":
            fields = shlex.split(target["field"])
            return {name: [self.number(value)] for name, value in zip(fields, self.redis.call("HMGET", key, *fields))}
        if command == "hgetall":
            reply = self.redis.call("HGETALL", key)
            return {name: [self.number(value)] for name, value in zip(reply[::2], reply[1::2])}
        if command == "zrange":
            options = [target["zrangeQuery"]] if target["zrangeQuery"] else []
            reply = self.redis.call("ZRANGE", key, target["min"], target["max"], *options, "WITHSCORES")
            return {name: [self.number(value)] for name, value in zip(reply[::2], reply[1::2])}
        assert command == "xrange", command
        found = {"$time": []}
        for entry, fields in self.redis.call("XRANGE", key, target["start"], target["end"]):
            found["$time"].append(float(entry.partition("-")[0]))
            for name, value in zip(fields[::2], fields[1::2]):
                found.setdefault(name, []).append(self.number(value))
        return found


@pytest.fixture(scope="module")
def source(live):
    return RedisDataSource(live)


@pytest.mark.parametrize("panel,target", panel_targets("redis-datasource"))
def test_panel_of_redis(live, source, panel, target):
    """Every query answers with the columns that its panel shows, and they are numbers."""
    namespace = live.world.namespace
    touchpoint = wait_for(lambda: live.redis.call("ZRANGE", "nps:{%s}:rank:touchpoint:5m" % namespace, "0", "0"), 60, "a touchpoint has a score")[0]
    variables = {"namespace": namespace, "window": "5m", "touchpoint": touchpoint}
    wanted = set()
    for transformation in panel.get("transformations", []):
        wanted |= set(transformation["options"].get("include", {}).get("names", []))
    wanted |= {override["matcher"]["options"] for override in panel["fieldConfig"]["overrides"]}

    def found():
        columns = source.columns(target, variables)
        assert "" not in columns
        return wanted <= set(columns) and columns and columns
    columns = wait_for(found, 60, "%s of %s has %s" % (target["command"], target["keyName"], sorted(wanted) or "anything"))
    shown = wanted or set(columns)
    assert all(isinstance(value, float) for name in shown for value in columns[name])
    if target["command"] == "xrange":
        assert len({len(values) for values in columns.values()}) == 1, "as many values as moments"
    elif target["command"] == "zrange" and ":touchpoint:" in target["keyName"]:
        values = [values[0] for values in columns.values()]
        assert values == sorted(values, reverse=target["zrangeQuery"] == "REV") and len(values) <= 10


def test_variables_of_redis(live, source):
    """Drop-down lists are filled; a query is split into words as a shell does."""
    asked = 0
    for _, dashboard in dashboards():
        for variable in dashboard["templating"]["list"]:
            if variable.get("datasource", {}).get("type") == "redis-datasource":
                words = shlex.split(variable["query"].replace("$namespace", live.world.namespace))
                assert len(source.redis.call(*words)) > 5
                asked += 1
    assert asked == 1


def test_data_source_may_only_read(live, source):
    key = "nps:{%s}:all:all:5m" % live.world.namespace
    for command in (("HSET", key, "nps", "100"), ("DEL", key), ("FLUSHALL",), ("CONFIG", "GET", "*"), ("HGETALL", "other"), ("EVAL", "return 1", "0")):
        with pytest.raises(cluster.ct.RedisError):
            source.redis.call(*command)


def test_dashboards_are_whole():
    """Data sources are those that are provisioned, panels have names of their own ids, and every alert's metric has a panel."""
    with open(os.path.join(GRAFANA, "provisioning", "datasources", "livenps.yaml"), encoding="utf-8") as f:
        provisioned = {(each["type"], each["uid"]) for each in yaml.safe_load(f)["datasources"]}
    shown = ""
    for _, dashboard in dashboards():
        panels = dashboard["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        known = {variable["name"] for variable in dashboard["templating"]["list"]} | {"__rate_interval", "time", "__all"}
        assert set(re.findall(r"\$(\w+)", json.dumps(panels))) <= known
        for panel in panels:
            for target in panel.get("targets", []):
                assert (target["datasource"]["type"], target["datasource"]["uid"]) in provisioned
                shown += target.get("expr", "")
    with open(os.path.join(CONFIG, "prometheus", "alerts.yml"), encoding="utf-8") as f:
        for rule in yaml.safe_load(f)["groups"][0]["rules"]:
            for metric in re.findall(r"livenps_\w+", rule["expr"]):
                assert metric in shown, "%s asks for %s, which no panel shows" % (rule["alert"], metric)


# ---- the end ------------------------------------------------------------------------------------------------------------

def test_redis_goes_back(live):
    """To a file of some seconds ago, as after a failover: whoever had committed since sees it, and the alert fires."""
    old = os.path.join(live.redis.folder, "old")
    shutil.copytree(os.path.join(live.redis.folder, "appendonlydir"), old)
    both = (live.port, live.standby_port)
    before = sample(metrics(live.port), "livenps_namespace_records_total", fate="accepted")
    wait_for(lambda: sample(metrics(live.port), "livenps_namespace_records_total", fate="accepted") > before + 200, 60, "more is counted")
    assert sum(sample(metrics(port), "livenps_positions_went_back_total") for port in both) == 0
    live.redis.kill()
    shutil.rmtree(os.path.join(live.redis.folder, "appendonlydir"))
    shutil.move(old, os.path.join(live.redis.folder, "appendonlydir"))
    live.redis.start()
    wait_for(lambda: sum(sample(metrics(port), "livenps_positions_went_back_total") for port in both) >= 1, 60, "positions went back")
    wait_for(lambda: "LivenpsRedisRollback" in [alert["labels"]["alertname"] for alert in live.ask("alerts")["alerts"] if alert["state"] == "firing"],
             60, "the alert fires")
    for port in both:
        wait_for(lambda: get(port, "/readyz")[0] == 200, 60, "ready again")


@pytest.mark.sanitize
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
    for program in (live.simulator, live.consumer, live.standby):
        assert program.stop(timeout=30) == 0
    assert not live.world.sanitizer_reports()
