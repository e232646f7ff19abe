"""Faults of single requests on their way: a proxy executes them and loses the reply, cuts it, resets, delays, goes silent."""

import collections
import time

from harness import scenario
from proxy import EXECUTED, KAFKA, KINDS, RESP, Proxy

TRIALS_A_STAGE = 25
# What the consumers ask Kafka all the time, often enough that a fault finds its request within seconds.
KAFKA_REQUESTS = ("Fetch", "Fetch", "Fetch", "ListOffsets", "Heartbeat", "OffsetCommit", "Metadata", None)


def inject(draw, proxies, names, rare=()):
    """One fault for a request that comes soon, on one of the proxies; (kind, fault)."""
    kind = draw.choice(EXECUTED) if draw.random() < 0.6 else draw.choice(KINDS)
    after = draw.randint(1, 3 if names and names[0] in rare else 15)
    return kind, draw.choice(proxies).inject(kind, names, after=after, seconds=draw.uniform(0.1, 2), share=draw.random())


def tally_of(kinds):
    return ", ".join("%d %s" % (n, kind) for kind, n in sorted(kinds.items()))


def trials(stage, row, count, proxies, kinds, one):
    """One stage of them, to its end. one(): breaks a request; its kind, or None when no such request came."""
    try:
        stage.goes_on(200, partitions=range(6))
        tried = 0
        while tried < TRIALS_A_STAGE and row.tried < count:
            kind = one()
            if kind:
                since = time.monotonic()
                kinds[kind] += 1
                tried += 1
                row.tried += 1
                row.exact(stage, since)
            for proxy in proxies:
                proxy.clear()
        stage.close_load_and_compare(row)
        for consumer in stage.consumers:
            assert consumer.stop() == 0
    finally:
        for proxy in proxies:
            proxy.close()


@scenario("replies", short=10, fault="single requests to Redis: reply lost, cut, reset, delayed, half-open (fault proxy)")
def replies(bed, count, row):
    kinds, proxies = collections.Counter(), []

    def one():
        # Scripts are what writes; the rest are positions read, the log read, the snapshot loaded.
        names = ("EVALSHA",) if bed.draw.random() < 0.7 else ()
        kind, fault = inject(bed.draw, proxies, names)
        assert fault.wait(120), "no request came for the fault"
        if bed.draw.random() < 0.3:  # the connections that are made next meet one as well
            inject(bed.draw, proxies, names)
        return kind

    while row.tried < count:
        # A lost reply is noticed after redis.timeout; a lease that is shorter would go to another one each time.
        with bed.stage("replies", settings={"redis__timeout": "2s", "aggregate__lease": "5s"}, session_ms=20_000,
                       dynamic_session_ms=20_000) as stage:
            proxies[:] = [Proxy(stage.redis.port, RESP) for _ in stage.names]
            for i, proxy in enumerate(proxies):
                stage.start(i, set={"redis.url": proxy.url})
            trials(stage, row, count, proxies, kinds, one)
    row.note(tally_of(kinds))


@scenario("fetches", short=10, fault="single requests to Kafka: reply lost, cut, reset, delayed, half-open (fault proxy)")
def fetches(bed, count, row):
    kinds, proxies = collections.Counter(), []

    def one():
        name = bed.draw.choice(KAFKA_REQUESTS)
        kind, fault = inject(bed.draw, proxies, (name,) if name else (), rare=KAFKA_REQUESTS[3:])
        # Else that broker is not asked this: it leads none of ours, or coordinates nothing. Whoever is asked at all is asked within two
        # seconds; one that answers later, because the machine stands still, is not counted as a trial.
        return kind if fault.wait(5) else None

    while row.tried < count:
        # librdkafka waits for a reply for socket.timeout.ms, a minute unless it is told otherwise.
        fronts = bed.kafka.fronts()
        servers = ",".join("127.0.0.1:%d" % front for front, _ in fronts)
        settings = {"set": {"kafka.socket.timeout.ms": 3000, "kafka.bootstrap.servers": servers}}
        with bed.stage("fetches", settings=settings, session_ms=20_000, dynamic_session_ms=20_000) as stage:
            proxies[:] = [Proxy(back, KAFKA, port=front) for front, back in fronts]
            stage.start_all()
            trials(stage, row, count, proxies, kinds, one)
    row.note(tally_of(kinds))
