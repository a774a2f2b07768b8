// HTTP/2 by Node, whose OpenSSL is a part of its program: a server and a client that replay a plan.
//
//   http2.mjs serve PLAN CERT KEY     prints its port, answers until stdin ends
//   http2.mjs send PLAN CERT PORT     waits for a line on stdin before each phase, prints "done" after it
//
// With - for CERT there is no TLS, and HTTP/2 by prior knowledge.
//
// A plan is lines of JSON, one an exchange: its request and its response with bodies as base64, the
// sizes of the pieces that they are written in, the connection and the phase that it belongs to.
import fs from "node:fs";
import http2 from "node:http2";
import readline from "node:readline";

const [mode, planFile, cert, last] = process.argv.slice(2);
const plan = fs.readFileSync(planFile, "utf8").trim().split("\n").map((line) => JSON.parse(line));

// A test that hangs fails instead.
setTimeout(() => process.exit(1), 120_000).unref();

// Connections differ in what the peers agree on: the size of the header table and of frames.
const settings = (connection) =>
  [{}, { headerTableSize: 0 }, { headerTableSize: 256 }, { headerTableSize: 65536, maxFrameSize: 65536 }][connection % 4];

function fields(list) {
  const headers = {};
  for (const [name, value] of list) {
    const lower = name.toLowerCase();
    headers[lower] = lower in headers ? [].concat(headers[lower], value) : value;
  }
  return headers;
}

// A turn of the event loop lies between pieces, so that streams interleave.
async function write(stream, message) {
  const body = Buffer.from(message.body, "base64");
  let at = 0;
  for (const size of message.pieces) {
    if (stream.destroyed) return;
    const piece = body.subarray(at, at + size);
    await new Promise((done) => stream.once("close", done).write(piece, done));
    at += size;
    await new Promise(setImmediate);
  }
  stream.end(body.subarray(at));
}

// Of fields that may stand once only, Node takes no list; a recording may have them twice.
function single(headers) {
  for (const name of ["date", "server", "content-type", "x-request-id", "request-id", "age", "etag", "expires"]) {
    if (Array.isArray(headers[name])) headers[name] = headers[name][0];
  }
  return headers;
}

function answer(stream, headers) {
  const exchange = plan[Number(headers["x-replay-id"])];
  stream.on("error", () => {});
  let bytes = 0;
  stream.on("data", (data) => (bytes += data.length));
  stream.on("end", async () => {
    // A client that loses its body gets no answer, and fails by it.
    if (bytes !== Buffer.byteLength(exchange.request.body, "base64")) return stream.close(2);
    const { response } = exchange;
    if (response.interim) stream.additionalHeaders({ ":status": 103, link: "</style.css>; rel=preload" });
    stream.respond(
      { ":status": response.status, ...single(fields(response.fields)) },
      { waitForTrailers: response.trailers },
    );
    stream.on("wantTrailers", () => stream.sendTrailers({ "x-checksum": "0000" }));
    await write(stream, response);
  });
}

function serve() {
  const options = { maxSessionMemory: 200, settings: { maxConcurrentStreams: 200, headerTableSize: 4096 } };
  const server =
    cert === "-"
      ? http2.createServer(options)
      : http2.createSecureServer({ ...options, cert: fs.readFileSync(cert), key: fs.readFileSync(last) });
  server.on("stream", answer);
  server.listen(0, "127.0.0.1", () => console.log(server.address().port));
  process.stdin.resume().on("end", () => process.exit(0));
}

function send(session, exchange) {
  const { request } = exchange;
  return new Promise((resolve, reject) => {
    const stream = session.request({
      ":method": request.method,
      ":path": request.path,
      ":authority": request.authority,
      ...single(fields(request.fields)),
    });
    let bytes = 0;
    let status;
    stream.on("response", (headers) => (status = headers[":status"]));
    stream.on("data", (data) => (bytes += data.length));
    stream.on("error", reject);
    stream.on("close", () => {
      const expected = exchange.response;
      if (status === expected.status && bytes === Buffer.byteLength(expected.body, "base64")) resolve();
      else reject(new Error(`${exchange.id}: status ${status}, ${bytes} bytes`));
    });
    write(stream, request).catch(reject);
  });
}

async function phase(sessions, number, concurrent) {
  const queues = new Map();
  for (const exchange of plan.filter((exchange) => exchange.phase === number)) {
    if (!queues.has(exchange.connection)) queues.set(exchange.connection, []);
    queues.get(exchange.connection).push(exchange);
  }
  await Promise.all(
    [...queues].flatMap(([connection, queue]) => {
      if (!sessions.has(connection)) {
        sessions.set(
          connection,
          cert === "-"
            ? http2.connect(`http://127.0.0.1:${last}`, { settings: settings(connection) })
            : http2.connect(`https://127.0.0.1:${last}`, {
                ca: fs.readFileSync(cert),
                servername: "localhost",
                settings: settings(connection),
              }),
        );
      }
      const session = sessions.get(connection);
      return Array.from({ length: concurrent }, async () => {
        for (let exchange; (exchange = queue.shift()); ) await send(session, exchange);
      });
    }),
  );
}

async function sendAll() {
  const sessions = new Map();
  const phases = 1 + Math.max(...plan.map((exchange) => exchange.phase));
  const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  console.log("waiting");
  for (let number = 0; number < phases; number++) {
    await lines.next();
    await phase(sessions, number, 16);
    if (number + 1 === phases) await Promise.all([...sessions.values()].map((session) => new Promise((done) => session.close(done))));
    console.log("done");
  }
  process.exit(0);
}

if (mode === "serve") serve();
else sendAll();
