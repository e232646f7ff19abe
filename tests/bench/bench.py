"""What the benchmarks of tests/bench share: servers on private ports, the programs under measurement, CPU times."""

import atexit
import datetime
import os
import platform
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import types

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests"))
sys.dont_write_bytecode = True
KAFKA = os.path.join(ROOT, "tests", "kafka")
PARTITIONS = 12
TOUCHPOINTS = 1000
# What begin() sets: build, work (folders), kafka_dir, bootstrap, redis_url, redis, run (names of this run end so), topics.
here = types.SimpleNamespace()


def free_port():
    """Below the kernel's range for outgoing connections."""
    while True:
        port = random.randint(20000, 32000)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass


def call(*command, **options):
    return subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE, text=True, **options).stdout


def tool(name, **options):
    """A program of tests/bench; its log lines are of no interest unless it fails."""
    command = [os.path.join(here.build, "tests", "bench", name)] + ["--%s=%s" % item for item in options.items()]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if result.returncode:
        sys.exit("tests/bench: %s failed:\n%s" % (" ".join(command), result.stderr[-2000:]))
    return result.stdout


def pairs(line):
    words = line.split()
    return dict(zip(words[::2], words[1::2]))


class Consumer:
    """A running livenps-consumer in a namespace of its own."""
    number = 0

    def __init__(self, topic, *settings, namespace=None):
        Consumer.number += 1
        self.namespace = namespace or "bench%d" % Consumer.number
        settings = ["topics=" + topic, "namespace=" + self.namespace] + list(settings)
        self.log = open(os.path.join(here.work, "%s-%d.log" % (self.namespace, Consumer.number)), "w")
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [os.path.join(here.build, "livenps-consumer"), "run", "--bootstrap-servers", here.bootstrap, "--redis", here.redis_url] +
            [word for setting in settings for word in ("--set", setting)],
            stdin=subprocess.DEVNULL, stderr=self.log, env={k: v for k, v in os.environ.items() if not k.startswith("LIVENPS_")})
        atexit.register(self.process.kill)  # whatever ends this script

    def read(self):
        return sum(int(value.split()[0]) for value in here.redis.call("HVALS", "nps:{%s}:positions" % self.namespace) or [])

    def cpu(self):
        """Seconds of CPU: (ingest, aggregator, the rest: librdkafka's threads), and seconds spent waiting for a core."""
        parts, waited = [0.0, 0.0, 0.0], 0.0
        tasks = sorted(int(name) for name in os.listdir("/proc/%d/task" % self.process.pid))
        for task in tasks:
            try:
                with open("/proc/%d/task/%d/comm" % (self.process.pid, task)) as f:
                    name = f.read()
                with open("/proc/%d/task/%d/schedstat" % (self.process.pid, task)) as f:
                    ran, wait = (int(number) / 1e9 for number in f.read().split()[:2])
            except OSError:
                continue  # the thread ended in between
            part = 2 if name.startswith("rdk:") else 0 if task == self.process.pid else 1
            parts[part] += ran
            waited += wait if part == 0 else 0
        return parts, waited

    def until_read(self, count, limit=180):
        """Waits; returns what happened from the first commit on: (events, seconds, CPU by part, waited, Redis's CPU). Where the
        first commit holds everything, what happened from the start of the program on."""
        deadline, first, redis_began = time.monotonic() + limit, None, redis_cpu()
        while True:
            done, now = self.read(), time.monotonic()
            if done and first is None:
                first = (done, now) + self.cpu() + (redis_cpu(),) if done < count else \
                    (0, self.began, [0.0, 0.0, 0.0], 0.0, redis_began)
            if done >= count:
                break
            if now > deadline or self.process.poll() is not None:
                sys.exit("tests/bench: read %d of %d records:\n%s" % (done, count, open(self.log.name).read()[-2000:]))
            time.sleep(0.002)
        parts, waited = self.cpu()
        return done - first[0], now - first[1], [a - b for a, b in zip(parts, first[2])], waited - first[3], redis_cpu() - first[4]

    def field(self, key, name):
        return here.redis.call("HGET", "nps:{%s}:%s" % (self.namespace, key), name)

    def until_counted(self, count, limit=180):
        """Until the events are in the view of the whole."""
        deadline = time.monotonic() + limit
        while int(self.field("health", "accepted") or 0) < count:
            if time.monotonic() > deadline or self.process.poll() is not None:
                sys.exit("tests/bench: not counted:\n" + open(self.log.name).read()[-2000:])
            time.sleep(0.05)

    def resident(self):
        with open("/proc/%d/status" % self.process.pid) as f:
            fields = dict(line.split(":", 1) for line in f)
        return int(fields["VmRSS"].split()[0]) / 1024, int(fields["VmHWM"].split()[0]) / 1024

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(15)
        self.log.close()
        here.redis.call("FLUSHALL")


def redis_info(section):
    return dict(line.split(":", 1) for line in here.redis.call("INFO", section).splitlines() if ":" in line)


def redis_cpu():
    """Seconds of CPU that Redis has spent, its background threads included."""
    info = redis_info("cpu")
    return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])


def redis_memory(namespace):
    """What a namespace's keys take, by what they are for: {kind: [bytes, keys, entries of trends]}."""
    prefix, cursor, found = "nps:{%s}:" % namespace, "0", {"views": [0, 0, 0], "trends": [0, 0, 0], "state": [0, 0, 0]}
    while True:
        cursor, keys = here.redis.call("SCAN", cursor, "MATCH", prefix + "*", "COUNT", "1000")
        for key in keys:
            first = key[len(prefix):].split(":")[0]
            kind = "trends" if first == "trend" else "state" if first in (
                "meta", "positions", "log", "lease", "snapshot", "health", "published") else "views"
            item = found[kind]
            item[0] += int(here.redis.call("MEMORY", "USAGE", key, "SAMPLES", "0") or 0)
            item[1] += 1
            item[2] += int(here.redis.call("XLEN", key)) if kind == "trends" else 0
        if cursor == "0":
            return found


def topic(name, partitions=PARTITIONS):
    name = "%s-%s" % (name, here.run)
    call(KAFKA, "topic", "--dir", here.kafka_dir, name, partitions)
    here.topics.append(name)
    return name


def drop(name):
    call(KAFKA, "delete-topic", "--dir", here.kafka_dir, name)
    here.topics.remove(name)


def bare(name, count):
    """The cheapest consumer there is, dropping every record: (records, seconds, CPU seconds) from the first record on."""
    records, _, seconds, cpu = (float(word) for word in tool("bare_consumer", bootstrap=here.bootstrap, topic=name, count=count,
                                                             partitions=PARTITIONS).split())
    return records, seconds, cpu


def title(text):
    print("\n" + text, flush=True)


def start_redis():
    port = free_port()
    process = subprocess.Popen(
        ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", here.work, "--save", "", "--appendonly", "yes",
         "--maxmemory-policy", "noeviction", "--logfile", os.path.join(here.work, "redis.log")], stdin=subprocess.DEVNULL)
    atexit.register(process.wait)
    atexit.register(process.kill)
    url = "redis://127.0.0.1:%d" % port
    from compare_truth import Redis
    for _ in range(200):
        try:
            return url, Redis(url)
        except OSError:
            time.sleep(0.05)
    sys.exit("tests/bench: redis-server did not start: see " + here.work)


def machine():
    model = "unknown"
    with open("/proc/cpuinfo") as f:
        for line in f:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    with open("/proc/meminfo") as f:
        memory_gb = int(f.readline().split()[1]) / 1048576
    print("%s  %d x %s, %.0f GB, Linux %s, load %.1f" % (
        datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%MZ"), os.cpu_count(), model, memory_gb,
        platform.release(), os.getloadavg()[0]))
    print(call(os.path.join(here.build, "livenps-consumer"), "--version").rstrip())


def begin():
    """Builds what is measured, unless BUILD_DIR names a build, starts Redis and Kafka, and ends both with this process."""
    here.run, here.topics = "%d-%d" % (os.getpid(), int(time.time())), []
    here.build = os.environ.get("BUILD_DIR")
    if not here.build:
        call(os.path.join(ROOT, "tests", "install"), "build", "test")
        here.build = os.path.join(ROOT, "build", "release")
        log = subprocess.run("cmake --preset release && cmake --build --preset release --target livenps-consumer benchmarks",
                             shell=True, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if log.returncode:
            sys.exit("tests/bench: the build failed:\n" + log.stdout[-3000:])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    here.work = tempfile.mkdtemp(prefix="livenps-bench-")
    atexit.register(shutil.rmtree, here.work, True)
    here.kafka_dir = os.path.join(here.work, "kafka")
    machine()
    here.redis_url, here.redis = start_redis()
    atexit.register(lambda: call(KAFKA, "down", "--dir", here.kafka_dir))
    here.bootstrap = call(KAFKA, "up", "--dir", here.kafka_dir).splitlines()[-1]
    atexit.register(lambda: [drop(name) for name in list(here.topics)] if os.environ.get("KAFKA_BOOTSTRAP_SERVERS") else None)
