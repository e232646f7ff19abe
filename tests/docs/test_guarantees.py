"""docs/guarantees.md says for each promise how it is tested: those tests exist."""

import glob
import os
import re
import runpy

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))


def read(name):
    with open(os.path.join(ROOT, name), encoding="utf-8") as f:
        return f.read()


def rows(heading):
    """Of all tables below a heading, those that name their columns left out."""
    section = read("docs/guarantees.md").split("\n## " + heading + "\n")[1].split("\n## ")[0]
    lines = section.split("\n")
    return [[cell.strip() for cell in line.strip("|").split("|")] for line, following in zip(lines, lines[1:] + [""])
            if line.startswith("| ") and not line.startswith("| ---") and not following.startswith("| ---")]


def test_every_promise_names_tests_that_exist():
    system = "\n".join(read(name) for name in sorted(glob.glob(os.path.join(ROOT, "tests", "system", "test_*.py"))))
    promises = rows("Failure by failure")
    assert len(promises) > 20
    for failure, promise, seen, tested in promises:
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


def test_the_model_is_what_is_said_of_it():
    run = runpy.run_path(os.path.join(ROOT, "tests", "model", "run"))
    tables = rows("Checked by a model")
    configurations = [row for row in tables if len(row) == 3]
    assert [row[:2] for row in configurations] == [[name, what] for name, _, _, what in run["SHORT"]]
    states = sum(int(row[2].replace(",", "")) for row in configurations)
    assert "{:,} states in all".format(states) in read("docs/guarantees.md")
    taken_away = [re.search(r"\((\w+)\)$", row[0]).group(1) for row in tables if len(row) == 2]
    assert taken_away == [name for name, *_ in run["VARIANTS"] if name != "MADE_ANEW_TWICE"]
