"""Bytes that meet a stopped reader, or a connection that leaves the lane."""

import os
import random
import select
import signal
import socket
import struct
import threading
import time

from common import LIMIT, SHM, exactly, exactly_peeked, outcome, pattern, say, tier, until


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


def urgent_unread(serves, s, lines):
    """Bytes in the kernel, in the ring, an urgent one, and more in the kernel, none of them read before all are there."""
    if serves:
        s.sendall(pattern(0, 1000))
    until("the lane", lambda: outcome(s.recv, 1, socket.MSG_PEEK | socket.MSG_DONTWAIT) and tier(s) in (SHM, -1))
    lines.step()
    if serves:
        s.sendall(pattern(1, 2000))
        s.sendall(b"!", socket.MSG_OOB)
        s.sendall(pattern(2, 3000))
        lines.step()
        lines.hear()
        return
    lines.step()
    until("the urgent byte", lambda: select.select([], [], [s], 1)[2])
    say("in order", exactly(s, 6000) == pattern(0, 1000) + pattern(1, 2000) + pattern(2, 3000))
    say("urgent", outcome(s.recv, 1, socket.MSG_OOB))
    lines.tell("over")


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
