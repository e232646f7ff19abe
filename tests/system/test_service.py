"""What the manager of a service hears (systemd's protocol, Type=notify and WatchdogSec): when an instance has started, that
it is alive while all of its threads make progress and only then, and that it ends."""

import os
import re
import socket
import time

from cluster import CONSUMER, PREFIX, Program, environment, wait_for

WATCHDOG_S = 2


class Manager:
    """The other end of NOTIFY_SOCKET: a datagram for each thing that is said."""

    def __init__(self, world):
        self.path = os.path.join(world.folder, "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.setblocking(False)
        self.said = []

    def variables(self):
        return {"NOTIFY_SOCKET": self.path, "WATCHDOG_USEC": str(WATCHDOG_S * 1000000)}

    def hear(self):
        while True:
            try:
                self.said.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return self.said

    def heard(self, text):
        return [message for message in self.hear() if text in message]

    def wait(self, text, count=1):
        wait_for(lambda: len(self.heard(text)) >= count, 30, "the manager hears %r %d times" % (text, count))


def test_instance(world):
    manager = Manager(world)
    redis = world.redis()
    topic = world.topic(1)
    # Redis will hang for longer than the manager has patience, and the instance waits for it.
    consumer = world.consumer(topic, redis, redis__timeout="5m", extra=manager.variables())
    manager.wait("READY=1")
    assert "reads 1 topics into namespace " + world.namespace in manager.heard("READY=1")[0]
    manager.wait("WATCHDOG=1", 3)
    assert not manager.heard("STOPPING=1")

    still = "has stood still for [0-9]+ s"
    already = len(re.findall(still, consumer.log()))  # the machine may have, and the thread with it
    redis.program.freeze()
    consumer.wait_log(still, count=already + 1)

    def quiet():
        before = len(manager.heard("WATCHDOG=1"))
        time.sleep(WATCHDOG_S)
        return len(manager.heard("WATCHDOG=1")) == before
    # What it said may have been of a moment when it stood still itself; but then, and from then on, of Redis.
    wait_for(quiet, 10, "nothing is heard")
    assert quiet()
    before = len(manager.heard("WATCHDOG=1"))
    redis.program.thaw()
    manager.wait("WATCHDOG=1", before + 2)

    assert consumer.stop() == 0
    assert manager.heard("STOPPING=1") and len(manager.heard("READY=1")) == 1


def test_a_wait_within_a_rebalance(world):
    """Rejected records that nobody acknowledges hold up the adoption of positions within a rebalance: a wait like any
    other, in which the manager hears that the instance is alive."""
    manager = Manager(world)
    redis, topic = world.redis(), world.topic(2)
    # Its client keeps them back, a quarter of an hour. Nobody's session is lost meanwhile: the second one would read them all.
    session = {"kafka.session.timeout.ms": 60_000}
    first = world.consumer(topic, redis, extra=manager.variables(), snapshot__topic="none", set={"kafka.linger.ms": 900000, **session})
    world.kafka.send(topic, [{"value": b"bad", "partition": partition} for partition in (0, 1)])
    first.wait_log("rejected: malformed")
    second = world.consumer(topic, redis, set=session)
    first.wait_log("assigned 1 partitions")
    # Perhaps in the same outage as the namespace that was not begun yet.
    first.wait_log("warn commit: (still waiting after [0-9]+ s: )?kafka: rejected records are not acknowledged yet")
    # Longer than its patience with a thread that stands still.
    manager.wait("WATCHDOG=1", len(manager.heard("WATCHDOG=1")) + 8)
    assert first.stop() == 0
    world.caught_up(redis)
    world.ledger(redis, topic, accepted=0, rejected=2)
    assert second.stop() == 0


def test_not_ready_before_redis(world):
    """Before it has found what it needs an instance has not started, and its end is no orderly one."""
    manager = Manager(world)
    topic = world.topic(1)
    consumer = world.consumer(topic, "redis://127.0.0.1:1", ready=False, startup_timeout="1s", extra=manager.variables())
    consumer.ended_on_purpose = True
    assert consumer.wait() == 3
    assert not manager.heard("READY=1")


def test_board(world):
    manager = Manager(world)
    settings = {"redis.url": world.redis().url, "board.listen": "127.0.0.1:0"}
    board = Program(world, "board", PREFIX + [CONSUMER, "board"], {**environment(settings), **manager.variables()})
    manager.wait("READY=1")
    assert "http://127.0.0.1:" in manager.heard("READY=1")[0]
    manager.wait("WATCHDOG=1", 3)
    assert board.stop() == 0
    assert manager.heard("STOPPING=1")
