"""The comparison that all system tests lean on must itself find what is wrong: a hand-made namespace is equal to
its truth, and any one change to it is a difference."""

import json
import random
import subprocess
import time

import pytest

import compare_truth as ct

WINDOWS = "5m/1s,1h/10s"
T0 = 1_800_000_000_000


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    folder = tmp_path_factory.mktemp("redis")
    path = str(folder / "r.sock")
    server = subprocess.Popen(["redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--dir", str(folder)],
                              stdout=subprocess.DEVNULL)
    client = None
    for _ in range(1200):
        try:
            client = ct.Redis("unix://" + path)
            client.call("PING")
            break
        except (OSError, ct.RedisError):
            time.sleep(0.05)
    yield client
    server.terminate()
    server.wait()


def entries():
    draw = random.Random(5)
    for second in range(T0 // 1000 - 7300, T0 // 1000 + 20, 7):
        counters = {"histogram": [0] * 11, "csat": [0] * 5, "ces": [0] * 7, "interactions": 2, "invitations": 1,
                    "answers": 1, "value_promoters": 0, "value_passives": 0, "value_detractors": 0}
        # Worse in the last hour, so that there is a change to judge.
        counters["histogram"][draw.choice([3, 9, 10] if second > T0 // 1000 - 3600 else [8, 9, 10])] = 1
        counters["csat"][draw.randrange(5)] = 1
        counters["value_promoters"] = 1250
        for rollup, id_ in (("all", "all"), ("touchpoint", draw.choice(["a", "b%3Ac"]))):
            yield {"second": second, "rollup": rollup, "id": id_, **counters}


def publish(redis, truth):
    """What a right consumer would have left at T0: written from a plain recount, not from compare_truth's sums."""
    redis.call("FLUSHALL")
    everything = list(entries())
    for name, length, slice_ in ct.parse_windows(WINDOWS):
        for rollup, id_ in truth.series:
            views = {}
            for when, back in (("now", 0), ("previous", 1)):
                newest = T0 // slice_ - back * (length // slice_)
                total = [0] * ct.COUNTERS
                for e in everything:
                    number = e["second"] * 1000 // slice_
                    if (e["rollup"], e["id"]) == (rollup, id_) and e["second"] * 1000 <= T0 and \
                            newest - length // slice_ < number <= newest:
                        flat = e["histogram"] + e["csat"] + e["ces"] + [e[field] for field in ct.SINGLE]
                        total = [x + y for x, y in zip(total, flat)]
                views[when] = total
            view = ct.expected_view(views["now"], views["previous"], T0, length, slice_, 5, 30, None)
            if "change_p" in view:
                view["change_verdict"] = 0
            redis.call("HSET", "nps:{x}:%s:%s:%s" % (rollup, id_, name), *[w for pair in view.items() for w in pair])
            if "nps" in view:
                redis.call("ZADD", "nps:{x}:rank:%s:%s" % (rollup, name), view["nps"], id_)
            redis.call("SADD", "nps:{x}:index:" + rollup, id_)
    redis.call("HSET", "nps:{x}:health", "as_of_ms", T0, "complete", 1)
    # The verdict over two or one series, by hand: both changed a lot.
    for key in redis.scan("nps:{x}:*:1h"):
        if ":rank:" not in key and redis.call("HEXISTS", key, "change_p"):
            redis.call("HSET", key, "change_verdict", -1)


@pytest.fixture
def namespace(redis, tmp_path):
    path = tmp_path / "truth"
    path.write_text("".join(json.dumps(e) + "\n" for e in entries()))
    truth = ct.Truth.read(str(path))
    publish(redis, truth)
    return redis, truth


def differences(namespace, **more):
    return ct.compare(*[namespace[0], "x", namespace[1]], windows=WINDOWS, rollups="touchpoint,all", **more)


def test_equal(namespace):
    result = differences(namespace)
    assert result == []
    assert result.views == 6 and result.scored == 6


@pytest.mark.parametrize("command, word", [
    (("HINCRBY", "nps:{x}:all:all:5m", "n", 1), "n is"),
    (("HDEL", "nps:{x}:all:all:5m", "promoters"), "promoters is missing"),
    (("HINCRBYFLOAT", "nps:{x}:all:all:1h", "nps_low", "0.001"), "nps_low"),
    (("HSET", "nps:{x}:all:all:1h", "change_verdict", 1), "change_verdict"),
    (("HSET", "nps:{x}:all:all:1h", "surprise", 1), "surprise"),
    (("HSET", "nps:{x}:all:all:1h", "n", "7x"), "n is 7x"),
    (("HSET", "nps:{x}:all:all:1h", "as_of_ms", T0 - 600000), "as_of_ms"),
    (("DEL", "nps:{x}:touchpoint:a:5m"), "is missing"),
    (("COPY", "nps:{x}:touchpoint:a:5m", "nps:{x}:touchpoint:z:5m"), "no such id"),
    (("ZADD", "nps:{x}:rank:touchpoint:5m", 3, "a"), "rank"),
    (("ZADD", "nps:{x}:rank:touchpoint:5m", 3, "z"), "rank"),
    (("SREM", "nps:{x}:index:touchpoint", "a"), "index"),
    (("DEL", "nps:{x}:health"), "nobody writes"),
])
def test_one_change_is_found(namespace, command, word):
    namespace[0].call(*command)
    result = differences(namespace)
    assert result and any(word in difference for difference in result), result
