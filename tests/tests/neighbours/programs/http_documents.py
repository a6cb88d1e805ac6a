"""http.server, a thread for each connection: serve ADDRESS PORT ROOT | ask ADDRESS PORT."""

import functools
import hashlib
import http.client
import http.server
import sys
import urllib.request

KEPT = ["/page"] * 1_000 + ["/byte", "/large", "/page"]
OWN = ["/page", "/byte", "/large"] * 5


class Handler(http.server.SimpleHTTPRequestHandler):
    """As it is, but for what keeping a connection takes: else each answer would wait for a delayed acknowledgement."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass


def serve(address, port, root):
    handler = functools.partial(Handler, directory=root)
    http.server.ThreadingHTTPServer((address, port), handler).serve_forever()


def kept(address, port):
    connection = http.client.HTTPConnection(address, port, timeout=20)
    for path in KEPT:
        connection.request("GET", path)
        yield connection.getresponse()


def own(address, port):
    for path in OWN:
        with urllib.request.urlopen(f"http://{address}:{port}{path}", timeout=20) as answer:
            yield answer


def ask(address, port):
    for way in kept, own:
        digest, sizes = hashlib.sha256(), []
        for answer in way(address, port):
            assert answer.status == 200, answer.status
            body = answer.read()
            digest.update(body)
            sizes.append(len(body))
        print(way.__name__, len(sizes), sum(sizes), digest.hexdigest())


if sys.argv[1] == "serve":
    serve(sys.argv[2], int(sys.argv[3]), sys.argv[4])
else:
    ask(sys.argv[2], int(sys.argv[3]))
