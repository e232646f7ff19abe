"""A proxy that does to one request what a network or a dying server could do: forwards it and loses the reply, cuts the
reply in the middle, resets, delays, goes silent.

It understands where a request and a reply begin and end (RESP, Kafka's framing), so a fault hits one request, chosen by
its name, instead of a random byte of the stream: "executed, but the reply was lost" is the case that counts
twice in a program that only retries. Its connections run in a thread of their own; inject() is called by the test.

    proxy = Proxy(6379, RESP)
    fault = proxy.inject("drop reply", names=("EVALSHA",), after=3)   # the third EVALSHA from now on
    fault.wait(20)
"""

import asyncio
import collections
import socket
import struct
import threading

# What can happen to a request. The server executes it in those named here, and nobody else knows.
EXECUTED = ("drop reply", "reset reply", "cut reply", "half-open reply")
KINDS = EXECUTED + ("delay", "delay reply", "drop request", "reset", "half-open")

KAFKA_NAMES = {0: "Produce", 1: "Fetch", 2: "ListOffsets", 3: "Metadata", 8: "OffsetCommit", 9: "OffsetFetch",
               10: "FindCoordinator", 11: "JoinGroup", 12: "Heartbeat", 13: "LeaveGroup", 14: "SyncGroup",
               18: "ApiVersions", 19: "CreateTopics", 22: "InitProducerId", 32: "DescribeConfigs"}


class Resp:
    """Requests and replies of Redis: every frame says its own length, arrays nest."""

    @staticmethod
    def end(data, at):
        """Behind the frame that begins at `at`; None when it is not all there."""
        left = 1
        while left:
            line_end = data.find(b"\r\n", at)
            if line_end < 0:
                return None
            kind, rest = data[at:at + 1], data[at + 1:line_end]
            at, left = line_end + 2, left - 1
            if kind == b"$":
                at += max(int(rest) + 2, 0) if int(rest) >= 0 else 0
            elif kind == b"*":
                left += max(int(rest), 0)
            elif kind not in (b"+", b"-", b":"):
                raise ValueError("not RESP: %r" % bytes(data[at - 20:at + 20]))
            if at > len(data):
                return None
        return at

    @staticmethod
    def name(frame):
        return frame.split(b"\r\n", 3)[2].decode("ascii", "replace").upper()


class Kafka:
    """Four bytes of length, then a request's key, or a reply's correlation id."""

    @staticmethod
    def end(data, at):
        if len(data) < at + 4:
            return None
        end = at + 4 + struct.unpack_from(">i", data, at)[0]
        return end if end <= len(data) else None

    @staticmethod
    def name(frame):
        key, = struct.unpack_from(">h", frame, 4)
        return KAFKA_NAMES.get(key, str(key))


RESP, KAFKA = Resp, Kafka


class Fault:
    """One fault that waits for its request. seconds: how long a delay is; share: how much of a cut reply arrives."""

    def __init__(self, kind, names=(), after=1, seconds=0.5, share=0.5):
        assert kind in KINDS, kind
        self.kind, self.names, self.left = kind, frozenset(names), after
        self.seconds, self.share = seconds, share
        self.happened = threading.Event()

    def wait(self, timeout):
        return self.happened.wait(timeout)


class Connection:
    def __init__(self, near, far):
        self.near, self.far = near, far
        self.pending = collections.deque()  # of each request under way: its fault, or None; replies come in order
        self.silent = self.ended = False

    def end(self, reset):
        if self.ended:
            return
        self.ended = True
        for writer in (self.near, self.far):
            if reset:
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort() if reset else writer.close()


class Proxy:
    def __init__(self, target, framing, port=0, host="127.0.0.1"):
        """target: a port, or (host, port)."""
        self.target = target if isinstance(target, tuple) else (host, target)
        self.framing = framing
        self.lock = threading.Lock()
        self.faults = []
        self.seen = collections.Counter()  # requests by name
        self.connections = set()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.server = self._do(asyncio.start_server(self._accept, host, port))
        self.host, self.port = host, self.server.sockets[0].getsockname()[1]

    @property
    def url(self):
        return "redis://%s:%d" % (self.host, self.port)

    def inject(self, kind, names=(), **more):
        fault = Fault(kind, names, **more)
        with self.lock:
            self.faults.append(fault)
        return fault

    def clear(self):
        """Faults that have not happened are taken back, and connections that went silent end."""
        with self.lock:
            self.faults.clear()
        self.loop.call_soon_threadsafe(
            lambda: [connection.end(True) for connection in self.connections if connection.silent])

    def to(self, target):
        """Somebody else answers from now on; None: nobody. All connections end."""
        def change():
            self.target = target if target is None or isinstance(target, tuple) else (self.host, target)
            for connection in self.connections:
                connection.end(True)
        self.loop.call_soon_threadsafe(change)

    def close(self):
        async def end():
            self.server.close()
            for connection in self.connections:
                connection.end(True)
            others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
        self._do(end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def _do(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def _decide(self, frame):
        name = self.framing.name(frame)
        with self.lock:
            self.seen[name] += 1
            for fault in self.faults:
                if not fault.names or name in fault.names:
                    fault.left -= 1
                    if fault.left <= 0:
                        self.faults.remove(fault)
                        return fault
        return None

    async def _accept(self, near_reader, near):
        try:
            if self.target is None:
                raise OSError("nobody")
            far_reader, far = await asyncio.open_connection(*self.target)
        except OSError:
            near.transport.abort()
            return
        for writer in (near, far):
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(near, far)
        self.connections.add(connection)
        try:
            up = asyncio.ensure_future(self._frames(near_reader, connection, self._request))
            down = asyncio.ensure_future(self._frames(far_reader, connection, self._reply))
            done, _ = await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
            # A half-open connection is just that: the far side has gone, and the client is not told.
            if connection.silent and up not in done:
                await up
            for task in (up, down):
                task.cancel()
            await asyncio.gather(up, down, return_exceptions=True)
        finally:
            self.connections.discard(connection)
            connection.end(False)

    async def _frames(self, reader, connection, take):
        """Whole frames, one after the other, until either side ends."""
        data = bytearray()
        try:
            while True:
                some = await reader.read(1 << 16)
                if not some:
                    return
                if connection.silent:
                    continue
                data += some
                at = 0
                while True:
                    end = self.framing.end(data, at)
                    if end is None:
                        break
                    frame = bytes(data[at:end])
                    at = end
                    if not await take(connection, frame):
                        return
                del data[:at]
        except OSError:
            return

    async def _request(self, connection, frame):
        fault = self._decide(frame)
        kind = fault.kind if fault else None
        if kind == "reset":
            connection.end(True)
        elif kind == "half-open":
            connection.silent = True
        elif kind == "delay":
            await asyncio.sleep(fault.seconds)
        if kind in ("reset", "half-open", "drop request", "delay"):
            fault.happened.set()
            if kind != "delay":
                return kind != "reset"
        connection.pending.append(fault)
        connection.far.write(frame)
        await connection.far.drain()
        return True

    async def _reply(self, connection, frame):
        fault = connection.pending.popleft() if connection.pending else None
        kind = fault.kind if fault else None
        if kind == "delay reply":
            await asyncio.sleep(fault.seconds)
        elif kind == "cut reply":
            # Neither nothing nor all of it.
            connection.near.write(frame[:min(max(int(len(frame) * fault.share), 1), len(frame) - 1)])
            await connection.near.drain()
            connection.near.close()
        elif kind == "reset reply":
            connection.end(True)
        elif kind == "half-open reply":
            connection.silent = True
        if kind in KINDS:
            fault.happened.set()
        if kind in EXECUTED:
            return kind in ("drop reply", "half-open reply")
        connection.near.write(frame)
        await connection.near.drain()
        return True
