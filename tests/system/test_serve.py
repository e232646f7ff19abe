"""livenps-producer serve on a real broker: an answer 200 means written, once; anything else means that it may be sent again."""

import base64
import collections
import contextlib
import glob
import hashlib
import hmac
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

import cluster
from cluster import PATIENCE, wait_for
from kafka_fixture import ROOT, Kafka

PRODUCER = cluster.PRODUCER
JSON = "application/json"
LINES = "application/x-ndjson"
HOSTILE = "<img src=x onerror=alert(1)> \"'&</script>%{b}:|~\u202e"


@pytest.fixture(scope="module")
def kafka(tmp_path_factory):
    """A broker that a test may stop."""
    kafka = Kafka(tmp_path_factory.mktemp("serve") / "kafka", private=True)
    yield kafka
    kafka.down()


class Server:
    def __init__(self, kafka, folder, topics, *settings, listen="127.0.0.1:0", token=None):
        folder.mkdir(exist_ok=True)
        self.log_path, self.token, self.topic = folder / "log", token, topics[0]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LIVENPS_")}
        if token:
            environment["LIVENPS_SERVE_TOKEN"] = token
        # A broker that stands still for a while is waited for, where a test says nothing else.
        settings = ("serve.ack_timeout=2m", *settings)
        command = cluster.PREFIX + [PRODUCER, "serve", "--bootstrap-servers", kafka.servers, "--listen", listen,
                                    *[word for topic in topics for word in ("--topic", topic)],
                                    *[word for setting in settings for word in ("--set", setting)]]
        with open(self.log_path, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True,
                                            env=environment, preexec_fn=cluster.die_with_parent)
        line = self.process.stdout.readline()
        assert line, self.log()
        self.port = int(re.search(r":(\d+)/events$", line.strip())[1])

    def log(self):
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60 * PATIENCE)

    def ask(self, method, path, body=None, headers=(), kind=JSON):
        """Status, headers, body: an object where it is JSON."""
        connection = self.connect()
        try:
            every = {"Content-Type": kind} if body is not None and kind else {}
            if self.token:
                every["Authorization"] = "Bearer " + self.token
            connection.request(method, path, body, {**every, **dict(headers)})
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, answer.headers, json.loads(text) if answer.headers["Content-Type"] == JSON else text.decode()
        finally:
            connection.close()

    def post(self, events, path="/events", away=False, **more):
        """events: bytes, a text, or what becomes JSON. As publishers are told to, it comes again while the broker is away, which it is
        when it stands still for two seconds; away: where that is what the test is about, not."""
        body = events if isinstance(events, bytes) else (events if isinstance(events, str) else json.dumps(events)).encode()
        deadline = time.monotonic() + 60 * PATIENCE
        while True:
            found = self.ask("POST", path, body, **more)
            if away or found[0] != 503 or found[2].get("error") != "broker_away" or time.monotonic() > deadline:
                return found
            time.sleep(0.1)

    def end(self, number=signal.SIGTERM):
        """Exit code."""
        self.process.send_signal(number)
        return self.process.wait(60 * PATIENCE)

    def memory_kb(self, what):
        with open("/proc/%d/status" % self.process.pid) as f:
            return int(re.search(r"^%s:\s+(\d+)" % what, f.read(), re.M)[1])


@contextlib.contextmanager
def serving(*arguments, **more):
    server = Server(*arguments, **more)
    try:
        yield server
        assert server.process.poll() is None, server.log()
        assert server.end() == 0, server.log()
        for word in ("Sanitizer", "runtime error"):
            assert word not in server.log(), server.log()
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


@pytest.fixture(scope="module")
def shop(kafka, tmp_path_factory):
    """One server for all that only asks; each test counts from where the topic is."""
    with serving(kafka, tmp_path_factory.mktemp("shop"), [kafka.topic(3)], "serve.max_body=64kb") as server:
        yield server


def now(seconds=0):
    return (datetime.now(timezone.utc) + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


_numbers = iter(range(10**9))


def event(**more):
    return {"id": "e-%d" % next(_numbers), "type": "answer", "time": now(), "touchpoint": "delivery", "scale": "nps", "score": 9,
            **more}


def written(kafka, topic):
    """Every value, as fast as it goes (Apache's console consumer takes a second to start)."""
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
    left, values = kafka.count(topic), []
    consumer = Consumer({"bootstrap.servers": kafka.servers, "group.id": "written", "enable.auto.commit": False})
    try:
        partitions = consumer.list_topics(topic, timeout=60).topics[topic].partitions
        consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in partitions])
        deadline = time.monotonic() + 60 * PATIENCE
        while len(values) < left:
            message = consumer.poll(1)
            assert time.monotonic() < deadline, "%d of %d values of %s" % (len(values), left, topic)
            if message and not message.error():
                values.append(message.value())
        return values
    finally:
        consumer.close()


# ---- what is taken ----

@pytest.mark.sanitize
def test_taken_means_written_as_it_came(kafka, shop):
    before = kafka.count(shop.topic)
    begun = time.time() * 1000
    one, two, three = event(customer="c-91"), event(touchpoint=HOSTILE), event()
    cloud = {"specversion": "1.0", "id": "cl-1", "source": "/x", "type": "com.example.contact.answer", "time": now(),
             "data": {"touchpoint": "delivery", "customer": "c-92", "scale": "nps", "score": 10}}
    posts = [
        (json.dumps(one), JSON, [json.dumps(one)]),
        ("\n" + json.dumps(two, ensure_ascii=False) + "\r\n", JSON + "; charset=utf-8", [json.dumps(two, ensure_ascii=False)]),
        (" [ %s ,\n%s ] " % (json.dumps(three), json.dumps(cloud)), JSON, [json.dumps(three), json.dumps(cloud)]),
        ("[]", JSON, None),
        ("%s\r\n\n%s" % (json.dumps(event(id="l-1")), json.dumps(event(id="l-2"))), LINES, 2),
        (json.dumps({**cloud, "id": "cl-2"}), "application/cloudevents+json", 1),
        (json.dumps([{**cloud, "id": "cl-3"}]), "application/cloudevents-batch+json", 1),
    ]
    wanted = []
    for body, kind, values in posts:
        status, _, answer = shop.post(body.encode(), kind=kind)
        if values is None:
            assert (status, answer["error"]) == (400, "empty")
            continue
        assert (status, answer) == (200, {"accepted": values if isinstance(values, int) else len(values)}), answer
        wanted += values if isinstance(values, list) else []
    records = kafka.read(shop.topic)
    assert len(records) == before + 8
    values = {record.value: record for record in records}
    for value in wanted:
        record, parsed = values[value], json.loads(value)
        assert record.key == (parsed.get("customer") or parsed.get("data", {}).get("customer") or parsed["id"])
        assert begun - 1000 <= record.timestamp <= time.time() * 1000 + 1000


def test_an_event_of_several_lines(kafka, shop):
    before = kafka.count(shop.topic)
    body = json.dumps(event(), indent=2)
    assert shop.post(body)[0] == 200
    assert shop.post(body, kind=LINES)[0] == 422
    assert kafka.count(shop.topic) == before + 1


# ---- what is refused ----

def test_every_reason(kafka, shop):
    """The cases of the decoder, without those that need headers or another configuration: the reason is theirs."""
    before = kafka.count(shop.topic)
    seen = set()
    for folder in sorted(glob.glob(os.path.join(ROOT, "tests", "cases", "decode", "*"))):
        if sorted(os.listdir(folder)) not in (["input", "reason"], ["input.hex", "reason"]):
            continue
        if os.path.exists(os.path.join(folder, "input.hex")):
            with open(os.path.join(folder, "input.hex")) as f:
                body = bytes.fromhex(f.read())
        else:
            with open(os.path.join(folder, "input"), "rb") as f:
                body = f.read()
        with open(os.path.join(folder, "reason")) as f:
            reason = f.read().split()[0]
        # The time of the examples has passed; what is late, or from the future, is the next test's.
        if len(body.strip()) == 0 or len(body) > 60000 or body.lstrip()[:1] == b"[":
            continue
        status, _, answer = shop.post(body)
        assert status == 422, (folder, answer)
        assert answer["rejected"] == 1 and answer["events"][0]["index"] == 0, folder
        assert answer["events"][0]["reason"] == reason, (folder, answer)
        assert answer["events"][0]["at"] >= 1 and answer["events"][0]["message"], folder
        seen.add(reason)
    assert len(seen) >= 15, seen
    assert kafka.count(shop.topic) == before


def test_reasons_of_time_and_of_settings(kafka, tmp_path):
    topic = kafka.topic(1)
    with serving(kafka, tmp_path, [topic], "admit.touchpoints=delivery", "admit.max_bytes=1kb") as server:
        for wrong, reason in ((event(time=now(-8 * 86400)), "late"), (event(time=now(3600)), "future"),
                              (event(touchpoint="deIivery"), "unknown_touchpoint"), (event(comment="x" * 2000), "too_large")):
            status, _, answer = server.post(wrong)
            assert status == 422 and answer["events"][0]["reason"] == reason, answer
        assert server.post(event())[0] == 200
    assert kafka.count(topic) == 1


def test_all_or_nothing(kafka, shop):
    before = kafka.count(shop.topic)
    events = [event() for _ in range(200)]
    for i in (3, 150):
        events[i] = {**events[i], "score": 11}
    status, _, answer = shop.post(events)
    assert status == 422 and answer["rejected"] == 2 and [told["index"] for told in answer["events"]] == [3, 150]
    assert answer["events"][0]["reason"] == "bad_score" and "score" in answer["events"][0]["message"]
    assert shop.post("\n".join(map(json.dumps, events)), kind=LINES)[2]["events"] == answer["events"]
    # More than are told are counted.
    status, _, answer = shop.post([{} for _ in range(300)])
    assert status == 422 and answer["rejected"] == 300 and len(answer["events"]) == 100
    for broken in ("[", "[%s", "[%s,", "[%s]x", "[%s}", "[%s] [%s]"):
        status, _, answer = shop.post(broken.replace("%s", json.dumps(event())))
        assert status in (400, 422) and answer["error"] in ("malformed", "rejected"), broken
    assert kafka.count(shop.topic) == before
    assert shop.post([one for one in events if one["score"] == 9])[2] == {"accepted": 198}
    assert kafka.count(shop.topic) == before + 198


def test_hostile_texts_stay_texts(kafka, shop):
    for body in (json.dumps({HOSTILE: 1}), json.dumps(event(type=HOSTILE)), json.dumps(event(time="\x1b[31m" + HOSTILE)),
                 b'{"id":"\xff\xfe","\x01":2}', b"\x00" * 100, b'{"id":"a\x1b]0;title\x07"}', b'{"\\ud800":1}'):
        status, headers, answer = shop.post(body)
        assert status == 422 and len(answer["events"]) == 1
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["Content-Type"] == JSON
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", shop.log())
    for path in ("/events/" + "x" * 2000, "/events/..%2f..%2fetc%2fpasswd", "/events/%00", "/events/" + shop.topic + "/", "//events",
                 "/webhooks/" + shop.topic, "/webhooks/", "/", "/metrics.json"):
        assert shop.post(event(), path)[0] == 404, path
    assert shop.post(event(), "/events/" + shop.topic)[0] == 200


def test_methods_types_hosts(kafka, shop):
    before = kafka.count(shop.topic)
    status, headers, _ = shop.ask("GET", "/events")
    assert status == 405 and headers["Allow"] == "POST"
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"):
        status, headers, _ = shop.ask(method, "/events", None if method == "HEAD" else json.dumps(event()).encode())
        assert status == 405 and "Access-Control-Allow-Origin" not in headers
    # What a browser sends to another site without asking it first.
    for kind in (None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonx"):
        assert shop.post(event(), kind=kind)[0] == 415, kind
    assert shop.post(event(), headers={"Content-Encoding": "gzip"})[0] == 415
    assert shop.post(event(), headers={"ce-specversion": "1.0", "ce-id": "1"})[0] == 415
    assert shop.post(event(), headers={"Host": "evil.example"})[0] == 403
    status, _, text = shop.ask("GET", "/metrics")
    assert status == 200 and re.search(r"^livenps_producer_records_acknowledged_total \d+$", text, re.M)
    for path in ("/healthz", "/readyz"):
        wait_for(lambda path=path: shop.ask("GET", path)[0] == 200, 60, "it is well")
        assert shop.post(event(), path)[0] == 404
    assert kafka.count(shop.topic) == before


@pytest.mark.sanitize
def test_too_large_and_too_slow(kafka, shop):
    before = kafka.count(shop.topic)
    large = json.dumps([event(comment="x" * 1000) for _ in range(100)]).encode()
    assert shop.post(large)[0] == 413
    with contextlib.closing(shop.connect()) as connection:  # chunked: nobody said how long it is
        connection.request("POST", "/events", iter([large[i:i + 8192] for i in range(0, len(large), 8192)]),
                           {"Content-Type": JSON}, encode_chunked=True)
        assert connection.getresponse().status == 413
    with socket.create_connection(("127.0.0.1", shop.port), timeout=60 * PATIENCE) as raw:  # who asks first is told first
        raw.sendall(b"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                    b"Content-Length: 99999999\r\nExpect: 100-continue\r\n\r\n")
        assert raw.recv(4096).startswith(b"HTTP/1.1 413")
    # Those who dribble hold up nobody; and half a body is no body.
    body = json.dumps(event()).encode()
    head = b"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    slow = [socket.create_connection(("127.0.0.1", shop.port), timeout=60 * PATIENCE) for _ in range(20)]
    for one in slow:
        one.sendall(head + body[:20])
    assert shop.post(event())[0] == 200
    for one in slow[1:]:
        one.close()
    slow[0].sendall(body[20:])
    assert slow[0].recv(4096).startswith(b"HTTP/1.1 200")
    slow[0].close()
    assert kafka.count(shop.topic) == before + 2


# ---- who may ----

def test_token(kafka, tmp_path):
    topic, secret = kafka.topic(1), "s3cr3t-token-of-this-test"
    (tmp_path / "token").write_text(secret + "\n")
    with serving(kafka, tmp_path, [topic], "serve.token_file=%s" % (tmp_path / "token")) as server:
        for given in (None, "Bearer", "Bearer ", "Bearer " + secret[:-1], "Bearer " + secret + "x", "Basic " + secret, secret):
            status, headers, _ = server.post(event(), headers={"Authorization": given} if given else {})
            assert status == 401 and headers["WWW-Authenticate"] == "Bearer", given
        assert server.post(event(), headers={"Authorization": "Bearer " + secret})[0] == 200
        assert server.ask("GET", "/healthz")[0] == 200
        assert server.ask("GET", "/metrics")[0] == 401
        with open("/proc/%d/cmdline" % server.process.pid) as f:
            assert secret not in f.read()
        assert secret not in server.log()
    with serving(kafka, tmp_path, [topic], listen="0.0.0.0:0", token=secret) as server:
        assert server.post(event())[0] == 200
    assert kafka.count(topic) == 2
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LIVENPS_")}
    for extra, words in (([], "so a token is needed: serve.token_file or LIVENPS_SERVE_TOKEN"),
                         (["--set", "serve.token_file=/nowhere"], "serve.token_file: cannot read /nowhere")):
        done = subprocess.run([PRODUCER, "serve", "--bootstrap-servers", kafka.servers, "--topic", topic, "--listen", "0.0.0.0:0",
                               *extra], capture_output=True, text=True, env=environment, timeout=60 * PATIENCE, check=False)
        assert done.returncode == 3 and words in done.stderr


# ---- webhooks ----

def example(name):
    """Recorded payloads, as if they had happened now."""
    with open(os.path.join(ROOT, "config", "examples", name), encoding="utf-8") as f:
        text = f.read()
    text = re.sub(r'"(created_at|updated_at)":\d+', lambda m: '"%s":%d' % (m[1], time.time() - 60), text)
    text = re.sub(r'"(landed_at|submitted_at)":"[^"]*"', lambda m: '"%s":"%s"' % (m[1], now(-60)), text)
    return [line.encode() for line in text.splitlines()]


def signed(vendor, secret, body):
    """As the vendor does, by Python's own library."""
    digest = hmac.new(secret, body, hashlib.sha256)
    if vendor == "delighted":
        return {"X-Delighted-Webhook-Signature": "sha256=" + digest.hexdigest()}
    return {"Typeform-Signature": "sha256=" + base64.b64encode(digest.digest()).decode()}


@pytest.mark.sanitize
def test_webhooks(kafka, tmp_path):
    topics = {"delighted": kafka.topic(1), "typeform": kafka.topic(1)}
    secrets = {"delighted": b"delighted-api-key", "typeform": b"typeform-secret"}
    settings = []
    for vendor, topic in topics.items():
        (tmp_path / vendor).write_bytes(secrets[vendor] + b"\n")
        settings += ["mappings.%s=%s" % (topic, os.path.join(ROOT, "config", "mappings", vendor + ".yaml")),
                     "webhooks.%s=%s" % (topic, tmp_path / vendor)]
    with serving(kafka, tmp_path, list(topics.values()), *settings, token="a-token") as server:
        server.token = None  # vendors do not know it
        for vendor, topic in topics.items():
            path = "/webhooks/" + topic
            good, refused = example(vendor + ".jsonl"), example(vendor + "-refused.jsonl")
            for body in good:
                right = signed(vendor, secrets[vendor], body)
                name = next(iter(right))
                other = signed("typeform" if vendor == "delighted" else "delighted", secrets[vendor], body)
                for wrong in ({}, {name: ""}, {name: "sha256="}, {name: right[name][len("sha256="):]}, {name: right[name][:-1]},
                              {name: right[name] + "="}, other, {name: next(iter(other.values()))},
                              signed(vendor, b"another", body), signed(vendor, secrets[vendor], body + b" ")):
                    status, _, answer = server.post(body, path, headers=wrong)
                    assert (status, answer["error"]) == (403, "signature"), wrong
                assert server.post(body, path, headers=right)[::2] == (200, {"accepted": 1})
                assert server.post(body, "/events/" + topic)[0] == 401
            results = [server.post(body, path, headers=signed(vendor, secrets[vendor], body))[::2] for body in refused]
            # An update goes on to the topic, where it waits in quarantine; what is no event is left out: never 4xx.
            if vendor == "delighted":
                assert results == [(200, {"accepted": 0, "corrections": 1}), (200, {"accepted": 0, "ignored": 1})]
            else:
                assert results == [(200, {"accepted": 0, "ignored": 1})] * 2
            body = good[0].replace(b'"score":', b'"store":').replace(b'"number":', b'"member":')
            status, _, answer = server.post(body, path, headers=signed(vendor, secrets[vendor], body))
            assert status == 422 and answer["events"][0]["reason"] == "missing_field"
            # By the ordinary way, with the token, all of them are told.
            for body, reason in zip(refused, ("correction", "no_event") if vendor == "delighted" else ("no_event", "no_event")):
                status, _, answer = server.post(body, "/events/" + topic, headers={"Authorization": "Bearer a-token"})
                assert status == 422 and answer["events"][0]["reason"] == reason
            assert sorted(written(kafka, topic)) == sorted(good + (refused[:1] if vendor == "delighted" else []))
        for secret in (*secrets.values(), b"a-token"):
            assert secret.decode() not in server.log()


def test_webhooks_that_cannot_be(kafka, tmp_path):
    topic = kafka.topic(1)
    (tmp_path / "secret").write_text("x\n")
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text("fields: {id: /a, type: {constant: interaction}, time: {at: /t, format: seconds}, touchpoint: /p}\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LIVENPS_")}
    for settings, code, words in (
            (["webhooks.%s=%s" % (topic, tmp_path / "secret")], 2, "must name a mapping file that has a signature"),
            (["mappings.%s=%s" % (topic, mapping), "webhooks.%s=%s" % (topic, tmp_path / "secret")], 2, "has a signature"),
            (["mappings.%s=%s" % (topic, os.path.join(ROOT, "config", "mappings", "typeform.yaml")),
              "webhooks.%s=/nowhere" % topic], 3, "webhooks.%s: cannot read /nowhere" % topic),
            (["webhooks.other=%s" % (tmp_path / "secret")], 2, "webhooks.other: no events are taken for that topic")):
        done = subprocess.run([PRODUCER, "serve", "--bootstrap-servers", kafka.servers, "--topic", topic, "--listen", "127.0.0.1:0",
                               *[word for setting in settings for word in ("--set", setting)]],
                              capture_output=True, text=True, env=environment, timeout=60 * PATIENCE, check=False)
        assert done.returncode == code and words in done.stderr, done.stderr


# ---- 200 means once ----

def ids(kafka, topic):
    return collections.Counter(json.loads(value)["id"] for value in written(kafka, topic))


def test_the_same_again_is_written_once(kafka, tmp_path):
    """Acknowledgements that come later than anybody waits for: what was answered 503 is sent again, and is there once."""
    topic = kafka.topic(2)
    # Longer than this test, or the server, may stand still between the first body and the last.
    with serving(kafka, tmp_path, [topic], "kafka.linger.ms=12000", "serve.ack_timeout=200ms") as server:
        bodies = [json.dumps([event(), event()]) for _ in range(20)]
        twice = json.dumps(event(id="twice"))
        bodies.append("[%s,%s]" % (twice, twice))  # equal events of one request are two
        with ThreadPoolExecutor(len(bodies)) as pool:
            first = list(pool.map(server.post, bodies))
        assert all(status == 503 and headers["Retry-After"] and answer["error"] == "not_acknowledged"
                   for status, headers, answer in first)
        left = list(bodies)

        def again():
            left[:] = [body for body in left if server.post(body)[0] != 200]
            return not left
        wait_for(again, 60, "every body to be taken", every=0.3)
        counts = ids(kafka, topic)
        assert counts.pop("twice") == 2
        assert len(counts) == 40 and set(counts.values()) == {1}
        # Once its sender was told, the same is a new event.
        wait_for(lambda: server.post(bodies[0])[0] == 200, 60, "the first to be taken again")
        assert sum(ids(kafka, topic).values()) == 44


def test_memory_is_bounded(kafka, tmp_path):
    """A flood that the broker is slow to take: 429, and no more memory than said."""
    topic = kafka.topic(2)
    # So long that a flood which a busy machine slows down is still one.
    with serving(kafka, tmp_path, [topic], "kafka.linger.ms=12000", "serve.ack_timeout=100ms", "serve.max_body=64kb",
                 "serve.max_waiting=2mb") as server:
        assert server.post(event())[0] == 503
        before = server.memory_kb("VmHWM")
        statuses = collections.Counter()

        def flood(worker):
            for i in range(50):
                body = [event(id="%d-%d-%d" % (worker, i, j), comment="x" * 1000) for j in range(50)]
                statuses[server.post(body)[0]] += 1
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(flood, range(8)))
        # 20 MB came.
        assert set(statuses) <= {200, 429, 503} and statuses[429] > 50, statuses
        grown = server.memory_kb("VmHWM") - before
        assert grown < (24 if cluster.SLOW == 1 else 400) * 1024, "%d kB for 2 MB" % grown
        last = event()
        wait_for(lambda: server.post(last)[0] == 200, 60, "room again")


def test_sigterm_waits_for_what_is_on_its_way(kafka, tmp_path):
    topic = kafka.topic(2)
    server = Server(kafka, tmp_path, [topic], "kafka.linger.ms=1500")
    try:
        events = [event() for _ in range(30)]
        results = {}

        def send(one):
            try:
                results[one["id"]] = server.post(one)[0]
            except OSError:
                results[one["id"]] = None
        threads = [threading.Thread(target=send, args=(one,)) for one in events]
        for thread in threads:
            thread.start()
        # Some are on their way.
        sent = re.compile(r"^livenps_producer_records_sent_total (\d+)$", re.M)
        wait_for(lambda: int(sent.search(server.ask("GET", "/metrics")[2])[1]) > 0, 60, "events are sent")
        assert server.end() == 0, server.log()
        for thread in threads:
            thread.join(60 * PATIENCE)
        assert sum(status == 200 for status in results.values()) > 0
        assert set(results.values()) <= {200, 503, None}
        counts = ids(kafka, topic)
        assert set(counts.values()) == {1}
        assert {one for one, status in results.items() if status == 200} <= set(counts)
        with pytest.raises(OSError):
            server.ask("GET", "/healthz")
    finally:
        server.process.kill()
        server.process.wait()


@pytest.mark.sanitize
def test_broker_killed(kafka, tmp_path):
    """Four publishers that send again whatever was not answered 200, as they are told to; the broker is killed meanwhile."""
    topic = kafka.topic(3)
    with serving(kafka, tmp_path, [topic], "serve.ack_timeout=1s") as server:
        stop, sent, statuses = threading.Event(), collections.Counter(), collections.Counter()

        def publish(worker):
            number = 0
            while not stop.is_set():
                batch = [event(id="%d-%d-%d" % (worker, number, i)) for i in range(1 + number % 3)]
                number += 1
                status = None
                while status != 200:
                    try:
                        status, headers, answer = server.post(batch, away=True)
                    except OSError:
                        status = None
                    statuses[status] += 1
                    assert status in (200, 503, 429, None), answer
                    if status != 200:
                        assert status is None or int(headers["Retry-After"]) >= 1
                        time.sleep(0.05)
                sent.update(one["id"] for one in batch)
        with ThreadPoolExecutor(4) as pool:
            workers = [pool.submit(publish, worker) for worker in range(4)]
            try:
                wait_for(lambda: statuses[200] > 20, 60, "answers 200")
                kafka.stop(kill=True)
                wait_for(lambda: statuses[503] > 20 and server.ask("GET", "/readyz")[0] == 503, 60, "answers 503")
                status, headers, answer = server.post(event(id="refused"), away=True)
                assert (status, answer["error"]) == (503, "broker_away") and headers["Retry-After"]
                assert server.ask("GET", "/healthz")[0] == 200
                kafka.start()
                before = statuses[200]
                wait_for(lambda: statuses[200] > before + 20, 60, "answers 200 again")
                wait_for(lambda: server.ask("GET", "/readyz")[0] == 200, 60, "it is ready again")
            finally:
                stop.set()
            for worker in workers:
                worker.result(120 * PATIENCE)
        counts = ids(kafka, topic)
        assert set(counts) == set(sent), "answered 200 and not written, or written and never answered 200"
        assert set(counts.values()) == {1}
        assert "requests are answered 503 until it is back" in server.log() and "the broker is back" in server.log()


# ---- the programs of docs/publishing.md ----

class Moody(BaseHTTPRequestHandler):
    """Refuses the first request for a moment."""

    def do_POST(self):
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(503 if len(self.server.bodies) == 1 else 200)
        self.send_header("Retry-After", "1")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def test_programs_of_the_document(kafka, tmp_path):
    with open(os.path.join(ROOT, "docs", "publishing.md"), encoding="utf-8") as f:
        text = f.read()
    commands = {}
    for language, name, command in (("javascript", "send.mjs", "node"), ("bash", "send.sh", "sh")):
        blocks = re.findall(r"^```%s\n(.*?)^```" % language, text, re.M | re.S)
        assert len(blocks) == 1
        (tmp_path / name).write_text(blocks[0])
        commands[language] = [command, str(tmp_path / name)]
    token = "a-token-of-this-test"
    (tmp_path / "header").write_text("Authorization: Bearer %s\n" % token)
    environment = {**os.environ, "TOKEN": token, "TOKEN_FILE": str(tmp_path / "header")}

    def run(language, url, environment, customer="c-91"):
        return subprocess.run([*commands[language], url, customer], capture_output=True, text=True, env=environment,
                              timeout=120 * PATIENCE, check=False, stdin=subprocess.DEVNULL)
    topic = kafka.topic(8)
    with serving(kafka, tmp_path, [topic], token=token) as server:
        url = "http://127.0.0.1:%d/events" % server.port
        for language in commands:
            done = run(language, url, environment)
            assert done.returncode == 0, done.stderr
            without = {name: value for name, value in environment.items() if name not in ("TOKEN", "TOKEN_FILE")}
            done = run(language, url, without)
            assert done.returncode != 0 and "401" in done.stderr, "%s: %s%s" % (language, done.stdout, done.stderr)
            assert run(language, url, environment, '"').returncode != 0 or language == "javascript"
    values = [json.loads(value) for value in written(kafka, topic)]
    assert sorted(value["id"][0] for value in values) == ["n", "n", "s"]
    assert sorted(value["customer"] for value in values) == ['"', "c-91", "c-91"]
    # Both send the same bytes again.
    for language in commands:
        moody = HTTPServer(("127.0.0.1", 0), Moody)
        moody.bodies = []
        thread = threading.Thread(target=moody.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            done = run(language, "http://127.0.0.1:%d/events" % moody.server_port, environment)
        finally:
            moody.shutdown()
            thread.join()
            moody.server_close()
        assert done.returncode == 0, done.stderr
        assert len(moody.bodies) == 2 and moody.bodies[0] == moody.bodies[1], language
