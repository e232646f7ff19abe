"""Fixtures of the board's tests: Redis servers and boards of a module, and one browser for all of them."""

import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import board_world  # noqa: E402
import cluster  # noqa: E402


def world_in(folder, name):
    world = cluster.World(str(folder), None, name)
    yield world
    try:
        for program in world.programs:
            assert program.ended_on_purpose or program.process.poll() in (None, 0), (
                "%s ended by itself with %d:\n%s" % (program.name, program.process.returncode, cluster.tail(program.log_path)))
        assert not world.sanitizer_reports()
    finally:
        world.close()


@pytest.fixture(scope="module")
def module_world(tmp_path_factory, request):
    yield from world_in(tmp_path_factory.mktemp("board"), request.module.__name__)


@pytest.fixture
def world(tmp_path, request):
    yield from world_in(tmp_path, request.node.name)


@pytest.fixture(scope="module")
def browser(module_world):
    found = board_world.Browser(module_world)
    yield found
    found.close()
