"""A peer that lies in shared memory, and strangers at the place where the two ends meet."""

import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

from common import HOST, LIMIT, Lines, SHM, echo_to_end, exactly, listen, meet, outcome, pattern, say, tier, until


# A thief.


def thief(serves, s, lines):
    """Another user's program takes every ring that it can reach, while two honest ones talk past it."""
    if serves:
        threads = [threading.Thread(target=echo_to_end, args=(s,))]
        with listen() as listener:
            lines.tell(listener.getsockname()[1])
            threads.append(threading.Thread(target=echo_to_end, args=(listener.accept()[0],)))
        [thread.start() for thread in threads]
        [thread.join(LIMIT) for thread in threads]
        say("ended", not any(thread.is_alive() for thread in threads))
        return
    port = int(lines.hear())
    heard, said = os.pipe()
    child = os.fork()
    if child == 0:
        os._exit(steal(port, said))
    os.close(said)
    say("the thief", os.read(heard, 100).decode())
    slow = 0
    for number in range(2000):
        message = pattern(number, 64)
        start = time.monotonic()
        s.sendall(message)
        assert exactly(s, 64) == message
        slow += time.monotonic() - start > 0.2
    say("slow rounds", slow)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    s.close()


def steal(port, said):
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    t = socket.create_connection((HOST, port))
    until("the lane", lambda: t.send(b"x") and t.recv(1) and tier(t) in (SHM, -1))
    bells = []
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}") == "anon_inode:[eventfd]":
                bells.append(int(name))
        except OSError:
            continue
    os.write(said, f"is on the lane {tier(t) == SHM and len(bells) > 8}".encode())
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        for bell in bells:
            outcome(os.read, bell, 8)
    return 0


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


# Strangers at the place where the two ends meet.


def place(s):
    """The name of the meeting place: both addresses, the lower one first."""
    low, high = sorted([s.getsockname(), s.getpeername()])
    return f"\0underpass/2/{low[0]}:{low[1]}/{high[0]}:{high[1]}"


def stranger(mode, name):
    """Takes the name, or calls at it."""
    name = "\0" + name
    if mode == "user":
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    offer = struct.pack("=IHHQQQQQII", MAGIC, 2, 2, 4096, 1, 2, 3, 4, 1, 0)
    call = struct.pack("=IHHQQQ", MAGIC, 2, 1, 5, 6, 4096)
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
    words = [sys.executable, sys.argv[0], "stranger", mode, place(s)[1:]]
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
        # Some reasons do not pass. Between two attempts there are up to ten seconds, and on a busy machine one may fail.
        end = time.monotonic() + 2 * LIMIT
        while tier(s) == 0 and time.monotonic() < end and mode not in ("garbage", "user"):
            ask(s, rounds)
            rounds += 1
        say("then laned", tier(s) in (SHM, -1))
    s.close()


def ask(s, number):
    question = struct.pack("Q", number) * 8
    s.sendall(question)
    assert exactly(s, 64) == question
