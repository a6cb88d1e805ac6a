//! http.server, urllib, http.client and asyncio.

use underpass_lab::Side;

use crate::documents::documents;
use crate::{AUTO, EAGER, lab, on_lane, same_outcome};

/// Has a Python client talk to a Python server; what the client prints is the outcome. In the arguments of both `ADDRESS` and
/// `ROOT` stand for the server's address and for its documents.
fn python(promote: &'static str, port: u16, server: &[&'static str], client: &[&'static str]) {
    let lab = lab();
    let root = documents(&lab);
    same_outcome(&lab, promote, |run| {
        let address = run.address();
        let meant = |word| match word {
            "ADDRESS" => address.as_str(),
            "ROOT" => root.as_str(),
            other => other,
        };
        let words = |given: &[&'static str]| -> Vec<&str> {
            ["python3"].into_iter().chain(given.iter().map(|&word| meant(word))).collect()
        };
        let server = run.serve(&words(server), port);
        let mut client = run.spawn(Side::Client, &words(client));
        run.watch(server.pid(), &mut client, on_lane);
        let said = run.finish(&mut client);
        assert!(!said.trim().is_empty(), "{:?}: {}", run.preload, client.stderr());
        said
    });
}

/// A connection for each request, as urllib has it.
const URLLIB: &str = "
import hashlib, sys, urllib.request
digest, sizes = hashlib.sha256(), []
for number in range(40):
    for name in ('small', 'empty', 'large'):
        with urllib.request.urlopen(f'http://{sys.argv[1]}:8081/{name}', timeout=20) as answer:
            assert answer.status == 200, answer.status
            body = answer.read()
        digest.update(body)
        sizes.append(len(body))
print(len(sizes), sum(sizes), digest.hexdigest())
";

#[test]
fn python_http_server_and_urllib() {
    let server = ["-m", "http.server", "8081", "--bind", "ADDRESS", "--directory", "ROOT"];
    python(EAGER, 8081, &server, &["-c", URLLIB, "ADDRESS"]);
}

/// http.server as it is, but for what keeping a connection takes: without the second setting each answer would wait for a
/// delayed acknowledgement.
const KEEP: &str = "
import functools, http.server, sys
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[2])
handler.func.protocol_version = 'HTTP/1.1'
handler.func.disable_nagle_algorithm = True
http.server.ThreadingHTTPServer((sys.argv[1], 8081), handler).serve_forever()
";

const KEPT: &str = "
import hashlib, http.client, sys
digest, sizes = hashlib.sha256(), []
connection = http.client.HTTPConnection(sys.argv[1], 8081, timeout=20)
for name in ['/small'] * 2000 + ['/large', '/empty', '/small']:
    connection.request('GET', name)
    answer = connection.getresponse()
    assert answer.status == 200, answer.status
    body = answer.read()
    digest.update(body)
    sizes.append(len(body))
print(len(sizes), sum(sizes), digest.hexdigest())
";

#[test]
fn python_http_server_and_client_on_a_kept_connection() {
    python(AUTO, 8081, &["-c", KEEP, "ADDRESS", "ROOT"], &["-c", KEPT, "ADDRESS"]);
}

const ASYNC: &str = "
import asyncio, hashlib, sys
async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
async def serve():
    server = await asyncio.start_server(echo, sys.argv[2], 8082)
    async with server:
        await server.serve_forever()
async def talk(number):
    reader, writer = await asyncio.open_connection(sys.argv[2], 8082)
    digest = hashlib.sha256()
    for size in (list(range(1, 100)) + [100000]) * 10:
        data = bytes([number]) * size
        writer.write(data)
        back = await reader.readexactly(size)
        assert back == data
        digest.update(back)
    writer.write_eof()
    assert await reader.read() == b''
    writer.close()
    await writer.wait_closed()
    return digest.hexdigest()
async def ask():
    print(*await asyncio.gather(*[talk(number) for number in range(10)]))
asyncio.run(serve() if sys.argv[1] == 'serve' else ask())
";

#[test]
fn python_asyncio() {
    python(AUTO, 8082, &["-c", ASYNC, "serve", "ADDRESS"], &["-c", ASYNC, "ask", "ADDRESS"]);
}
