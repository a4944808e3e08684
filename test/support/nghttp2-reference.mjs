// The second opinion of the HTTP/2 fuzzer: Node's own HTTP/2 (nghttp2), run by `node`. Reads connections as hex, one a line, and
// prints what it sent as hex, behind it the error that ended the session. Answers every request that has ended, but for /hold, when all bytes were read.
import { createServer } from "node:http2";
import { createInterface } from "node:readline";
import { Duplex } from "node:stream";

const ignore = () => undefined;
const server = createServer({ settings: { maxConcurrentStreams: 100 } });
server.on("sessionError", ignore);
let opening = { broke: "" };
server.on("session", (session) => {
  const connection = opening;
  session.on("error", (error) => {
    connection.broke = error.code ?? "error";
  });
});
server.on("stream", (stream, headers) => {
  stream.on("error", ignore);
  stream.on("data", ignore);
  stream.on("end", () => {
    if (stream.destroyed || stream.closed || headers[":path"] === "/hold") return;
    try {
      stream.respond({ ":status": 200 }, { sendDate: false });
      stream.end("\0\0\0\0\u0002hi");
    } catch {
      // Destroyed and not yet said so.
    }
  });
});

const turn = () => new Promise(setImmediate);

async function exchange(bytes) {
  // The end of a session may be told of when the next has begun.
  const connection = { broke: "" };
  opening = connection;
  const sent = [];
  const wire = new Duplex({
    read: ignore,
    write(chunk, _encoding, done) {
      sent.push(Buffer.from(chunk));
      done();
    },
  });
  wire.on("error", ignore);
  server.emit("connection", wire);
  wire.push(bytes);
  for (let turns = 0; turns < 6; turns++) await turn();
  wire.destroy();
  return `${Buffer.concat(sent).toString("hex")} ${connection.broke}`;
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${await exchange(Buffer.from(line, "hex"))}\n`);
}
