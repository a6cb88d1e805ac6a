// node http: serve ADDRESS PORT | ask ADDRESS PORT
'use strict';
const crypto = require('crypto');
const http = require('http');

const REQUESTS = 200;
const UPLOAD = 20_000_000;
const [mode, host, port] = process.argv.slice(2);

function digestOf(stream, done) {
  const digest = crypto.createHash('sha256');
  let length = 0;
  stream.on('data', (piece) => { digest.update(piece); length += piece.length; });
  stream.on('end', () => done({ length, digest: digest.digest('hex') }));
}

function answer(request, response) {
  if (request.url === '/upload') {
    return digestOf(request, (told) => response.end(JSON.stringify(told)));
  }
  const pieces = [];
  request.on('data', (piece) => pieces.push(piece));
  request.on('end', () => {
    const { number, text } = JSON.parse(Buffer.concat(pieces));
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ number: number + 1, text }));
  });
}

function send(agent, path, write) {
  return new Promise((resolve, reject) => {
    const request = http.request({ agent, host, port, path, method: 'POST' }, (response) => {
      const pieces = [];
      response.on('data', (piece) => pieces.push(piece));
      response.on('end', () => resolve(JSON.parse(Buffer.concat(pieces))));
    });
    request.on('error', reject);
    write(request);
  });
}

// The same bytes in every run, no piece of them like another.
function upload(request) {
  let sent = 0;
  const more = () => {
    while (sent < UPLOAD) {
      const piece = crypto.createHash('sha512').update(String(sent)).digest();
      const large = Buffer.alloc(50_000, piece);
      sent += large.length;
      if (!request.write(large)) return request.once('drain', more);
    }
    request.end();
  };
  more();
}

async function ask() {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  const all = crypto.createHash('sha256');
  for (let number = 0; number < REQUESTS; number += 1) {
    const told = await send(agent, '/echo', (request) => {
      request.end(JSON.stringify({ number, text: 'underpass '.repeat(number) }));
    });
    if (told.number !== number + 1) throw new Error(`${number}: ${JSON.stringify(told)}`);
    all.update(told.text);
  }
  console.log('echo', all.digest('hex'));
  console.log('upload', JSON.stringify(await send(agent, '/upload', upload)));
  agent.destroy();
}

if (mode === 'serve') {
  http.createServer(answer).listen(Number(port), host);
} else {
  ask().catch((error) => { console.error(error); process.exit(1); });
}
