// One client of the matrix, for Node.js, bun and Deno: see matrix.py. The calls of a connection are made in
// turn, connections at once.
import fs from "node:fs";
import http from "node:http";
import http2 from "node:http2";
import https from "node:https";
import tls from "node:tls";

const [client, file] = process.argv.slice(2);
const plan = JSON.parse(fs.readFileSync(file, "utf8"));
process.env.NODE_TLS_REJECT_UNAUTHORIZED = "0";
const address = (call) => call.address ?? plan.address;
const port = (call) => call.port ?? plan.port;
const origin = (call) => `${plan.ca ? "https" : "http"}://${address(call)}:${port(call)}`;
const headers = (call) => ({ ...call.headers, host: call.host });

// Node's fetch takes no host but that of its URL, so connections to any are made to the peer.
if (client === "fetch") {
  const { connect } = tls;
  const calls = new Map(plan.connections.flat().map((call) => [call.host, call]));
  tls.connect = (options, ...rest) => {
    const call = calls.get(options.servername);
    return connect({ ...options, host: address(call), port: port(call) }, ...rest);
  };
}

// `own` are options that one runtime alone has.
function byFetch(base, own = {}, close = () => {}) {
  const send = async (call) => {
    const options = { method: "POST", headers: headers(call), body: fs.readFileSync(call.body), ...own };
    const reply = await fetch(base(call) + call.path, options);
    for await (const _ of reply.body) {
      // Read as it comes.
    }
    return reply.status;
  };
  return { send, close };
}

function byDeno() {
  const client = Deno.createHttpClient({ allowHost: true });
  return byFetch(origin, { client }, () => client.close());
}

function byAgent(library) {
  const agent = new library.Agent({ keepAlive: true, maxSockets: 1, rejectUnauthorized: false });
  const send = (call) =>
    new Promise((done, failed) => {
      const options = { method: "POST", headers: headers(call), agent, servername: call.host };
      const request = library.request(origin(call) + call.path, options, (reply) => {
        reply.on("data", () => {}).on("end", () => done(reply.statusCode)).on("error", failed);
      });
      request.on("error", failed).end(fs.readFileSync(call.body));
    });
  return { send, close: () => agent.destroy() };
}

function byHttp2(first) {
  const session = http2.connect(origin(first), { rejectUnauthorized: false });
  const send = (call) =>
    new Promise((done, failed) => {
      const fields = { ":method": "POST", ":path": call.path, ":authority": call.host, ...call.headers };
      const stream = session.request(fields);
      let status;
      stream.on("response", (head) => (status = head[":status"]));
      stream.on("data", () => {}).on("end", () => done(status)).on("error", failed);
      stream.end(fs.readFileSync(call.body));
    });
  return { send, close: () => new Promise((done) => session.close(done)) };
}

const clients = {
  bun: () => byFetch(origin, { tls: { rejectUnauthorized: false } }),
  deno: byDeno,
  fetch: () => byFetch((call) => `https://${call.host}`),
  http: () => byAgent(http),
  http2: byHttp2,
  https: () => byAgent(https),
};

await Promise.all(
  plan.connections.map(async (calls) => {
    const { send, close } = clients[client](calls[0]);
    for (const call of calls) {
      console.log(JSON.stringify({ id: call.id, status: await send(call) }));
    }
    await close();
  }),
);
