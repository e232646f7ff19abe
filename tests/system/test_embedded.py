"""The embedded default: the whole way of the data by ./quickstart, and nothing left behind."""

import os
import re
import signal
import subprocess
import tempfile

import pytest

import cluster
from cluster import wait_for

QUICKSTART = os.path.join(cluster.ROOT, "quickstart")
# It builds and runs build/release, whatever is under test.
pytestmark = pytest.mark.skipif(bool(re.search("asan|tsan|clang", cluster.BIN)), reason="quickstart runs build/release")


def of_session(session):
    """The living processes of a session or started from a folder, by /proc."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open("/proc/%s/environ" % entry, "rb") as f:
                    environment = f.read()
                with open("/proc/%s/stat" % entry) as f:
                    state = f.read().rsplit(")", 1)[1].split()[0]
            except OSError:
                continue
            if session.encode() in environment and state != "Z":
                found.append(int(entry))
    return found


@pytest.fixture
def place(tmp_path):
    """A folder for temporary files, and the word by which everything that quickstart starts can be found."""
    folder = tempfile.mkdtemp(prefix="livenps-embedded-")
    mark = "LIVENPS_CACHE=" + folder
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("LIVENPS_", "KAFKA_"))}
    environment.update(TMPDIR=folder, LIVENPS_CACHE=folder)
    yield folder, mark, environment
    for pid in of_session(mark):
        os.kill(pid, signal.SIGKILL)
    subprocess.run(["rm", "-rf", folder])


@pytest.mark.long  # tests/run has a group that runs it
def test_quickstart_unattended(place):
    folder, mark, environment = place
    result = subprocess.run([QUICKSTART, "--seconds", "15"], env=environment, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=500)
    assert result.returncode == 0, result.stdout[-3000:]
    assert "all equal the truth" in result.stdout
    wait_for(lambda: of_session(mark) == [], 10, "every process of quickstart has ended")
    assert os.listdir(folder) == []


def test_quickstart_ctrl_c(place):
    """A person watches the table for a moment and presses Ctrl-C."""
    folder, mark, environment = place
    log = os.path.join(folder, "out")
    with open(log, "wb") as out:
        process = subprocess.Popen([QUICKSTART], env=environment, stdin=subprocess.DEVNULL, stdout=out,
                                   stderr=subprocess.STDOUT, start_new_session=True,
                                   # Ignored where the tests run in the background, and a shell cannot take that back.
                                   preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))

    def shown():
        with open(log, errors="replace") as f:
            text = f.read()
        assert process.poll() is None, text[-3000:]
        table = text.partition("is the picture whole?")[2]
        return "redis-cli" in text and re.search(r"delivery|checkout|billing|support", table)

    wait_for(shown, 200, "the table is shown")
    assert len(of_session(mark)) > 3
    process.send_signal(signal.SIGINT)
    process.wait(300)
    wait_for(lambda: of_session(mark) == [], 10, "every process of quickstart has ended")
    assert os.listdir(folder) == ["out"]
