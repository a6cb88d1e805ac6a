"""Other processes that get the connection, and its ends."""

import ctypes
import os
import select
import socket
import struct
import subprocess
import sys
import threading

from common import LIMIT, SHM, drain, drained, exactly, exactly_peeked, outcome, pattern, say, tier, until


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


def exits_in_debt(serves, s, lines):
    """Bytes that the reader had taken back from the ring, for which the kernel has no room, when their sender exits."""
    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF if serves else socket.SO_RCVBUF, 4096)
    if serves:
        s.sendall(pattern(1, 200_000))
        lines.step()
        lines.hear()
        lines.tell("now")
        ctypes.CDLL(None).exit(0)
    lines.step()
    # The rules of EPOLLEXCLUSIVE are the kernel's.
    with select.epoll() as exclusive:
        say("register", outcome(exclusive.register, s, select.EPOLLIN | select.EPOLLEXCLUSIVE))
    lines.tell("go")
    lines.hear()
    data, how = drain(s)
    say("whole", data == pattern(1, 200_000), how)


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
