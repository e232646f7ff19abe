"""README.md is true: its commands are run as they stand, one after the other in one shell, against a private Kafka and
Redis. A block with a comment `<!-- not run by tests/docs/test_readme.py: why -->` above it is left out, and says why."""

import os
import re
import subprocess

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
BUILD = os.environ.get("BUILD_DIR", os.path.join(ROOT, "build", "release"))
LEFT_OUT = re.compile(r"<!-- not run by tests/docs/test_readme\.py: \S.*? -->")


def blocks():
    """(text, reason it is left out or None) of every sh block."""
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as f:
        text = f.read()
    found = []
    for match in re.finditer(r"([^\n]*)\n```sh\n(.*?)^```", text, re.M | re.S):
        reason = LEFT_OUT.search(match[1])
        found.append((match[2], reason[0] if reason else None))
    return found


def test_every_block_is_run_or_says_why():
    found = blocks()
    run = [text for text, reason in found if not reason]
    assert len(found) >= 4 and len(run) >= 2
    # What is left out is simple enough to be read: a script of ours, tried elsewhere, starting servers, or installing.
    for text, reason in found:
        for line in text.splitlines() if reason else []:
            assert re.match(r"(\./quickstart|tests/(run|install|kafka up)|redis-server|cmake|cpack|apt-get install|editor|systemctl|docker compose)\b", line), line


def test_first_own_event(servers):
    kafka, port = servers
    script = "\n".join(text for text, reason in blocks() if not reason)
    assert "127.0.0.1:9092" in script and "6379" in script
    script = script.replace("127.0.0.1:9092", kafka).replace("6379", str(port)).replace("build/release/", BUILD + "/")
    # The consumer must end with the script, whatever happens in it.
    script = "set -e\ntrap 'kill %1; wait' EXIT\n" + script
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("LIVENPS_", "KAFKA_"))}
    environment.update(LIVENPS_CACHE=os.environ["LIVENPS_CACHE"] if "LIVENPS_CACHE" in os.environ else
                       os.path.expanduser("~/.cache/livenps"),
                       # A Redis or Kafka that stands still for a while is waited for.
                       LIVENPS_REDIS_TIMEOUT="1m", LIVENPS_STARTUP_TIMEOUT="5m")
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=500, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    fields = {}
    for name, value in zip(lines, lines[1:]):
        fields.setdefault(name, value)
    assert fields["nps"] == "100" and fields["n"] == "1" and fields["nps_rounded"] == "100", done.stdout
    assert any(re.match(r"delivery +\+100 ", line) for line in lines), done.stdout
    assert re.fullmatch(r"[0-9a-f]{64}", lines[-1]), done.stdout
    assert "accepted 1 " in done.stdout
