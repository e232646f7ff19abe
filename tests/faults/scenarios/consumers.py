"""Faults of the instances themselves: killed, frozen, awake again when others have long taken over, with a wrong clock."""

import datetime
import os
import subprocess
import time

import cluster
from cluster import wait_for
from harness import HERE, scenario

# So many kills on one topic and namespace; then everything is compared once more in every way, and a new one begins.
KILLS_A_STAGE = 100
# So many rounds, then the counts must be exact again before it goes on.
ROUNDS = 4


def kill_some(stage, draw):
    """Kills one to three consumers at random moments and starts them again, some of them killed once more while they
    start; waits until they read again. Returns how many were killed, and when the last one was started again."""
    kind = draw.random()
    if kind < 0.05:
        victims = [2]  # the dynamic member: its partitions stand still until its session has ended
    elif kind < 0.5:
        victims = [draw.randrange(2)]
        holder = stage.aggregator()
        if holder in (0, 1) and draw.random() < 0.3:
            victims = [holder]
    else:
        victims = draw.sample(range(2), 2) + ([2] if kind > 0.98 else [])
    for victim in victims:
        time.sleep(draw.uniform(0, 0.3))  # the moment is the point; nothing is waited for
        stage.kill(victim)
    killed = len(victims)
    for victim in victims:
        stage.start(victim)
    while draw.random() < 0.25:
        time.sleep(draw.uniform(0, 0.4))  # somewhere between its first line and its first commit
        victim = draw.choice(victims)
        stage.kill(victim)
        stage.start(victim)
        killed += 1
    ended = time.monotonic()
    for victim in victims:
        stage.consumers[victim].wait_log("assigned [0-9]+ partitions", 60)
    stage.goes_on(draw.choice((1, 20, 100)))
    return killed, ended


@scenario("kills", short=50, fault="kill -9 of consumers at random moments, several at once, while starting")
def kills(bed, count, row):
    while row.tried < count:
        with bed.stage("kills", rate=150) as stage:
            stage.begin_replica()
            stage.start_all()
            stage.goes_on(100)
            killed = 0
            while killed < KILLS_A_STAGE and row.tried < count:
                for _ in range(ROUNDS):
                    some, ended = kill_some(stage, bed.draw)
                    row.tried += some
                    killed += some
                row.exact(stage, ended)
            stage.close_load_and_compare(row)
            stage.stop_all()


@scenario("zombies", short=3, fault="SIGSTOP for longer than the session, then SIGCONT (zombies)")
def zombies(bed, count, row):
    """The others get its partitions while it sleeps; when it wakes it believes that they are its own."""
    refused = 0
    with bed.stage("zombies", session_ms=3000) as stage:
        stage.begin_replica()
        stage.start_all()
        stage.goes_on(100)
        for _ in range(count):
            victim = bed.draw.randrange(3)
            zombie = stage.consumers[victim]
            others = [c for i, c in enumerate(stage.consumers) if i != victim]
            assigned = sum(c.log().count("assigned ") for c in others)
            warned = zombie.log().count("another writer was here")
            time.sleep(bed.draw.uniform(0, 0.3))
            zombie.freeze()
            # Its session is over when another one is given its partitions, and those are read on.
            wait_for(lambda: sum(c.log().count("assigned ") for c in others) > assigned, 60,
                     "the others get the partitions")
            stage.goes_on(50, partitions=range(6))
            ends = stage.ends()
            stage.picture_at(ends)
            zombie.thaw()
            row.tried += 1
            row.exact(stage)
            refused += zombie.log().count("another writer was here") - warned
            wait_for(lambda: zombie.log().rfind("assigned ") > zombie.log().rfind("revoked "), 60,
                     "the zombie is a member again")
            stage.all_run()
        stage.close_load_and_compare(row)
        stage.stop_all()
        row.note("%d commits of zombies refused, %d joined anew after Kafka had fenced them" % (refused, stage.joined_anew()))


@scenario("aggregators", short=3, fault="the aggregator is paused and wakes when a stand-by has taken over")
def aggregators(bed, count, row):
    """A stand-by takes over when the lease of two seconds has run out; the old one, awake again, does no harm."""
    longest = 0.0
    with bed.stage("aggregators", settings={"aggregate__lease": "2s", "aggregate__tick": "250ms"},
                   dynamic_session_ms=20_000, session_ms=20_000) as stage:
        stage.begin_replica()
        stage.start_all()
        stage.goes_on(100)
        for _ in range(count):
            holder = wait_for(lambda: (stage.aggregator(),) if stage.aggregator() is not None else None, 30,
                              "somebody aggregates")[0]
            time.sleep(bed.draw.uniform(0, 0.5))
            paused, since = stage.consumers[holder], time.monotonic()
            paused.freeze()
            wait_for(lambda: stage.aggregator() not in (None, holder), 30, "a stand-by takes over", every=0.02)
            took = time.monotonic() - since
            # Its partitions stand still while it sleeps, those of the others go on.
            stage.goes_on(20)
            paused.thaw()
            row.tried += 1
            row.exact(stage)
            longest = max(longest, took)
            # The new one, or, where the machine stood still for seconds, any.
            wait_for(lambda: stage.aggregator() is not None, 30, "somebody aggregates")
        stage.close_load_and_compare(row)
        stage.stop_all()
        row.note("a stand-by had taken over after at most %.1f s" % longest)


def clock_off(folder):
    """The library that makes a process's time of day wrong."""
    library = os.path.join(folder, "clock_off.so")
    subprocess.run(["cc", "-std=c11", "-shared", "-fPIC", "-O2", "-o", library, os.path.join(HERE, "clock_off.c"), "-ldl"],
                   check=True, stdin=subprocess.DEVNULL)
    return library


@scenario("clocks", short=3, fault="one instance's clock is an hour ahead, or behind")
def clocks(bed, count, row):
    """That instance reads and, when its turn comes, aggregates: the numbers are those of the others."""
    with bed.stage("clocks") as stage:
        library = clock_off(stage.world.folder)
        stage.start_all()
        stage.goes_on(100)
        for number in range(count):
            off_s = (3600, -3600, 30 * 86400, -86400)[number % 4]
            wrong = {"LD_PRELOAD": library, "CLOCK_OFF_S": str(off_s)}
            stage.kill(0)
            stage.start(0, ready=True, extra=wrong)
            # What it rejects must reach quarantine, whatever it takes the time to be.
            for partition in range(6):
                stage.send_bad(partition)
            row.exact(stage)
            # Now let it aggregate: the others leave the lease to it.
            for i in (1, 2):
                stage.consumers[i].freeze()
            wait_for(lambda: stage.aggregator() == 0, 60, "the instance with the wrong clock aggregates")
            stage.consumers[0].wait_log("aggregating namespace", 30)
            for i in (1, 2):
                stage.consumers[i].thaw()
            # Health is its work now, and says Redis's time.
            clock = int(stage.health()["as_of_ms"])
            assert abs(clock - cluster.now_ms()) < 600_000, "the namespace's clock is that of the wrong instance"
            row.tried += 1
            row.exact(stage)
            # Its log tells its own time: it was wrong indeed.
            said = datetime.datetime.fromisoformat(stage.consumers[0].log().strip().split("\n")[-1][:19] + "+00:00")
            assert abs(said.timestamp() - time.time() - off_s) < 1000, said
        stage.close_load_and_compare(row)
        stage.stop_all()
