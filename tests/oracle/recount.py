"""Brute-force recount of raw events: what every view must show, from the definitions alone.

Shares no code and no idea with the program: every question is answered by looking at all events again. An event is
a dict with second, type (interaction, invitation, answer), scale (nps, csat, ces or None), score, value (hundredths
or None) and dimensions (a dict; absent ones are missing or None; names are bytes).
"""
import math
from fractions import Fraction

Z95 = 1.959963984540054  # 97.5 % quantile of the normal distribution


def promoter(score):
    return score in (9, 10)


def passive(score):
    return score in (7, 8)


def detractor(score):
    return score in (0, 1, 2, 3, 4, 5, 6)


def encode(name):
    """Percent-encoding of one name (bytes of valid UTF-8), as design and docs state it."""
    out = []
    for i, char in enumerate(name.decode("utf-8")):
        code = ord(char)
        bad = (char in ":%{}|" or code < 0x20 or 0x7F <= code <= 0x9F or code in (0x61C, 0x200E, 0x200F)
               or 0x2028 <= code <= 0x202E or 0x2066 <= code <= 0x2069 or (char == "~" and i == 0))
        out.append("".join("%%%02X" % byte for byte in char.encode("utf-8")) if bad else char)
    return "".join(out)


def series_id(rollup, dimensions):
    """The id that an event counts for in a roll-up, or None when it stays out."""
    if rollup == "all":
        return "all"
    parts = []
    for dimension in rollup.split("|"):
        name = dimensions.get(dimension)
        if not name:
            return None
        parts.append(encode(name))
    return "|".join(parts)


def adjusted(promoters, passives, detractors):
    """Mean and squared standard error of (P - D) / n after the three answers of (3,T) are added."""
    p, q, d = Fraction(promoters) + Fraction(3, 4), Fraction(passives) + Fraction(3, 2), Fraction(detractors) + Fraction(3, 4)
    n = p + q + d
    mean = (p - d) / n
    variance = (p + d) / n - mean * mean
    return mean, variance / n


def interval(promoters, passives, detractors):
    mean, squared = adjusted(promoters, passives, detractors)
    half = Z95 * math.sqrt(squared)
    return max(-100.0, 100 * (float(mean) - half)), min(100.0, 100 * (float(mean) + half))


def change_test(now, before):
    (mean_now, squared_now), (mean_before, squared_before) = adjusted(*now), adjusted(*before)
    z = float(mean_now - mean_before) / math.sqrt(squared_now + squared_before)
    return z, math.erfc(abs(z) / math.sqrt(2))


def benjamini_hochberg(p_values, q):
    """The keys of the discoveries: sorted, up to the largest k with p(k) <= k q / m."""
    ranked = sorted(p_values.items(), key=lambda item: item[1])
    last = 0
    for k, (_, p) in enumerate(ranked, 1):
        if p * len(ranked) <= k * q:
            last = k
    return {key for key, _ in ranked[:last]}


def rounded(nps):
    """Half away from zero, from the exact fraction."""
    whole = math.floor(abs(nps) + Fraction(1, 2))
    return int(whole if nps >= 0 else -whole)


class Recount:
    def __init__(self, windows, rollups, minimum_n=5, reliable_n=30, q=0.10, targets=None):
        self.windows = windows  # name -> (length ms, slice ms)
        self.rollups = rollups
        self.minimum_n = minimum_n
        self.reliable_n = reliable_n
        self.q = q
        self.targets = {encode(name): nps for name, nps in (targets or {}).items()}
        self.events = []
        self.clock = None
        self._ids = {}

    def add(self, event):
        for rollup in self.rollups:
            identity = series_id(rollup, event["dimensions"])
            if identity is not None:
                self._ids.setdefault((rollup, identity), []).append(event)
        self.events.append(event)

    def advance(self, clock):
        if self.clock is None or clock > self.clock:
            self.clock = clock

    def entered(self, event):
        return self.clock is not None and event["second"] <= self.clock // 1000

    def between(self, events, first_ms, end_ms):
        """Entered events whose second is in [first, end): slices begin at whole multiples of g, so ms decide."""
        return [e for e in events if first_ms <= e["second"] * 1000 < end_ms and self.entered(e)]

    def bounds(self, window):
        """Start of the previous window, of the window, and the end of its newest slice (all ms; end exclusive)."""
        length, slice_ms = self.windows[window]
        end = (self.clock // slice_ms + 1) * slice_ms
        return end - 2 * length, end - length, end

    def series(self):
        """(roll-up, id) of every series that has an event in any window or the window before it."""
        if self.clock is None:
            return set()
        found = set()
        for key, events in self._ids.items():
            for window in self.windows:
                start, _, end = self.bounds(window)
                if self.between(events, start, end):
                    found.add(key)
                    break
        return found

    @staticmethod
    def counters(events):
        at = [0] * 29
        for e in events:
            if e["type"] == "interaction":
                at[0] += 1
            elif e["type"] == "invitation":
                at[1] += 1
            else:
                at[2] += 1
                if e["scale"] == "nps":
                    at[3 + e["score"]] += 1
                    if e["value"] is not None:
                        at[14 if promoter(e["score"]) else 15 if passive(e["score"]) else 16] += e["value"]
                elif e["scale"] == "csat":
                    at[17 + e["score"] - 1] += 1
                elif e["scale"] == "ces":
                    at[22 + e["score"] - 1] += 1
        return at

    @staticmethod
    def classes(events):
        scores = [e["score"] for e in events if e["type"] == "answer" and e["scale"] == "nps"]
        return (sum(map(promoter, scores)), sum(map(passive, scores)), sum(map(detractor, scores)))

    def view(self, rollup, identity, window, now, before, as_of, start, previous_known=True):
        length, slice_ms = self.windows[window]
        p, q, d = self.classes(now)
        pp, pq, pd = self.classes(before)
        n, previous_n = p + q + d, pp + pq + pd
        view = {"rollup": rollup, "window": window, "id": identity, "n": n, "previous_n": previous_n,
                "now": self.counters(now), "previous": self.counters(before),
                "as_of_ms": as_of, "window_start_ms": start, "window_ms": length, "slice_ms": slice_ms}
        scored = n >= max(1, self.minimum_n)
        has_previous = previous_known and previous_n >= max(1, self.minimum_n)
        exact = Fraction(100 * (p - d), n) if n else None
        view["reliable"] = int(scored and n >= self.reliable_n)
        if scored:
            low, high = interval(p, q, d)
            view.update(nps=float(exact), nps_rounded=rounded(exact), nps_low=low, nps_high=high,
                        promoters=p, passives=q, detractors=d)
            values = [sum(e["value"] for e in now if e["type"] == "answer" and e["scale"] == "nps"
                          and e["value"] is not None and kind(e["score"])) for kind in (promoter, passive, detractor)]
            if sum(values) > 0:
                view["value_nps"] = float(Fraction(100 * (values[0] - values[2]), sum(values)))
        if has_previous:
            view["previous_nps"] = float(Fraction(100 * (pp - pd), previous_n))
        if scored and has_previous:
            view["change"] = view["nps"] - view["previous_nps"]
            view["z"], view["change_p"] = change_test((p, q, d), (pp, pq, pd))
        if rollup == "touchpoint" and identity in self.targets:
            view["target"] = self.targets[identity]
            if scored:
                view["target_state"] = 1 if low > view["target"] else -1 if high < view["target"] else 0
        csat = [e["score"] for e in now if e["type"] == "answer" and e["scale"] == "csat"]
        ces = [e["score"] for e in now if e["type"] == "answer" and e["scale"] == "ces"]
        if csat:
            view.update(csat_n=len(csat), csat_mean=sum(csat) / len(csat),
                        csat_share=100 * sum(score >= 4 for score in csat) / len(csat))
        if ces:
            view.update(ces_n=len(ces), ces_mean=sum(ces) / len(ces))
        for kind in ("interaction", "invitation", "answer"):
            view[kind + "s"] = sum(e["type"] == kind for e in now)
        if view["invitations"]:
            view["response_rate"] = 100 * view["answers"] / view["invitations"]
        return view

    def judge(self, views):
        """Verdicts of one roll-up and window together."""
        found = benjamini_hochberg({i: v["change_p"] for i, v in enumerate(views) if "change_p" in v}, self.q)
        for i, view in enumerate(views):
            if "change_p" in view:
                z = view.pop("z")
                view["change_verdict"] = ((z > 0) - (z < 0)) if i in found else 0
        return views

    def views(self):
        """All views: (roll-up, window, id) -> dict, fields absent where they are withheld."""
        result = {}
        alive = self.series()
        for rollup in self.rollups:
            for window in self.windows:
                views = []
                for key in sorted(alive):
                    if key[0] == rollup:
                        start, middle, end = self.bounds(window)
                        events = self._ids[key]
                        views.append(self.view(rollup, key[1], window, self.between(events, middle, end),
                                               self.between(events, start, middle), self.clock, middle))
                for view in self.judge(views):
                    result[rollup, window, view["id"]] = view
        return result

    def views_at(self, rollup, window, end):
        """The window that ended at `end`; series without an event in it are left out."""
        length, slice_ms = self.windows[window]
        known = end - 2 * length > (self.clock // slice_ms) * slice_ms - 2 * length
        views = []
        for (name, identity), events in sorted(self._ids.items()):
            now = self.between(events, end - length, end)
            if name == rollup and now:
                before = self.between(events, end - 2 * length, end - length) if known else []
                views.append(self.view(rollup, identity, window, now, before, end - 1, end - length, known))
        return {view["id"]: view for view in self.judge(views)}
