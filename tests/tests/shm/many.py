"""Many connections, and both ends of some in one process."""

import asyncio
import os
import random
import resource
import select
import socket
import sys
import threading
import time

from common import HOST, LIMIT, SHM, echo_to_end, exactly, listen, say, tier, until


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
