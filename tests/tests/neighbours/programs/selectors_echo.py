"""Non-blocking sockets and one selector: serve ADDRESS PORT | ask ADDRESS PORT."""

import hashlib
import random
import selectors
import socket
import sys

CONNECTIONS = 10
BYTES = 1_500_000


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class Echo:
    """The server's end of one connection: what has come and not gone back yet."""

    def __init__(self, selector, sock):
        self.selector, self.sock, self.queue, self.ended = selector, sock, b"", False
        sock.setblocking(False)
        selector.register(sock, selectors.EVENT_READ, self)

    def ready(self, mask):
        if mask & selectors.EVENT_READ:
            data = self.sock.recv(65536)
            self.queue += data
            self.ended = not data
        if self.queue:
            try:
                self.queue = self.queue[self.sock.send(self.queue) :]
            except BlockingIOError:
                pass
        self.rearm()

    def rearm(self):
        if self.ended and not self.queue:
            self.selector.unregister(self.sock)
            return self.sock.close()
        # Not more than that is kept for a peer that does not read.
        reads = not self.ended and len(self.queue) < 1 << 20
        wanted = (selectors.EVENT_READ if reads else 0) | (selectors.EVENT_WRITE if self.queue else 0)
        self.selector.modify(self.sock, wanted, self)


def serve(address, port):
    selector = selectors.DefaultSelector()
    listener = socket.create_server((address, port), family=family(address))
    selector.register(listener, selectors.EVENT_READ, None)
    while True:
        for key, mask in selector.select():
            if key.data is None:
                Echo(selector, listener.accept()[0])
            else:
                key.data.ready(mask)


class Talk:
    """The client's end of one connection."""

    def __init__(self, selector, address, port, number):
        self.selector, self.left, self.came = selector, random.Random(number).randbytes(BYTES), 0
        self.sent, self.received = hashlib.sha256(self.left), hashlib.sha256()
        self.sock = socket.socket(family(address))
        self.sock.setblocking(False)
        self.sock.connect_ex((address, port))
        selector.register(self.sock, selectors.EVENT_WRITE, self)

    def ready(self, mask):
        if mask & selectors.EVENT_WRITE:
            self.write()
        if mask & selectors.EVENT_READ:
            data = self.sock.recv(4096)
            self.received.update(data)
            self.came += len(data)
            if not data:
                self.selector.unregister(self.sock)
                self.sock.close()

    def write(self):
        # In pieces of all sizes.
        sent = self.sock.send(self.left[: 1 + len(self.left) % 7001])
        self.left = self.left[sent:]
        if not self.left:
            self.sock.shutdown(socket.SHUT_WR)
        both = selectors.EVENT_READ | selectors.EVENT_WRITE
        self.selector.modify(self.sock, both if self.left else selectors.EVENT_READ, self)


def ask(address, port):
    selector = selectors.DefaultSelector()
    talks = [Talk(selector, address, port, number) for number in range(CONNECTIONS)]
    while selector.get_map():
        events = selector.select(timeout=20)
        assert events, [(talk.came, len(talk.left)) for talk in talks]
        for key, mask in events:
            key.data.ready(mask)
    for talk in talks:
        print(talk.came, talk.received.hexdigest(), talk.received.digest() == talk.sent.digest())


(serve if sys.argv[1] == "serve" else ask)(sys.argv[2], int(sys.argv[3]))
