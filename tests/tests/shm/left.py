"""What a sender has left in the ring when it shuts down or goes, and a reader that hands the connection on or needs the kernel for it.

A scene for each way to leave and each way to go on: `left_closes_spawn` and the like.
"""

import ctypes
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time

from common import LIMIT, drained, exactly, outcome, pattern, say, until

# Enough for many segments; the reader has had some of it from the ring.
SIZE, HAD = 100_000, 30_000


# Ways to leave. Those that return have told the reader.


def shuts(s, lines):
    s.shutdown(socket.SHUT_WR)
    lines.step()


def narrow(s, lines):
    """As the others, the reader having a small buffer."""
    shuts(s, lines)


def tight(s, lines):
    """As the others, the sender having a small buffer: on plain sockets it would not come so far."""
    shuts(s, lines)


def shuts_both(s, lines):
    s.shutdown(socket.SHUT_RDWR)
    lines.step()


def closes(s, lines):
    s.close()
    lines.step()


def exits(s, lines):
    """Past every clean-up, the connection being open."""
    os._exit(0)


def finishes(s, lines):
    ctypes.CDLL(None).exit(0)


def becomes(s, lines):
    """Another program, which does not get the connection."""
    os.execvp("true", ["true"])


def killed(s, lines):
    s.shutdown(socket.SHUT_WR)
    os.kill(os.getpid(), signal.SIGKILL)


def stops(s, lines):
    s.shutdown(socket.SHUT_WR)
    lines.tell(os.getpid())
    os.kill(os.getpid(), signal.SIGSTOP)


# Ways to go on.


def spawn(s):
    child = subprocess.run(["sha256sum"], stdin=s, stdout=subprocess.PIPE, timeout=LIMIT)
    say("spawned", child.returncode, child.stdout.decode())


def passed(s):
    """To a program that knows nothing of the library."""
    ours, theirs = socket.socketpair()
    env = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    command = [sys.executable, "-c", TAKER, str(theirs.fileno())]
    other = subprocess.Popen(command, env=env, pass_fds=[theirs.fileno()], stdout=subprocess.PIPE)
    socket.send_fds(ours, [b"x"], [s.fileno()])
    say("passed", other.communicate(timeout=LIMIT)[0].decode())


TAKER = """
import hashlib, socket, sys
line = socket.socket(fileno=int(sys.argv[1]))
s = socket.socket(fileno=socket.recv_fds(line, 1, 1)[1][0])
data = b""
while part := s.recv(65536):
    data += part
print(len(data), hashlib.sha256(data).hexdigest())
"""


def execute(s):
    os.dup2(s.fileno(), 0)
    os.execvp("sha256sum", ["sha256sum"])


def child(s):
    pid = os.fork()
    if pid == 0:
        say("child", drained(s))
        os._exit(0)
    say("its end", os.waitpid(pid, 0)[1])


def spliced(s):
    out, into = os.pipe()
    digest, count = hashlib.sha256(), 0
    while n := os.splice(s.fileno(), into, 60_000):
        digest.update(os.read(out, n))
        count += n
    say("spliced", count, digest.hexdigest()[:8])


def bound(s):
    """A call that is the kernel's whatever comes of it."""
    say("bind", outcome(s.bind, ("127.0.0.1", 0)))
    say("read", drained(s))


def read(s):
    say("read", drained(s))


def leave(how, on):
    def scene(serves, s, lines):
        if (how is narrow) == serves and how in (narrow, tight):
            name = socket.SO_RCVBUF if serves else socket.SO_SNDBUF
            s.setsockopt(socket.SOL_SOCKET, name, 4096)
            say("buffer", s.getsockopt(socket.SOL_SOCKET, name))
        if serves:
            lines.step()
            say("had", outcome(exactly, s, HAD))
            lines.step()
            pid = None
            if how is stops:
                pid = int(lines.hear())
                until("the other to stop", lambda: state_of(pid) == "T")
            elif how in (shuts, shuts_both, closes, narrow, tight):
                lines.step()
            else:
                assert lines.file.readline() == ""
            on(s)
            s.close()
            if pid:
                os.kill(pid, signal.SIGCONT)
            return
        s.sendall(pattern(1, SIZE))
        lines.step()
        lines.step()
        how(s, lines)
        if how is tight:
            say("buffer", s.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF))
        if how in (shuts, stops, narrow, tight):
            say("the end", drained(s))

    return scene


def state_of(pid):
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0]


for how in (shuts, narrow, tight, shuts_both, closes, exits, finishes, becomes, killed, stops):
    for on in (spawn, passed, execute, child, spliced, bound, read):
        globals()[f"left_{how.__name__}_{on.__name__}"] = leave(how, on)


def left_all_read(serves, s, lines):
    """The reader has had everything, and asks for no end; the sender is told of an end all the same, not of a reset."""
    if serves:
        lines.step()
        for _ in range(2):
            exactly(s, SIZE)
        s.close()
        lines.step()
        return
    s.sendall(pattern(1, SIZE))
    lines.step()
    s.sendall(pattern(1, SIZE))
    s.shutdown(socket.SHUT_WR)
    say("the end", drained(s))
    lines.step()


def left_all_read_at_exit(serves, s, lines):
    if serves:
        lines.step()
        exactly(s, SIZE)
        os._exit(0)
    s.sendall(pattern(1, SIZE))
    s.shutdown(socket.SHUT_WR)
    lines.step()
    say("the end", drained(s))


def left_for_one_side(serves, s, lines):
    """The other direction goes on after one has ended with bytes in its ring."""
    if serves:
        lines.step()
        s.sendall(pattern(2, SIZE))
        say("half", outcome(exactly, s, HAD))
        say("waiting", outcome(lambda: ctypes.c_int.from_buffer(waiting(s)).value))
        say("the rest", drained(s))
        s.sendall(pattern(3, SIZE))
        s.close()
        return
    s.sendall(pattern(1, SIZE))
    s.shutdown(socket.SHUT_WR)
    lines.step()
    say("received", drained(s))


def waiting(s):
    import fcntl
    import termios

    count = bytearray(4)
    fcntl.ioctl(s.fileno(), termios.FIONREAD, count)
    return count


def by_the_dead(on):
    """Killed without having shut down: nobody can put its bytes into the kernel. They can be read."""

    def scene(serves, s, lines):
        if serves:
            lines.step()
            exactly(s, HAD)
            lines.step()
            assert lines.file.readline() == ""
            start = time.monotonic()
            on(s)
            say("in time", time.monotonic() - start < 4)
            read(s)
            return
        s.sendall(pattern(1, SIZE))
        lines.step()
        lines.step()
        os.kill(os.getpid(), signal.SIGKILL)

    return scene


left_killed_unshut_bound = by_the_dead(bound)
left_killed_unshut_spawn = by_the_dead(spawn)
