// Node's own HTTP/2 and grpc-js on it, run by `node`, against a unix socket: what Bun's node:http2 may do otherwise. Prints one line
// of JSON a check.
import { connect as connectHttp2 } from "node:http2";
import { connect } from "node:net";
import { Client, credentials } from "@grpc/grpc-js";

const [socket, service] = process.argv.slice(2);
const say = (name, value) => process.stdout.write(`${JSON.stringify([name, value])}\n`);

/** Field 1, bytes: the conformance service's Payload. */
function payload(size) {
  const bytes = Buffer.alloc(size, 7);
  const length = [];
  for (let rest = size; ; rest >>>= 7) {
    length.push(rest > 127 ? (rest & 127) | 128 : rest);
    if (rest <= 127) break;
  }
  return size === 0 ? Buffer.alloc(0) : Buffer.concat([Buffer.of(10, ...length), bytes]);
}

const identity = (bytes) => bytes;

async function grpcJs() {
  const client = new Client(`unix:${socket}`, credentials.createInsecure(), {
    "grpc.max_receive_message_length": 32 << 20,
    "grpc.max_send_message_length": 32 << 20,
  });
  const collected = await new Promise((resolve) => {
    const call = client.makeClientStreamRequest(`/${service}/Collect`, identity, identity, (error, answer) =>
      resolve(error === null ? answer.toString("latin1").includes(String(64 << 20)) : error.code),
    );
    let left = 64;
    const more = () => {
      while (left > 0) {
        left -= 1;
        if (!call.write(payload(1 << 20))) return call.once("drain", more);
      }
      return call.end();
    };
    more();
  });
  say("64 MiB up", collected);
  const [cancelled, code] = await new Promise((resolve) => {
    const call = client.makeServerStreamRequest(
      `/${service}/Spread`,
      identity,
      identity,
      Buffer.of(16, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1),
    );
    call.on("error", () => undefined);
    call.on("metadata", () => call.cancel());
    call.on("status", (status) => resolve([call.call !== undefined, status.code]));
  });
  say("cancelled", cancelled && code === 1);
  client.close();
}

function request(session, headers, body = Buffer.alloc(0)) {
  return new Promise((resolve, reject) => {
    const stream = session.request({ ":method": "POST", ...headers });
    const chunks = [];
    let status;
    let trailers;
    stream.on("response", (received) => {
      status = received[":status"];
    });
    stream.on("trailers", (received) => {
      trailers = received;
    });
    stream.on("data", (chunk) => chunks.push(chunk));
    stream.on("end", () => resolve({ status, trailers, body: Buffer.concat(chunks) }));
    stream.on("error", reject);
    stream.end(body);
  });
}

async function http2() {
  const session = connectHttp2("http://localhost", { createConnection: () => connect(socket) });
  const grpc = { ":path": `/${service}/Echo`, "content-type": "application/grpc", te: "trailers" };
  const message = payload(1000);
  const framed = Buffer.concat([Buffer.of(0, 0, 0, message.length >> 8, message.length & 255), message]);
  const answers = await Promise.all(Array.from({ length: 200 }, () => request(session, grpc, framed)));
  say(
    "200 at once",
    answers.every(({ body, trailers }) => body.equals(framed) && trailers["grpc-status"] === "0"),
  );
  // The window of open streams changes while they are answered.
  const pending = Promise.all(Array.from({ length: 50 }, () => request(session, grpc, framed)));
  session.settings({ initialWindowSize: 100 });
  session.settings({ initialWindowSize: 1 << 20, headerTableSize: 0 });
  say(
    "settings under way",
    (await pending).every(({ body }) => body.equals(framed)),
  );
  const long = await request(session, { ...grpc, "x-long": "y".repeat(60_000) }, framed);
  say("60 kB of headers", long.body.equals(framed));
  say("ping", await new Promise((resolve) => session.ping((error) => resolve(error === null))));
  const json = { ":path": `/${service}/Echo`, "content-type": "application/json" };
  say("connect", (await request(session, json, Buffer.from('{"text":"hi"}'))).body.toString());
  session.close();
}

await grpcJs();
await http2();
