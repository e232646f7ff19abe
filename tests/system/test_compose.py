"""docker-compose.yml without containers: each service's own command with its own environment on an address of its own,
in the order and with the health checks that stand there, on a real Kafka; and what Redis's users may do."""

import glob
import json
import os
import random
import re
import shutil
import subprocess
import urllib.error
import urllib.request

import pytest
import yaml

import cluster
import compare_truth as ct
from cluster import Program, wait_for

with open(os.path.join(cluster.ROOT, "docker-compose.yml")) as f:
    SERVICES = yaml.safe_load(f)["services"]
ACL = os.path.join(cluster.ROOT, "config", "compose", "users.acl")
# What an image runs when the service names no entry point.
IMAGES = {"livenps": ["livenps-consumer"], "redis": [], "prom/prometheus": ["prometheus"]}
HERE = {"livenps-consumer": cluster.PREFIX + [cluster.CONSUMER], "livenps-producer": cluster.PREFIX + [cluster.PRODUCER]}


class Composed:
    """The services that have a program on this machine. Names become addresses, volumes folders."""

    def __init__(self, world, kafka):
        self.world, self.kafka = world, kafka
        self.base = os.path.join(world.folder, "volumes")
        net = "127.%d.%d." % (random.SystemRandom().randint(2, 254), random.SystemRandom().randint(1, 254))
        self.address = {name: net + str(number + 2) for number, name in enumerate(SERVICES)}
        self.programs = {}

    def volume(self, source):
        if source.startswith("."):
            return os.path.join(cluster.ROOT, source)
        # The service secrets makes them all below one folder.
        name = source[:-len("-secrets")] if source.endswith("-secrets") else "data-" + source
        path = os.path.join(self.base, name)
        os.makedirs(path, exist_ok=True)
        return path

    def here(self, service, text):
        """The text with this machine's addresses and paths."""
        text = text.replace("kafka:9092", self.kafka.bootstrap).replace("0.0.0.0", self.address[service])
        text = re.sub(r"\b(%s):(?=\d)" % "|".join(SERVICES), lambda m: self.address[m[1]] + ":", text)
        for mount in sorted(SERVICES[service].get("volumes", []), key=len):
            source, target = mount.split(":")[:2]
            text = re.sub(r"(?<![\w.])%s\b" % re.escape(target), lambda m: self.volume(source), text)
        return text

    def words(self, service, value):
        return [self.here(service, word) for word in (value.split() if isinstance(value, str) else value)]

    def command(self, service):
        what = SERVICES[service]
        words = self.words(service, what.get("entrypoint", IMAGES[what["image"].split(":")[0]])) + \
            self.words(service, what.get("command", []))
        return HERE.get(words[0], words[:1]) + words[1:]

    def start(self, service, *more):
        variables = {k: v for k, v in os.environ.items() if not k.startswith("LIVENPS_")}
        variables.update({k: self.here(service, str(v)) for k, v in SERVICES[service].get("environment", {}).items()})
        if SERVICES[service]["image"] == "livenps":
            # There it would be started again; here the machine may be busy.
            variables["LIVENPS_STARTUP_TIMEOUT"] = "5m"
        self.programs[service] = Program(self.world, service, self.command(service) + list(more), variables)

    def healthy(self, service):
        """The service's own health check, which asks 127.0.0.1 there."""
        kind, *test = SERVICES[service]["healthcheck"]["test"]
        test = ["sh", "-c", test[0]] if kind == "CMD-SHELL" else test
        address = self.address[service]
        test = [word.replace("127.0.0.1", address).replace("redis-cli ", "redis-cli -h %s " % address) for word in test]

        def passes():
            assert self.programs[service].running(), "%s ended:\n%s" % (service, cluster.tail(self.programs[service].log_path))
            return subprocess.run(test, stdin=subprocess.DEVNULL, capture_output=True, timeout=300).returncode == 0
        wait_for(passes, 60, service + " is healthy")

    def secret(self, name):
        with open(os.path.join(self.base, name)) as f:
            return f.read()

    def redis(self, user, password=None):
        password = password or self.secret(user + "/redis-password")
        return ct.Redis("redis://%s:%s@%s:6379" % (user, password, self.address["redis"]))


def refused(redis, *command):
    with pytest.raises(ct.RedisError) as error:
        redis.call(*command)
    assert re.search("NOPERM|can't run this command", str(error.value)), (command, error.value)


def get(url, token=None):
    """(status, text)"""
    request = urllib.request.Request(url, headers={"Authorization": "Bearer " + token} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_what_grafana_is_given():
    """Grafana itself is not in Debian, so it is not run: what its service names is there, and tests/system/test_metrics.py asks
    every query of the dashboards."""
    what = SERVICES["grafana"]
    for mount in what["volumes"]:
        source = mount.split(":")[0]
        assert not source.startswith(".") or os.path.isdir(os.path.join(cluster.ROOT, source)), source
    provisioning = ""
    for name in glob.glob(os.path.join(cluster.ROOT, "config", "grafana", "provisioning", "*", "*.yaml")):
        with open(name) as f:
            provisioning += "".join(line for line in f if not line.lstrip().startswith("#"))
    wanted = set(re.findall(r"\$([A-Z_]+)", provisioning))
    assert wanted == {name for name in what["environment"] if not name.startswith("GF_")} | {"REDIS_PASSWORD"}
    assert "REDIS_PASSWORD=$$(cat /run/livenps/redis-password)" in what["entrypoint"][-1]


@pytest.fixture
def composed(own_world, own_kafka):
    return Composed(own_world, own_kafka)


def test_topology(composed):
    topic = re.search(r"--topic (\S+) --partitions (\d+)", SERVICES["topic"]["command"])
    composed.kafka.topic(topic[1], int(topic[2]))

    # Twice, as each `up` does: what was made stays.
    assert SERVICES["secrets"]["entrypoint"] == ["/etc/livenps-compose/secrets"]
    for again in (False, True):
        subprocess.run([*composed.command("secrets"), composed.base], check=True, timeout=300)
        before = composed.secret("redis/users.acl") if again else None
        assert before is None or before == made
        made = composed.secret("redis/users.acl")
    for name in glob.glob(composed.base + "/*/*"):
        assert os.stat(name).st_mode & 0o777 == 0o400 and os.stat(os.path.dirname(name)).st_mode & 0o777 == 0o700
        assert "/redis/" in name or len(composed.secret(name)) == 64

    # One more user, of the tests: who was refused what.
    os.chmod(composed.base + "/redis/users.acl", 0o600)
    with open(composed.base + "/redis/users.acl", "a") as f:
        f.write("user judge on >judge +@all ~* &*\n")
    composed.start("redis", "--bind", composed.address["redis"], "--save", "")
    composed.healthy("redis")
    for service in ("consumer-1", "consumer-2", "simulator", "board"):
        composed.start(service)
    for service in ("consumer-1", "consumer-2", "simulator", "board"):
        composed.healthy(service)

    board = composed.redis("board")
    wait_for(lambda: int(board.hashes(["nps:{default}:all:all:5m"])["nps:{default}:all:all:5m"].get("n", 0)) > 0, 60,
             "a score of the whole")
    wait_for(lambda: board.hashes(["nps:{default}:health"])["nps:{default}:health"].get("instances") == "2", 60, "two instances")
    wait_for(lambda: board.hashes(["nps:{default}:health"])["nps:{default}:health"].get("complete") == "1", 60, "the picture is whole")

    # The board, with its token and not without.
    url = "http://%s:8080/api/views?rollup=all&window=5m" % composed.address["board"]
    assert get(url)[0] == 401
    def answered():
        """503 while Redis stands still."""
        status, text = get(url, composed.secret("board/board-token"))
        assert status in (200, 503), text[:500]
        return status == 200 and text
    text = wait_for(answered, 30, "the board has read")
    assert '"health"' in text and '"all"' in text, text[:500]
    for service in ("consumer-1", "consumer-2", "simulator"):
        url = "http://%s:9464/metrics" % composed.address[service]
        assert get(url)[0] == 401
        assert get(url, composed.secret("prometheus/metrics-token"))[0] == 200

    # Nobody wanted more than was given ...
    judge = composed.redis("judge", "judge")
    wanted = judge.call("ACL", "LOG")
    assert wanted == [], wanted
    # ... and nobody has more.
    grafana = composed.redis("grafana")
    for reader in (board, grafana):
        for command in (["SET", "nps:{default}:x", "1"], ["HSET", "nps:{default}:health", "complete", "1"], ["DEL", "nps:{default}:log"],
                        ["FLUSHALL"], ["CONFIG", "GET", "*"], ["HGETALL", "other"], ["KEYS", "*"],
                        ["PUBLISH", "nps:{default}:updates", "x"], ["ACL", "LIST"]):
            refused(reader, *command)
    # The board reads by a script, which may do no more than its user.
    refused(board, "EVAL", "return redis.call('SET', KEYS[1], 'x')", "1", "nps:{default}:x")
    refused(grafana, "EVAL", "return 1", "0")
    consumer = composed.redis("consumer")
    for command in (["FLUSHALL"], ["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"], ["GET", "other"], ["SET", "nps:{another}:x", "1"],
                    ["PUBLISH", "nps:{another}:updates", "x"], ["ACL", "LIST"], ["SHUTDOWN"], ["KEYS", "*"]):
        refused(consumer, *command)
    with pytest.raises(ct.RedisError):
        ct.Redis("redis://%s:6379" % composed.address["redis"]).call("PING")

    if shutil.which("prometheus"):
        prometheus(composed)
    else:
        print("prometheus is not installed: its part of the topology was not run")
    for service in ("simulator", "board", "consumer-1", "consumer-2"):
        # 4: the machine was busy, and what was in hand will be read again.
        assert composed.programs[service].stop(timeout=12) in (0, 4)


def prometheus(composed):
    """It finds every instance by the file that it is given, and takes the rules."""
    config = composed.here("prometheus", "/etc/livenps-compose/prometheus.yml")
    with open(config) as f:
        text = composed.here("prometheus", f.read())
    path = os.path.join(composed.world.folder, "prometheus.yml")
    with open(path, "w") as f:
        f.write(text.replace("5s", "1s"))
    command = [word.replace(config, path) for word in composed.command("prometheus")]
    where = "%s:9090" % composed.address["prometheus"]
    composed.programs["prometheus"] = Program(composed.world, "prometheus", command + ["--web.listen-address=" + where],
                                              dict(os.environ))

    def all_up():
        status, text = get("http://%s/api/v1/query?query=sum(up)" % where)
        result = json.loads(text)["data"]["result"] if status == 200 else []
        return result and result[0]["value"][1] == "3"
    wait_for(all_up, 60, "Prometheus hears three instances")
    assert json.loads(get("http://%s/api/v1/rules" % where)[1])["data"]["groups"]
    composed.programs["prometheus"].ended_on_purpose = True


def test_users_may_what_the_program_does():
    """Each command that a user of livenps is given stands in its source; Grafana's are those of a reader."""
    source = ""
    for name in glob.glob(os.path.join(cluster.ROOT, "consumer", "*.c")):
        with open(name) as f:
            source += f.read()
    with open(ACL) as f:
        given = {line.split()[1]: set(re.findall(r"\+([a-z|]+)", line)) for line in f}
    assert set(given) == {"default", "health", "consumer", "board", "grafana"} and not given["default"]
    for user in ("consumer", "board"):
        for command in given[user]:
            words = command.upper().split("|")
            assert all(re.search(r"""['"]%s['"]""" % word, source) or
                       re.search(r'"%s [%%a-z]' % word, source) for word in words), "%s: %s" % (user, command)
    # Grafana's are those of the dashboards' queries; with PING its plugin looks whether Redis is there.
    asked = set()
    for name in glob.glob(os.path.join(cluster.ROOT, "config", "grafana", "dashboards", "*.json")):
        with open(name) as f:
            # A panel names its command; a variable is a whole line for Redis.
            asked |= set(sum(re.findall(r'"command": *"([a-z]+)"|"query": *"([a-z]+) \'nps:', f.read()), ())) - {""}
    assert given["grafana"] == asked | {"ping"}
