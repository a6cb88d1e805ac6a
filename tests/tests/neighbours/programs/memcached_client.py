"""memcached's text protocol on one connection: ADDRESS PORT. Prints what it was answered."""

import hashlib
import random
import socket
import sys

SIZES = [1, 2, 100, 1_460, 4_096, 65_536, 300_000, 1_000_000]


class Client:
    def __init__(self, address, port):
        self.sock = socket.create_connection((address, port), timeout=20)
        self.file = self.sock.makefile("rb")

    def line(self, request):
        """Asks; a line of answer."""
        self.sock.sendall(request)
        return self.file.readline().decode().strip()

    def store(self, command, key, value, rest=""):
        return self.line(f"{command} {key} 7 0 {len(value)}{rest}\r\n".encode() + value + b"\r\n")

    def values(self, request):
        """The items of an answer to get or gets: their key, flags, value and what else there is."""
        self.sock.sendall(request)
        while (line := self.file.readline()) != b"END\r\n":
            _, key, flags, length, *rest = line.split()
            value = self.file.read(int(length) + 2)[:-2]
            yield key.decode(), flags.decode(), value, rest


def shown(items):
    return [(key, flags, len(value), hashlib.sha256(value).hexdigest()[:16]) for key, flags, value, _ in items]


def sizes(client):
    source = random.Random(3)
    for size in SIZES:
        print(size, client.store("set", f"size{size}", source.randbytes(size)))
        print(shown(client.values(f"get size{size}\r\n".encode())))
    keys = " ".join(f"size{size}" for size in reversed(SIZES))
    print(shown(client.values(f"get {keys} nobody\r\n".encode())))


def counting(client):
    print(client.store("set", "counter", b"10"), [client.line(b"incr counter 5\r\n") for _ in range(3_000)][-1])
    print(client.line(b"decr counter 1000\r\n"), client.line(b"incr nobody 1\r\n"))


def comparing(client):
    client.store("set", "cas", b"first")
    (item,) = client.values(b"gets cas\r\n")
    unique = item[3][0].decode()
    print(client.store("cas", "cas", b"second", f" {unique}"), client.store("cas", "cas", b"third", f" {unique}"))
    print(client.store("add", "cas", b"fourth"), client.store("append", "cas", b"!"))
    print(shown(client.values(b"get cas\r\n")))


def deleting(client):
    for key in ["cas", "counter", "nobody"] + [f"size{size}" for size in SIZES]:
        print(key, client.line(f"delete {key}\r\n".encode()), shown(client.values(f"get {key}\r\n".encode())))


def together(client):
    """Many requests in one piece, many answers to them."""
    values = [str(number).encode() * number for number in range(500)]
    requests = [b"set many%d 0 0 %d\r\n%s\r\n" % (number, len(value), value) for number, value in enumerate(values)]
    client.sock.sendall(b"".join(requests))
    print({client.file.readline() for _ in values})
    items = client.values(b"get " + b" ".join(b"many%d" % number for number in range(500)) + b"\r\n")
    print([value for _, _, value, _ in items] == values)


def refusals(client):
    print(client.line(b"nonsense\r\n"), client.store("set", "k" * 251, b"").split()[0])


client = Client(sys.argv[1], int(sys.argv[2]))
for part in sizes, counting, comparing, deleting, together, refusals:
    print(part.__name__)
    part(client)
