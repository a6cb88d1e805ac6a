"""Two programs that talk over 127.0.0.1, a scene each. What they print is the same on plain sockets and on the shm lane.

    scenes.py SCENE serve|ask DIRECTORY

The two find each other through files of DIRECTORY. `both` in place of a role: one process plays both.
"""

import asyncio
import ctypes
import errno
import hashlib
import mmap
import os
import random
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

LIMIT = 20
SHM = 2
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


# Writes that meet a stopped reader.


def stopped(serves, s, lines):
    data = pattern(1, 24 << 20)
    if serves:
        lines.tell(os.getpid())
        for _ in range(2):
            lines.step()
            say("received", outcome(exactly, s, int(lines.hear())))
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 300_000))
        lines.step()
        say("nothing comes", outcome(s.recv, 1))
        lines.step()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", LIMIT, 0))
        say("received", outcome(exactly, s, 1000))
        return
    peer = int(lines.hear())

    def stop():
        os.kill(peer, signal.SIGSTOP)
        until("the peer to stop", lambda: open(f"/proc/{peer}/stat").read().rsplit(")")[1].split()[0] == "T")

    for _ in range(2):
        lines.step()
        stop()
        sent = 0
        while sent < len(data):
            try:
                sent += s.send(data[sent : sent + 10_000], socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
        if sent == len(data):
            raise AssertionError("a stopped reader took everything")
        poll = select.poll()
        poll.register(s, select.POLLOUT)
        start = time.monotonic()
        say("poll", poll.poll(200))
        say("in time", 0.19 < time.monotonic() - start < 2)
        say("select", select.select([], [s], [], 0.05))
        writer = threading.Thread(target=s.sendall, args=(data[sent:],))
        writer.start()
        writer.join(1)
        say("a blocking write waits", writer.is_alive())
        os.kill(peer, signal.SIGCONT)
        lines.tell(len(data))
        writer.join(LIMIT)
        say("then it goes on", not writer.is_alive())
    lines.step()
    lines.step()
    s.sendall(pattern(2, 1000))


# Bytes in both directions, while one side or the other leaves the lane and comes back.


def leaving(serves, s, lines):
    total = int(os.environ.get("SCENE_BYTES", 200 << 20))
    block = pattern(int(serves), 1 << 20)
    theirs = pattern(int(not serves), 1 << 20)
    out, into = os.pipe()
    failed = []

    def write():
        sent = 0
        sizes = random.Random(int(serves) + 7)
        while sent < total:
            at = sent % len(block)
            n = min(sizes.choice([1, 100, 5000, 65536, 300_000]), len(block) - at, total - sent)
            sent += s.send(memoryview(block)[at : at + n])

    def read():
        got = 0
        while got < total:
            at = got % len(theirs)
            if (got >> 20) % 4 == 1 and at < 30_000:
                # The rules of EPOLLEXCLUSIVE are the kernel's. What the peer has left in the ring keeps us there.
                with select.epoll() as exclusive:
                    left = outcome(exclusive.register, s, select.EPOLLIN | select.EPOLLEXCLUSIVE)
                    if left not in (None, "EAGAIN"):
                        failed.append(left)
            if (got >> 20) % 4 == 3 and at < 30_000:
                n = os.splice(s.fileno(), into, min(30_000, total - got, len(theirs) - at))
                part = os.read(out, n) if n else b""
            else:
                part = s.recv(min(200_000, total - got, len(theirs) - at))
            if part != theirs[at : at + len(part)] or not part:
                failed.append(f"{len(part)} bytes at {got} are wrong")
                return
            got += len(part)

    threads = [threading.Thread(target=write), threading.Thread(target=read)]
    [thread.start() for thread in threads]
    [thread.join(100) for thread in threads]
    say("over", not any(thread.is_alive() for thread in threads), failed)
    lines.step()


def options(serves, s, lines):
    """Calls after which the bytes go through the kernel, in the midst of a conversation."""
    calls = [
        lambda: outcome(s.setsockopt, socket.IPPROTO_TCP, 31, b"nonsense"),
        lambda: outcome(s.send, b"!", socket.MSG_OOB),
        lambda: pass_to_itself(s),
        lambda: touch_in_child(s),
    ]
    for number, call in enumerate(calls):
        lines.step()
        message = pattern(number, 50_000)
        if serves:
            s.sendall(message)
            say("then", call())
            s.sendall(message[::-1])
        else:
            s.sendall(message[::-1])
            say("first", outcome(exactly, s, 50_000))
            lines.tell("go on")
        if serves:
            lines.hear()
            say("received", outcome(exactly, s, 50_000))
        else:
            if number == 1:
                until("the urgent byte", lambda: select.select([], [], [s], 1)[2])
                say("urgent", outcome(s.recv, 1, socket.MSG_OOB))
            say("second", outcome(exactly, s, 50_000))


def pass_to_itself(s):
    ours, theirs = socket.socketpair()
    socket.send_fds(ours, [b"x"], [s.fileno()])
    _, fds, _, _ = socket.recv_fds(theirs, 1, 1)
    copy = socket.socket(fileno=fds[0])
    same = copy.getpeername() == s.getpeername()
    copy.close()
    return same


def touch_in_child(s):
    child = os.fork()
    if child == 0:
        os._exit(0 if len(exactly_peeked(s, 50_000)) == 50_000 else 1)
    return os.waitpid(child, 0)[1]


def exactly_peeked(s, n):
    """Looks until so many bytes are there."""
    seen = b""
    end = time.monotonic() + LIMIT
    while len(seen) < n and time.monotonic() < end:
        seen = s.recv(n, socket.MSG_PEEK)
    return seen


# Other processes.


def exec_waiting(serves, s, lines):
    """As inetd does: another program gets the connection as its standard streams, after bytes have come."""
    if serves:
        lines.step()
        exactly_peeked(s, 1000)
        child = os.fork()
        if child == 0:
            os.dup2(s.fileno(), 0)
            os.dup2(s.fileno(), 1)
            os.execvp("cat", ["cat"])
        s.close()
        lines.step()
        say("cat", os.waitpid(child, 0)[1])
    else:
        s.sendall(pattern(1, 1000))
        lines.step()
        say("back", outcome(exactly, s, 1000))
        s.sendall(pattern(2, 100_000))
        lines.step()
        say("back", outcome(exactly, s, 100_000))
        s.shutdown(socket.SHUT_WR)
        say("the rest", drained(s))


def pass_waiting(serves, s, lines):
    """To a program that knows nothing of the library, after bytes have come."""
    if serves:
        lines.step()
        exactly_peeked(s, 1000)
        ours, theirs = socket.socketpair()
        env = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
        other = subprocess.Popen([sys.executable, "-c", TAKER, str(theirs.fileno())], env=env, pass_fds=[theirs.fileno()])
        socket.send_fds(ours, [b"x"], [s.fileno()])
        s.close()
        say("the other program", other.wait(LIMIT))
    else:
        s.sendall(pattern(1, 1000))
        lines.step()
        say("back", outcome(exactly, s, 1000))
        s.sendall(pattern(2, 100_000))
        say("back", outcome(exactly, s, 100_000))
        s.shutdown(socket.SHUT_WR)
        say("the rest", drained(s))


TAKER = """
import socket, sys
line = socket.socket(fileno=int(sys.argv[1]))
s = socket.socket(fileno=socket.recv_fds(line, 1, 1)[1][0])
while part := s.recv(65536):
    s.sendall(part)
"""


def duplicates(serves, s, lines):
    if serves:
        lines.step()
        exactly_peeked(s, 1000)
        copy = socket.socket(fileno=os.dup(s.fileno()))
        s.close()
        say("by the duplicate", outcome(exactly, copy, 600))
        file = os.open("/dev/null", os.O_RDONLY)
        os.dup2(copy.fileno(), file)
        copy.close()
        last = socket.socket(fileno=file)
        say("by the second", outcome(exactly, last, 400))
        last.sendall(pattern(3, 10_000))
        lines.step()
        say("tier", tier(last) in (-1, SHM))
        last.close()
    else:
        s.sendall(pattern(1, 1000))
        lines.step()
        lines.step()
        say("received", drained(s))


# Ends.


def exits_after_writing(serves, s, lines):
    if serves:
        s.sendall(pattern(1, 100_000))
        os._exit(0)
    lines.file.readline()
    say("received", drained(s))
    say("write", outcome(s.send, b"x", socket.MSG_NOSIGNAL) in (1, "EPIPE", "ECONNRESET"))


def exits_without_reading(serves, s, lines):
    if serves:
        exactly_peeked(s, 1000)
        os._exit(0)
    s.sendall(pattern(1, 1000))
    lines.file.readline()
    data, how = drain(s)
    say("received", len(data), how in ("end", "ECONNRESET"))
    until("an error", lambda: outcome(s.send, b"x", socket.MSG_NOSIGNAL) in ("EPIPE", "ECONNRESET"))


def halves(serves, s, lines):
    s.sendall(pattern(int(serves), 3_000))
    if serves:
        s.shutdown(socket.SHUT_WR)
        say("write", outcome(s.send, b"x", socket.MSG_NOSIGNAL))
        lines.step()
        say("received", drained(s))
        return
    lines.step()
    say("received", drained(s))
    writer = threading.Thread(target=s.sendall, args=(pattern(9, 1_000_000),))
    writer.start()
    writer.join(LIMIT)
    s.shutdown(socket.SHUT_WR)
    say("at last", outcome(s.recv, 1))


def unread(serves, s, lines):
    if serves:
        s.sendall(pattern(1, 5_000))
        exactly_peeked(s, 1000)
        s.close()
        lines.step()
    else:
        s.sendall(pattern(2, 1000))
        lines.step()
        say("received", drained(s))


def linger_zero(serves, s, lines):
    if serves:
        s.sendall(pattern(1, 5_000))
        lines.step()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.close()
        lines.step()
    else:
        exactly_peeked(s, 5_000)
        lines.step()
        lines.step()
        say("received", drained(s))


def shut_both(serves, s, lines):
    if serves:
        s.sendall(pattern(1, 5_000))
        s.shutdown(socket.SHUT_RDWR)
        lines.step()
        say("read", outcome(s.recv, 1))
        say("write", outcome(s.send, b"x", socket.MSG_NOSIGNAL))
        lines.step()
    else:
        lines.step()
        say("received", drained(s))
        lines.step()


# A hostile peer.


def hostile(serves, s, lines):
    """The asking side scribbles over everything it shares with the serving one, which also has an honest peer: itself."""
    if serves:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 200_000))
        s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 200_000))
        with listen() as listener:
            honest = socket.create_connection(listener.getsockname())
            other = listener.accept()[0]
        echo = threading.Thread(target=echo_to_end, args=(other,))
        echo.start()
        lines.step()
        end = time.monotonic() + 1.2
        rounds, waits = 0, 0.0
        poll = select.poll()
        poll.register(s, select.POLLIN | select.POLLOUT)
        while time.monotonic() < end:
            start = time.monotonic()
            outcome(s.send, b"a question", socket.MSG_NOSIGNAL)
            outcome(s.recv, 100)
            poll.poll(10)
            waits = max(waits, time.monotonic() - start)
            message = pattern(rounds, 5000)
            honest.sendall(message)
            assert exactly(honest, 5000) == message, "an honest connection has suffered"
            rounds += 1
        lines.step()
        outcome(s.recv, 100)
        outcome(s.shutdown, socket.SHUT_RDWR)
        s.close()
        honest.shutdown(socket.SHUT_WR)
        echo.join(LIMIT)
        say("still here", rounds > 0, waits < 5, not echo.is_alive())
        return
    areas = []
    for line in open("/proc/self/maps"):
        if "underpass-channel" in line or "underpass-trunk" in line:
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            areas.append((start, end, "trunk" in line))
    lines.step()
    seed = int(os.environ.get("SCENE_SEED", time.time_ns() % 1_000_000))
    print(f"seed {seed}", file=sys.stderr, flush=True)
    rng = random.Random(seed)
    # Some days it is everything at once, on others one word again and again.
    pages = [range(start, stop if trunk else start + 4096, 8) for start, stop, trunk in areas]
    words = [at for page in pages for at in page]
    if seed % 3:
        # Lines and wants of a channel lie in its first 512 bytes.
        words = rng.sample([at for page in pages for at in page[:64]], 1 + seed % 2)
    memory = open("/proc/self/mem", "r+b", buffering=0)
    end = time.monotonic() + 1
    while time.monotonic() < end:
        for _ in range(16):
            value = rng.choice([0, 1, 2, 3, 4, 5, 7, 8, 1 << 63, (1 << 64) - 1, rng.getrandbits(64), rng.getrandbits(18)])
            try:
                memory.seek(rng.choice(words))
                memory.write(struct.pack("Q", value))
            except OSError:
                # We have left the channel ourselves, and its memory has gone.
                continue
        try:
            s.send(b"an answer", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            s.recv(100, socket.MSG_DONTWAIT)
        except OSError:
            pass
    lines.step()
    os._exit(0)


def echo_to_end(s):
    while part := s.recv(65536):
        s.sendall(part)
    s.close()


# Strangers at the place where the two ends meet.


def place(s):
    """The name of the meeting place: both addresses, the lower one first."""
    low, high = sorted([s.getsockname(), s.getpeername()])
    return f"\0underpass/1/{low[0]}:{low[1]}/{high[0]}:{high[1]}"


def stranger(mode, name):
    """Takes the name, or calls at it."""
    name = "\0" + name
    if mode == "user":
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    offer = struct.pack("=IHHQQQQQII", MAGIC, 1, 2, 4096, 1, 2, 3, 4, 1, 0)
    call = struct.pack("=IHHQQQ", MAGIC, 1, 1, 5, 6, 4096)
    null = [os.open("/dev/null", os.O_RDWR)]
    tcp = [socket.socket().detach()]
    if mode.startswith("calls"):
        until("the place", lambda: s.connect_ex(name) == 0)
        says = {
            "calls-nothing": [(b"", [])],
            "calls-garbage": [(os.urandom(64), [])],
            "calls-short": [(call[:9], tcp)],
            "calls-wrong": [(call, null)],
            "calls-other": [(call, tcp)],
            "calls-many": [(call, null * 100)],
            "calls-none": [(call, [])],
        }[mode]
        for data, fds in says:
            outcome(socket.send_fds, s, [data], fds)
        say("ready")
        sys.stdin.read()
        return
    s.bind(name)
    s.listen(0 if mode == "crowded" else 16)
    if mode == "crowded":
        crowd = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(4)]
        for one in crowd:
            one.setblocking(False)
            one.connect_ex(name)
    say("ready")
    if mode in ("deaf", "crowded"):
        sys.stdin.read()
        return
    threading.Thread(target=welcome, args=(s, mode, offer, null), daemon=True).start()
    sys.stdin.read()


def welcome(s, mode, offer, null):
    kept = []
    while True:
        one = s.accept()[0]
        one.settimeout(1)
        try:
            data, fds, _, _ = socket.recv_fds(one, 200, 8)
        except OSError:
            data, fds = b"", []
        # Another user's program must not get anybody's connection.
        if mode == "user" and fds:
            say("got a descriptor")
        for fd in fds:
            os.close(fd)
        if mode == "garbage":
            outcome(one.send, os.urandom(64))
        elif mode == "wrong":
            outcome(socket.send_fds, one, [offer], null * 3)
        elif mode == "many":
            outcome(socket.send_fds, one, [offer], null * 200)
        if mode in ("mute", "garbage", "wrong", "many"):
            kept.append(one)
        else:
            one.close()


MAGIC = int.from_bytes(b"UPSM", "big")


def strangers(serves, s, lines):
    mode = os.environ["SCENE_MODE"]
    if not serves:
        lines.step()
        while question := s.recv(65536):
            s.sendall(question)
        return
    env = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    words = [sys.executable, __file__, "stranger", mode, place(s)[1:]]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
    calls = mode.startswith("calls")
    other = subprocess.Popen(words, **pipes)
    if not calls:
        assert other.stdout.readline() == "ready\n"
    lines.step()
    deadline, there = time.monotonic() + (3 if mode in ("mute", "deaf", "crowded") else 1), threading.Event()
    if calls:
        threading.Thread(target=lambda: other.stdout.readline() == "ready\n" and there.set()).start()
    rounds = 0
    while time.monotonic() < deadline or calls and not there.is_set():
        ask(s, rounds)
        rounds += 1
    say("in the kernel", tier(s) in (0, -1))
    print(f"{rounds} rounds", file=sys.stderr, flush=True)
    rest = other.communicate("", timeout=LIMIT)[0]
    say("the stranger", other.returncode, rest.splitlines())
    if not calls:
        # Some reasons do not pass.
        end = time.monotonic() + LIMIT
        while tier(s) == 0 and time.monotonic() < end and mode not in ("garbage", "user"):
            ask(s, rounds)
            rounds += 1
        say("then laned", tier(s) in (SHM, -1))
    s.close()


def ask(s, number):
    question = struct.pack("Q", number) * 8
    s.sendall(question)
    assert exactly(s, 64) == question


# Many connections.


def many(serves, s, lines):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    poll = select.epoll()

    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    def memory():
        text = open("/proc/self/smaps_rollup").read()
        return int(next(line for line in text.splitlines() if line.startswith("Rss:")).split()[1])

    def channels():
        return open("/proc/self/maps").read().count("underpass-channel")

    def cycle(count):
        peers = {}
        if serves:
            with listen() as listener:
                lines.tell(listener.getsockname()[1])
                for _ in range(count):
                    one = listener.accept()[0]
                    peers[one.fileno()] = one
        else:
            address = (HOST, int(lines.hear()))
            for _ in range(count):
                one = socket.create_connection(address)
                peers[one.fileno()] = one
        for one in peers.values():
            one.setblocking(False)
            poll.register(one, select.EPOLLIN)
        lines.step()
        laned, open_ones = talk(peers)
        lines.step()
        for one in peers.values():
            if one.fileno() >= 0:
                poll.unregister(one)
                one.close()
        lines.step()
        until("the channels to go", lambda: channels() == (tier(s) == SHM))
        return laned, open_ones

    def talk(peers):
        """The asking side asks round by round until all are on the lane; the serving one answers to the end of it."""
        end = time.monotonic() + 60
        if serves:
            asked = 0
            while True:
                for fd, events in poll.poll(0.02):
                    question = peers[fd].recv(100)
                    assert question, "an early end"
                    peers[fd].sendall(question)
                    asked += question.count(b"L")
                if asked >= len(peers):
                    return sum(tier(one) == SHM for one in peers.values()), len(peers)
        answered = dict.fromkeys(peers, 0)
        joined = lambda: tier_all(peers) or time.monotonic() > end
        while True:
            last = joined()
            for fd, one in peers.items():
                one.sendall(b"L" if last else b"q")
            waiting = set(peers)
            while waiting:
                events = poll.poll(LIMIT)
                assert events, "no answer"
                for fd, _ in events:
                    answer = peers[fd].recv(100)
                    assert answer, "an early end"
                    waiting.discard(fd)
            if last:
                return sum(tier(one) == SHM for one in peers.values()), len(peers)

    def tier_all(peers):
        return all(tier(one) in (SHM, -1) for one in peers.values())

    # What is set up once is set up now.
    cycle(100)
    before = descriptors(), memory()
    laned, count = cycle(int(os.environ.get("SCENE_CONNECTIONS", 2000)))
    after = descriptors(), memory()
    say("all", count, "of them laned", laned == count or tier(s) == -1)
    # A few are made when they are first needed.
    say("descriptors", after[0] - before[0] < 8)
    # Tables grow once; what every connection had would be a hundred times that.
    say("memory", after[1] - before[1] < 12_000)
    print("descriptors, KiB", before, after, laned, file=sys.stderr, flush=True)
    lines.step()


# One process.


def both_ends(directory):
    """Both ends of a few connections in one process: threads, then an event loop."""
    with listen() as listener:
        pairs = [(socket.create_connection(listener.getsockname()), listener.accept()[0]) for _ in range(4)]
    failed = []

    def ask(s, seed):
        rng = random.Random(seed)
        for _ in range(500):
            message = rng.randbytes(rng.choice([1, 64, 5000, 400_000 if _ % 50 == 0 else 64]))
            sender = threading.Thread(target=s.sendall, args=(message,))
            sender.start()
            if exactly(s, len(message)) != message:
                failed.append(seed)
            sender.join()
        s.shutdown(socket.SHUT_WR)

    threads = [threading.Thread(target=echo_to_end, args=(server,)) for _, server in pairs]
    threads += [threading.Thread(target=ask, args=(client, seed)) for seed, (client, _) in enumerate(pairs)]
    [thread.start() for thread in threads]
    [thread.join(60) for thread in threads]
    say("threads", any(thread.is_alive() for thread in threads), failed)

    async def echo(reader, writer):
        while part := await reader.read(65536):
            writer.write(part)
            await writer.drain()
        writer.close()

    async def ask_async(port, seed):
        reader, writer = await asyncio.open_connection(HOST, port)
        rng = random.Random(seed)
        right = True
        for n in range(300):
            message = rng.randbytes(200_000 if n % 30 == 0 else 100)
            writer.write(message)
            right &= await asyncio.wait_for(reader.readexactly(len(message)), LIMIT) == message
        laned = tier(writer.get_extra_info("socket")) in (-1, SHM)
        writer.write_eof()
        right &= await reader.read() == b""
        writer.close()
        return right, laned

    async def loop():
        server = await asyncio.start_server(echo, HOST, 0)
        port = server.sockets[0].getsockname()[1]
        return await asyncio.gather(*(ask_async(port, seed) for seed in range(3)))

    say("loop", asyncio.run(loop()))


def main():
    name, role, directory = sys.argv[1:4]
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    if name == "stranger":
        stranger(role, directory)
        return
    if role == "both":
        globals()[name](directory)
    else:
        serves = role == "serve"
        lines = Lines(serves, directory)
        s = meet(serves, lines, cold=name == "strangers")
        globals()[name](serves, s, lines)
    say("over and out")


main()
