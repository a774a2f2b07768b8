// Sends the jobs on stdin over plain HTTP with Node's own client: one connection, kept alive.
import http from "node:http";
import fs from "node:fs";

const plan = JSON.parse(fs.readFileSync(0, "utf8"));
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
for (const job of plan.jobs) {
  await new Promise((resolve, reject) => {
    const request = http.request(
      { host: plan.address, port: plan.port, method: job.method, path: job.path, headers: job.headers, agent },
      (reply) => {
        reply.on("data", () => {});
        reply.on("end", () => resolve(console.log(`${job.id} ${reply.statusCode}`)));
      },
    );
    request.on("error", reject);
    // In pieces, so that Node writes the head and the body with one vectored call.
    request.cork?.();
    request.write(fs.readFileSync(job.body));
    request.end();
  });
}
agent.destroy();
