"""A real Redis Cluster of three nodes: A, which redis.url names and which has no slots, B, which has them all, C, B's replica."""

import http.client
import json
import re

import cluster
import compare_truth as ct
from cluster import wait_for
from snapshots import OFTEN, WINDOWS, counted, kept_to


def goes_on(world, redis, amount=500, timeout=60):
    from_here = counted(world, redis)
    wait_for(lambda: counted(world, redis) >= from_here + amount, timeout, "reading goes on")


def role(node):
    return node.call("ROLE")[0]


def owner(node):
    """The port of whoever has the slots, as this node sees it."""
    slots = node.call("CLUSTER", "SLOTS")
    return len(slots) == 1 and slots[0][2][1]


def nodes_of(world):
    """A, B and C. None fails over by itself, however long the machine stands still; the tests do it."""
    nodes = []
    for name in ("a", "b", "c"):
        bus = cluster.free_port()
        nodes.append(world.redis(name=name, options=[
            "--cluster-enabled", "yes", "--cluster-port", str(bus), "--cluster-node-timeout", "60000",
            "--cluster-replica-no-failover", "yes", "--repl-diskless-sync-delay", "0"]))
        nodes[-1].bus = bus
    a, b, c = nodes
    for near, far in ((a, b), (a, c), (b, c)):
        assert near.call("CLUSTER", "MEET", "127.0.0.1", far.port, far.bus) == "OK"

    def acquainted(node):
        lines = node.call("CLUSTER", "NODES").splitlines()
        return len(lines) == 3 and not any("handshake" in line for line in lines)
    for node in nodes:
        wait_for(lambda: acquainted(node), 40, "the nodes know each other")
    assert b.call("CLUSTER", "ADDSLOTSRANGE", 0, 16383) == "OK"
    assert c.call("CLUSTER", "REPLICATE", b.call("CLUSTER", "MYID")) == "OK"
    for node in nodes:
        wait_for(lambda: owner(node) == b.port and "cluster_state:ok" in node.call("CLUSTER", "INFO"), 40, "the slots are known")
    return nodes


def take_over(replica, master, asked):
    """The replica leads, without having asked whoever leads; that one knows it, and so does the node that is asked."""
    replica.in_step(master)
    assert replica.call("CLUSTER", "FAILOVER", "TAKEOVER") == "OK"
    wait_for(lambda: role(master) == "slave" and owner(asked) == replica.port, 40, "the slots have moved")


def connections(node):
    return len(re.findall(r" name=livenps ", node.call("CLIENT", "LIST")))


def heard(world, node):
    """The next message on the channel of updates."""
    connection = ct.Redis(node.url, timeout=20 * cluster.PATIENCE)
    try:
        connection.call("SUBSCRIBE", "nps:{%s}:updates" % world.namespace)
        return json.loads(connection._reply()[2])
    finally:
        connection.close()


class Board:
    def __init__(self, world, redis):
        self.program = cluster.Program(world, world.number("board"), cluster.PREFIX + [cluster.CONSUMER, "board"], cluster.environment(
            {"redis.url": redis.url, "namespace": world.namespace, "board.listen": "127.0.0.1:0",
             "redis.timeout": "1m"}))  # a node that stands still is one that is heard
        at = wait_for(lambda: re.search(r"http://127\.0\.0\.1:(\d+)/", self.program.out()), 20, "the board says where it listens")
        self.port = int(at[1])

    def rows(self):
        """The names of its rows; nothing when it cannot say."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30 * cluster.PATIENCE)
        try:
            connection.request("GET", "/api/views?window=1h")
            reply = connection.getresponse()
            said = reply.read()
        finally:
            connection.close()
        return [row[0] for row in json.loads(said)["sets"][2]["rows"]] if reply.status == 200 else []


def read_by_all(world, redis, topic, board):
    """Every command that reads, by a node that has none of it."""
    names = wait_for(board.rows, 20, "the board has rows")
    settings = world.settings(topic, redis, windows=WINDOWS)
    code, out, err = world.run_consumer("table", "--once", "--window", "1h", settings=settings)
    assert code == 0 and names[0] in out, (code, out, err)
    code, out, err = world.run_consumer("log", "--count", "1", settings=settings)
    assert code == 0 and "writer=" in out, (code, out, err)
    code, out, err = world.run_consumer("verify", "--topic", topic, settings=settings)
    assert code == 0, (code, out, err)


def test_cluster_moves_and_fails_over(world):
    """Whoever names a node without the namespace is sent to its master, also when that changes under load: reading, counting,
    publishing, keeping, and all that reads. What is published is heard at every node."""
    a, b, c = nodes_of(world)
    topic = world.topic(2)
    consumer = world.consumer(topic, a, **OFTEN)
    board = Board(world, a)
    simulation = world.load(topic, 2000)
    goes_on(world, b)
    assert "changed" in heard(world, a)
    take_over(c, b, a)
    goes_on(world, c)
    assert "changed" in heard(world, a)
    truth = simulation.end()
    world.exact(c, truth, topic, windows=WINDOWS)
    kept_to(world, topic)
    read_by_all(world, a, topic, board)
    assert "cannot be heard" not in board.program.log()
    assert consumer.stop() == 0 and board.program.stop() == 0
    # The other node that is not the master: a replica, which tells the way, too.
    board, consumer = Board(world, b), world.consumer(topic, b, **OFTEN)
    more = world.simulate(topic, count=1000, seed=2).finish()
    world.exact(c, cluster.add_truths(truth, more), topic, windows=WINDOWS)
    read_by_all(world, b, topic, board)
    assert a.keys() == set() and role(b) == "slave"
    assert consumer.stop() == 0 and board.program.stop() == 0


def test_cluster_master_comes_back_as_another(world):
    """The master that the connections were sent to loses the namespace while the instance stands still. When it wakes that one is a
    replica, a server that wants a password, or none of the cluster's: redis.url's node is asked again, not that one for ever."""
    a, b, c = nodes_of(world)
    topic = world.topic(2)
    consumer = world.consumer(topic, a, **OFTEN)
    simulation = world.load(topic, 2000)

    def frozen(master, replica):
        """Not in the middle of connecting again, which a machine that was short of time may have led to."""
        consumer.freeze()
        if connections(master) >= 2 and connections(a) == connections(replica) == 0:
            return True
        consumer.thaw()
        return False

    def change(master, replica, how):
        goes_on(world, master)
        wait_for(lambda: frozen(master, replica), 40, "it stands still while all its connections are to the master")
        take_over(replica, master, a)
        how(master)
        consumer.thaw()
        goes_on(world, replica)

    def replica_again(node):
        node.restart()
        wait_for(lambda: role(node) == "slave", 40, "it is a replica")

    def stranger(node):
        node.call("CONFIG", "SET", "requirepass", "another")
        node.call("CLIENT", "KILL", "TYPE", "normal")

    def left(node):
        assert node.call("CLUSTER", "RESET", "HARD") == "OK"
        assert connections(node) >= 2

    change(b, c, replica_again)
    change(c, b, stranger)
    c.call("CONFIG", "SET", "requirepass", "")
    change(b, c, left)
    world.exact(c, simulation.end(), topic, windows=WINDOWS)
    assert connections(c) >= 2
    assert consumer.stop() == 0
