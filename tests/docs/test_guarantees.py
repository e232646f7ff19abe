"""docs/guarantees.md says for each promise how it is tested: those tests exist."""

import glob
import os
import re

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))


def read(name):
    with open(os.path.join(ROOT, name), encoding="utf-8") as f:
        return f.read()


def rows():
    return [[cell.strip() for cell in line.strip("|").split("|")]
            for line in read("docs/guarantees.md").split("\n") if line.startswith("| ") and not line.startswith("| ---")][1:]


def test_every_promise_names_tests_that_exist():
    system = "\n".join(read(name) for name in sorted(glob.glob(os.path.join(ROOT, "tests", "system", "test_*.py"))))
    assert len(rows()) > 20
    for failure, promise, seen, tested in rows():
        assert promise and tested, failure
        # A folder or file in brackets holds the names before it; otherwise they are system tests.
        for part, place in re.findall(r"([^()]*)(?:\(`(tests/[^`]*)`\))?", tested):
            names = re.findall(r"`(\w+)`", part)
            if not place:
                source = system
            elif os.path.isdir(os.path.join(ROOT, place)):
                source = "\n".join(read(name) for name in glob.glob(os.path.join(ROOT, place, "*.py")))
            else:
                source = read(place)
            # The last names before a bracket belong to it; those before the last comma may be system tests.
            for name in names:
                pattern = r"\b%s\(" % name
                assert re.search(pattern, source) or re.search(pattern, system), "%s: %s" % (failure, name)
