// WebSockets inside HTTP/2 over TLS (RFC 8441) by Node, client and server, several on one connection at once.
//
//   websocket_http2.mjs KEY CERTIFICATE JOBS     JOBS is JSON
//
// A job is a socket: its path, its traceparent, the number of responses to ask for, and whether its messages are
// compressed with permessage-deflate. Its responses are numbered from the job's `first`.
import crypto from "node:crypto";
import fs from "node:fs";
import http2 from "node:http2";
import zlib from "node:zlib";

const [key, certificate] = process.argv.slice(2, 4).map((file) => fs.readFileSync(file));
const jobs = JSON.parse(process.argv[4]);
const MODEL = "gpt-5";

// A test that hangs fails instead.
setTimeout(() => process.exit(1), 60_000).unref();

// One end of a socket (RFC 6455); `masks` on the client's.
class Side {
  constructor(stream, masks, deflate, received) {
    Object.assign(this, { stream, masks, received, buffer: Buffer.alloc(0), last: Promise.resolve() });
    if (deflate) {
      this.deflate = zlib.createDeflateRaw({ flush: zlib.constants.Z_SYNC_FLUSH });
      this.inflate = zlib.createInflateRaw({ flush: zlib.constants.Z_SYNC_FLUSH });
    }
    stream.on("data", (data) => {
      this.buffer = Buffer.concat([this.buffer, data]);
      this.last = this.last.then(() => this.read());
    });
  }

  // What a coder makes of `data`, with the context of all before it (RFC 7692 section 7.2).
  static through(coder, data) {
    return new Promise((resolve) => {
      const pieces = [];
      const gather = (piece) => pieces.push(piece);
      coder.on("data", gather);
      coder.write(data, () =>
        coder.flush(zlib.constants.Z_SYNC_FLUSH, () => {
          coder.off("data", gather);
          resolve(Buffer.concat(pieces));
        }),
      );
    });
  }

  frame(first, payload) {
    const bit = this.masks ? 128 : 0;
    let head;
    if (payload.length < 126) head = Buffer.from([first, bit | payload.length]);
    else if (payload.length < 65536) {
      head = Buffer.from([first, bit | 126, 0, 0]);
      head.writeUInt16BE(payload.length, 2);
    } else {
      head = Buffer.alloc(10);
      head.set([first, bit | 127]);
      head.writeBigUInt64BE(BigInt(payload.length), 2);
    }
    if (!this.masks) return Buffer.concat([head, payload]);
    const mask = crypto.randomBytes(4);
    return Buffer.concat([head, mask, payload.map((byte, at) => byte ^ mask[at % 4])]);
  }

  async send(event) {
    const text = Buffer.from(JSON.stringify(event));
    const frame = this.deflate
      ? this.frame(0xc1, (await Side.through(this.deflate, text)).subarray(0, -4))
      : this.frame(0x81, text);
    // In pieces, so that a message lies in several DATA frames between those of other streams.
    for (let at = 0; at < frame.length; at += 3000) {
      await new Promise((done) => this.stream.write(frame.subarray(at, at + 3000), done));
      await new Promise(setImmediate);
    }
  }

  end() {
    this.stream.end(this.frame(0x88, Buffer.from([3, 232])));
  }

  async read() {
    for (;;) {
      const { buffer } = this;
      if (buffer.length < 2) return;
      let size = buffer[1] & 127;
      let at = 2;
      if (size === 126) [size, at] = buffer.length < 4 ? [Infinity, 4] : [buffer.readUInt16BE(2), 4];
      else if (size === 127) [size, at] = buffer.length < 10 ? [Infinity, 10] : [Number(buffer.readBigUInt64BE(2)), 10];
      const masked = buffer[1] & 128;
      if (buffer.length < at + (masked ? 4 : 0) + size) return;
      const mask = buffer.subarray(at, at + 4);
      if (masked) at += 4;
      let payload = Buffer.from(buffer.subarray(at, at + size));
      this.buffer = buffer.subarray(at + size);
      if (masked) payload = payload.map((byte, index) => byte ^ mask[index % 4]);
      if ((buffer[0] & 15) === 8) return this.received(null);
      if ((buffer[0] & 15) > 2) continue;
      if (buffer[0] & 64) payload = await Side.through(this.inflate, Buffer.concat([payload, Buffer.from([0, 0, 255, 255])]));
      await this.received(JSON.parse(payload));
    }
  }
}

const realtime = (path) => path.startsWith("/v1/realtime");
const last = (path) => (realtime(path) ? "response.done" : "response.completed");

function serve(stream, headers) {
  const job = jobs[Number(headers["x-job"])];
  const valid = headers[":method"] === "CONNECT" && headers[":protocol"] === "websocket";
  if (!valid) return stream.close(http2.constants.NGHTTP2_REFUSED_STREAM);
  stream.respond({ ":status": 200, ...(job.deflate && { "sec-websocket-extensions": "permessage-deflate" }) });
  let number = job.first;
  const side = new Side(stream, false, job.deflate, async (asked) => {
    if (asked === null) return side.end();
    const id = `resp_${number}`;
    const response = realtime(job.path) ? { id, status: "in_progress" } : { id, model: `${MODEL}-1`, status: "in_progress" };
    await side.send({ type: "response.created", response });
    for (let word = 0; word < 20; word++) {
      await side.send({ type: "response.output_text.delta", response_id: id, output_index: 0, delta: "all work " });
    }
    const usage = { input_tokens: 100 + number, output_tokens: number, total_tokens: 100 + 2 * number };
    await side.send({ type: last(job.path), response: { ...response, status: "completed", output: [], usage } });
    number += 1;
  });
}

function talk(session, job, index) {
  return new Promise((resolve, reject) => {
    const stream = session.request({
      ":method": "CONNECT",
      ":protocol": "websocket",
      ":scheme": "https",
      ":path": job.path,
      ":authority": "api.openai.com",
      "sec-websocket-version": "13",
      "x-job": String(index),
      traceparent: job.traceparent,
      ...(job.deflate && { "sec-websocket-extensions": "permessage-deflate" }),
    });
    stream.on("error", reject);
    stream.on("response", (headers) => {
      if (headers[":status"] !== 200) return reject(new Error(`${job.path}: ${headers[":status"]}`));
      let left = job.count;
      const ask = () => {
        const size = 2000 * (left % 3);
        if (realtime(job.path)) return side.send({ type: "response.create", response: { instructions: "word ".repeat(size) } });
        return side.send({ type: "response.create", model: MODEL, input: "word ".repeat(size) });
      };
      const side = new Side(stream, true, job.deflate, async (event) => {
        if (event === null) return resolve();
        if (event.type !== last(job.path)) return;
        left -= 1;
        if (left > 0) await ask();
        else side.end();
      });
      ask();
    });
  });
}

const server = http2.createSecureServer({ key, cert: certificate, settings: { enableConnectProtocol: true } });
server.on("stream", serve);
server.listen(0, "127.0.0.1", () => {
  const session = http2.connect(`https://127.0.0.1:${server.address().port}`, { rejectUnauthorized: false });
  // RFC 8441 section 3: only once the server has said that it may be asked.
  session.once("remoteSettings", async (settings) => {
    if (!settings.enableConnectProtocol) process.exit(2);
    await Promise.all(jobs.map((job, index) => talk(session, job, index)));
    session.close(() => process.exit(0));
  });
});
