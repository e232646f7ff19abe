"""The state's views against the brute-force recount (recount.py), over random events: any order of arrival, any batching, any
steps of the clock, slices leaving, early and late events, several configurations, snapshots in between.

The seed is printed; RECOUNT_SEED repeats one, RECOUNT_ROUNDS and RECOUNT_STEPS make the walk longer.
"""
import json
import math
import os
import random
import subprocess

import pytest

from recount import Recount, adjusted, benjamini_hochberg, interval, rounded

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("BUILD_DIR", os.path.join(ROOT, "build", "release"))
DRIVER = os.environ.get("STATE_DRIVER", os.path.join(BUILD, "tests", "property", "state_driver"))
DIMENSIONS = ("touchpoint", "channel", "segment", "stage")
TYPES = ("interaction", "invitation", "answer")
SCALES = (None, "nps", "csat", "ces")

CONFIGURATIONS = {
    "one-window": dict(windows={"10s": (10000, 1000)}, rollups=["touchpoint", "all"], minimum_n=1, reliable_n=3),
    "coarse-slices": dict(windows={"20s": (20000, 5000), "1m": (60000, 20000)}, rollups=["channel", "touchpoint|channel"],
                          minimum_n=2, reliable_n=5, q=0.3),
    "mixed": dict(windows={"5s": (5000, 1000), "30s": (30000, 2000), "10m": (600000, 7500)},
                  rollups=["touchpoint", "channel", "segment", "stage", "touchpoint|channel", "all"], minimum_n=3,
                  reliable_n=10, q=0.2, targets={b"delivery": 20.0, b"b:\xc3\xa9|": -50.5}),
    "single-slice": dict(windows={"3s": (3000, 3000), "1h": (3600000, 12000)}, rollups=["stage|touchpoint", "touchpoint"],
                         minimum_n=1, reliable_n=2, q=0.5, targets={b"~odd": 0.0}),
    "long-blocks": dict(windows={"5m": (300000, 1000), "2m": (120000, 400)}, rollups=["touchpoint"], minimum_n=1, reliable_n=30),
}
NAMES = {
    "touchpoint": [b"delivery", b"b:\xc3\xa9|", b"~odd", b"~other", b"100%", b"returns"],
    "channel": [b"web", b"phone", b"e-mail", None],
    "segment": [b"vip", None, b"{new}"],
    "stage": [None, b"before", b"after", b""],
}


def word(name):
    if name is None:
        return "-"
    return "".join(chr(b) if b < 128 and chr(b).isalnum() else "%%%02x" % b for b in name) or "="


class Driver:
    def __init__(self, config, series_max=1000):
        self.process = subprocess.Popen([DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8",
                                        bufsize=1 << 16)
        targets = ",".join("%s=%r" % (name.decode(), nps) for name, nps in config.get("targets", {}).items())
        self.say("config windows=%s rollups=%s series_max=%d minimum_n=%d reliable_n=%d q=%r%s" % (
            ",".join("%s:%d:%d" % (name, *spec) for name, spec in config["windows"].items()), ",".join(config["rollups"]),
            series_max, config.get("minimum_n", 5), config.get("reliable_n", 30), config.get("q", 0.1),
            " targets=" + targets if targets else ""))

    def say(self, line):
        self.process.stdin.write(line + "\n")

    def ask(self, line, last="clock"):
        self.say(line)
        self.process.stdin.flush()
        answers = []
        while True:
            text = self.process.stdout.readline()
            assert text, "the driver ended: " + line
            answers.append(json.loads(text))
            if last in answers[-1]:
                return answers

    def event(self, event):
        value = "-" if event["value"] is None else event["value"]
        self.say("event %d %d %d %d %s %s" % (
            event["second"], TYPES.index(event["type"]), SCALES.index(event["scale"]),
            -1 if event["score"] is None else event["score"], value,
            " ".join(word(event["dimensions"][d]) for d in DIMENSIONS)))

    def views(self):
        return {(v["rollup"], v["window"], v["id"]): v for v in self.ask("views")[:-1]}

    def digest(self):
        return self.ask("digest", "digest")[-1]["digest"]

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(60) == 0
        self.process.stdout.close()


def same(got, expected, what):
    assert sorted(got) == sorted(expected), what
    for field, value in expected.items():
        if isinstance(value, float):
            # p-values of large z are tiny: compare relative there too.
            assert math.isclose(got[field], value, rel_tol=1e-9, abs_tol=1e-9), (what, field, got[field], value)
        else:
            assert got[field] == value, (what, field, got[field], value)


def compare(got, expected):
    assert sorted(got) == sorted(expected)
    for key in expected:
        same(got[key], expected[key], key)


def random_event(rng, second):
    kind = rng.choices(TYPES, (2, 2, 6))[0]
    scale = rng.choices(("nps", "csat", "ces"), (6, 1, 1))[0] if kind == "answer" else None
    score = {"nps": lambda: rng.randint(0, 10), "csat": lambda: rng.randint(1, 5), "ces": lambda: rng.randint(1, 7),
             None: lambda: None}[scale]()
    value = rng.choice((None, rng.randint(-10000, 100000))) if kind == "answer" else None
    return {"second": second, "type": kind, "scale": scale, "score": score, "value": value,
            "dimensions": {d: rng.choice(NAMES[d]) for d in DIMENSIONS}}


def random_second(rng, clock, longest):
    """Around the clock: mostly recent, some late within and beyond what is kept, some early."""
    now = clock // 1000
    kind = rng.random()
    if kind < 0.5:
        return now - rng.randint(0, 5)
    if kind < 0.75:
        return now - int(rng.expovariate(1) * longest / 3000)
    if kind < 0.9:
        return now + rng.randint(0, 20)
    return now - rng.randint(0, 3 * longest // 1000)


def random_clock(rng, clock, longest):
    kind = rng.random()
    if kind < 0.4:
        return clock + rng.randint(1, 999)
    if kind < 0.8:
        return clock + rng.randint(1000, 12000)
    if kind < 0.9:
        return clock + rng.choice((1, 0, -5000))
    if kind < 0.97:
        return clock + rng.randint(1, longest)
    return clock + rng.randint(1, 5 * longest)


@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.parametrize("start", (-40_000, 1_700_000_000_123), ids=("around-1970", "now"))
def test_random_walk(name, start):
    seed = int(os.environ.get("RECOUNT_SEED", random.randrange(1 << 30)))
    rounds, steps = int(os.environ.get("RECOUNT_ROUNDS", 2)), int(os.environ.get("RECOUNT_STEPS", 250))
    print("RECOUNT_SEED=%d" % seed)
    config = CONFIGURATIONS[name]
    longest = max(length for length, _ in config["windows"].values())
    for round_number in range(rounds):
        rng = random.Random("%d %s %d %d" % (seed, name, start, round_number))
        driver, recount = Driver(config), Recount(**config)
        clock, shown = start, {}
        for _ in range(rng.randint(0, 5)):  # before the clock is known
            event = random_event(rng, random_second(rng, clock, longest))
            driver.event(event)
            recount.add(event)
        driver.say("commit 1")
        assert driver.views() == {}
        pending = []
        for step in range(steps):
            operation = rng.random()
            if operation < 0.65:
                event = random_event(rng, random_second(rng, clock, longest))
                driver.event(event)
                pending.append(event)
            elif operation < 0.8:
                driver.say("commit %d" % max(clock, 0))
                for event in pending:
                    recount.add(event)
                pending = []
            elif operation < 0.95:
                clock = max(clock, random_clock(rng, clock, longest))
                driver.say("advance %d" % clock)
                recount.advance(clock)
            elif operation < 0.97 and recount.clock is not None:
                before = driver.digest()
                driver.say("snapshot %d" % rng.choice((1, 300, 1 << 20)))
                driver.say("load")
                assert driver.digest() == before
                shown = {}  # whoever loads shows everything again, and removes what is not shown
            elif operation < 0.985 and recount.clock is not None:
                rollup, window = rng.choice(config["rollups"]), rng.choice(list(config["windows"]))
                length, slice_ms = config["windows"][window]
                end = (clock // slice_ms + 1 - rng.choice((0, 1, 2, rng.randint(0, length // slice_ms - 1)))) * slice_ms
                if end > clock // slice_ms * slice_ms + slice_ms - length:
                    answers = driver.ask("at %s %s %d" % (rollup, window, end))[:-1]
                    got = {v["id"]: v for v in answers}
                    compare(got, recount.views_at(rollup, window, end))
            elif recount.clock is not None:
                shown = check(driver, recount, shown)
        check(driver, recount, shown)
        driver.close()


def numbers(view):
    """What is published as numbers: the place in time moves with the clock and is no change."""
    return {field: value for field, value in view.items() if field not in ("as_of_ms", "window_start_ms")}


def check(driver, recount, shown):
    """All views equal the recount; and what `changed` tells, applied to what was shown before, gives the same."""
    expected = recount.views() if recount.clock is not None else {}
    changes = driver.ask("changed")[:-1]
    shown = dict(shown)
    for change in changes:
        if "gone" in change:
            for window in recount.windows:
                shown.pop((change["gone"], window, change["id"]), None)
        else:
            shown[change["rollup"], change["window"], change["id"]] = change
    compare({key: numbers(view) for key, view in shown.items()}, {key: numbers(view) for key, view in expected.items()})
    compare(driver.views(), expected)
    assert driver.ask("changed")[:-1] == []  # nothing happened since
    return shown


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_order_and_batching_do_not_matter(name):
    seed = int(os.environ.get("RECOUNT_SEED", random.randrange(1 << 30)))
    print("RECOUNT_SEED=%d" % seed)
    rng = random.Random("%d order %s" % (seed, name))
    config = CONFIGURATIONS[name]
    longest = max(length for length, _ in config["windows"].values())
    start = 1_700_000_000_000
    events = [random_event(rng, random_second(rng, start, longest)) for _ in range(400)]
    final = start + rng.randint(0, longest)
    digests = set()
    for _ in range(6):
        rng.shuffle(events)
        driver = Driver(config)
        clock = start - rng.randint(0, 2 * longest)
        for event in events:
            driver.event(event)
            if rng.random() < 0.2:
                driver.say("commit 1")
            if rng.random() < 0.1:
                clock = min(final, clock + rng.randint(0, longest // 20))
                driver.say("advance %d" % clock)
            if rng.random() < 0.02:
                driver.say("snapshot 1000")
            if rng.random() < 0.02:
                driver.ask("changed")
        driver.say("commit 1")
        driver.say("advance %d" % final)
        digests.add(driver.digest())
        driver.close()
    assert len(digests) == 1
    # One event more is another state.
    driver = Driver(config)
    for event in events + [random_event(rng, final // 1000 - 1)]:
        driver.event(event)
    driver.say("commit 1")
    driver.say("advance %d" % final)
    assert driver.digest() not in digests
    driver.close()


def test_capped_totals_are_right():
    seed = int(os.environ.get("RECOUNT_SEED", random.randrange(1 << 30)))
    print("RECOUNT_SEED=%d" % seed)
    rng = random.Random("%d cap" % seed)
    config = dict(windows={"5s": (5000, 1000), "8s": (8000, 2000)}, rollups=["touchpoint", "all"], minimum_n=1)
    driver, recount = Driver(config, series_max=3), Recount(**config)
    clock, busy = 1_700_000_000_000, list(range(5))
    for step in range(1000):
        event = random_event(rng, random_second(rng, clock, 8000))
        if rng.random() < 0.05:  # others fall silent, so that series die while ~other lives
            busy = rng.sample(range(12), 5)
        event["dimensions"]["touchpoint"] = b"t%d" % rng.choice(busy)
        driver.event(event)
        recount.add(event)
        driver.say("commit 1")
        clock += rng.choice((0, 0, 700, 1500, 30000 if rng.random() < 0.05 else 0))
        driver.say("advance %d" % clock)
        recount.advance(clock)
        if rng.random() < 0.1:
            driver.ask("changed")
        if rng.random() < 0.05:
            driver.say("snapshot 1000")
            driver.say("load")
        if step % 4:
            continue
        got, expected = driver.views(), recount.views()
        count, capped = driver.ask("series", "all")[-1]["touchpoint"]
        assert count <= 4 and capped == int(any(key[2] == "~other" for key in got))
        for window in config["windows"]:
            assert {k: numbers(v) for k, v in got.items() if k[:2] == ("all", window)} == \
                {k: pytest.approx(numbers(v)) for k, v in expected.items() if k[:2] == ("all", window)}
            total = [0] * 29
            for key, view in got.items():
                if key[:2] == ("touchpoint", window):
                    total = [a + b for a, b in zip(total, view["now"])]
            assert total == got.get(("all", window, "all"), {"now": [0] * 29})["now"]
        # A name that has a series of its own shows all of its numbers.
        for key, view in got.items():
            if key[2] != "~other":
                assert view["now"] == expected[key]["now"] and view["previous"] == expected[key]["previous"], key
    driver.close()


@pytest.mark.parametrize("series_max", (3, 1000))
def test_who_looks_and_when_does_not_matter(series_max):
    """Rows are spread when somebody looks or a slice ends. The same entries at the same clocks give the same state, also above the cap,
    whoever looks in between, and also for who goes on from a snapshot."""
    seed = int(os.environ.get("RECOUNT_SEED", random.randrange(1 << 30)))
    print("RECOUNT_SEED=%d" % seed)
    rng = random.Random("%d looks %d" % (seed, series_max))
    config = CONFIGURATIONS["mixed"]
    clock, busy, entries = 1_700_000_000_000, list(range(6)), []
    for _ in range(120):
        clock += rng.choice((0, 100, 250, 250, 1500, 20000 if rng.random() < 0.1 else 0))
        if rng.random() < 0.1:
            busy = rng.sample(range(12), 5)
        events = [random_event(rng, random_second(rng, clock, 30000)) for _ in range(rng.randint(0, 12))]
        for event in events:
            event["dimensions"]["touchpoint"] = b"t%d" % rng.choice(busy)
        entries.append((clock, events))

    def look(how, driver):
        if how == "load":
            driver.say("snapshot 1000")
            driver.say("load")
        elif how == "snapshot":
            driver.say("snapshot 1000")
        elif how:
            driver.ask(how, "all" if how == "series" else "digest" if how == "digest" else "clock")

    ways = [lambda: None, lambda: "digest", lambda: "load", lambda: rng.choice((None, None, "views", "changed", "series", "snapshot", "load"))]
    digests, others = set(), set()
    for way in ways:
        driver = Driver(config, series_max)
        for clock, events in entries:
            driver.say("advance %d" % clock)
            for event in events:
                driver.event(event)
            driver.say("commit %d" % clock)
            look(way(), driver)
        digests.add(driver.digest())
        others.add(any(key[2] == "~other" for key in driver.views()))
        driver.close()
    assert len(digests) == 1 and others == {series_max == 3}


def test_the_oracle_itself():
    """The recount's own formulas against numbers from outside."""
    with open(os.path.join(ROOT, "tests", "vectors", "nps.json"), encoding="utf-8") as file:
        vectors = json.load(file)
    for vector in vectors["interval_3T_95"]:
        d, q, p = vector["counts"]
        assert interval(p, q, d) == pytest.approx((vector["low"], vector["high"]), abs=1e-6)
    for vector in vectors["rounding_half_away_from_zero"]:
        d, q, p = vector["counts"]
        from fractions import Fraction
        assert rounded(Fraction(100 * (p - d), p + q + d)) == vector["rounded"]
    assert adjusted(0, 0, 0) == (0, pytest.approx(1 / 6))
    assert benjamini_hochberg({"a": 0.045, "b": 0.04, "c": 0.9}, 0.1) == {"a", "b"}
