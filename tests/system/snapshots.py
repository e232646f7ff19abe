"""The topic that snapshots go to, as the tests read it."""

import json

from cluster import wait_for

WINDOWS = "5m/1s,1h/10s"
# Snapshots every moment, in Redis and in Kafka.
OFTEN = {"aggregate__snapshot": "300ms", "snapshot__kafka_interval": "300ms", "windows": WINDOWS}
PIECE = 524288


def records(world, topic=None):
    """{key: value} of the topic, the newest of each key; those with a tombstone left out."""
    found = {}
    for message in world.kafka.read_all(topic or world.snapshots()):
        found[message.key().decode()] = message.value()
    return {key: value for key, value in found.items() if value is not None}


def manifests(world, topic=None):
    """[(key, manifest)], the furthest last."""
    found = [(key, json.loads(value)) for key, value in records(world, topic).items() if key.startswith("manifest/")]
    return sorted(found, key=lambda each: (each[1]["genesis"], offsets(each[1]), each[1]["ms"]))


def next_of(each):
    return int(each["position"].split(" ")[0])


def offsets(manifest):
    return sum(map(next_of, manifest["partitions"]))


def kept_to(world, topic, total=None, count=1, genesis=None):
    """Waits until a manifest (of that genesis) covers the topic to its end (or total offsets), and returns it."""
    end = sum(high for _, high in world.kafka.bounds(topic).values()) if total is None else total

    def covered():
        found = manifests(world)
        covers = len(found) >= count and offsets(found[-1][1]) >= end
        return found[-1][1] if covers and genesis in (None, found[-1][1]["genesis"]) else None
    return wait_for(covered, 60, "a snapshot in Kafka covers %d offsets" % end, every=0.2)


def forget_up_to(world, topic, manifest):
    """Retention passes everything that the manifest covers."""
    before = {each["partition"]: next_of(each) for each in manifest["partitions"] if next_of(each)}
    assert before
    world.kafka.delete_records(topic, before)


def counted(world, redis):
    return int(world.health(redis).get("accepted", 0))


def complete(world, redis, is_it="1"):
    found = [redis.hash("nps:{%s}:health:%s" % (world.namespace, window)).get("complete") for window in ("5m", "1h")]
    return found == [is_it, is_it]


def change(manifest, **fields):
    return json.dumps({**manifest, **fields}).encode()


def manifest_key(manifest):
    return "manifest/%d/%s/%d" % (manifest["genesis"], manifest["tenure"], manifest["sequence"])


def head_of(manifest):
    chunk, = [c for c in manifest["chunks"] if c["name"] == "head"]
    return "chunk/%s/%s/0" % (manifest["tenure"], chunk["id"])
