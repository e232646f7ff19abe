"""The Debian package: what it is made of, and its whole life in a clean root with systemd: installed, refused without
settings, started with secrets, watched, upgraded, purged."""

import datetime
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import cluster  # noqa: E402
import roots  # noqa: E402
from cluster import wait_for  # noqa: E402

UNITS = ["livenps-consumer.service", "livenps-board.service", "livenps-serve.service"]
PASSWORD = "a-password-of-redis-7f3a"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    found = cluster.World(str(tmp_path_factory.mktemp("package")), None, "package")
    yield found
    found.close()


def pack(folder):
    made = subprocess.run(["cpack", "--config", os.path.join(cluster.BIN, "CPackConfig.cmake"), "-B", folder],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert made.returncode == 0, made.stdout
    return os.path.join(folder, next(name for name in os.listdir(folder) if name.endswith(".deb")))


@pytest.fixture(scope="module")
def deb(tmp_path_factory):
    return pack(str(tmp_path_factory.mktemp("first")))


@pytest.fixture(scope="module")
def tree(deb, tmp_path_factory):
    """What is in it, unpacked."""
    folder = str(tmp_path_factory.mktemp("tree"))
    subprocess.run(["dpkg-deb", "-x", deb, folder], check=True)
    return folder


def field(deb, name):
    return subprocess.run(["dpkg-deb", "-f", deb, name], capture_output=True, text=True, check=True).stdout.strip()


def test_same_sources_same_bytes(deb, tmp_path):
    with open(deb, "rb") as first, open(pack(str(tmp_path)), "rb") as second:
        assert first.read() == second.read()


def test_lintian(deb):
    if not shutil.which("lintian"):
        pytest.skip("lintian is not installed (tests/install package)")
    # The project has no mail address: who ships the package says theirs (LIVENPS_MAINTAINER).
    found = subprocess.run(["lintian", "--fail-on", "error", "--suppress-tags",
                            "bogus-mail-host,bogus-mail-host-in-debian-changelog", deb], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


def test_contents(deb, tree):
    depends = field(deb, "Depends")
    for library in ("librdkafka1", "libhiredis", "libmicrohttpd", "libsystemd0", "libssl3", "libyaml-0-2", "libjansson4"):
        assert library in depends
    for name in ("usr/bin/livenps-consumer", "usr/bin/livenps-producer", "usr/share/man/man1/livenps-consumer.1.gz",
                 "usr/share/man/man1/livenps-producer.1.gz", "usr/share/bash-completion/completions/livenps-consumer",
                 "usr/share/doc/livenps/copyright", "usr/share/livenps/mappings/delighted.yaml",
                 *("usr/lib/systemd/system/" + unit for unit in UNITS)):
        assert os.path.isfile(os.path.join(tree, name)), name
    with open(os.path.join(cluster.ROOT, "config", "livenps.yaml")) as ours, open(tree + "/etc/livenps/livenps.yaml") as packed:
        assert ours.read() == packed.read()
    assert os.stat(tree + "/etc/livenps/livenps.env").st_mode & 0o777 == 0o600
    control = subprocess.run(["dpkg-deb", "-I", deb, "conffiles"], capture_output=True, text=True, check=True).stdout.split()
    assert sorted(control) == ["/etc/livenps/livenps.env", "/etc/livenps/livenps.yaml"]
    # Stripped: what is shipped is not what is debugged.
    assert ".debug_info" not in subprocess.run(["readelf", "-S", tree + "/usr/bin/livenps-consumer"], capture_output=True,
                                               text=True, check=True).stdout


@pytest.mark.parametrize("unit", UNITS)
def test_hardened(tree, unit):
    """systemd's own judgement: 0 is shut, 10 is open."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd is not installed (tests/install package)")
    found = subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=25",
                            os.path.join(tree, "usr/lib/systemd/system", unit)], capture_output=True, text=True)
    assert found.returncode == 0 and "Overall exposure level" in found.stdout, found.stdout[-3000:] + found.stderr


def complete(tree, *words):
    """What bash offers for the last of the words."""
    path = os.path.join(tree, "usr/share/bash-completion/completions", words[0])
    script = 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _livenps "$1" "${@: -1}" "${@: -2:1}" 2>/dev/null; printf "%s\\n" "${COMPREPLY[@]}"'
    return subprocess.run(["bash", "-c", script, "bash", path, *words], capture_output=True, text=True, check=True,
                          env={**os.environ, "PATH": tree + "/usr/bin:" + os.environ["PATH"]}).stdout.split()


def test_completion(tree):
    assert complete(tree, "livenps-consumer", "b") == ["board"]
    assert {"run", "replay", "verify", "table", "log"} <= set(complete(tree, "livenps-consumer", ""))
    assert complete(tree, "livenps-consumer", "replay", "--di") == ["--digest"]
    assert "--digest" not in complete(tree, "livenps-consumer", "run", "--")
    assert complete(tree, "livenps-producer", "--config", "x.yaml", "sim") == ["simulate"]
    assert complete(tree, "livenps-consumer", "run", "--set", "commit.int") == ["commit.interval="]


def test_compose_file():
    """docker-compose.yml by its own parser; tests/system/test_compose.py runs what it says."""
    if not shutil.which("docker-compose"):
        pytest.skip("docker-compose is not installed (tests/install package)")
    found = subprocess.run(["docker-compose", "-f", os.path.join(cluster.ROOT, "docker-compose.yml"), "config", "--services"],
                           capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert {"kafka", "redis", "consumer-1", "consumer-2", "simulator", "board", "prometheus", "grafana"} <= set(found.stdout.split())


@pytest.fixture(scope="module")
def root(world, deb, tmp_path_factory):
    """A clean root of this Debian, booted, with the package beside it."""
    reason = roots.why_not()
    if reason:
        pytest.skip(reason)
    folder = os.path.join(str(tmp_path_factory.mktemp("root")), "root")
    roots.unpack(roots.codename(), folder)
    shutil.copyfile(deb, folder + "/livenps.deb")
    found = roots.Booted(world, folder)
    yield found
    found.off()
    subprocess.run(["rm", "-rf", "--one-file-system", folder])


@pytest.mark.timeout(1200)
def test_life(world, root):
    redis = world.redis()
    redis.call("CONFIG", "SET", "requirepass", PASSWORD)
    redis.password, redis.client = PASSWORD, None
    kafka = cluster.Program(world, "kafka", [cluster.PRODUCER, "embedded", "--topic", "contacts:2"], cluster.environment({}))
    bootstrap = wait_for(lambda: kafka.out().split("\n")[0], 20, "the embedded cluster says where it is")
    port, serve_port = cluster.free_port(), cluster.free_port()

    # ---- installed: by name of its dependencies, nothing started ----
    root.run("apt-get", "-q", "update")
    root.run("apt-get", "-q", "-y", "--no-install-recommends", "install", "/livenps.deb", timeout=900)
    assert "livenps-consumer 0.1.0" in root.run("livenps-consumer", "--version").stdout
    for unit in UNITS:
        assert root.show(unit, "ActiveState") == "inactive"
        checked = root.run("systemd-analyze", "verify", "--man=no", unit, check=False)
        assert checked.returncode == 0 and unit not in checked.stdout, checked.stdout

    # ---- without settings: one line that says what is missing, and no trying again ----
    assert root.run("systemctl", "start", UNITS[0], check=False).returncode != 0
    assert root.show(UNITS[0], "ExecMainStatus") == "2" and root.show(UNITS[0], "NRestarts") == "0"
    said = root.run("journalctl", "--no-pager", "-u", UNITS[0]).stdout
    assert re.search(r"topics|bootstrap\.servers", said), said

    # ---- with settings, and the password as the package's example says ----
    root.write("/etc/livenps/livenps.yaml", json.dumps({
        "kafka": {"bootstrap.servers": bootstrap, "session.timeout.ms": "6000"}, "topics": ["contacts"],
        "startup_timeout": "5m",
        "redis": {"url": redis.url}, "minimum_n": 1, "board": {"listen": "127.0.0.1:%d" % port},
        "serve": {"listen": "127.0.0.1:%d" % serve_port}}, indent=1))
    root.write("/etc/livenps/credentials/redis-password", PASSWORD + "\n", 0o600)
    for unit in UNITS:
        root.run("install", "-D", "-m", "0644", "/usr/share/doc/livenps/examples/secrets.conf",
                 "/etc/systemd/system/%s.d/secrets.conf" % unit)
    root.run("systemctl", "daemon-reload")
    root.run("systemctl", "enable", "--now", *UNITS)
    for unit in UNITS:
        assert root.show(unit, "ActiveState") == "active" and root.show(unit, "NotifyAccess") == "main"
        assert root.show(unit, "StatusText")
        pid = int(root.show(unit, "MainPID"))
        show = root.run("sh", "-c", "cat /proc/%d/status /proc/%d/environ /proc/%d/cmdline" % (pid, pid, pid)).stdout
        assert PASSWORD not in show and "LIVENPS_REDIS_PASSWORD_FILE=/run/credentials/" in show
        assert not re.search(r"^Uid:\s+0\s", show, re.M) and re.search(r"^NoNewPrivs:\s+1$", show, re.M)
        assert re.search(r"^CapEff:\s+0+$", show, re.M) and re.search(r"^Seccomp:\s+2$", show, re.M)
        # What it says goes to the journal, the password does not.
        assert PASSWORD not in root.run("journalctl", "--no-pager", "-u", unit).stdout
    root.run("livenps-producer", "simulate", "--bootstrap-servers", bootstrap, "--topic", "contacts", "--count", "400")

    def scored():
        with urllib.request.urlopen("http://127.0.0.1:%d/api/views?rollup=all&window=5m" % port, timeout=5) as answer:
            return re.search(r'"all"', answer.read().decode())
    wait_for(scored, 60, "the board shows the whole")
    event = {"id": "a-1", "type": "answer", "time": datetime.datetime.now(datetime.timezone.utc).isoformat(), "touchpoint": "delivery",
             "scale": "nps", "score": 9}
    request = urllib.request.Request("http://127.0.0.1:%d/events" % serve_port, json.dumps(event).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert 200 <= answer.status < 300
    wait_for(lambda: int(redis.hash("nps:{default}:health").get("accepted", 0)) == 401, 60, "every event is counted")

    # ---- one that stands still is started again ----
    before = root.show(UNITS[1], "MainPID")
    root.write("/etc/systemd/system/livenps-board.service.d/soon.conf", "[Service]\nWatchdogSec=20\n")
    root.run("systemctl", "daemon-reload")
    root.run("systemctl", "restart", UNITS[1])
    root.run("systemctl", "kill", "--kill-whom=main", "--signal=STOP", UNITS[1])
    wait_for(lambda: int(root.show(UNITS[1], "NRestarts")) >= 1 and root.show(UNITS[1], "ActiveState") == "active", 60,
             "systemd starts the board again")
    assert root.show(UNITS[1], "MainPID") != before
    root.run("rm", "/etc/systemd/system/livenps-board.service.d/soon.conf")
    root.run("systemctl", "daemon-reload")
    root.run("systemctl", "restart", UNITS[1])

    # ---- installed once more, as an upgrade is: what ran runs again, settings stay ----
    before = root.show(UNITS[0], "MainPID")
    root.run("dpkg", "-i", "/livenps.deb")
    wait_for(lambda: root.show(UNITS[0], "MainPID") not in (before, "0") and root.show(UNITS[0], "ActiveState") == "active", 60,
             "the new instance runs")
    with open(root.folder + "/etc/livenps/livenps.yaml") as f:
        assert bootstrap in f.read()
    wait_for(scored, 60, "the board shows the whole again")

    # ---- purged: nothing stays but what is Redis's and Kafka's ----
    root.run("apt-get", "-q", "-y", "purge", "livenps")
    for unit in UNITS:
        assert root.show(unit, "LoadState") == "not-found" and root.show(unit, "MainPID") == "0"
    left = root.run("find", "/etc", "/usr", "/var/lib/systemd", "-name", "*livenps*").stdout.split()
    assert left == []
    # Health would say so for ten seconds only.
    assert sum(world.positions(redis, "default").values()) == 401
    kafka.stop(signal.SIGTERM)
