"""docs/operating.md is true: its commands are run as they stand, one block after the other in one shell, against a small
installation (a topic, a Redis, one instance under a service manager that this test plays), and print what stands below them. Each
alert rule and each refusal that the source can utter has its entry, and no entry is left over."""

import glob
import os
import re
import signal
import socket
import subprocess
import time

import pytest

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
BUILD = os.path.abspath(os.environ.get("BUILD_DIR", os.path.join(ROOT, "build", "release")))
TOPIC, NAMESPACE = "operated", "shop"


def read(*names):
    with open(os.path.join(ROOT, *names), encoding="utf-8") as f:
        return f.read()


DOCUMENT = read("docs", "operating.md")


# ---- every alert, every refusal ----

def section(title, level="##"):
    return re.search(r"^%s %s\n(.*?)(?=^#{2,%d} |\Z)" % (level, re.escape(title), len(level)), DOCUMENT, re.M | re.S)[1]


def test_every_alert_has_its_entry():
    text = read("config", "prometheus", "alerts.yml")
    names = re.findall(r"^\s*- alert: (\w+)$", text, re.M)
    anchors = re.findall(r"^\s*runbook: docs/operating\.md#([\w-]+)$", text, re.M)
    assert len(names) >= 10 and anchors == [name.lower() for name in names]
    assert re.findall(r"^### (\w+)$", section("Alerts"), re.M) == names, "one entry each, in the order of the rules"
    for name in names:
        assert "```sh" in section(name, "###"), "%s has no command" % name


def plain(text):
    """A message with ... for what differs."""
    text = re.sub(r"%[-+ #0]*(\d+|\*)?(\.(\d+|\*))?(hh|h|ll|l|z|j)?[a-zA-Z]", "...", text)
    return re.sub(r"\.{3,}", "...", text)


def arguments(source, begin):
    """The text between a call's parentheses."""
    depth, at, quoted = 1, begin, False
    while depth:
        c = source[at]
        if quoted and c == "\\":
            at += 1
        elif c == '"':
            quoted = not quoted
        elif not quoted:
            depth += {"(": 1, ")": -1}.get(c, 0)
        at += 1
    return source[begin:at - 1]


def formats(text):
    """The format of a call, or both of them where a condition chooses: literals that stand side by side are one."""
    text = re.sub(r'\bPRI([diux])(?:64|32)\b', lambda m: '"%s"' % m[1], text)
    runs = list(re.finditer(r'"(?:\\.|[^"\\])*"(?:\s*"(?:\\.|[^"\\])*")*', text))
    found = []
    for i, run in enumerate(runs):
        if i == 0 or (i == 1 and text[runs[0].end():run.start()].strip() == ":"):
            found.append("".join(re.findall(r'"((?:\\.|[^"\\])*)"', run[0])).replace('\\"', '"'))
    return found


def refusals():
    """{message: file} of every way to end with exit code 3 or 6."""
    found = {}
    for path in sorted(glob.glob(os.path.join(ROOT, "[cp]*", "*.c"))):
        with open(path, encoding="utf-8") as f:
            source = f.read()
        for call in re.finditer(r"\b(livenps_fail|fail_answer)\(", source):
            text = arguments(source, call.end())
            if not re.search(r"LIVENPS_E_STARTUP|LIVENPS_E_REFUSED|startup_code\(", text.split('"')[0]):
                continue
            for each in formats(text):
                each = "Redis at %s: " + each + ": %s" if call[1] == "fail_answer" else each
                found[plain(each)] = os.path.relpath(path, ROOT)
    return found


def test_every_refusal_has_its_entry():
    known = refusals()
    assert len(known) >= 55 and "Redis at ...: is version ...; 6.2 or later is needed" in known
    entries = [plain(span) for span in re.findall(r"^\| `([^`]+)` \|", section("Refusals"), re.M)]
    missing = ["%s: %s" % (file, message) for message, file in known.items() if message not in entries]
    assert not missing, "docs/operating.md, Refusals, says nothing of\n" + "\n".join(missing)
    assert not set(entries) - set(known), "no program says this any more"


# ---- every command ----

TOOLS = {
    "kafka-topics.sh": "org.apache.kafka.tools.TopicCommand",
    "kafka-configs.sh": "kafka.admin.ConfigCommand",
    "kafka-console-consumer.sh": "org.apache.kafka.tools.consumer.ConsoleConsumer",
    "kafka-consumer-groups.sh": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
}
# What a service manager does with the one instance of this test.
SYSTEMCTL = r"""#!/bin/bash
[ "$2" = livenps-consumer ] || { echo "no unit $2" >&2; exit 1; }
alive() { [ -s pid ] && kill -0 "$(cat pid)" 2>/dev/null; }
stop() { alive || return 0; kill -TERM "$(cat pid)"; while alive; do sleep 0.05; done; }
start() { alive && return 0; setsid livenps-consumer run </dev/null >/dev/null 2>>journal & echo $! >pid; }
cd "$INSTALLATION" || exit 1
case $1 in
  start|stop) $1 ;;
  restart) stop; start ;;
  is-active) alive && echo active || { echo inactive; exit 3; } ;;
  *) echo "systemctl $1 is not played here" >&2; exit 1 ;;
esac
"""
JOURNALCTL = r"""#!/bin/bash
[ "$1 $2 $3 $5" = "-u livenps-consumer -n --no-pager" ] || { echo "journalctl $* is not played here" >&2; exit 1; }
exec tail -n "$4" "$INSTALLATION/journal"
"""


def blocks():
    """[(commands, what is expected or None)]"""
    return re.findall(r"^```sh\n(.*?)^```\n(?:```text\n(.*?)^```\n)?", DOCUMENT, re.M | re.S)


def expression(expected):
    """As a regular expression: <number>, <text>, and lines of ... ."""
    lines = []
    for line in expected.split("\n")[:-1]:
        if line == "...":
            lines.append(r"(?:[^\n]*\n)*")
        else:
            parts = re.split(r"(<number>|<text>)", line)
            lines.append("".join({"<number>": r"-?\d+(?:\.\d+)?", "<text>": r"[^\n]+"}.get(part, re.escape(part)) for part in parts) + "\n")
    return "".join(lines)


def test_expectations_can_fail():
    assert re.fullmatch(expression("a <number>\n...\n<text>z\n"), "a -7.5\nb\nc\nyz\n")
    for wrong in ("a x\nyz\n", "a 7\n", "a 7\nz\n", "a 7\nyz\nmore\n"):
        assert not re.fullmatch(expression("a <number>\n...\n<text>z\n"), wrong)


@pytest.fixture
def installation(tmp_path, servers):
    """A folder with an instance that runs, and the environment of its operator."""
    kafka, port = servers
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in [("systemctl", SYSTEMCTL), ("journalctl", JOURNALCTL)] + [
            (name, "#!/bin/sh\nLIVENPS_CACHE='%s' KAFKA_BOOTSTRAP_SERVERS=%s exec '%s' run %s \"$@\"\n" % (
                os.environ.get("LIVENPS_CACHE", os.path.expanduser("~/.cache/livenps")), kafka, os.path.join(ROOT, "tests", "kafka"),
                java)) for name, java in TOOLS.items()]:
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    for name in ("livenps-consumer", "livenps-producer"):
        (tools / name).symlink_to(os.path.join(BUILD, name))
    # A machine, Redis or Kafka that stands still for a while is no reason to call the picture incomplete here, nor to lose the
    # partitions or the lease.
    (tmp_path / "livenps.yaml").write_text(
        "kafka:\n  bootstrap.servers: %s\n  session.timeout.ms: 30000\nredis:\n  url: redis://127.0.0.1:%d\n  timeout: 1m\ntopics: [%s]\n"
        "namespace: %s\ncomplete_lag: 60s\ncommit:\n  idle: 500ms\nsnapshot:\n  kafka_interval: 1s\naggregate:\n  snapshot: 500ms\n  lease: 20s\n" % (
            kafka, port, TOPIC, NAMESPACE))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("LIVENPS_", "KAFKA_"))}
    environment.update(PATH="%s:%s" % (tools, environment["PATH"]), INSTALLATION=str(tmp_path), HOME=str(tmp_path),
                       LIVENPS_CONFIG=str(tmp_path / "livenps.yaml"))

    def run(command, **more):
        return subprocess.run(["bash", "-c", command], env=environment, cwd=tmp_path, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", **more)

    made = subprocess.run([os.path.join(ROOT, "tests", "kafka"), "topic", TOPIC, "2"],
                          env={**os.environ, "KAFKA_BOOTSTRAP_SERVERS": kafka}, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    key = "nps:{%s}:health" % NAMESPACE
    begun = run("systemctl start livenps-consumer && livenps-producer simulate --topic %s --count 2000" % TOPIC, timeout=300)
    from confluent_kafka import Producer
    client = Producer({"bootstrap.servers": kafka})
    client.produce(TOPIC, b"not json")
    client.flush(60)
    try:
        deadline = time.monotonic() + 300
        while run("redis-cli -p %d hmget '%s' accepted rejected:malformed" % (port, key)).stdout.split() != ["2000", "1"]:
            assert time.monotonic() < deadline, begun.stdout + (tmp_path / "journal").read_text()
            time.sleep(0.2)
        while " is kept in topic " not in (tmp_path / "journal").read_text():
            assert time.monotonic() < deadline, (tmp_path / "journal").read_text()
            time.sleep(0.2)
        yield kafka, port, run
    finally:
        pid = int((tmp_path / "pid").read_text())
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


# Forty commands, many of them a Java program each.
@pytest.mark.timeout(1800)
def test_every_command_does_what_the_document_says(installation, tmp_path):
    kafka, port, run = installation
    found = blocks()
    assert len(found) >= 25 and DOCUMENT.count("```sh") == len(found)
    names = found[0][0]
    assert not found[0][1] and set(re.findall(r"\b(\w+)=", names)) == {"LIVENPS_CONFIG", "redis", "kafka", "topic", "namespace", "key"}
    script = ["redis=redis://127.0.0.1:%d kafka=%s topic=%s namespace=%s" % (port, kafka, TOPIC, NAMESPACE), names.split("\n")[2]]
    for number, (commands, _) in enumerate(found[1:], 1):
        script.append("%s\necho \"@@ %d $?\"" % (commands, number))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        another = free.getsockname()[1]
    # A Java program on a busy machine takes longer to its first record than a reader wants to wait for the last.
    text = "\n".join(script).replace("--timeout-ms 5000", "--timeout-ms 30000").replace("--timeout-ms 10000", "--timeout-ms 120000")
    done = run(text.replace("6399", str(another)), timeout=1500)
    said = re.split(r"^@@ (\d+) (\d+)\n", done.stdout, flags=re.M)
    answers = {int(number): (text, int(code)) for text, number, code in zip(said[::3], said[1::3], said[2::3])}
    wrong = []
    for number, (commands, expected) in enumerate(found[1:], 1):
        text, code = answers.get(number, ("(not reached)", -1))
        if code or (expected and not re.fullmatch(expression(expected), text)):
            wrong.append("%sends with %d and says\n%s\nnot\n%s" % (commands, code, text, expected))
    assert not wrong, "\n----\n".join(wrong) + "\n---- journal\n" + (tmp_path / "journal").read_text()[-3000:]
