"""Fixtures of the system tests: one Kafka for all, one World for each."""

import contextlib
import fcntl
import json
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import cluster  # noqa: E402


@contextlib.contextmanager
def shared(folder):
    """What the workers of one run share: a dict in a file, changed by one at a time."""
    path = os.path.join(folder, "kafka.json")
    with open(path + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = {"users": 0}
        if os.path.exists(path):
            with open(path) as f:
                found = json.load(f)
        yield found
        with open(path, "w") as f:
            json.dump(found, f)


@pytest.fixture(scope="session")
def kafka(request, tmp_path_factory):
    """The tests' broker: that of KAFKA_BOOTSTRAP_SERVERS, else one that the first worker starts and the last stops."""
    outside = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if outside:
        yield cluster.Kafka(outside)
        return
    if not hasattr(request.config, "workerinput"):
        found = cluster.Kafka.up()
        yield found
        found.down()
        return
    folder = str(tmp_path_factory.getbasetemp().parent)
    with shared(folder) as state:
        if state["users"] == 0:
            found = cluster.Kafka.up()
            state.update(bootstrap=found.bootstrap, directory=found.directory)
        state["users"] += 1
        found = cluster.Kafka(state["bootstrap"], state["directory"])
    yield found
    with shared(folder) as state:
        state["users"] -= 1
        if state["users"] == 0:
            found.down()


# They take longest, or wait most: begun last they would end alone, with nothing beside them.
FIRST = ["test_unreadable", "test_producer", "test_keep", "test_serve", "test_anew", "test_keep_faults", "test_kafka_faults", "test_quarantine",
         "test_redis_faults", "test_lifecycle", "test_hard_cases"]


def pytest_collection_modifyitems(items):
    order = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


@pytest.fixture(scope="session")
def own_kafka():
    """A broker that a test may stop, as long as it runs again afterwards: one for all modules of a worker."""
    found = cluster.Kafka.up()
    yield found
    found.down()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    item.stash.setdefault(_failed, []).append(outcome.get_result().failed)


_failed = pytest.StashKey()


def make_world(request, tmp_path, kafka):
    world = cluster.World(str(tmp_path), kafka, request.node.name.replace("test_", ""))
    yield world
    try:
        # Before the world ends what runs: a sanitizer reports leaks only at an orderly end.
        if any(request.node.stash.get(_failed, [])):
            print(world.report())
        else:
            found = world.sanitizer_reports()
            assert not found, "\n".join(found)
            for program in world.programs:
                assert program.ended_on_purpose or program.process.poll() in (None, 0), (
                    "%s ended by itself with %d:\n%s" % (program.name, program.process.returncode,
                                                         cluster.tail(program.log_path)))
    finally:
        world.close()


@pytest.fixture
def world(request, tmp_path, kafka):
    yield from make_world(request, tmp_path, kafka)


@pytest.fixture
def own_world(request, tmp_path, own_kafka):
    """Like world, on the broker that may be stopped."""
    try:
        yield from make_world(request, tmp_path, own_kafka)
    finally:
        if any(request.node.stash.get(_failed, [])):
            own_kafka.tool("start", "1")  # for the next test's sake, where this one has not come to it
