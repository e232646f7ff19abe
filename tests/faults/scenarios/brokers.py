"""Faults of the brokers: killed, also the controller, also two of the three at once."""

import json
import os
import time

from cluster import wait_for
from harness import RECOVERY_S, scenario

BROKERS = (1, 2, 3)


def controller(kafka):
    """The active controller, as a broker's own quorum file says (in KRaft mode any broker answers a client that it is)."""
    found = []
    for broker in BROKERS:
        path = os.path.join(kafka.directory, "broker-%d.data" % broker, "__cluster_metadata-0", "quorum-state")
        with open(path) as f:
            state = json.load(f)
        found.append((state["leaderEpoch"], state["leaderId"]))
    newest = max(found)[1]
    return newest if newest in BROKERS else None  # -1 while they vote


@scenario("brokers", short=3, fault="kill -9 of brokers and of the controller, restarted")
def brokers(bed, count, row):
    fenced = publishers = 0
    kinds = {"controller": 0, "broker": 0, "two": 0}
    while row.tried < count:
        with bed.stage("brokers", rate=200) as stage:
            stage.begin_replica()
            stage.start_all()
            stage.goes_on(100)
            tried = 0
            while tried < 25 and row.tried < count:
                active = wait_for(lambda: controller(bed.kafka), RECOVERY_S, "a controller is elected")
                kind = ("controller", "broker", "two")[tried % 3 if tried < 3 else bed.draw.choice((0, 0, 1, 1, 2))]
                first = active if kind == "controller" else bed.draw.choice([b for b in BROKERS if b != active])
                victims = [first]
                if kind == "two":
                    victims.append(bed.draw.choice([b for b in BROKERS if b != first]))
                time.sleep(bed.draw.uniform(0, 0.5))
                for victim in victims:
                    bed.kafka.tool("stop", str(victim), "--kill")
                if len(victims) == 1:
                    stage.goes_on(20)  # two replicas of each partition are left
                time.sleep(bed.draw.uniform(0, 2))
                bed.every_broker()
                kinds[kind] += 1
                tried += 1
                row.tried += 1
                row.exact(stage)
            stage.close_load_and_compare(row, brokers_died=True)
            stage.stop_all()
            fenced += stage.joined_anew()
            publishers += stage.publishers
    row.note("%d instances joined anew after Kafka had fenced them" % fenced)
    if publishers:
        row.note("%d publishers ended by Kafka (out of order sequence)" % publishers)
    row.note(", ".join("%d %s" % (n, {"two": "times two at once", "broker": "brokers"}.get(kind, kind))
                       for kind, n in kinds.items()))
