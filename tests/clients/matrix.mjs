// One client of the matrix, for Node.js and bun: see matrix.py. The calls of a connection are made in
// turn, connections at once.
import fs from "node:fs";
import https from "node:https";

const [client, file] = process.argv.slice(2);
const plan = JSON.parse(fs.readFileSync(file, "utf8"));
process.env.NODE_TLS_REJECT_UNAUTHORIZED = "0";
const url = (call) => `https://${plan.address}:${plan.port}${call.path}`;
const headers = (call) => ({ ...call.headers, host: call.host });

async function byFetch(call) {
  const own = client === "bun" ? { tls: { rejectUnauthorized: false } } : {};
  const options = { method: "POST", headers: headers(call), body: fs.readFileSync(call.body), ...own };
  const reply = await fetch(url(call), options);
  for await (const _ of reply.body) {
    // Read as it comes.
  }
  return reply.status;
}

function byHttps(agent) {
  return (call) =>
    new Promise((done, failed) => {
      const options = { method: "POST", headers: headers(call), agent, servername: call.host };
      const request = https.request(url(call), options, (reply) => {
        reply.on("data", () => {}).on("end", () => done(reply.statusCode)).on("error", failed);
      });
      request.on("error", failed).end(fs.readFileSync(call.body));
    });
}

// A program of a hundred megabytes is looked into for a moment when it is met for the first time.
await new Promise((done) => setTimeout(done, 3000));
await Promise.all(
  plan.connections.map(async (calls) => {
    const agent = new https.Agent({ keepAlive: true, maxSockets: 1, rejectUnauthorized: false });
    const send = client === "https" ? byHttps(agent) : byFetch;
    for (const call of calls) {
      console.log(JSON.stringify({ id: call.id, status: await send(call) }));
    }
    agent.destroy();
  }),
);
