#!/usr/bin/python3
"""Compares every view of a namespace in Redis with the simulator's truth, field by field.

  tests/compare_truth.py --redis URL --namespace NS --truth FILE [--wait SECONDS] [--windows 5m/1s,...]

The truth (livenps-producer simulate --truth) says what happened in each second; this file says again, in its own
words, what docs/redis.md promises for a window at the view's own as_of_ms. It shares no code with the consumer.
Needs Python's standard library only. Tests import compare() and caught_up()."""

import argparse
import array
import bisect
import itertools
import json
import math
import re
import socket
import sys
import time
import urllib.parse

DEFAULT_WINDOWS = "5m/1s,1h/10s,24h/2m,7d/30m,30d/2h,90d/6h"
DEFAULT_ROLLUPS = "touchpoint,channel,segment,stage,touchpoint|channel,all"
UNITS = {"ms": 1, "s": 1000, "m": 60000, "h": 3600000, "d": 86400000}
# How far the published decimal text of a number may be from it.
TOLERANCE = 1e-6


# ---- Redis: only what is needed here ----

class RedisError(Exception):
    pass


class Redis:
    """One connection by URL: redis://[[user]:password@]host[:port][/db] or unix:///path[?db=N]."""

    def __init__(self, url, timeout=60):
        parts = urllib.parse.urlsplit(url)
        database = parts.path.strip("/") if parts.scheme == "redis" else \
            urllib.parse.parse_qs(parts.query).get("db", [""])[0]
        if parts.scheme == "unix":
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(timeout)
            self.socket.connect(urllib.parse.unquote(parts.path))
        elif parts.scheme == "redis":
            self.socket = socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 6379), timeout)
        else:
            raise RedisError("%s: only redis:// and unix:// here" % parts.scheme)
        self.file = self.socket.makefile("rb")
        if parts.password:
            words = ["AUTH"] + ([urllib.parse.unquote(parts.username)] if parts.username else [])
            self.call(*words, urllib.parse.unquote(parts.password))
        if database:
            self.call("SELECT", database)

    def close(self):
        self.file.close()
        self.socket.close()

    def pipeline(self, commands):
        """Replies in the order of the commands, an error reply as a RedisError among them."""
        replies = []
        for begin in range(0, len(commands), 500):  # bounded, so that neither side waits with full buffers
            some = commands[begin:begin + 500]
            out = bytearray()
            for command in some:
                out += b"*%d\r\n" % len(command)
                for word in command:
                    word = word if isinstance(word, bytes) else str(word).encode()
                    out += b"$%d\r\n%s\r\n" % (len(word), word)
            self.socket.sendall(out)
            replies += [self._reply() for _ in some]
        return replies

    def call(self, *command):
        reply = self.pipeline([command])[0]
        if isinstance(reply, RedisError):
            raise reply
        return reply

    def _reply(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise RedisError("Redis closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode()
        if kind == b"-":
            return RedisError(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            if rest == b"-1":
                return None
            data = self.file.read(int(rest) + 2)
            return data[:-2].decode("utf-8", "surrogateescape")
        if kind == b"*":
            return None if rest == b"-1" else [self._reply() for _ in range(int(rest))]
        raise RedisError("not a Redis reply: %r" % line)

    def hashes(self, keys):
        found = {}
        for key, reply in zip(keys, self.pipeline([("HGETALL", key) for key in keys])):
            if isinstance(reply, RedisError):
                raise reply
            found[key] = dict(zip(reply[::2], reply[1::2]))
        return found

    def scan(self, pattern):
        cursor, keys = "0", set()
        while True:
            cursor, some = self.call("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
            keys.update(some)
            if cursor == "0":
                return keys

    def time_ms(self):
        seconds, micros = self.call("TIME")
        return int(seconds) * 1000 + int(micros) // 1000


# ---- the truth ----

HISTOGRAM, CSAT, CES = slice(0, 11), slice(11, 16), slice(16, 23)
SINGLE = ["interactions", "invitations", "answers", "value_promoters", "value_passives", "value_detractors"]
COUNTERS = 23 + len(SINGLE)


class Truth:
    """Per roll-up and id, and per counter: the seconds in which it rose and its running sum. Any range of seconds
    then costs two searches, however long it is."""

    def __init__(self):
        self.series = {}  # (rollup, id) -> {counter: (seconds, sums)}
        self.lines = 0

    @classmethod
    def read(cls, path):
        truth = cls()
        with open(path, encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                if line.strip():
                    truth.add(json.loads(line))
        truth.finish()
        return truth

    def add(self, entry):
        self.lines += 1
        values = entry["histogram"] + entry["csat"] + entry["ces"] + [entry[name] for name in SINGLE]
        if len(values) != COUNTERS:
            raise ValueError("a line of the truth has %d counters, not %d" % (len(values), COUNTERS))
        counters = self.series.setdefault((entry["rollup"], entry["id"]), {})
        for counter, value in enumerate(values):
            if value:
                seconds, amounts = counters.setdefault(counter, (array.array("q"), array.array("q")))
                seconds.append(entry["second"])
                amounts.append(value)

    def finish(self):
        for counters in self.series.values():
            for counter, (seconds, amounts) in counters.items():
                order = sorted(range(len(seconds)), key=seconds.__getitem__)
                total, sums = 0, array.array("q", [0])
                for i in order:
                    total += amounts[i]
                    sums.append(total)
                counters[counter] = (array.array("q", (seconds[i] for i in order)), sums)

    def total(self, rollup, id_, first, last):
        """The counters of the seconds first..last, both included."""
        values = [0] * COUNTERS
        for counter, (seconds, sums) in self.series.get((rollup, id_), {}).items():
            values[counter] = sums[bisect.bisect_right(seconds, last)] - sums[bisect.bisect_left(seconds, first)]
        return values


# ---- what a view must say ----

def duration(text):
    match = re.fullmatch(r"(\d+)(ms|s|m|h|d)", text)
    if not match:
        raise ValueError("'%s' is no duration" % text)
    return int(match[1]) * UNITS[match[2]]


def parse_windows(text):
    """"5m/1s,..." -> [(name, length ms, slice ms)]"""
    windows = []
    for part in text if isinstance(text, (list, tuple)) else text.split(","):
        name, _, slice_ = part.strip().partition("/")
        windows.append((name, duration(name), duration(slice_)))
    return windows


def seconds_of(first_slice, last_slice, slice_ms):
    """The whole seconds whose start lies in these slices."""
    return -(-first_slice * slice_ms // 1000), -(-(last_slice + 1) * slice_ms // 1000) - 1


def window_totals(truth, rollup, id_, length_ms, slice_ms, at_ms):
    """This window and the one before it at the clock at_ms. What is ahead of the clock waits."""
    newest, count = at_ms // slice_ms, length_ms // slice_ms
    first, last = seconds_of(newest - count + 1, newest, slice_ms)
    now = truth.total(rollup, id_, first, min(last, at_ms // 1000))
    first, last = seconds_of(newest - 2 * count + 1, newest - count, slice_ms)
    return now, truth.total(rollup, id_, first, min(last, at_ms // 1000))


def classes(counters):
    histogram = counters[HISTOGRAM]
    return sum(histogram[9:]), sum(histogram[7:9]), sum(histogram[:7])


def adjusted(promoters, passives, detractors):
    """(3,T): mean and variance of one answer in units of NPS/100, and the adjusted number."""
    n = promoters + passives + detractors + 3
    mean = (promoters - detractors) / n
    return mean, (promoters + detractors + 1.5) / n - mean * mean, n


def change_p(now, before):
    (m1, v1, n1), (m2, v2, n2) = adjusted(*now), adjusted(*before)
    return math.erfc(abs((m1 - m2) / math.sqrt(v1 / n1 + v2 / n2)) / math.sqrt(2))


def round_half_away(x):
    return int(math.copysign(math.floor(abs(x) + 0.5), x))


def expected_view(now, previous, at_ms, length_ms, slice_ms, minimum_n, reliable_n, target):
    """Every field but change_verdict, which needs the other series. Integers must be equal, floats close."""
    promoters, passives, detractors = classes(now)
    n = promoters + passives + detractors
    before = classes(previous)
    previous_n = sum(before)
    csat, ces = now[CSAT], now[CES]
    interactions, invitations, answers, value_p, value_n, value_d = now[23:]
    view = {
        "n": n, "previous_n": previous_n, "reliable": int(n >= reliable_n),
        "csat_n": sum(csat), "ces_n": sum(ces),
        "interactions": interactions, "invitations": invitations, "answers": answers,
        "as_of_ms": at_ms, "window_ms": length_ms, "slice_ms": slice_ms,
        "window_start_ms": (at_ms // slice_ms - length_ms // slice_ms + 1) * slice_ms,
    }
    has_now, has_before = n > 0 and n >= minimum_n, previous_n > 0 and previous_n >= minimum_n
    if has_now:
        mean, variance, adjusted_n = adjusted(promoters, passives, detractors)
        half = 1.959963984540054 * math.sqrt(variance / adjusted_n)
        view.update({
            "nps": 100 * (promoters - detractors) / n,
            "nps_low": max(-100.0, 100 * (mean - half)), "nps_high": min(100.0, 100 * (mean + half)),
            "promoters": promoters, "passives": passives, "detractors": detractors,
        })
        view["nps_rounded"] = round_half_away(view["nps"])
        if value_p + value_n + value_d > 0:
            view["value_nps"] = 100 * (value_p - value_d) / (value_p + value_n + value_d)
    if has_before:
        view["previous_nps"] = 100 * (before[0] - before[2]) / previous_n
    if has_now and has_before:
        view["change"] = view["nps"] - view["previous_nps"]
        view["change_p"] = change_p((promoters, passives, detractors), before)
    if sum(csat) and sum(csat) >= minimum_n:
        view["csat_mean"] = sum((i + 1) * c for i, c in enumerate(csat)) / sum(csat)
        view["csat_share"] = 100 * (csat[3] + csat[4]) / sum(csat)
    if sum(ces) and sum(ces) >= minimum_n:
        view["ces_mean"] = sum((i + 1) * c for i, c in enumerate(ces)) / sum(ces)
    if invitations > 0:
        view["response_rate"] = 100 * answers / invitations
    if target is not None:
        view["target"] = float(target)
        if has_now:
            view["target_state"] = 1 if view["nps_low"] > target else -1 if view["nps_high"] < target else 0
    return view


def verdicts(views, q):
    """Benjamini-Hochberg over {name: expected view} of one roll-up and window: {name: -1, 0, 1}."""
    tested = sorted((view["change_p"], name) for name, view in views.items() if "change_p" in view)
    accepted = 0
    for rank, (p, _) in enumerate(tested, 1):
        if p <= q * rank / len(tested):
            accepted = rank
    return {name: (1 if views[name]["change"] > 0 else -1) if rank <= accepted else 0
            for rank, (_, name) in enumerate(tested, 1)}


# ---- comparing ----

def same(expected, text):
    try:
        value = float(text)
    except (TypeError, ValueError):
        return False
    if isinstance(expected, int):
        return value == expected and re.fullmatch(r"-?\d+", text) is not None
    return abs(value - expected) <= TOLERANCE * max(1.0, abs(expected))


def health(redis, namespace):
    return redis.hashes(["nps:{%s}:health" % namespace])["nps:{%s}:health" % namespace]


def caught_up(redis, namespace, since_ms, timeout_s, ends_of=None):
    """Waits until everything that was in Kafka at since_ms (Redis TIME) is in the views. True if so.
    A partition counts as read through while an end offset not older than two seconds is reached; so that two seconds must pass, unless
    ends_of(topics) can say {<topic>/<partition>: end}: then positions that stand exactly there tell at once."""
    deadline = time.monotonic() + timeout_s
    ready = ends = None

    def through(now):
        nonlocal ends
        if int(now.get("low_watermark_ms", 0)) > since_ms + 2000:
            return True
        positions = {field[len("position:"):]: int(value) for field, value in now.items() if field.startswith("position:")}
        if ends is None and ends_of and positions:
            ends = ends_of({field.rpartition("/")[0] for field in positions})
        return bool(ends) and positions == ends

    while time.monotonic() < deadline:
        now = health(redis, namespace)
        if now.get("complete") == "1" and through(now):
            # One more whole tick: the views of this one may be written after its health.
            if ready is not None and int(now["as_of_ms"]) > ready:
                return True
            ready = int(now["as_of_ms"]) if ready is None else ready
        time.sleep(0.1)
    return False


class Result(list):
    """The differences, as sentences; beside them how many views were compared and how many of them had a score."""
    views = scored = 0


def compare(redis, namespace, truth, windows=DEFAULT_WINDOWS, rollups=DEFAULT_ROLLUPS, minimum_n=5, reliable_n=30,
            q=0.10, targets=None, check_now=True, limit=50, patience_s=1):
    """Differences between every view of the namespace and the truth (a Truth or a path) at each view's own
    as_of_ms. check_now: also that every view still holds at health's as_of_ms, that none is missing, the verdicts,
    the ranks and the index (for a namespace that somebody writes, caught up). targets: {touchpoint id: NPS}.
    patience_s: how long a tick may take, or a writer stand still, whose moment decides."""
    if isinstance(redis, str):
        redis = Redis(redis)
    if not isinstance(truth, Truth):
        truth = Truth.read(truth)
    windows = parse_windows(windows)
    rollups = rollups.split(",") if isinstance(rollups, str) else list(rollups)
    deadline = time.monotonic() + patience_s
    for attempt in itertools.count():
        late = attempt >= 19 and time.monotonic() > deadline
        result = _compare(redis, namespace, truth, windows, rollups, minimum_n, reliable_n, q, targets or {}, check_now)
        # Read while a tick was being written: the moment decides, so look again.
        if not result.torn or late:
            break
        time.sleep(0.07)
    if len(result) > limit:
        more = len(result) - limit
        del result[limit:]
        result.append("... and %d more" % more)
    return result


def _compare(redis, namespace, truth, windows, rollups, minimum_n, reliable_n, q, targets, check_now):
    result, lasting = Result(), 0
    prefix = "nps:{%s}:" % namespace
    before = health(redis, namespace) if check_now else {}
    by_name = {name: (length, slice_) for name, length, slice_ in windows}
    keys = {}
    for key in redis.scan(prefix.replace("[", "\\[").replace("?", "\\?").replace("*", "\\*") + "*"):
        parts = key[len(prefix):].split(":")
        if len(parts) == 3 and parts[0] in rollups and parts[2] in by_name:
            keys[tuple(parts)] = key
    # Also those that ought to be there, so that one read sees all.
    for rollup, id_ in truth.series:
        for name in by_name if rollup in rollups else ():
            keys.setdefault((rollup, id_, name), "%s%s:%s:%s" % (prefix, rollup, id_, name))
    found = redis.hashes(list(keys.values()))
    ranks = {}
    if check_now:
        places = [(rollup, name) for rollup in rollups for name in by_name]
        for place, reply in zip(places, redis.pipeline(
                [("ZRANGE", "%srank:%s:%s" % (prefix, *place), 0, -1, "WITHSCORES") for place in places])):
            ranks[place] = reply if isinstance(reply, RedisError) else dict(zip(reply[::2], reply[1::2]))
        indexes = dict(zip(rollups, redis.pipeline([("SMEMBERS", prefix + "index:" + r) for r in rollups])))
        after = health(redis, namespace)
        if "as_of_ms" not in before or "as_of_ms" not in after:
            result.append("%shealth is gone: nobody writes" % prefix)
            result.torn = True  # it comes back when whoever writes it stood still
            return result

    # Each view at its own clock: true whenever it is read.
    at_clock = {}
    for (rollup, id_, name), key in keys.items():
        view = found[key]
        if not view:
            continue
        result.views += 1
        result.scored += "nps" in view
        length, slice_ = by_name[name]
        if not re.fullmatch(r"\d+", view.get("as_of_ms", "")):
            result.append("%s: as_of_ms is %r" % (key, view.get("as_of_ms")))
            continue
        at = int(view["as_of_ms"])
        now, previous = window_totals(truth, rollup, id_, length, slice_, at)
        expected = expected_view(now, previous, at, length, slice_, minimum_n, reliable_n,
                                 targets.get(id_) if rollup == "touchpoint" else None)
        at_clock[rollup, id_, name] = expected
        if (rollup, id_) not in truth.series:
            result.append("%s: the truth has no such id" % key)
        for field, value in expected.items():
            if field not in view:
                result.append("%s: %s is missing, the truth says %s (as_of_ms %d)" % (key, field, value, at))
            elif not same(value, view[field]):
                result.append("%s: %s is %s, the truth says %s (as_of_ms %d)" % (key, field, view[field], value, at))
        if ("change_p" in expected) != ("change_verdict" in view):
            result.append("%s: change_verdict is %s" % (key, view.get("change_verdict", "missing")))
        for field in sorted(set(view) - set(expected) - {"change_verdict"}):
            result.append("%s: %s is %s, the truth withholds it (as_of_ms %d)" % (key, field, view[field], at))
    lasting = len(result)

    if check_now:
        clock = int(before["as_of_ms"])
        current = {}
        for rollup, id_, name in keys:
            now, previous = window_totals(truth, rollup, id_, *by_name[name], clock)
            current.setdefault((rollup, name), {})[id_] = expected_view(
                now, previous, clock, *by_name[name], minimum_n, reliable_n,
                targets.get(id_) if rollup == "touchpoint" else None)
            key = keys[rollup, id_, name]
            if not found[key]:
                if any(now) or any(previous):
                    result.append("%s is missing" % key)
                continue
            old = at_clock.get((rollup, id_, name))
            for field, value in current[rollup, name][id_].items():
                if old and field not in ("as_of_ms", "window_start_ms") and old.get(field) != value:
                    result.append("%s: %s was %s at its as_of_ms, but is %s at health's as_of_ms %d" % (
                        key, field, old.get(field), value, clock))
        for (rollup, name), views in current.items():
            for id_, verdict in verdicts(views, q).items():
                view = found[keys[rollup, id_, name]]
                if view and view.get("change_verdict") != str(verdict):
                    result.append("%s: change_verdict is %s, over all series it is %d (as_of_ms %d)" % (
                        keys[rollup, id_, name], view.get("change_verdict"), verdict, clock))
            scores = {id_: view["nps"] for id_, view in views.items() if "nps" in view}
            rank = ranks[rollup, name]
            key = "%srank:%s:%s" % (prefix, rollup, name)
            if isinstance(rank, RedisError):
                result.append("%s: %s" % (key, rank))
                continue
            for id_ in sorted(set(scores) | set(rank)):
                if id_ not in rank or id_ not in scores or not same(float(scores[id_]), rank[id_]):
                    result.append("%s: %s has %s, the truth says %s" % (key, id_, rank.get(id_), scores.get(id_)))
        longest = max(length for length, _ in by_name.values())
        for rollup in rollups:
            alive = {id_ for r, id_ in truth.series if r == rollup and
                     any(truth.total(r, id_, (clock - longest) // 1000, clock // 1000))}
            index = indexes[rollup]
            missing = alive - set(index) if not isinstance(index, RedisError) else alive
            for id_ in sorted(missing):
                result.append("%sindex:%s: %s is missing" % (prefix, rollup, id_))
    # What depends on one moment is believed only if no tick ended meanwhile; a half-written tick shows as such
    # a difference too, so those are looked at again.
    result.torn = len(result) > lasting
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--redis", default="redis://127.0.0.1:6379")
    parser.add_argument("--namespace", default="default")
    parser.add_argument("--truth", required=True)
    parser.add_argument("--wait", type=float, default=0, help="wait this long until the consumer has caught up")
    parser.add_argument("--windows", default=DEFAULT_WINDOWS)
    parser.add_argument("--rollups", default=DEFAULT_ROLLUPS)
    parser.add_argument("--minimum-n", type=int, default=5)
    args = parser.parse_args()
    redis = Redis(args.redis)
    if args.wait and not caught_up(redis, args.namespace, redis.time_ms(), args.wait):
        print("the consumer did not catch up within %g s; health: %s" % (args.wait, health(redis, args.namespace)))
        return 1
    truth = Truth.read(args.truth)
    result = compare(redis, args.namespace, truth, args.windows, args.rollups, args.minimum_n)
    for difference in result:
        print(difference)
    if not truth.lines or not result.scored:
        print("nothing to compare: %d lines of truth, %d views, %d of them with a score" % (
            truth.lines, result.views, result.scored))
        return 1
    print("%d views, %d of them with a score: %s" % (
        result.views, result.scored, "DIFFERENT from the truth" if result else "all equal the truth"))
    return 1 if result else 0


if __name__ == "__main__":
    sys.exit(main())
