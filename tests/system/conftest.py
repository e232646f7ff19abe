"""Fixtures of the system tests: one Kafka for all, one World for each."""

import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import cluster  # noqa: E402


@pytest.fixture(scope="session")
def kafka():
    """The tests' broker: that of KAFKA_BOOTSTRAP_SERVERS, else one that is started and stopped here."""
    outside = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    found = cluster.Kafka(outside) if outside else cluster.Kafka.up()
    yield found
    found.down()


@pytest.fixture(scope="module")
def own_kafka():
    """A broker that a test may stop."""
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
    yield from make_world(request, tmp_path, own_kafka)
