"""Faults of the network itself: packets between two of the machines vanish, both ways or one way only.

Every broker and every consumer is a network namespace of its own, joined by a hub that forwards, and drops what it is told
to. The hub is a namespace, too: nothing of this machine's network is touched. All of it belongs to one thread, which
entered the hub; what that thread starts is in the hub or in a leaf, and ends with it."""

import collections
import ctypes
import os
import subprocess
import tempfile
import threading
import time

import cluster
import harness
from harness import Skipped, scenario

CLONE_NEWNET = 0x40000000
BROKERS, CONSUMERS = (1, 2, 3), (11, 12, 13)
TRIALS_A_STAGE = 10


def run(*command, inside=None):
    within = ["nsenter", "--net=%s" % inside] if inside else []
    done = subprocess.run(within + list(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise Skipped("%s: %s" % (" ".join(command), done.stdout.strip()))


def machine(number):
    return "10.88.%d.2" % number


class Hub:
    """The calling thread is in it from here on."""

    def __init__(self):
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(CLONE_NEWNET):
            raise Skipped("network namespaces need root: %s" % os.strerror(ctypes.get_errno()))
        try:
            self.holders = {number: self._leaf(number) for number in BROKERS + CONSUMERS}
            run("ip", "link", "set", "lo", "up")
            run("sysctl", "-qw", "net.ipv4.ip_forward=1")
            run("iptables", "-A", "FORWARD", "-s", "192.0.2.1", "-j", "DROP")
        except FileNotFoundError as error:
            raise Skipped("%s is not installed" % error.filename) from None

    def _leaf(self, number):
        holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"], stdin=subprocess.DEVNULL,
                                  preexec_fn=cluster.die_with_parent)
        inside, here = "/proc/%d/ns/net" % holder.pid, os.stat("/proc/thread-self/ns/net").st_ino
        cluster.wait_for(lambda: os.stat(inside).st_ino != here, 20, "the namespace is there", every=0.01)
        run("ip", "link", "add", "leaf%d" % number, "type", "veth", "peer", "name", "uplink", "netns", str(holder.pid))
        run("ip", "addr", "add", "10.88.%d.1/24" % number, "dev", "leaf%d" % number)
        run("ip", "link", "set", "leaf%d" % number, "up")
        for command in (("ip", "link", "set", "lo", "up"), ("ip", "link", "set", "uplink", "up"),
                        ("ip", "addr", "add", machine(number) + "/24", "dev", "uplink"),
                        ("ip", "route", "add", "default", "via", "10.88.%d.1" % number)):
            run(*command, inside=inside)
        return holder

    def inside(self, number):
        return "/proc/%d/ns/net" % self.holders[number].pid

    def heal(self):
        for chain in ("FORWARD", "INPUT", "OUTPUT"):
            run("iptables", "-F", chain)

    def cut(self, source, target):
        """Nothing gets from machine to machine; None is the hub's Redis."""
        if source is None:
            run("iptables", "-A", "OUTPUT", "-o", "leaf%d" % target, "-j", "DROP")
        elif target is None:
            run("iptables", "-A", "INPUT", "-i", "leaf%d" % source, "-j", "DROP")
        else:
            run("iptables", "-A", "FORWARD", "-s", machine(source), "-d", machine(target), "-j", "DROP")


def choose(draw):
    """(name, [(from, to)]): whose packets vanish."""
    consumer, (one, other, third) = draw.choice(CONSUMERS), draw.sample(BROKERS, 3)
    pairs = draw.choice((
        ("consumer, Kafka", [(consumer, broker) for broker in BROKERS]),
        ("consumer, a broker", [(consumer, one)]),
        ("consumer, Redis", [(consumer, None)]),
        ("all consumers, Redis", [(number, None) for number in CONSUMERS]),
        ("broker, another", [(one, other)]),
        ("broker, the others", [(one, other), (one, third)])))
    name, ways = pairs[0], draw.choice(("both ways", "one way", "the other way"))
    forth, back = pairs[1], [(b, a) for a, b in pairs[1]]
    return name + ": " + ("both ways" if ways == "both ways" else "one way"), {
        "both ways": forth + back, "one way": forth, "the other way": back}[ways]


def cut_off(hub, bed, count, row):
    kinds = collections.Counter()
    while row.tried < count:
        redis = {"options": ["--bind", "0.0.0.0", "--protected-mode", "no"]}  # in the hub there is nobody else
        with bed.stage("cuts", rate=150, redis=redis) as stage:
            for i, number in enumerate(CONSUMERS):
                stage.start(i, prefix=["nsenter", "--net=" + hub.inside(number)],
                            set={"redis.url": "redis://10.88.%d.1:%d" % (number, stage.redis.port)})
            stage.goes_on(100, partitions=range(6))
            tried = 0
            while tried < TRIALS_A_STAGE and row.tried < count:
                name, pairs = choose(bed.draw)
                for source, target in pairs:
                    hub.cut(source, target)
                # Around the session's six seconds: some are over before anybody is missed.
                time.sleep(bed.draw.uniform(1, 10))
                hub.heal()
                kinds[name] += 1
                tried += 1
                row.tried += 1
                row.exact(stage)
                for consumer in stage.consumers:
                    assert consumer.running()
            stage.close_load_and_compare(row)
            for consumer in stage.consumers:
                assert consumer.stop() == 0
    row.note(", ".join("%d %s" % (n, name) for name, n in sorted(kinds.items())))


@scenario("cuts", short=3, fault="network cut between consumers, brokers and Redis, both ways and one way (iptables)",
          own_brokers=True)
def cuts(bed, count, row):
    raised = []

    def body():
        inner = harness.Bed(bed.seed, tempfile.mkdtemp(prefix="hub-", dir=bed.folder))
        inner.draw = bed.draw
        try:
            hub = Hub()
            inner.kafka = cluster.Kafka.up(brokers=3, hosts=["%s@%s" % (machine(n), hub.inside(n)) for n in BROKERS])
            cut_off(hub, inner, count, row)
        except BaseException as error:  # for whoever waits for this thread
            inner.failed = True
            raised.append(error)
        finally:
            inner.down()

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
