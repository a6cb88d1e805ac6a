// node net, with half-open ends: serve ADDRESS PORT | ask ADDRESS PORT
'use strict';
const crypto = require('crypto');
const net = require('net');

const FRAMES = 3000;
const LAST_WORDS = 2_000_000;
const [mode, host, port] = process.argv.slice(2);

// Sends back what comes; when the client has ended its direction, sends much more, and only then ends its own.
function echo(socket) {
  let received = 0;
  socket.on('data', (piece) => { received += piece.length; socket.write(piece); });
  socket.on('end', () => {
    socket.write(`received ${received}\n`);
    socket.end(Buffer.alloc(LAST_WORDS, crypto.createHash('sha512').update(String(received)).digest()));
  });
}

// Frames as WebSocket has them: a length, then so many bytes.
function frame(number) {
  const body = crypto.createHash('sha512').update(String(number)).digest();
  const payload = Buffer.alloc((number * 37) % 5000, body);
  const head = Buffer.alloc(4);
  head.writeUInt32BE(payload.length);
  return Buffer.concat([head, payload]);
}

function ask() {
  const socket = net.connect({ host, port: Number(port), allowHalfOpen: true, noDelay: true });
  const digest = crypto.createHash('sha256');
  let [number, expected, came, total] = [0, 0, 0, 0];
  const next = () => {
    if (number === FRAMES) return socket.end();
    const bytes = frame(number);
    number += 1;
    expected += bytes.length;
    socket.write(bytes);
  };
  socket.on('connect', next);
  socket.on('data', (piece) => {
    digest.update(piece);
    came += piece.length;
    total += piece.length;
    if (came === expected && !socket.writableEnded) next();
  });
  socket.on('end', () => console.log('ended by the peer', number, total, digest.digest('hex')));
  socket.on('close', (failed) => console.log('closed', failed));
  socket.on('error', (error) => { console.error(error); process.exitCode = 1; });
}

if (mode === 'serve') {
  net.createServer({ allowHalfOpen: true }, echo).listen(Number(port), host);
} else {
  ask();
}
