"""What the fault scenarios are made of: a cluster of three brokers, and for each scenario a Stage - a topic under load,
a Redis primary with a replica, three consumers, and the oracle that says whether the counts are exact.

A scenario is a function in a file of scenarios/:

  @scenario("kills", short=50, fault="kill -9 of consumers at random moments")
  def kill_consumers(bed, count, row):
      with bed.stage("kills") as stage:
          while row.tried < count:
              stage.kill(...)
              row.tried += 1
              stage.start(...)
              row.exact(stage)

`tests/faults/run` finds it, gives it the option --kills COUNT, and prints its row. Randomness comes from bed.draw only,
so that a seed repeats the choices (not the scheduling of the machine)."""

import contextlib
import os
import random
import re
import shutil
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.dirname(HERE)
sys.path[:0] = [TESTS, os.path.join(TESTS, "system")]

import cluster  # noqa: E402
import recounted  # noqa: E402
from cluster import wait_for  # noqa: E402

# The short window for what moves, the long one for what must be there whole: no run of this lasts a day.
WINDOWS_TEXT = "5m/1s,24h/2m"
WINDOWS = {"5m": (300_000, 1000), "24h": (86_400_000, 120_000)}
WHOLE = "24h"
BRUTE_FORCE_RECORDS = 40_000  # beyond that the recount that looks at every record for every view takes too long
RECOVERY_S = 60  # times cluster.PATIENCE: beyond it a scenario has failed

SCENARIOS = []


class Skipped(Exception):
    """This machine does not allow the scenario; the text says why."""


class Inexact(AssertionError):
    pass


class Scenario:
    def __init__(self, function, name, short, fault, own_brokers):
        self.function, self.name, self.short, self.fault, self.own_brokers = function, name, short, fault, own_brokers


def scenario(name, short, fault, own_brokers=False):
    """name: of the option that gives the count (--NAME N); short: the count without it; fault: the row's text; own_brokers: it
    starts brokers itself, and needs none of the bed's."""
    def register(function):
        SCENARIOS.append(Scenario(function, name, short, fault, own_brokers))
        return function
    return register


class Row:
    """One line of the table."""

    def __init__(self, scenario_):
        self.scenario = scenario_
        self.tried = self.lost = self.double = self.told = 0
        self.longest_s = 0.0
        self.notes = []

    def exact(self, stage, since=None):
        """Waits until the counts are exact again, as of everything in the topic now; since: the end of the fault
        (time.monotonic), by default now."""
        since = time.monotonic() if since is None else since
        verdict, reached = stage.exact()
        self.longest_s = max(self.longest_s, reached - since)
        self.add(verdict)
        if self.tried >= self.told + 20:
            self.told = self.tried
            print("  %s: %d tried, %.1f s at most" % (self.scenario.name, self.tried, self.longest_s), file=sys.stderr,
                  flush=True)

    def add(self, verdict):
        self.lost += verdict.lost
        self.double += verdict.double
        if verdict.wrong:
            raise Inexact("%d differences (%d lost, %d double-counted):\n%s" % (
                len(verdict.wrong), verdict.lost, verdict.double, "\n".join(verdict.wrong[:20])))

    def note(self, text):
        self.notes.append(text)


class Stage:
    """One topic under load and all that counts it. names: the instance names of the consumers, None for a dynamic member.
    bad: every so often a record that is no event is sent as well, so that the quarantine takes part."""

    def __init__(self, bed, folder, name, partitions=6, rate=250, names=("one", "two", None), settings=None,
                 load=True, bad=True, session_ms=6000, dynamic_session_ms=3000, redis=None, **topic):
        self.bed, self.kafka, self.draw = bed, bed.kafka, bed.draw
        self.world = cluster.World(folder, bed.kafka, name)
        self.names, self.bad = list(names), bad
        self.session_ms, self.dynamic_session_ms = session_ms, dynamic_session_ms
        self.consumers = [None] * len(self.names)
        self.objected = False
        self.publishers = 0  # that Kafka ended
        self.truths, self.simulation = [], None
        self.sent, self.beside = 0, False  # records that are not the load's, events among them
        self.topic = self.world.topic(partitions, **{"replication": 3, **topic})
        self.primary = self.redis = self.world.redis("primary", **(redis or {}))
        self.replica = None
        self.more = {"windows": WINDOWS_TEXT, "minimum_n": 1, "aggregate__tick": "100ms", "aggregate__lease": "1s",
                     "aggregate__snapshot": "700ms", "commit__idle": "500ms", **(settings or {})}
        # A handle of its own for asking how far the topic reaches, and one for sending what is no event.
        self.asking, self.sending = self.kafka.consumer(), None
        self.reader = recounted.Reader(self.world, self.topic)
        self.tally = recounted.Tally(self.reader)
        self.rate, self.seed = rate, self.draw.randrange(1_000_000)
        if load:
            self.begin_load()

    # ---- what takes part ----

    def begin_replica(self):
        self.replica = self.world.redis("replica", options=["--replicaof", "127.0.0.1 %d" % self.primary.port])
        self.replica.in_step(self.primary)

    def begin_load(self, **more):
        assert self.simulation is None
        self.seed += 1
        options = {"rate": max(1, int(self.rate / cluster.SLOW)), "touchpoints": 3, **more}
        self.simulation = self.world.simulate(self.topic, seed=self.seed, **options)

    def supervise_load(self):
        """Begins a new load when Kafka has ended the publisher: an idempotent one whose numbers a broker that died has lost
        sends nothing more, says so and ends. What it was told then says less than what is in the topic, so that the topic
        alone is compared. One that got no answer to its first question, within ten seconds, has sent nothing. Any other end by
        itself is a failure."""
        if self.simulation and not self.simulation.running() and self.simulation.process.returncode:
            if "kafka: topic list: " in self.simulation.log():
                self.simulation.ended_on_purpose = True
                self.simulation = None
                self.begin_load()
                return
            assert "out of order sequence" in self.simulation.log(), "%s ended with %d:\n%s" % (
                self.simulation.name, self.simulation.process.returncode, cluster.tail(self.simulation.log_path))
            self.simulation.ended_on_purpose = True
            self.simulation, self.beside = None, True
            self.publishers += 1
            self.begin_load()

    def end_load(self, finish=False):
        """finish: wait for a load with a count, else it is ended."""
        if not finish:
            self.supervise_load()
        if self.simulation:
            if not finish:
                self.brokers_answer()  # it waits for any of them, but not for long
            self.truths.append(self.simulation.finish() if finish else self.simulation.end())
            self.simulation = None

    def _sender(self):
        if self.sending is None:
            self.sending = self.kafka.producer()
        return self.sending

    def new_sender(self):
        if self.sending is not None:
            assert self.sending.flush(RECOVERY_S * cluster.PATIENCE) == 0
        self.sending = None

    def send_bad(self, partition=-1):
        """A record that is no event, on any partition unless one is named."""
        self.sent += 1
        self._sender().produce(self.topic, b"not an event %d" % self.sent, partition=partition)
        self._sender().poll(0)

    def send_event(self, partition, client=None, told=None):
        """One event beside the load's; client: another publisher; told: called when it is acknowledged."""
        self.sent += 1
        client = self._sender() if client is None else client  # an idle one is false
        client.produce(self.topic, cluster.event("x-%d" % self.sent, score=self.sent % 11), partition=partition,
                       on_delivery=told)
        client.poll(0)
        self.beside = True

    def start(self, i, ready=False, extra=None, **more):
        """Starts consumer i with one of several commit intervals."""
        name = self.names[i]
        settings = {"commit__interval": self.draw.choice(["5ms", "20ms", "100ms"]), **self.more, **more}
        chosen = dict(settings.pop("set", {}))
        chosen.setdefault("kafka.session.timeout.ms", self.session_ms if name else self.dynamic_session_ms)
        program = self.world.consumer(self.topic, self.redis, ready=ready, extra=extra, set=chosen,
                                      instance=name, **settings)
        self.consumers[i] = program
        return program

    def start_all(self):
        for i in range(len(self.names)):
            self.start(i)
        for program in self.consumers:
            program.wait_log("assigned [0-9]+ partitions", 60)

    def all_run(self):
        """Nobody ends by himself: a supervisor would hide it, and wake somebody at night."""
        for program in self.consumers:
            assert program is None or program.running() or program.ended_on_purpose, "%s ended with %d:\n%s" % (
                program.name, program.process.returncode, cluster.tail(program.log_path))

    def joined_anew(self):
        """How often Kafka fenced a static member for what it had sent itself before a broker died."""
        return sum(program.log().count("joining the group anew") for program in self.world.programs)

    def stop_all(self):
        """The orderly end, by a signal."""
        for program in self.consumers:
            if program.running():
                code = program.stop(timeout=10)
                assert code == 0, "%s ended with %d:\n%s" % (
                    program.name, code, cluster.tail(program.log_path))

    def kill(self, i):
        """And waits until each broker answers: where one stands still, what the dead one has sent would be read after what the next
        one of that instance name sends, and Kafka would fence the living one."""
        self.consumers[i].kill()
        self.brokers_answer()

    def brokers_answer(self):
        """Waits until each of them has."""
        for place in self.kafka.bootstrap.split(","):
            wait_for(lambda: self.kafka.knows(place, self.topic), RECOVERY_S, "%s answers" % place, every=0.01)

    def aggregator(self):
        """Which consumer aggregates now, as health says; None while nobody does."""
        holder = self.world.health(self.redis).get("aggregator")
        for i, program in enumerate(self.consumers):
            if holder and program and program.running() and holder in (self.names[i], self.instance_of(program)):
                return i
        return None

    @staticmethod
    def instance_of(program):
        """The name that an instance goes by, as its log says."""
        for line in program.log().split("\n"):
            if " reads " in line and "instance " in line:
                return line.split("instance ", 1)[1].split(" ", 1)[0]
        return None

    def health(self):
        """As it stands; it expires while nobody aggregates, so it is waited for."""
        return wait_for(lambda: self.world.health(self.redis), RECOVERY_S, "somebody writes health")

    # ---- how far ----

    def ends(self, timeout=RECOVERY_S):
        """{partition: last stable offset}"""
        from confluent_kafka import TopicPartition

        def asked():
            partitions = self.asking.list_topics(self.topic, timeout=10).topics[self.topic].partitions
            return {p: self.asking.get_watermark_offsets(TopicPartition(self.topic, p), timeout=10)[1] for p in partitions}
        return wait_for(asked, timeout, "the topic's ends")

    def positions(self, health=None):
        """{partition: next offset} as stored, or as health says."""
        found = self.world.positions(self.redis) if health is None else recounted.health_positions(health)
        return {int(field.rsplit("/", 1)[1]): offset for field, offset in found.items()
                if field.rsplit("/", 1)[0] == self.topic}

    def goes_on(self, amount=1, timeout=RECOVERY_S, partitions=None):
        """Waits until at least that many further offsets are committed (on those partitions, by default any)."""
        def total():
            self.supervise_load()
            found = self.positions()
            return sum(offset for p, offset in found.items() if partitions is None or p in partitions)
        before = wait_for(lambda: (total(),), timeout, "Redis answers")[0]
        wait_for(lambda: total() >= before + amount, timeout, "reading goes on")

    # ---- whether it is right ----

    def picture_at(self, ends, timeout=RECOVERY_S):
        """The first picture whose positions have reached these, and the moment when it was seen."""
        last = []

        def reached():
            self.all_run()
            self.supervise_load()
            stored = self.positions()
            if any(stored.get(p, -1) < end for p, end in ends.items()):
                return None
            taken = recounted.picture(self.redis, self.world.namespace, (WHOLE,))
            last[:] = [taken[0] if taken else "none between two ticks"]
            if not taken:
                return None
            positions = self.positions(taken[0])
            return taken if all(positions.get(p, -1) >= end for p, end in ends.items()) else None
        try:
            return wait_for(reached, timeout, "the views are at the topic's end of then", every=0.1), time.monotonic()
        except AssertionError as error:
            raise AssertionError("%s\nends %s\nstored %s\nlast picture %s" % (
                error, ends, self.world.positions(self.redis), last)) from None

    def exact(self, timeout=RECOVERY_S, gap=0):
        """(verdict, when): waits until everything that is in the topic now is in the views, and compares those with what
        the oracle counts up to their positions. when: time.monotonic() of the picture."""
        if self.bad:
            self.send_bad()
        if self.sending is not None:
            assert self.sending.flush(timeout * cluster.PATIENCE) == 0
        ends = self.ends(timeout)
        taken, when = self.picture_at(ends, timeout)
        positions = self.positions(taken[0])
        wait_for(lambda: self.reader.covers(positions), timeout, "the oracle has read up to the positions", every=0.2)
        verdict = recounted.judge(taken, self.tally, self.topic, self.world.namespace, WHOLE, gap)
        if not verdict.wrong and not self.objected:
            self.must_object(taken, gap)
            self.objected = True
        return verdict, when

    def must_object(self, taken, gap):
        """The oracle is shown one record more and one less than there are: an oracle that accepts that proves nothing."""
        key = "nps:{%s}:all:all:%s" % (self.world.namespace, WHOLE)
        for by in (1, -1):
            view = dict(taken[1][key], interactions=str(int(taken[1][key]["interactions"]) + by))
            verdict = recounted.judge((taken[0], {**taken[1], key: view}), self.tally, self.topic,
                                      self.world.namespace, WHOLE, gap)
            assert (verdict.lost, verdict.double) == ((0, 1) if by > 0 else (1, 0)), (verdict.lost, verdict.double)

    def doubled(self):
        """How many records stand in the topic although one with the same id stands there before them."""
        ids = [found.group(1) for record in self.reader.raw for found in [re.search(rb'"id":"([^"]+)"', record[3])] if found]
        return len(ids) - len(set(ids))

    def close_load_and_compare(self, row, gap=0, genesis="1", brokers_died=False):
        """The end of a stage: nothing more is sent, and everything is compared in every way there is. brokers_died: a publisher's
        batch can stand in the topic twice then, idempotence or not; it is counted as often as it is there."""
        self.end_load()
        verdict, _ = self.exact(timeout=2 * RECOVERY_S, gap=gap)
        row.add(verdict)
        self.world.caught_up(self.redis, timeout=RECOVERY_S)
        doubled = self.doubled() if brokers_died else 0
        if doubled:
            row.note("%d records stand in the topic twice, so that it is not what its publisher was told" % doubled)
        elif self.truths and not gap and not self.beside:
            # Every field, window, rank, verdict and index against what the publisher was told is acknowledged.
            truth = cluster.add_truths(*self.truths)
            try:
                self.world.equal(self.redis, truth, windows=WINDOWS_TEXT, minimum_n=1)
            except AssertionError as error:
                held = sum(not record[3].startswith(b"not an event") for record in self.reader.raw)
                raise AssertionError("%s\nThe publisher was told of %d events, the topic holds %d" % (
                    error, cluster.events_of(truth), held)) from None
        records = list(self.reader.raw)
        if len(records) <= BRUTE_FORCE_RECORDS and not gap:
            taken = wait_for(lambda: recounted.picture(self.redis, self.world.namespace, WINDOWS), 20,
                             "a moment between two ticks")
            good = [r for r in records if not r[3].startswith(b"not an event")]
            wrong = recounted.differences(taken[1], recounted.recount_at(good, int(taken[0]["as_of_ms"]), WINDOWS, 1),
                                          self.world.namespace, int(taken[0]["as_of_ms"]), 1)
            assert not wrong, "%d differences from the recount:\n%s" % (len(wrong), "\n".join(wrong[:20]))
        health = self.health()
        assert genesis is None or health["genesis"] == genesis, "begun anew: genesis %s" % health["genesis"]
        self.quarantined()

    def quarantined(self):
        """Every rejected record below the positions is in quarantine (more often, perhaps, but never less)."""
        wanted = {b"%s/%d/%d" % (self.topic.encode(), p, offset) for p, records in self.reader.records.items()
                  for offset, fate, _ in records if fate == "rejected"}
        if wanted:
            found = {message.key() for message in self.kafka.read_all(self.topic + ".quarantine")}
            assert wanted <= found, "not in quarantine: %s" % sorted(wanted - found)[:10]

    def close(self):
        self.asking.close()
        self.world.close()


class Bed:
    """The brokers, the folder, the seed: what all scenarios share."""

    def __init__(self, seed, folder=None):
        self.seed = seed
        self.folder = folder or tempfile.mkdtemp(prefix="livenps-faults-")
        self.kafka, self.stages, self.failed = None, 0, False
        self.draw = random.Random(seed)

    def down(self):
        if self.kafka:
            self.kafka.down()
        if not self.failed:
            shutil.rmtree(self.folder, ignore_errors=True)

    @contextlib.contextmanager
    def stage(self, name, **more):
        self.stages += 1
        folder = os.path.join(self.folder, "%02d-%s" % (self.stages, name))
        os.makedirs(folder)
        stage = Stage(self, folder, name, **more)
        try:
            yield stage
        except BaseException:
            with open(os.path.join(folder, "report.txt"), "w", errors="replace") as f:
                f.write(stage.world.report())
            raise
        finally:
            stage.close()

    def every_broker(self):
        """All three run, and every partition is led."""
        if self.kafka is None:
            self.kafka = cluster.Kafka.up(brokers=3, fronts=True)
        else:
            self.kafka.tool("up", "--brokers", "3")
