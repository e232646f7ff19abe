"""The other Debian: installed by tests/install, built with its compiler and libraries (hiredis 1.x, so TLS to Redis is in),
and tested, in a clean root."""

import os
import re
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import cluster  # noqa: E402
import roots  # noqa: E402

RELEASE = "trixie"
# Both servers, every thread of an instance, what it says at its start; the rest of tests/system takes no other way.
SYSTEM = ["test_service.py", "test_startup.py", "test_names.py"]


def inside(folder, script):
    """A shell's commands in the root, in a copy of the sources, with this machine's network and cache of Kafka's jars."""
    unit = [] if os.path.isdir("/run/systemd/system") else ["--keep-unit"]
    cache = os.path.dirname(roots.CACHE)
    command = ["systemd-nspawn", "--quiet", "--register=no", *unit, "--resolv-conf=off", "--console=pipe", "--directory=" + folder,
               "--bind=" + cache + ":/root/.cache/livenps", "--setenv=PATH=/usr/sbin:/usr/bin:/sbin:/bin", "--setenv=LC_ALL=C.UTF-8",
               "--chdir=/src", "bash", "-c", script]
    return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          preexec_fn=cluster.die_with_parent)


def passed(result):
    """How many, by the last line of tests/run or pytest."""
    assert result.returncode == 0, result.stdout[-6000:]
    return int(re.findall(r"^(\d+) passed", result.stdout, re.M)[-1])


@pytest.mark.timeout(3600)
def test_debian13(tmp_path):
    reason = roots.why_not()
    if reason:
        pytest.skip(reason)
    folder = str(tmp_path / "root")
    roots.unpack(RELEASE, folder)
    try:
        os.mkdir(folder + "/src")
        files = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=cluster.ROOT, check=True,
                               capture_output=True).stdout
        subprocess.run(["tar", "--null", "-T", "-", "-cf", str(tmp_path / "src.tar")], cwd=cluster.ROOT, input=files, check=True)
        subprocess.run(["tar", "-C", folder + "/src", "-xf", str(tmp_path / "src.tar")], check=True)
        unit = inside(folder, "tests/run unit")
        print(unit.stdout[-400:])
        assert passed(unit) > 50
        system = inside(folder, "BUILD_DIR=$PWD/build/release python3 -m pytest -c tests/pytest.ini --rootdir tests -q -m 'not long' " +
                        " ".join("tests/system/" + name for name in SYSTEM))
        print(system.stdout[-400:])
        assert passed(system) > 5
        # Its own package, with the names that libraries have there.
        shown = inside(folder, "(apt-get -q -y install --no-install-recommends dpkg-dev file && cpack --config build/release/CPackConfig.cmake -B /tmp/package) >/tmp/log 2>&1 && "
                       "apt-get -q -y install /tmp/package/*.deb >>/tmp/log 2>&1 && livenps-consumer --version || tail -n 30 /tmp/log")
        assert "TLS to Redis: yes" in shown.stdout, shown.stdout
    finally:
        subprocess.run(["rm", "-rf", "--one-file-system", folder])
