"""What the tests of the documents share: one Kafka and one Redis."""

import os
import shutil
import subprocess
import sys
import tempfile

import pytest

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
sys.path.insert(0, os.path.join(ROOT, "tests", "system"))

from cluster import free_port  # noqa: E402


@pytest.fixture(scope="session")
def servers():
    """(Kafka's address, Redis's port)"""
    folder = tempfile.mkdtemp(prefix="livenps-docs-")
    kafka = [os.path.join(ROOT, "tests", "kafka")]
    place = ["--dir", os.path.join(folder, "kafka")]
    port = free_port()
    redis = subprocess.Popen(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder,
                              "--maxmemory-policy", "noeviction", "--logfile", os.path.join(folder, "redis.log")])
    try:
        up = subprocess.run(kafka + ["up"] + place, check=True, stdout=subprocess.PIPE, text=True)
        yield up.stdout.splitlines()[-1], port
    finally:
        subprocess.run(kafka + ["down"] + place, check=False)
        redis.kill()
        redis.wait()
        shutil.rmtree(folder, ignore_errors=True)
