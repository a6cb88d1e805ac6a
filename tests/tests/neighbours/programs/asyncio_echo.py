"""asyncio streams: serve ADDRESS PORT | ask ADDRESS PORT | both ADDRESS PORT (server and client in one event loop)."""

import asyncio
import hashlib
import random
import sys

MESSAGES = 2_000
BULK = 10_000_000


async def echo(reader, writer):
    """Sends back what comes; after the end of that, what it was."""
    total, digest = 0, hashlib.sha256()
    while data := await reader.read(65536):
        total += len(data)
        digest.update(data)
        writer.write(data)
        await writer.drain()
    writer.write(f"{total} {digest.hexdigest()}\n".encode())
    writer.close()
    await writer.wait_closed()


async def finish(reader, writer):
    """Half-closes; the server's last words."""
    writer.write_eof()
    said = await reader.read()
    writer.close()
    await writer.wait_closed()
    return said.decode().strip()


async def messages(address, port):
    reader, writer = await asyncio.open_connection(address, port)
    source = random.Random(1)
    for number in range(MESSAGES):
        data = source.randbytes(1 + number % 200)
        writer.write(data)
        await writer.drain()
        assert await reader.readexactly(len(data)) == data, number
    return await finish(reader, writer)


async def bulk(address, port):
    reader, writer = await asyncio.open_connection(address, port)
    data = random.Random(2).randbytes(BULK)

    async def send():
        for at in range(0, BULK, 50_000):
            writer.write(data[at : at + 50_000])
            await writer.drain()

    sending = asyncio.create_task(send())
    back = await reader.readexactly(BULK)
    await sending
    assert back == data
    return await finish(reader, writer)


async def at_once_closed(address, port):
    reader, writer = await asyncio.open_connection(address, port)
    return await finish(reader, writer)


async def ask(address, port):
    for talk in messages, bulk, at_once_closed:
        print(talk.__name__, await talk(address, port))


async def main(mode, address, port):
    if mode == "ask":
        return await ask(address, port)
    server = await asyncio.start_server(echo, address, port)
    async with server:
        await (ask(address, port) if mode == "both" else server.serve_forever())


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
