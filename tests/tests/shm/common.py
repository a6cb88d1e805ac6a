"""What the scenes share: how the two programs meet, and how they say what they saw."""

import ctypes
import errno
import hashlib
import os
import random
import socket
import struct
import time

LIMIT = 20
KERNEL, SHM = 0, 2
HOST = "127.0.0.1"


def tier(s):
    """The tier of a socket; -1 without the library."""
    try:
        return ctypes.CDLL(None).underpass_tier(s.fileno())
    except AttributeError:
        return -1


def until(what, condition, limit=LIMIT):
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited in vain for {what}")
        time.sleep(0.002)


def say(*words):
    print(*words, flush=True)


def outcome(call, *args):
    """What a call returns, bytes shortened, or the name of its error."""
    try:
        value = call(*args)
    except OSError as error:
        return errno.errorcode.get(error.errno, "timeout") if error.errno else "timeout"
    return f"{len(value)} {hashlib.sha256(value).hexdigest()[:8]}" if isinstance(value, bytes) else value


def exactly(s, n):
    parts = []
    while n:
        part = s.recv(min(n, 1 << 18))
        if not part:
            raise EOFError(f"{n} bytes are missing")
        parts.append(part)
        n -= len(part)
    return b"".join(parts)


def exactly_peeked(s, n):
    """Looks until so many bytes are there."""
    seen = b""
    end = time.monotonic() + LIMIT
    while len(seen) < n and time.monotonic() < end:
        seen = s.recv(n, socket.MSG_PEEK)
    return seen


def echo_to_end(s):
    while part := s.recv(65536):
        s.sendall(part)
    s.close()


def drain(s):
    """Everything to the end, and how it ended."""
    parts = []
    while True:
        try:
            part = s.recv(1 << 16)
        except OSError as error:
            return b"".join(parts), errno.errorcode.get(error.errno, "timeout")
        if not part:
            return b"".join(parts), "end"
        parts.append(part)


def drained(s):
    data, how = drain(s)
    return f"{len(data)} {hashlib.sha256(data).hexdigest()[:8]} then {how}"


def pattern(seed, n):
    return random.Random(seed).randbytes(n)


class Lines:
    """A line to the other program beside the connection."""

    def __init__(self, serves, directory):
        path = os.path.join(directory, "line")
        if serves:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(path)
            listener.listen(1)
            listener.settimeout(LIMIT)
            self.socket = listener.accept()[0]
        else:
            self.socket = socket.socket(socket.AF_UNIX)
            until("the other program", lambda: self.socket.connect_ex(path) == 0)
        self.socket.settimeout(LIMIT)
        self.file = self.socket.makefile("r")

    def tell(self, text):
        self.socket.sendall(f"{text}\n".encode())

    def hear(self):
        line = self.file.readline()
        if not line:
            raise EOFError("the other program has gone")
        return line.rstrip("\n")

    def step(self):
        """Both have come to this place."""
        self.tell("step")
        assert self.hear() == "step"


def listen():
    listener = socket.create_server((HOST, 0), backlog=4096)
    listener.settimeout(LIMIT)
    return listener


def meet(serves, lines, cold=False):
    """The connection, on the lane if both programs are preloaded. Cold: nothing has been said on it yet."""
    if serves:
        with listen() as listener:
            lines.tell(listener.getsockname()[1])
            s = listener.accept()[0]
    else:
        s = socket.create_connection((HOST, int(lines.hear())))
    s.settimeout(None)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", LIMIT, 0))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", LIMIT, 0))
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not cold:
        warm(serves, s)
    return s


def warm(serves, s, limit=5):
    """Small messages until both ends are on the lane. Without the library one round."""
    end = time.monotonic() + limit
    while True:
        if serves:
            asked = exactly(s, 2)
            s.sendall(struct.pack("b", tier(s)))
            if asked[:1] == b"D":
                break
        else:
            mine = tier(s)
            over = mine < 0 or time.monotonic() > end
            joined = mine == SHM and warm.theirs == SHM
            s.sendall((b"D" if over or joined else b"T") + b"!")
            warm.theirs = struct.unpack("b", exactly(s, 1))[0]
            if over or joined:
                break
    if os.environ.get("LD_PRELOAD") and tier(s) != SHM:
        raise AssertionError("not on the lane")


warm.theirs = -1
