"""The runners that docs/performance.md names are run on demand only: here, that they start at all."""

import os
import subprocess

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@pytest.mark.parametrize("runner", ["tests/bench/run", "tests/bench/peers/run"])
def test_runner_starts(runner):
    with open(os.path.join(ROOT, "docs", "performance.md"), encoding="utf-8") as f:
        assert runner in f.read()
    result = subprocess.run([os.path.join(ROOT, runner), "--help"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert "--count" in result.stdout
