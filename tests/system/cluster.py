"""What the system tests are made of: a real Kafka, private Redis servers, the programs under test, the truth.

Everything a test starts belongs to its World, which ends it, whatever happens, and shows the logs of a test that
failed. Waiting is always for a condition with a deadline."""

import ctypes
import datetime
import json
import os
import random
import re
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

import compare_truth as ct

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
KAFKA_TOOL = os.path.join(ROOT, "tests", "kafka")
BIN = os.environ.get("LIVENPS_BIN") or os.environ.get("BUILD_DIR") or os.path.join(ROOT, "build", "release")
CONSUMER = os.path.join(BIN, "livenps-consumer")
PRODUCER = os.path.join(BIN, "livenps-producer")
# Sanitizers slow the programs, and a busy machine slows everything.
SLOW = float(os.environ.get("LIVENPS_TEST_SLOW", "4" if re.search("asan|tsan", BIN) else "1"))
# gcc 12's thread sanitizer cannot place its shadow under a kernel that randomises addresses more widely.
PREFIX = ["setarch", "-R"] if "tsan" in BIN else []
# How soon a killed instance's partitions are taken over. Who stands still for ten seconds keeps them: on a machine where that happens
# again and again a group would else do nothing but hand them out.
SESSION_MS = max(15000, int(5000 * SLOW))
# How much longer than it should take we wait before a test fails: a shared machine can stand still for twenty seconds, brokers too.
PATIENCE = 3 * SLOW
# The exit code of a program that gave up a peer that is away.
LOST = 4

_libc = ctypes.CDLL(None)


def die_with_parent():
    """In the child: ended by the kernel when the test run ends, however it ends."""
    _libc.prctl(1, signal.SIGKILL)


def wait_for(condition, timeout, what, every=0.05):
    """Polls until condition() is true and returns its value. An error of a peer that is away, or a field that is, counts as not yet."""
    from confluent_kafka import KafkaException
    deadline = time.monotonic() + timeout * PATIENCE
    last = None
    while True:
        late = time.monotonic() > deadline  # before it looks: whoever was stopped meanwhile looks once more
        try:
            value = condition()
            last = None
        except (OSError, KeyError, ct.RedisError, KafkaException) as error:
            value, last = None, error
        if value:
            return value
        if late:
            raise AssertionError("not within %g s: %s%s" % (timeout * PATIENCE, what, " (%s)" % last if last else ""))
        time.sleep(every)


def free_port():
    """Below the kernel's range for outgoing connections, so that a stopped server gets its port back."""
    for port in random.SystemRandom().sample(range(20000, 32000), 500):
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise AssertionError("no free port on 127.0.0.1")


def tail(path, lines=40):
    try:
        with open(path, errors="replace") as f:
            text = f.read().rstrip().split("\n")
    except OSError as error:
        return str(error)
    shown = text if len(text) <= lines else ["... %d lines before" % (len(text) - lines)] + text[-lines:]
    return "\n".join(shown)


# ---- Kafka ----

class Kafka:
    def __init__(self, bootstrap, directory=None):
        self.bootstrap = bootstrap
        self.directory = directory
        from confluent_kafka.admin import AdminClient
        self.admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0, "error_cb": lambda error: None})
        self.session_ms = max(SESSION_MS, int(self.broker_setting("group.min.session.timeout.ms")))

    @classmethod
    def up(cls, brokers=1, fronts=False, hosts=()):
        """A cluster of its own, also when KAFKA_BOOTSTRAP_SERVERS names one. fronts, hosts: see tests/kafka."""
        directory = tempfile.mkdtemp(prefix="livenps-system-kafka-")
        kafka = cls.__new__(cls)
        kafka.directory = directory
        options = (["--fronts"] if fronts else []) + (["--hosts", ",".join(hosts)] if hosts else [])
        out = kafka.tool("up", "--brokers", str(brokers), *options)
        cls.__init__(kafka, out.strip().split("\n")[-1], directory)
        return kafka

    def fronts(self):
        """[(front, back)]: a broker's port that its clients are told of, and the one where it really listens."""
        with open(os.path.join(self.directory, "cluster.json")) as f:
            return [(broker["front"], broker["back"]) for broker in json.load(f)["brokers"]]

    def down(self):
        if self.directory:
            self.tool("down")

    def tool(self, command, *args, timeout=500):
        environment = {k: v for k, v in os.environ.items() if k != "KAFKA_BOOTSTRAP_SERVERS" or not self.directory}
        where = ["--dir", self.directory] if self.directory else []
        result = subprocess.run([KAFKA_TOOL, command] + where + list(args), stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
                                timeout=timeout, errors="surrogateescape")
        assert result.returncode == 0, "tests/kafka %s: %s%s" % (command, result.stdout[-2000:], result.stderr[-2000:])
        return result.stdout

    def topic(self, name, partitions=2, replication=1, **config):
        from confluent_kafka import KafkaError, KafkaException
        from confluent_kafka.admin import NewTopic
        settings = {key.replace("_", "."): str(value) for key, value in config.items()}
        new = NewTopic(name, num_partitions=partitions, replication_factor=replication, config=settings)
        late = []

        def made():
            try:
                self.admin.create_topics([new], operation_timeout=20)[name].result()
            except KafkaException as error:
                # Made all the same by a request whose answer came too late.
                if late and error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                    return True
                if error.args[0].code() in (KafkaError._TIMED_OUT, KafkaError.REQUEST_TIMED_OUT):
                    late.append(error)
                # Where the machine stood still, the controller has given up its brokers for a moment.
                if error.args[0].code() != KafkaError.INVALID_REPLICATION_FACTOR or "fenced" not in error.args[0].str():
                    raise
                return False
            return True

        wait_for(made, 20, "a broker takes topic %s" % name)
        wait_for(lambda: self.leaders(name) == partitions, 20, "every partition of %s has a leader" % name)
        # Who asks next may ask another one, and give up when that one has not heard of it yet.
        for place in self.bootstrap.split(",") if "," in self.bootstrap else ():
            wait_for(lambda: self.knows(place, name), 60, "%s knows topic %s" % (place, name))
        return name

    def broker_setting(self, name):
        from confluent_kafka.admin import ConfigResource
        broker = next(iter(self.admin.list_topics(timeout=60).brokers))
        resource = ConfigResource(ConfigResource.Type.BROKER, str(broker))
        return self.admin.describe_configs([resource], request_timeout=60)[resource].result()[name].value

    def leaders(self, name):
        found = self.admin.list_topics(name, timeout=10).topics.get(name)
        return sum(p.leader >= 0 and not p.error for p in found.partitions.values()) if found and not found.error else 0

    @staticmethod
    def knows(place, name):
        """Whether this very broker knows the topic. Kafka's own request (Metadata, version 1): a client library asks any of them."""
        host, _, port = place.rpartition(":")
        body = struct.pack(">hhihih", 3, 1, 7, -1, 1, len(name)) + name.encode()
        with socket.create_connection((host, int(port)), 10) as connection:
            connection.sendall(struct.pack(">i", len(body)) + body)
            with connection.makefile("rb") as reply:
                answer = reply.read(struct.unpack(">i", reply.read(4))[0])
        # Behind the brokers the one topic: error, name.
        at = answer.index(struct.pack(">h", len(name)) + name.encode())
        return struct.unpack_from(">h", answer, at - 2)[0] == 0

    def add_partitions(self, name, total):
        from confluent_kafka.admin import NewPartitions

        def made():
            # Perhaps by a request whose answer came too late; or a broker was given up for a moment, and nothing was made.
            if self.leaders(name) != total:
                self.admin.create_partitions([NewPartitions(name, total)], operation_timeout=20)[name].result()
            return True

        wait_for(made, 60, "a broker takes the new partitions of %s" % name)
        wait_for(lambda: self.leaders(name) == total, 60, "the new partitions of %s have leaders" % name)

    def delete_records(self, topic, before):
        """before: {partition: offset}; what is older is gone, as if retention had passed it. Kafka's own request, spoken here:
        its tool takes seconds to start, and this client library has none."""
        def text(value):
            return struct.pack(">h", len(value)) + value.encode()
        body = struct.pack(">hhi", 21, 1, 7) + text("livenps-test")
        body += struct.pack(">i", 1) + text(topic) + struct.pack(">i", len(before))
        body += b"".join(struct.pack(">iq", partition, offset) for partition, offset in before.items())
        body += struct.pack(">i", 30000)
        found = self.admin.list_topics(topic, timeout=60)
        leaders = {found.topics[topic].partitions[partition].leader for partition in before}
        assert len(leaders) == 1, "one leader for all of them"
        broker = found.brokers[leaders.pop()]
        with socket.create_connection((broker.host, broker.port), 60) as connection:
            connection.sendall(struct.pack(">i", len(body)) + body)
            with connection.makefile("rb") as reply:
                answer = reply.read(struct.unpack(">i", reply.read(4))[0])
        # correlation id, throttle time, one topic, its name; then partitions: number, first offset, error
        assert struct.unpack_from(">ii", answer)[0] == 7
        at = 12 + 2 + len(topic)
        assert struct.unpack_from(">i", answer, at)[0] == len(before)
        for i in range(len(before)):
            partition, low, error = struct.unpack_from(">iqh", answer, at + 4 + 14 * i)
            assert not error and low == before[partition], (topic, partition, low, error)

    def consumer(self, **config):
        from confluent_kafka import Consumer as Client
        return Client({"bootstrap.servers": self.bootstrap, "group.id": "livenps-test", "enable.auto.commit": False,
                       "auto.offset.reset": "earliest", "log_level": 0, **config})

    def bounds(self, topic):
        """{partition: (first offset, last stable offset)}"""
        from confluent_kafka import TopicPartition
        client = self.consumer()
        try:
            partitions = client.list_topics(topic, timeout=60).topics[topic].partitions
            return {p: wait_for(lambda: client.get_watermark_offsets(TopicPartition(topic, p), timeout=20),
                                20, "the bounds of %s/%d" % (topic, p)) for p in partitions}
        finally:
            client.close()

    def producer(self, **config):
        from confluent_kafka import Producer as Client
        # Idempotent: what a slow broker is sent twice is there once, and in its place.
        return Client({"bootstrap.servers": self.bootstrap, "linger.ms": 5, "log_level": 0, "enable.idempotence": True,
                       "message.max.bytes": 8_000_000, **config})

    def send(self, topic, records):
        """records: (value,) or dicts of confluent_kafka's produce(). Returns the list of (partition, offset)."""
        client = self.producer()
        places = [None] * len(records)

        def placed(i):
            def report(error, message):
                assert not error, error
                places[i] = (message.partition(), message.offset())
            return report

        for i, record in enumerate(records):
            arguments = dict(record) if isinstance(record, dict) else {"value": record}
            client.produce(topic, on_delivery=placed(i), **arguments)
            client.poll(0)
        assert client.flush(30 * PATIENCE) == 0
        return places

    def read_all(self, topic):
        """Every record that is in the topic now, and perhaps newer ones, by this process's own client. Where somebody writes all the
        time an end of partition may never be reported, and behind the last record there may be a transaction's marker: either tells."""
        from confluent_kafka import KafkaError, TopicPartition
        client = self.consumer(**{"enable.partition.eof": True})
        try:
            found = client.list_topics(topic, timeout=60).topics.get(topic)
            if not found or found.error:
                return []
            bounds = {p: client.get_watermark_offsets(TopicPartition(topic, p), timeout=60) for p in found.partitions}
            client.assign([TopicPartition(topic, p, low) for p, (low, _) in bounds.items()])
            records, left = [], set(bounds)
            deadline = time.monotonic() + 30 * PATIENCE
            while left:
                assert time.monotonic() < deadline, "%s is not read to its end: %s" % (topic, left)
                for message in client.consume(500, timeout=0.1):
                    if not message.error():
                        records.append(message)
                        if message.offset() + 1 >= bounds[message.partition()][1]:
                            left.discard(message.partition())
                    elif message.error().code() == KafkaError._PARTITION_EOF:
                        left.discard(message.partition())
                    else:
                        raise AssertionError(message.error())
            return records
        finally:
            client.close()


# ---- processes ----

class Program:
    def __init__(self, world, name, command, environment):
        self.world, self.name, self.command = world, name, command
        self.out_path = os.path.join(world.folder, name + ".out")
        self.log_path = os.path.join(world.folder, name + ".log")
        self.environment = environment
        self.ended_on_purpose = False
        with open(self.out_path, "ab") as out, open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=log,
                                            env=environment, cwd=world.folder, preexec_fn=die_with_parent)
        world.programs.append(self)

    @property
    def pid(self):
        return self.process.pid

    def running(self):
        return self.process.poll() is None

    def log(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()

    def out(self):
        with open(self.out_path, errors="surrogateescape") as f:
            return f.read()

    def wait_log(self, pattern, timeout=30, count=1):
        def seen():
            if len(re.findall(pattern, self.log())) >= count:
                return True
            assert self.running(), "%s ended with %d before it said %r:\n%s" % (
                self.name, self.process.returncode, pattern, tail(self.log_path))
            return False
        wait_for(seen, timeout, "%s says %r" % (self.name, pattern))

    def wait(self, timeout=60):
        try:
            return self.process.wait(timeout * PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError("%s runs on after %g s" % (self.name, timeout * PATIENCE)) from None

    def kill(self):
        self.ended_on_purpose = True
        self.process.kill()
        self.process.wait()

    def stop(self, number=signal.SIGTERM, timeout=30, away=False):
        """Returns the exit code. 0 is an end within the promised five seconds: after four the instance ends itself with another one.
        That one is right, and taken for 0, where Redis, Kafka or the instance itself stood still meanwhile; away: where that is
        what the test is about, it is returned as it is."""
        self.ended_on_purpose = True
        unanswered = re.findall("(?:warn|info) (?:commit|aggregate): .*", self.log())[-1:]
        watch = Watch(self)
        self.process.send_signal(number)
        code = self.wait(timeout)
        # Without an answer before the signal, the next try may not have been due.
        self.held_up = watch.end() >= 0.5 or any("no answer within" in line for line in unanswered)
        return 0 if code == LOST and self.held_up and not away else code

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def frozen(self):
        """All of its threads, a moment after the signal."""
        with open("/proc/%d/stat" % self.pid) as f:
            return f.read().rpartition(")")[2].split()[0] == "T"

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def catches(self, number):
        """Its handler is there: a signal before that ends any program."""
        with open("/proc/%d/status" % self.pid) as f:
            return int(re.search(r"SigCgt:\s*([0-9a-f]+)", f.read())[1], 16) >> (number - 1) & 1


class Watch:
    """For how many seconds, since it began, a program could not run, or Redis or Kafka did not answer: of these the longest. Who
    refuses a connection does not stand still."""

    PING, VERSIONS = b"*1\r\n$4\r\nPING\r\n", struct.pack(">ihhih", 10, 18, 0, 1, -1)

    def __init__(self, program):
        self.over, self.still = threading.Event(), []
        asked = [(place, self.VERSIONS) for place in program.environment.get("LIVENPS_KAFKA_BOOTSTRAP_SERVERS", "").split(",")]
        asked.append((program.environment.get("LIVENPS_REDIS_URL", "").rpartition("/")[2], self.PING))
        work = [(self._ask, place.split(":"), question) for place, question in asked if re.fullmatch(r"[^:]+:\d+", place)]
        self.threads = [threading.Thread(target=each[0], args=each[1:], daemon=True) for each in work + [(self._look, program.pid)]]
        for thread in self.threads:
            thread.start()

    def _ask(self, place, question):
        still = 0
        while not self.over.wait(0.05):
            began = time.monotonic()
            try:
                with socket.create_connection((place[0], int(place[1])), 15) as connection:
                    connection.sendall(question)
                    connection.recv(1)
            except TimeoutError:
                pass
            except OSError:
                continue
            took = time.monotonic() - began
            still += took if took > 0.1 else 0
        self.still.append(still)

    def _look(self, pid):
        """Stopped by a signal, as we are ourselves when we do not come to look, or waiting for a core."""
        still, first, waited, at = 0, {}, 0, time.monotonic()
        while not self.over.wait(0.05):
            try:
                stopped = False
                with open("/proc/%d/stat" % pid) as f:
                    stopped = f.read().rpartition(")")[2].split()[0] == "T"
                for thread in os.listdir("/proc/%d/task" % pid):
                    with open("/proc/%d/task/%s/schedstat" % (pid, thread)) as f:
                        delay = int(f.read().split()[1]) / 1e9
                    waited = max(waited, delay - first.setdefault(thread, delay))
            except (OSError, IndexError):  # a thread, or all of it, has ended
                pass
            last, at = at, time.monotonic()
            if stopped or at - last > 0.15:
                still += at - last
        self.still.append(still + waited)

    def end(self):
        self.over.set()
        for thread in self.threads:
            thread.join()
        return max(self.still)


class Redis:
    """A private redis-server. aof: writes survive kill -9. tmpfs: its folder is a file system of its own of that size,
    which is gone when the server is."""

    def __init__(self, world, name="redis", aof=False, options=(), port=None, tmpfs=None):
        self.world, self.name, self.aof = world, name, aof
        self.port, self.given = port or free_port(), port
        self.folder = os.path.join(world.folder, name)
        os.makedirs(self.folder, exist_ok=True)
        self.options = list(options)
        self.prefix = []
        if tmpfs:
            self.prefix = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=%s none "$0" && cd "$0" && exec "$@"' %
                           tmpfs, self.folder]
        self.password = None
        self.client = None
        self.program = None
        self.start()
        self.given = self.port  # from now on programs know it

    @property
    def url(self):
        return "redis://127.0.0.1:%d" % self.port

    def launch(self):
        """Starts it and does not wait: it may have a long file to load."""
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.folder, "--save", "",
                   "--maxmemory-policy", "noeviction"]
        if self.aof:
            command += ["--appendonly", "yes", "--appendfsync", "always"]
        self.program = Program(self.world, self.name, self.prefix + command + self.options, dict(os.environ))
        self.client = None

    def start(self):
        self.launch()
        wait_for(self.answers, 30, "redis-server answers")

    def answers(self):
        """It, and not somebody else who was given the port in the moment when it was free."""
        if self.program.running():
            return self.call("PING") == "PONG" and "process_id:%d\r" % self.program.pid in self.call("INFO", "server")
        assert "Address already in use" in self.program.out(), self.program.out()
        self.program.ended_on_purpose = True
        self.port = self.given or free_port()
        self.launch()
        return False

    def connection(self):
        if self.client is None:
            secret = ":%s@" % self.password if self.password else ""
            self.client = ct.Redis("redis://%s127.0.0.1:%d" % (secret, self.port))
        return self.client

    def ask(self, question):
        try:
            return question(self.connection())
        except (OSError, ct.RedisError):
            self.client = None  # an answer that comes too late would be taken for the next one's
            raise

    def call(self, *command):
        return self.ask(lambda connection: connection.call(*command))

    def kill(self):
        self.program.kill()
        self.client = None

    def restart(self):
        self.kill()
        self.start()

    def in_step(self, primary):
        """Waits until this replica gets what is written. That its link is up is not enough: the primary begins to send when
        the replica has acknowledged its first copy, which it does once a second or less often."""
        wait_for(lambda: "master_link_status:up" in self.call("INFO", "replication"), 60, "the replica has its copy")
        primary.call("PUBLISH", "in-step", "")

        def acknowledged():
            found = dict(line.split(":", 1) for line in primary.call("INFO", "replication").splitlines() if ":" in line)
            at = re.search("state=online,offset=([0-9]+)", found.get("slave0", ""))
            return at and int(at[1]) >= reached
        reached = int(re.search("master_repl_offset:([0-9]+)", primary.call("INFO", "replication"))[1])
        assert reached > 0
        wait_for(acknowledged, 60, "the replica is in step")

    def keys(self, pattern="*"):
        return self.ask(lambda connection: connection.scan(pattern))

    def hash(self, key):
        return self.ask(lambda connection: connection.hashes([key])[key])


class Forwarder:
    """Something between the programs and a server, so that the address stays when the server changes: a TCP
    forwarder on a port of its own. to(port) cuts all connections and forwards new ones to that port."""

    def __init__(self, port):
        self.target = port
        self.open = threading.Event()
        self.open.set()
        self.held, self.what, self.turn = 0, b"", 0
        self.listener = socket.create_server(("127.0.0.1", free_port()))
        self.port = self.listener.getsockname()[1]
        self.pairs = set()
        self.lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self):
        return "redis://127.0.0.1:%d" % self.port

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            turn = self.turn
            try:
                far = socket.create_connection(("127.0.0.1", self.target), 2)
            except (OSError, TypeError):
                near.close()
                continue
            for s in (near, far):
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                s.settimeout(None)
            with self.lock:
                cut = turn != self.turn  # meanwhile
                self.pairs |= set() if cut else {near, far}
            if cut:
                near.close()
                far.close()
                continue
            for a, b, gate in ((near, far, self.open), (far, near, None)):
                threading.Thread(target=self._copy, args=(a, b, gate), daemon=True).start()

    def _copy(self, source, sink, gate):
        try:
            while True:
                data = source.recv(65536)
                if not data:
                    break
                if gate and not gate.is_set() and self.what in data:
                    self.held += len(data)
                    gate.wait()
                sink.sendall(data)
        except OSError:
            pass
        for s in (source, sink):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def hold(self, what=b""):
        """What clients send from now on is kept, and sent at release(), even if the client has gone meanwhile. what: only on
        connections where this is sent, from then on."""
        self.what = what
        self.open.clear()

    def release(self):
        self.open.set()

    def to(self, port):
        """None: nobody answers."""
        with self.lock:
            self.target, self.turn = port, self.turn + 1
            pairs, self.pairs = self.pairs, set()
        for s in pairs:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.listener.close()
        self.release()
        self.to(None)


def environment(settings):
    """The settings as LIVENPS_ variables, and none of whoever runs the tests."""
    result = {k: v for k, v in os.environ.items() if not k.startswith("LIVENPS_")}
    for name, value in settings.items():
        if value is not None:
            result["LIVENPS_" + re.sub(r"[^A-Z0-9]", "_", name.upper())] = str(value)
    return result


class Simulation(Program):
    def finish(self, timeout=120):
        """Waits for the end and returns the truth."""
        code = self.wait(timeout)
        assert code == 0, "the simulator ended with %d:\n%s" % (code, tail(self.log_path))
        return ct.Truth.read(self.truth_path)

    def end(self):
        """Ends it as Ctrl-C does: everything sent is acknowledged, and the truth. Not before it has begun, which would be an error.
        After that signal it waits ten seconds for a broker, not longer; so not while the machine stands still."""
        wait_for(lambda: not self.running() or any(end for _, end in self.kafka.bounds(self.topic).values()), 60, "it sends")
        wait_for(lambda: self.kafka.admin.list_topics(timeout=5), 30, "the broker answers")
        self.process.send_signal(signal.SIGINT)
        return self.finish()


def events_of(truth):
    """How many events it holds."""
    sums = [counters[1][-1] for number, counters in truth.series["all", "all"].items() if 23 <= number < 26]
    return sum(sums)


def add_truths(*truths):
    """The truth of several simulations together."""
    whole = ct.Truth()
    for truth in truths:
        whole.lines += truth.lines
        for key, counters in truth.series.items():
            into = whole.series.setdefault(key, {})
            for counter, (seconds, sums) in counters.items():
                have = into.setdefault(counter, ([], []))
                have[0].extend(seconds)
                have[1].extend(b - a for a, b in zip(sums, sums[1:]))
    whole.finish()
    return whole


# Of an instance that nothing is taken from, and that reads nothing twice, while it, Redis or Kafka stands still for a while.
PATIENT = {"redis.timeout": "1m", "kafka.session.timeout.ms": 120_000, "aggregate.lease": "2m"}


class World:
    """One test's Kafka topics, Redis servers, programs and folder. Names are unique: a broker may serve many runs."""

    def __init__(self, folder, kafka, name):
        self.folder, self.kafka = folder, kafka
        self.programs, self.forwarders = [], []
        self.unique = "%s-%s" % (re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")[:30], os.urandom(3).hex())
        self.namespace = "ns-" + self.unique
        self.numbers = {}
        self.topics = []

    def number(self, name):
        self.numbers[name] = self.numbers.get(name, 0) + 1
        return "%s-%d" % (name, self.numbers[name])

    def topic(self, partitions=2, suffix="", **config):
        name = self.kafka.topic("t-%s%s" % (self.unique, suffix), partitions, **config)
        self.topics.append(name)
        return name

    def snapshots(self, namespace=None):
        """The topic that snapshots go to, where nothing else is set."""
        return "livenps.%s.snapshots" % (namespace or self.namespace)

    def redis(self, name="redis", **options):
        return Redis(self, name, **options)

    def forwarder(self, port):
        forwarder = Forwarder(port)
        self.forwarders.append(forwarder)
        return forwarder

    def settings(self, topics, redis, namespace=None, **more):
        found = {"kafka.bootstrap.servers": self.kafka.bootstrap, "topics": topics if isinstance(topics, str) else
                 ",".join(topics), "redis.url": redis.url if hasattr(redis, "url") else redis,
                 "namespace": namespace or self.namespace, "kafka.session.timeout.ms": self.kafka.session_ms,
                 "kafka.heartbeat.interval.ms": 500, "redis.timeout": "%dms" % (2000 * SLOW)}
        found.update(more.pop("set", {}))
        found.update({name.replace("__", "."): value for name, value in more.items()})
        return found

    def consumer(self, topics, redis, namespace=None, ready=True, extra=None, prefix=(), **more):
        """settings: by keyword with __ for a dot (commit__interval="50ms"), or set={"kafka.x.y": ...}. extra: further
        variables of its environment; prefix: a command that runs it."""
        variables = environment(self.settings(topics, redis, namespace, **more))
        program = Program(self, self.number("consumer"), list(prefix) + PREFIX + [CONSUMER, "run"], {**variables, **(extra or {})})
        if ready:
            program.wait_log("assigned [0-9]+ partitions", 60)
        return program

    def run_consumer(self, *args, settings=None, timeout=60, prefix=()):
        """A command that ends: (exit code, stdout, stderr)."""
        result = subprocess.run(list(prefix) + PREFIX + [CONSUMER] + list(args), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, errors="surrogateescape", cwd=self.folder,
                                env=environment(settings or {}), timeout=timeout * PATIENCE)
        return result.returncode, result.stdout, result.stderr

    def replay_settings(self, redis, **more):
        found = self.settings([], redis, **more)
        del found["topics"]
        return found

    def replay(self, topic, redis, into, start=0, end=None, options=(), timeout=120, **more):
        """Runs a replay to its end; returns (digest, stdout)."""
        args = ["replay", "--topic", topic, "--from", str(start), "--to", str(end), "--digest", *options]
        args += ["--into", into] if into else ["--dry-run"]
        code, out, err = self.run_consumer(*args, settings=self.replay_settings(redis, **more), timeout=timeout)
        assert code == 0, "replay ended with %d:\n%s\n%s" % (code, out[-2000:], err[-3000:])
        digest = out.rstrip().split("\n")[-1]
        assert re.fullmatch("[0-9a-f]{64}", digest), out
        return digest, out

    def producer(self, *args, input=None, timeout=60):
        result = subprocess.run(PREFIX + [PRODUCER] + list(args), input=input, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, errors="surrogateescape", cwd=self.folder,
                                env=environment({"kafka.bootstrap.servers": self.kafka.bootstrap}),
                                timeout=timeout * PATIENCE)
        return result.returncode, result.stdout, result.stderr

    def load(self, topic, rate, seed=1, **more):
        """Events until its end(), however slow the machine is."""
        return self.simulate(topic, rate=rate / SLOW, seed=seed, **more)

    def simulate(self, topic, count=None, rate=None, seed=1, touchpoints=None, start=None, options=(), prefix=()):
        name = self.number("simulator")
        path = os.path.join(self.folder, name + ".truth")
        command = list(prefix) + PREFIX + [PRODUCER, "simulate", "--topic", topic, "--truth", path, "--seed", str(seed)]
        for option, value in (("--count", count), ("--rate", rate), ("--touchpoints", touchpoints), ("--start", start)):
            if value is not None:
                command += [option, str(value)]
        program = Simulation(self, name, command + list(options),
                             environment({"kafka.bootstrap.servers": self.kafka.bootstrap}))
        program.truth_path, program.kafka, program.topic = path, self.kafka, topic
        return program

    # ---- what must hold ----

    def health(self, redis, namespace=None):
        return redis.hash("nps:{%s}:health" % (namespace or self.namespace))

    def said(self, redis, field, namespace=None):
        """What health says of it. It is away for a moment where the aggregator stood still for ten seconds."""
        return wait_for(lambda: self.health(redis, namespace).get(field), 30, "health says %s" % field)

    def positions(self, redis, namespace=None):
        """{field: next offset} as stored."""
        found = redis.hash("nps:{%s}:positions" % (namespace or self.namespace))
        return {field: int(value.split(" ")[0]) for field, value in found.items()}

    def caught_up(self, redis, namespace=None, timeout=40):
        """Waits until everything that is in Kafka now is in the views."""
        namespace = namespace or self.namespace
        connection = ct.Redis(redis.url)
        try:
            if not ct.caught_up(connection, namespace, connection.time_ms(), timeout * PATIENCE, self.ends_of):
                raise AssertionError("not caught up within %g s; health: %s" % (
                    timeout * PATIENCE, ct.health(connection, namespace)))
        finally:
            connection.close()

    def ends_of(self, topics):
        """{<topic>/<partition>: its end now}; None where Kafka does not answer now."""
        from confluent_kafka import KafkaException
        try:
            return {"%s/%d" % (topic, partition): end for topic in topics
                    for partition, (_, end) in self.kafka.bounds(topic).items()}
        except (AssertionError, KafkaException, KeyError):
            return None

    def equal(self, redis, truth, namespace=None, **more):
        """Every roll-up and window equals the truth at each view's as_of_ms, and there is something to compare."""
        connection = ct.Redis(redis.url)
        try:
            result = ct.compare(connection, namespace or self.namespace, truth, **{"patience_s": 20 * PATIENCE, **more})
        finally:
            connection.close()
        assert result == [], "%d differences:\n%s" % (len(result), "\n".join(result[:15]))
        assert result.views > 0
        return result

    def ledger(self, redis, topics, namespace=None, accepted=None, starts=None, **counts):
        """Positions stand at the topics' ends, and every offset below them is accounted for exactly once. counts:
        late=3, rejected=5, holes=... ; what is not named must be 0."""
        namespace = namespace or self.namespace
        # It expires where the aggregator stands still for ten seconds.
        health, stored = wait_for(lambda: self.health(redis, namespace), 30, "health is there"), self.positions(redis, namespace)
        topics = [topics] if isinstance(topics, str) else topics
        advanced, expected = 0, {}
        for topic in topics:
            for partition, (_, end) in self.kafka.bounds(topic).items():
                field = "%s/%d" % (topic, partition)
                expected[field] = end
                advanced += end - (starts or {}).get(field, 0)
        assert stored == expected
        assert {f[len("position:"):]: int(v) for f, v in health.items() if f.startswith("position:")} == expected
        found = {name: int(health[name]) for name in ("accepted", "late", "duplicate", "out_of_range", "holes", "gap")}
        found["rejected"] = sum(int(v) for f, v in health.items() if f.startswith("rejected:"))
        assert sum(found.values()) == advanced, (found, advanced)
        if accepted is not None:
            assert found.pop("accepted") == accepted
            for name, value in counts.items():
                assert found.pop(name) == value, (name, found)
            assert not any(found.values()), found
        return health

    def exact(self, redis, truth, topics, namespace=None, accepted=None, timeout=40, genesis="1", **more):
        """The whole promise: caught up, the views equal the truth, every offset counted once; and without having begun
        anew, which would hide what went wrong before."""
        self.caught_up(redis, namespace, timeout)
        health = self.ledger(redis, topics, namespace, events_of(truth) if accepted is None else accepted)
        result = self.equal(redis, truth, namespace, **more)
        assert result.scored > 0
        assert genesis is None or health["genesis"] == genesis, "begun anew: genesis %s" % health["genesis"]
        return health

    # ---- the end ----

    def report(self):
        text = []
        for program in self.programs:
            code = program.process.poll()
            text.append("--- %s (%s)\n%s" % (program.name, "running" if code is None else "ended with %d" % code,
                                             tail(program.log_path)))
        return "\n".join(text)

    def sanitizer_reports(self):
        """What a sanitizer said in any log; a program may have ended well all the same."""
        found = []
        for program in self.programs:
            log = program.log()
            at = re.search("(WARNING: ThreadSanitizer|ERROR: AddressSanitizer|ERROR: LeakSanitizer|runtime error:)", log)
            if at:
                found.append("%s:\n%s" % (program.name, log[at.start():at.start() + 6000]))
        return found

    def close(self):
        for program in reversed(self.programs):
            if program.running():
                try:
                    program.process.send_signal(signal.SIGCONT)
                    program.process.kill()
                except ProcessLookupError:
                    pass
                program.process.wait()
        for forwarder in self.forwarders:
            forwarder.close()
        if self.topics:
            names = self.topics + [t + ".quarantine" for t in self.topics] + [self.snapshots()]
            try:
                for future in self.kafka.admin.delete_topics(names, operation_timeout=5, request_timeout=5).values():
                    try:
                        future.result(5)
                    except Exception:  # a topic that never was, or a broker that a test stopped: nobody's loss
                        pass
            except Exception:
                pass


def now_ms():
    return int(time.time() * 1000)


def event_ms(event):
    """The time of an event of the plain form."""
    found = datetime.datetime.fromisoformat(event["time"].replace("Z", "+00:00"))
    return round(found.timestamp() * 1000)


def event(id_, touchpoint="delivery", at_ms=None, type_="answer", score=9, scale="nps", **more):
    """One event of the plain form, as bytes."""
    at_ms = now_ms() if at_ms is None else at_ms
    found = {"id": id_, "type": type_, "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at_ms // 1000)) +
             ".%03dZ" % (at_ms % 1000), "touchpoint": touchpoint}
    if type_ == "answer":
        found.update(scale=scale, score=score)
    found.update(more)
    return json.dumps(found).encode()
