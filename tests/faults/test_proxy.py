"""The fault proxy does what its faults are named after, and nothing else."""

import os
import socket
import struct
import sys
import threading
import time

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from proxy import EXECUTED, KAFKA, RESP, Proxy  # noqa: E402

INCREASE = b"*2\r\n$4\r\nINCR\r\n$1\r\nx\r\n"
ANSWER = b"*2\r\n:7\r\n$5\r\nhello\r\n"
PATIENCE = 30


class Server:
    """Answers each whole frame by `answer(frame)`, and counts what it executed."""

    def __init__(self, framing, answer):
        self.framing, self.answer, self.executed = framing, answer, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        data = b""
        try:
            while True:
                some = connection.recv(65536)
                if not some:
                    return
                data += some
                while True:
                    end = self.framing.end(data, 0)
                    if end is None:
                        break
                    frame, data = data[:end], data[end:]
                    self.executed.append(frame)
                    connection.sendall(self.answer(frame))
        except OSError:
            pass

    def close(self):
        self.listener.close()


@pytest.fixture
def redis():
    server = Server(RESP, lambda frame: ANSWER)
    proxy = Proxy(server.port, RESP)
    yield server, proxy
    proxy.close()
    server.close()


def connect(proxy, timeout=PATIENCE):
    return socket.create_connection((proxy.host, proxy.port), timeout)


def reply(client, size=len(ANSWER)):
    data = b""
    while len(data) < size:
        some = client.recv(size - len(data))
        if not some:
            return data
        data += some
    return data


def silence(client):
    """True when nothing comes and nothing ends. What would come was on its way before: the fault has happened."""
    client.settimeout(0.3)
    try:
        return client.recv(1) is None
    except socket.timeout:
        return True
    finally:
        client.settimeout(PATIENCE)


def test_frames_of_resp():
    request = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$6\r\na\r\nb*1\r\n"
    for cut in range(len(request)):
        assert RESP.end(request[:cut], 0) is None
    assert RESP.end(request + b"*1", 0) == len(request) and RESP.name(request) == "SET"
    for whole in (b"+OK\r\n", b":1\r\n", b"-ERR x\r\n", b"$-1\r\n", b"*-1\r\n", b"*0\r\n", b"$0\r\n\r\n",
                  b"*2\r\n*2\r\n$1\r\na\r\n$-1\r\n*1\r\n:5\r\n"):
        assert RESP.end(whole, 0) == len(whole), whole
        assert RESP.end(whole[:-1], 0) is None
    with pytest.raises(ValueError):
        RESP.end(b"GET / HTTP/1.1\r\n", 0)


def test_frames_of_kafka():
    request = struct.pack(">ihhi", 10, 1, 11, 99) + b"ab"
    assert KAFKA.end(request, 0) == 14 and KAFKA.end(request[:13], 0) is None and KAFKA.end(b"\0\0", 0) is None
    assert KAFKA.name(request) == "Fetch" and KAFKA.name(struct.pack(">ihhi", 8, 999, 0, 1)) == "999"


def test_passes_everything_on(redis):
    server, proxy = redis
    client = connect(proxy)
    # In pieces, and several in one piece.
    for i in range(len(INCREASE)):
        client.sendall(INCREASE[i:i + 1])
    client.sendall(INCREASE * 50)
    assert reply(client, 51 * len(ANSWER)) == ANSWER * 51
    assert len(server.executed) == 51 and proxy.seen["INCR"] == 51
    client.close()


@pytest.mark.parametrize("kind", EXECUTED)
def test_executed_but_not_answered(redis, kind):
    server, proxy = redis
    client = connect(proxy)
    fault = proxy.inject(kind, names=("INCR",), after=3)
    client.sendall(INCREASE * 2)
    assert reply(client, 2 * len(ANSWER)) == ANSWER * 2 and not fault.happened.is_set()
    client.sendall(INCREASE)
    assert fault.wait(PATIENCE) and len(server.executed) == 3
    if kind == "cut reply":
        assert reply(client) == ANSWER[:9]
    elif kind == "reset reply":
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    else:
        assert silence(client)
        client.sendall(INCREASE)
        # Only that one reply is lost, or everything from there on.
        if kind == "drop reply":
            assert reply(client) == ANSWER
        else:
            assert silence(client) and len(server.executed) == 3
    other = connect(proxy)
    other.sendall(INCREASE)
    assert reply(other) == ANSWER
    client.close()
    other.close()


@pytest.mark.parametrize("kind", ["drop request", "reset", "half-open"])
def test_not_executed(redis, kind):
    server, proxy = redis
    client = connect(proxy)
    fault = proxy.inject(kind)
    client.sendall(INCREASE)
    assert fault.wait(PATIENCE)
    if kind == "reset":
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    else:
        assert silence(client)
    assert server.executed == []
    if kind == "half-open":
        proxy.clear()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    client.close()


@pytest.mark.parametrize("kind", ["delay", "delay reply"])
def test_delayed(redis, kind):
    server, proxy = redis
    client = connect(proxy)
    fault = proxy.inject(kind, seconds=1)
    began = time.monotonic()
    client.sendall(INCREASE)
    assert reply(client) == ANSWER and time.monotonic() - began >= 1
    assert fault.wait(PATIENCE) and len(server.executed) == 1
    client.close()


def test_by_name_and_taken_back(redis):
    server, proxy = redis
    client = connect(proxy)
    fault = proxy.inject("reset", names=("GET",))
    client.sendall(INCREASE)
    assert reply(client) == ANSWER
    proxy.clear()
    client.sendall(b"*2\r\n$3\r\nGET\r\n$1\r\nx\r\n")
    assert reply(client) == ANSWER and not fault.happened.is_set()
    client.close()


def test_another_target(redis):
    server, proxy = redis
    client = connect(proxy)
    client.sendall(INCREASE)
    reply(client)
    proxy.to(None)
    with pytest.raises(OSError):
        client.recv(1) or client.sendall(INCREASE) or client.recv(1)
        raise OSError("ended without a reset")
    other = Server(RESP, lambda frame: b"+other\r\n")
    proxy.to(other.port)
    client = connect(proxy)
    client.sendall(INCREASE)
    assert reply(client, 8) == b"+other\r\n" and len(server.executed) == 1
    client.close()
    other.close()


def test_kafka_framing():
    server = Server(KAFKA, lambda frame: struct.pack(">i", 4) + frame[8:12])
    proxy = Proxy(server.port, KAFKA)
    client = connect(proxy)
    fault = proxy.inject("drop reply", names=("Produce",))
    for key, correlation in ((1, 5), (0, 6), (1, 7)):
        client.sendall(struct.pack(">ihhi", 8, key, 0, correlation))
    # The reply to Produce is lost, those around it are not.
    assert reply(client, 16) == struct.pack(">iiii", 4, 5, 4, 7) and fault.wait(PATIENCE)
    assert len(server.executed) == 3
    client.close()
    proxy.close()
    server.close()
