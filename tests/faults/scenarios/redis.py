"""Faults of Redis: primaries killed and replicas promoted that lack acknowledged commits, everything flushed, old and
torn files loaded, and a Redis that answers, but refuses."""

import os
import subprocess
import time

import cluster
from claims import Claims
from cluster import wait_for
from harness import Skipped, scenario

# So many trials on one topic and namespace; then everything is compared once more in every way, and a new one begins.
TRIALS_A_STAGE = 25


# ---- failover ----

class Pair:
    """Two Redis servers that take turns as primary. Each consumer reaches the primary of the moment by an address of its own,
    so that they can learn of a failover one after the other; the replica follows by a link that can be cut."""

    def __init__(self, stage):
        self.stage, self.world = stage, stage.world
        self.primary = stage.primary
        self.addresses = [self.world.forwarder(self.primary.port) for _ in stage.names]
        self.link = self.world.forwarder(self.primary.port)
        self.primary.call("CONFIG", "SET", "repl-diskless-sync-delay", 0)
        self.replica = self.world.redis("replica", options=self.as_replica())
        self.replica.in_step(self.primary)

    def as_replica(self):
        return ["--repl-diskless-sync-delay", "0", "--replicaof", "127.0.0.1 %d" % self.link.port]

    def start(self, i, **more):
        return self.stage.start(i, set={"redis.url": self.addresses[i].url}, **more)

    def entries(self, redis):
        """The ids in the commit log."""
        return [entry[0] for entry in redis.call("XRANGE", "nps:{%s}:log" % self.world.namespace, "-", "+")]

    def fail_over(self, draw, unreplicated):
        """One failover, with so many offsets acknowledged before it that the replica never got. Returns how many
        acknowledged commits are lost, and the moment when the promoted one could be reached."""
        stage = self.stage
        frozen = draw.random() < 0.25
        if frozen:
            self.replica.program.freeze()  # what is in its socket's buffer arrives all the same
        else:
            self.link.to(None)
        stage.goes_on(unreplicated)
        self.link.to(None)
        if frozen:
            self.replica.program.thaw()
        order = list(range(len(self.addresses)))
        draw.shuffle(order)
        if draw.random() < 0.5:
            # The primary dies first.
            for i in order:
                self.addresses[i].to(None)
            had = self.entries(self.primary)
            self.primary.kill()
            assert self.replica.call("REPLICAOF", "NO", "ONE") == "OK"
            for i in order:
                time.sleep(draw.uniform(0, 0.1))
                self.addresses[i].to(self.replica.port)
        else:
            # Both are primaries for a while: some write here, others there.
            assert self.replica.call("REPLICAOF", "NO", "ONE") == "OK"
            for i in order:
                time.sleep(draw.uniform(0, 0.4))
                self.addresses[i].to(self.replica.port)
            had = self.entries(self.primary)
            self.primary.kill()
        reachable = time.monotonic()
        # Entries of the two histories never share an id and a nonce; what the promoted one has at an id is its own.
        kept = set(self.entries(self.replica))
        lost = sum(id_ not in kept for id_ in had)
        self.primary, self.replica = self.replica, self.primary
        stage.redis = self.primary
        return lost, reachable

    def rejoin(self):
        """The old primary comes back empty and follows the new one."""
        self.link.to(self.primary.port)
        self.replica.options = self.as_replica()
        self.replica.start()
        self.replica.in_step(self.primary)


@scenario("promote", short=5, fault="Redis primary killed, replica promoted that lacks acknowledged commits")
def promote(bed, count, row):
    lost, with_loss = 0, 0
    while row.tried < count:
        with bed.stage("promote", rate=400, session_ms=20_000, dynamic_session_ms=20_000) as stage:
            pair = Pair(stage)
            for i in range(len(stage.names)):
                pair.start(i)
            stage.goes_on(300, partitions=range(6))
            tried = 0
            while tried < TRIALS_A_STAGE and row.tried < count:
                stage.goes_on(bed.draw.randint(1, 60))
                commits, since = pair.fail_over(bed.draw, bed.draw.randint(20, 400))
                lost += commits
                with_loss += commits > 0
                tried += 1
                row.tried += 1
                row.exact(stage, since)
                pair.rejoin()
            stage.close_load_and_compare(row)
            for consumer in stage.consumers:
                assert consumer.stop() == 0
    row.note("%d acknowledged commits lost, in %d of %d trials" % (lost, with_loss, row.tried))
    assert with_loss * 2 >= row.tried, "fewer than half of the trials lost an acknowledged commit: nothing was tried"


# ---- everything gone, or as it was a while ago ----

def flush(stage, draw):
    stage.redis.call("FLUSHALL", draw.choice(("SYNC", "ASYNC")))


def flush_idle(stage, draw):
    """Nothing is sent and all is read; the views must come back all the same."""
    stage.end_load()
    stage.exact()
    stage.redis.call("FLUSHALL")
    stage.begin_load()


def restart_empty(stage, draw):
    stage.redis.kill()
    for folder, _, names in os.walk(stage.redis.folder):
        for name in names:
            os.remove(os.path.join(folder, name))
    stage.redis.start()


def rewritten(redis):
    def done():
        found = redis.call("INFO", "persistence")
        return "aof_rewrite_in_progress:0" in found and "aof_rewrite_scheduled:0" in found
    wait_for(done, 60, "the append-only file is written anew")


def rewrite(redis):
    # Redis refuses while it does so by itself.
    wait_for(lambda: redis.call("BGREWRITEAOF"), 60, "Redis begins to write its append-only file anew")
    rewritten(redis)


def old_dump(stage, draw):
    stage.redis.call("SAVE")
    stage.goes_on(draw.randint(100, 800))
    stage.redis.kill()
    aof, stage.redis.aof = stage.redis.aof, False  # else its append-only file is what it loads
    stage.redis.start()
    stage.redis.aof = aof
    if aof:
        stage.redis.call("CONFIG", "SET", "appendonly", "yes")
        rewritten(stage.redis)


def torn_file(stage, draw):
    """The append-only file ends at any byte; redis-server or redis-check-aof makes the best of it."""
    stage.goes_on(draw.randint(50, 500))
    stage.redis.kill()
    folder = os.path.join(stage.redis.folder, "appendonlydir")
    path = max((os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".incr.aof")),
               key=os.path.getmtime)
    size = os.path.getsize(path)
    # Most often near the end, as a crash leaves it; also anywhere, also nothing at all.
    keep = draw.choice((size - draw.randint(1, min(size, 5000)), draw.randint(0, size), draw.randint(0, size)))
    os.truncate(path, max(keep, 0))
    if draw.random() < 0.5:
        done = subprocess.run(["redis-check-aof", "--fix", path], input="y\n", stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=60 * cluster.PATIENCE)
        assert done.returncode == 0 or os.path.getsize(path) == 0, done.stdout
    stage.redis.start()


@scenario("wipes", short=5, fault="FLUSHALL under load and idle, Redis restarted empty, from an old dump, from a torn file")
def wipes(bed, count, row):
    kinds = (flush, flush_idle, restart_empty, old_dump, torn_file)
    pictures = absent = 0
    while row.tried < count:
        # Claims are held against records' times: the broker's, at once to be read. A publisher's own are older than a publisher
        # that stood still lets anybody know, and what waits for a replica's acknowledgement nobody is told of.
        topic = {"replication": 1, "min_insync_replicas": 1, "message_timestamp_type": "LogAppendTime"}
        with bed.stage("wipes", redis={"aof": True}, session_ms=20_000, dynamic_session_ms=20_000, **topic) as stage:
            stage.start_all()
            stage.goes_on(300, partitions=range(6))
            tried = 0
            while tried < TRIALS_A_STAGE and row.tried < count:
                kind = kinds[row.tried % len(kinds)]
                with Claims(stage) as claims:
                    kind(stage, bed.draw)
                    tried += 1
                    row.tried += 1
                    row.exact(stage)
                claims.check()
                pictures += len(claims.pictures)
                absent += claims.absent
            stage.close_load_and_compare(row, genesis=None)
            for consumer in stage.consumers:
                assert consumer.stop() == 0
    row.note("%d pictures of health taken meanwhile, %d times there was none" % (pictures, absent))


# ---- it answers, but refuses ----

class Refusal:
    """One way of refusing: begin(), end(). stands: positions can be read meanwhile, and must not move."""
    stands = True

    def __init__(self, stage):
        self.stage, self.redis = stage, stage.redis

    def said(self):
        return sum(consumer.log().count("warn commit: ") for consumer in self.stage.consumers)


class OutOfMemory(Refusal):
    def begin(self):
        self.redis.call("CONFIG", "SET", "maxmemory", "1mb")

    def end(self):
        self.redis.call("CONFIG", "SET", "maxmemory", "0")


class NoReplicas(Refusal):
    def begin(self):
        self.redis.call("CONFIG", "SET", "min-replicas-to-write", "1")

    def end(self):
        self.redis.call("CONFIG", "SET", "min-replicas-to-write", "0")


class ReadOnly(Refusal):
    def begin(self):
        # Of a master that nobody answers for, so that it keeps its data.
        self.redis.call("REPLICAOF", "127.0.0.1", 1)

    def end(self):
        self.redis.call("REPLICAOF", "NO", "ONE")


class Busy(Refusal):
    """Somebody else's endless script."""
    stands = False

    def begin(self):
        self.redis.call("CONFIG", "SET", "busy-reply-threshold", "200")
        self.other = cluster.ct.Redis(self.redis.url)
        self.other.socket.sendall(b"*3\r\n$4\r\nEVAL\r\n$17\r\nwhile true do end\r\n$1\r\n0\r\n")

    def end(self):
        wait_for(lambda: self.redis.call("SCRIPT", "KILL") == "OK", 20, "the script is killed")
        self.other.close()


class Loading(Refusal):
    """A restart that takes seconds to load its file."""
    stands = False

    def begin(self):
        connection = cluster.ct.Redis(self.redis.url)
        connection.call("SELECT", 1)
        connection.pipeline([("SET", "ballast:%d" % i, "x" * 100) for i in range(1500)])
        connection.close()
        rewrite(self.redis)
        self.redis.kill()
        self.before = self.redis.options
        # A millisecond for each key and command, so that it is LOADING for two seconds or more whatever the machine.
        self.redis.options = self.before + ["--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024"]
        self.redis.launch()

    def end(self):
        wait_for(lambda: self.redis.call("PING") == "PONG", 60, "the file is loaded")
        self.redis.options = self.before
        self.redis.call("CONFIG", "SET", "key-load-delay", "0")
        connection = cluster.ct.Redis(self.redis.url)
        connection.call("SELECT", 1)
        connection.call("FLUSHDB")
        connection.close()


class NoAuth(Refusal):
    """A new password under way, for connections that are made from then on; and all are made anew."""

    def begin(self):
        self.redis.call("CONFIG", "SET", "requirepass", "new")
        self.redis.password = "new"  # also of a connection that is made anew after a while without an answer
        self.redis.call("AUTH", "new")
        self.redis.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def end(self):
        self.redis.call("CONFIG", "SET", "requirepass", "")
        self.redis.password = None


class DiskFull(Refusal):
    """The file system of the append-only file is full."""

    def begin(self):
        self.filler = os.path.join("/proc/%d/root" % self.redis.program.pid, self.redis.folder.lstrip("/"), "filler")
        try:
            with open(self.filler, "wb") as f:
                while True:
                    f.write(b"\0" * 4096)
                    f.flush()
        except OSError:
            pass
        # The last page of its file has some room still; from its first refusal on it takes nothing.
        wait_for(lambda: "aof_last_write_status:err" in self.redis.call("INFO", "persistence"), 60, "Redis cannot write its file")

    def end(self):
        os.remove(self.filler)


REFUSALS = {"out of memory": OutOfMemory, "no replicas": NoReplicas, "read-only": ReadOnly, "busy": Busy,
            "loading": Loading, "no auth": NoAuth}


def refuse(stage, kind, draw, row):
    """Everybody notices, nothing advances, and when it ends everything is exact."""
    refusal = kind(stage)
    said = refusal.said()
    refusal.begin()
    wait_for(lambda: refusal.said() > said, 60, "somebody says that commits are refused")
    if refusal.stands:
        # A commit that was on its way is either done or refused by now; from here on none may pass.
        stands = stage.positions()
        assert stands
        time.sleep(draw.uniform(0.5, 1.5))
        assert stage.positions() == stands, "positions moved although Redis refuses writes"
    else:
        time.sleep(draw.uniform(0.5, 1.5))
    assert all(consumer.running() for consumer in stage.consumers)
    refusal.end()
    row.tried += 1
    row.exact(stage)


@scenario("refusals", short=6, fault="Redis out of memory, without replicas, READONLY, BUSY, LOADING, NOAUTH mid-flight")
def refusals(bed, count, row):
    kinds = list(REFUSALS.values())
    while row.tried < count:
        with bed.stage("refusals", redis={"aof": True}, session_ms=20_000, dynamic_session_ms=20_000) as stage:
            stage.start_all()
            stage.goes_on(200, partitions=range(6))
            tried = 0
            while tried < TRIALS_A_STAGE and row.tried < count:
                refuse(stage, kinds[row.tried % len(kinds)], bed.draw, row)
                tried += 1
            stage.close_load_and_compare(row)
            for consumer in stage.consumers:
                assert consumer.stop() == 0
    row.note("%d kinds: %s" % (len(kinds), ", ".join(REFUSALS)))


@scenario("disk", short=2, fault="the disk of Redis's append-only file is full, then has room again")
def disk(bed, count, row):
    if subprocess.run(["unshare", "--mount", "true"], stderr=subprocess.DEVNULL).returncode:
        raise Skipped("a file system of its own needs root and mount namespaces (unshare --mount)")
    options = {"aof": True, "tmpfs": "64m", "options": ["--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0"]}
    while row.tried < count:
        with bed.stage("disk", redis=options, rate=150, session_ms=20_000, dynamic_session_ms=20_000) as stage:
            stage.start_all()
            stage.goes_on(200, partitions=range(6))
            tried = 0
            while tried < TRIALS_A_STAGE and row.tried < count:
                refuse(stage, DiskFull, bed.draw, row)
                tried += 1
                rewrite(stage.redis)
            stage.close_load_and_compare(row)
            for consumer in stage.consumers:
                assert consumer.stop() == 0
