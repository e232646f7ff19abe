"""What the tests of the board stand on: views written into a private Redis by the contract of docs/redis.md (the board knows nothing
else, so nothing else is needed: no Kafka, no aggregator), the program, and a real browser driven by WebDriver over plain HTTP."""

import base64
import http.client
import json
import math
import os
import re
import socket
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))

import cluster  # noqa: E402
from cluster import wait_for  # noqa: E402, F401

WINDOWS = {"5m": (300000, 1000), "1h": (3600000, 10000), "24h": (86400000, 120000), "7d": (604800000, 1800000),
           "30d": (2592000000, 7200000), "90d": (7776000000, 21600000)}


def interval(promoters, passives, detractors):
    """The adjusted Wald interval of docs/redis.md, once more."""
    p, a, d = promoters + .75, passives + 1.5, detractors + .75
    n = p + a + d
    score = (p - d) / n
    half = 1.959964 * math.sqrt(((p + d) / n - score * score) / n)
    return max(-100, 100 * (score - half)), min(100, 100 * (score + half))


def view(promoters=0, passives=0, detractors=0, now=None, window="5m", minimum_n=5, **more):
    """The fields of a view, as an aggregator writes them; further ones and other values by keyword, None takes one away."""
    n = promoters + passives + detractors
    length, slice_ms = WINDOWS[window]
    now = now or cluster.now_ms()
    fields = {"n": n, "previous_n": 0, "reliable": int(n >= 30), "csat_n": 0, "ces_n": 0, "interactions": 4 * n,
              "invitations": 2 * n, "answers": n, "as_of_ms": now, "window_start_ms": now - length, "window_ms": length,
              "slice_ms": slice_ms}
    if n:
        fields["response_rate"] = 50
    if n >= minimum_n:
        low, high = interval(promoters, passives, detractors)
        nps = 100 * (promoters - detractors) / n
        fields.update(nps=repr(nps), nps_rounded=int(math.copysign(math.floor(abs(nps) + .5), nps)), nps_low=low, nps_high=high,
                      promoters=promoters, passives=passives, detractors=detractors)
    fields.update(more)
    return {name: str(value) for name, value in fields.items() if value is not None}


class Contents:
    """Writes what an aggregator would."""

    def __init__(self, redis, namespace="shop"):
        self.redis, self.namespace, self.prefix = redis, namespace, "nps:{%s}:" % namespace

    def pipeline(self, commands):
        for i in range(0, len(commands), 500):
            self.redis.connection().pipeline(commands[i:i + 500])

    def write(self, rollup, views, window="5m", tell=True):
        """views: {id: fields}."""
        commands = []
        for name, fields in views.items():
            key = "%s%s:%s:%s" % (self.prefix, rollup, name, window)
            commands += [("DEL", key), ("HSET", key, *[x for pair in fields.items() for x in pair])]
            commands.append(("SADD", self.prefix + "index:" + rollup, name))
        self.pipeline(commands)
        if tell:
            self.tell(["%s:%s:%s" % (rollup, name, window) for name in views])

    def remove(self, rollup, name, window="5m"):
        self.pipeline([("DEL", "%s%s:%s:%s" % (self.prefix, rollup, name, window)),
                       ("SREM", self.prefix + "index:" + rollup, name)])

    def tell(self, changed):
        message = {"as_of_ms": cluster.now_ms(), "changed": changed[:1000]}
        if len(changed) > 1000:
            message["more"] = len(changed) - 1000
        self.redis.call("PUBLISH", self.prefix + "updates", json.dumps(message))

    def health(self, windows=("5m",), complete=1, window_complete=1, covered_since=0, ttl=None, **more):
        now = cluster.now_ms()
        fields = {"as_of_ms": now, "low_watermark_ms": now - 200, "lag_ms": 200, "complete": complete, "lineage": "5" * 32,
                  "genesis": 1, "aggregator": "web-3", "instances": 2, "last_commit_ms": now - 700, "partitions": 1, "log_bytes": 18231,
                  "log_max_bytes": 268435456, "accepted": 182736, "late": 12, "duplicate": 0, "out_of_range": 0, "holes": 0,
                  "gap": 0, "capped": 0, "position:answers/0": 15234, "lag:answers/0": 120, "rejected:bad_score": 3}
        fields.update({name.replace("__", ":"): value for name, value in more.items()})
        flat = [str(x) for name, value in fields.items() if value is not None for x in (name, value)]
        commands = [("DEL", self.prefix + "health"), ("HSET", self.prefix + "health", *flat)]
        for window in windows:
            commands.append(("HSET", self.prefix + "health:" + window, "complete", str(window_complete),
                             "previous_complete", str(window_complete), "covered_since_ms", str(covered_since)))
        self.pipeline(commands)

    def trend(self, rollup, name, points, window="5m"):
        """points: [(end ms, fields or None)]; all of a view's fields, NaN where it withholds them."""
        names = sorted(view(9, 9, 9, previous_nps=0, change=0, change_p=1, change_verdict=0, csat_mean=0, csat_share=0,
                            ces_mean=0, value_nps=0, target=0, target_state=0))
        key = "%strend:%s:%s:%s" % (self.prefix, rollup, name, window)
        self.pipeline([("XADD", key, "%d-0" % end, *[x for field in names for x in (field, fields.get(field, "NaN"))], "complete",
                        "1") for end, fields in points])


class Board:
    """The program; what it says on its first line is where it listens."""

    def __init__(self, world, redis, namespace="shop", token=None, arguments=(), **more):
        settings = {"redis.url": redis.url if hasattr(redis, "url") else redis, "namespace": namespace,
                    # A Redis that stands still for a while is not away, where a test says nothing else.
                    "board.listen": "127.0.0.1:0", "redis.timeout": "1m"}
        settings.update({name.replace("__", "."): value for name, value in more.items()})
        variables = cluster.environment(settings)
        if token:
            variables["LIVENPS_BOARD_TOKEN"] = token
        self.program = cluster.Program(world, world.number("board"), cluster.PREFIX + [cluster.CONSUMER, "board", *arguments],
                                       variables)

        def said():
            assert self.program.running(), self.program.log()
            return re.search(r"http://\S+/", self.program.out())
        self.url = wait_for(said, 20, "the board says where it listens")[0]
        self.host, port = re.fullmatch(r"http://(.*):(\d+)/", self.url).groups()
        self.port = int(port)

    def ask(self, path, method="GET", headers=None, host=None):
        """(status, headers, body); one connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30 * cluster.PATIENCE)
        try:
            connection.putrequest(method, path, skip_host=host is not None)
            if host:
                connection.putheader("Host", host)
            for name, value in (headers or {}).items():
                connection.putheader(name, value)
            connection.endheaders()
            reply = connection.getresponse()
            return reply.status, dict(reply.getheaders()), reply.read()
        finally:
            connection.close()

    def json(self, path, **more):
        status, headers, body = self.ask(path, **more)
        assert status == 200 and headers["Content-Type"] == "application/json", (status, body)
        return json.loads(body)

    def views(self, query=""):
        """{id: {field: value}} of the rows."""
        fields = self.json("/api/start")["fields"]
        rows = self.json("/api/views" + query)["sets"][2]["rows"]
        return {row[0]: {name: value for name, value in zip(fields, row[1:]) if value is not None} for row in rows}

    def stop(self):
        return self.program.stop()


class Events:
    """The stream of /api/live: what came, as (name, data)."""

    def __init__(self, board, query="", headers=None, room=None):
        """room: bytes that the kernel may keep for us."""
        self.socket = socket.socket()
        if room:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        self.socket.settimeout(20 * cluster.PATIENCE)
        self.socket.connect(("127.0.0.1", board.port))
        self.socket.settimeout(1)
        lines = ["GET /api/live%s HTTP/1.1" % query, "Host: 127.0.0.1"] + ["%s: %s" % each for each in (headers or {}).items()]
        self.socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        self.bytes, self.head, self.events = b"", None, []

    def read(self):
        """Takes in what has come; False at the end of the stream."""
        try:
            more = self.socket.recv(1 << 20)
        except TimeoutError:
            return True
        self.bytes += more
        if self.head is None and b"\r\n\r\n" in self.bytes:
            head, self.bytes = self.bytes.split(b"\r\n\r\n", 1)
            self.head = head.decode()
        while self.head is not None:
            size, found, rest = self.bytes.partition(b"\r\n")
            if not found or len(rest) < int(size, 16) + 2:
                break
            self.text = getattr(self, "text", b"") + rest[:int(size, 16)]
            self.bytes = rest[int(size, 16) + 2:]
            *done, self.text = self.text.split(b"\n\n")
            for each in done:
                parts = dict(line.split(": ", 1) for line in each.decode().split("\n") if ": " in line)
                if "event" in parts:
                    self.events.append((parts["event"], json.loads(parts["data"])))
        return bool(more)

    def wait(self, condition, what):
        """The first event (name, data) for which condition is true; those before it are forgotten."""
        deadline = time.monotonic() + 20 * cluster.PATIENCE
        while True:
            while self.events:
                name, data = self.events.pop(0)
                if condition(name, data):
                    return data
            assert time.monotonic() < deadline, what
            assert self.read(), "the stream ended: " + what

    def close(self):
        self.socket.close()


# ---- the browser ----

class Browser:
    """Chromium by the W3C's WebDriver protocol: HTTP and JSON."""

    def __init__(self, world, width=1440, height=1000):
        self.port = cluster.free_port()
        home = os.path.join(world.folder, world.number("browser"))
        os.makedirs(home, exist_ok=True)
        variables = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": home, "TMPDIR": home, "LANG": "C.UTF-8", "TZ": "UTC"}
        self.program = cluster.Program(world, world.number("chromedriver"), ["chromedriver", "--port=%d" % self.port], variables)
        self.session = None
        wait_for(lambda: self.call("GET", "/status")["ready"], 30, "chromedriver answers")
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                   "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
                   "--user-data-dir=" + os.path.join(home, "profile"), "--window-size=%d,%d" % (width, height),
                   # Whatever asks for another host than this one fails, and is seen in the console.
                   "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
        found = self.call("POST", "/session", {"capabilities": {"alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": {"args": options}, "goog:loggingPrefs": {"browser": "ALL"}}}})
        self.session = found["sessionId"]

    def call(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120 * cluster.PATIENCE)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None,
                               {"Content-Type": "application/json"})
            reply = json.loads(connection.getresponse().read())["value"]
        finally:
            connection.close()
        if isinstance(reply, dict) and "error" in reply:
            raise AssertionError("%s: %s" % (reply["error"], reply["message"]))
        return reply

    def do(self, method, path, body=None):
        return self.call(method, "/session/%s%s" % (self.session, path), body)

    def open(self, url):
        self.do("POST", "/url", {"url": url})

    def run(self, script, *arguments):
        """The value of a script's `return`."""
        return self.do("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, script, what, timeout=20):
        """Until the expression is true; returns its value."""
        try:
            return wait_for(lambda: self.run("return " + script), timeout, what)
        except AssertionError as error:
            raise AssertionError("%s; the page: %s; console: %s" % (
                error, self.run("return document.body.innerText")[:1500], self.console())) from None

    def text(self, selector):
        return self.run("return document.querySelector(arguments[0])?.textContent", selector)

    def keys(self, selector, text):
        element = list(self.do("POST", "/element", {"using": "css selector", "value": selector}).values())[0]
        self.do("POST", "/element/%s/value" % element, {"text": text})

    def click(self, selector):
        element = list(self.do("POST", "/element", {"using": "css selector", "value": selector}).values())[0]
        self.do("POST", "/element/%s/click" % element, {})

    def size(self, width, height):
        self.do("POST", "/window/rect", {"width": width, "height": height})

    def picture(self, path):
        with open(path, "wb") as file:
            file.write(base64.b64decode(self.do("GET", "/screenshot")))

    def console(self):
        """Errors and warnings of the page since the last time."""
        return [each["message"] for each in self.do("POST", "/se/log", {"type": "browser"}) if each["level"] in ("SEVERE", "WARNING")]

    def names(self):
        """The names in the table, in the order in which they are seen."""
        return self.run("return [...document.querySelectorAll('#grid-body .row:not([hidden])')]"
                        ".sort((a, b) => a.ariaRowIndex - b.ariaRowIndex).map((row) => row.querySelector('.name').textContent)")

    def row(self, name):
        """The cells of a row that is seen, as text."""
        return self.run("const row = [...document.querySelectorAll('#grid-body .row:not([hidden])')]"
                        ".find((each) => each.querySelector('.name').textContent === arguments[0]);"
                        "return row ? [...row.children].map((cell) => cell.textContent) : null", name)

    def close(self):
        try:
            if self.session:
                self.do("DELETE", "")
        finally:
            self.program.stop()
