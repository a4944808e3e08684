// One client of JavaScript, in the runtime that runs this: every kind of RPC with messages of each size. Its argument is JSON:
// { client, socket, descriptors, sizes, over }, `descriptors` the file of the service's FileDescriptorSet, `over` a size that the server
// refuses either way. Prints a line of JSON a call: [kind, size, direction, "ok" or what came instead].
import { readFileSync } from "node:fs";
import { connect as connectHttp2 } from "node:http2";
import { connect } from "node:net";
import { create, createFileRegistry, fromBinary, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import {
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
} from "@connectrpc/connect-node";
import { Client, credentials } from "@grpc/grpc-js";

const { client: name, socket, descriptors, sizes, over } = JSON.parse(process.argv[2] ?? "");
const files = fromBinary(FileDescriptorSetSchema, readFileSync(descriptors));
const [service] = [...createFileRegistry(files)].filter(({ kind }) => kind === "service");
const { input } = service.method.echo;
const encode = (message) => Buffer.from(toBinary(input, create(input, message)));
const decode = (bytes) => fromBinary(input, bytes);

/** A message whose encoding has `size` bytes; of 1 byte there is none, so that is its data. `more` is in it as well. */
function messageOf(size, more = {}) {
  if (size <= 1) return { ...more, data: Buffer.alloc(size, 7) };
  const bytesOf = (length) => encode({ ...more, data: Buffer.alloc(length) }).length;
  return { ...more, data: Buffer.alloc(size - (bytesOf(size) - size), 7) };
}

const KINDS = { unary: "Echo", "client stream": "Gather", "server stream": "Spread", bidi: "Chat" };

/** Of each kind: what is sent for a size, and how many answers come. Streams have two messages each way, but for the largest. */
function callOf(kind, size) {
  const many = size > 1 << 20 ? 1 : 2;
  const message = messageOf(size, kind === "server stream" ? { count: many } : {});
  return {
    messages: Array(kind === "client stream" || kind === "bidi" ? many : 1).fill(message),
    answers: kind === "server stream" || kind === "bidi" ? many : 1,
  };
}

/** By default a session that has 10 MB to send gives up what is sent next, with ENHANCE_YOUR_CALM. */
const PATIENT = { maxSessionMemory: 1000 };

const identity = (bytes) => bytes;

/** A client is a function of kind and messages to the answers, as encoded; it throws an error with `code` and `message`. */
const clients = {
  "@grpc/grpc-js": () => {
    const client = new Client(`unix:${socket}`, credentials.createInsecure(), {
      "grpc.max_receive_message_length": -1,
      "grpc.max_send_message_length": -1,
    });
    const call = (kind, messages) =>
      new Promise((resolve, reject) => {
        const path = `/${service.typeName}/${KINDS[kind]}`;
        const [first] = messages;
        const answers = [];
        const done = (error, answer) => (error === null ? resolve([answer]) : reject(error));
        if (kind === "unary") return client.makeUnaryRequest(path, identity, identity, first, done);
        if (kind === "client stream") {
          const up = client.makeClientStreamRequest(path, identity, identity, done);
          for (const message of messages) up.write(message);
          return up.end();
        }
        const down =
          kind === "bidi"
            ? client.makeBidiStreamRequest(path, identity, identity)
            : client.makeServerStreamRequest(path, identity, identity, first);
        down.on("error", reject);
        down.on("end", () => resolve(answers));
        down.on("data", (answer) => {
          answers.push(answer);
          if (kind !== "bidi") return undefined;
          // Each message is answered before the next is sent.
          return answers.length < messages.length ? down.write(messages[answers.length]) : down.end();
        });
        return kind === "bidi" ? down.write(first) : undefined;
      });
    return { call, close: () => client.close() };
  },

  "node:http2": () => {
    const session = connectHttp2("http://localhost", { createConnection: () => connect(socket), ...PATIENT });
    const call = (kind, messages) =>
      new Promise((resolve, reject) => {
        const headers = { "content-type": "application/grpc", te: "trailers" };
        const stream = session.request({
          ":method": "POST",
          ":path": `/${service.typeName}/${KINDS[kind]}`,
          ...headers,
        });
        const chunks = [];
        const status = {};
        stream.on("response", (fields) => Object.assign(status, fields));
        stream.on("trailers", (fields) => Object.assign(status, fields));
        let received = 0;
        stream.on("data", (chunk) => {
          chunks.push(chunk);
          received += chunk.length;
          if (sent < messages.length && received >= sent * (5 + messages[0].length)) more();
        });
        stream.on("error", reject);
        stream.on("close", () => {
          const [code, message] = [
            Number(status["grpc-status"]),
            decodeURIComponent(status["grpc-message"] ?? ""),
          ];
          if (code === 0) resolve(unframed(Buffer.concat(chunks)));
          else reject(Object.assign(new Error(message), { code }));
        });
        let sent = 0;
        const more = () => {
          stream.write(framed(messages[sent]));
          sent += 1;
          if (sent === messages.length) stream.end();
        };
        more();
        while (kind !== "bidi" && sent < messages.length) more();
      });
    return { call, close: () => session.close() };
  },

  "Connect's gRPC": () => connected(createGrpcTransport, "2"),
  "Connect's gRPC-Web, HTTP/1.1": () => connected(createGrpcWebTransport, "1.1"),
  "Connect's gRPC-Web, HTTP/2": () => connected(createGrpcWebTransport, "2"),
  "Connect, HTTP/1.1": () => connected(createConnectTransport, "1.1"),
  "Connect, HTTP/2": () => connected(createConnectTransport, "2"),
};

function framed(message) {
  const bytes = Buffer.alloc(5 + message.length);
  bytes.writeUInt32BE(message.length, 1);
  bytes.set(message, 5);
  return bytes;
}

function unframed(body) {
  const messages = [];
  for (let at = 0; body.length - at >= 5 && body.length - at >= 5 + body.readUInt32BE(at + 1); ) {
    const end = at + 5 + body.readUInt32BE(at + 1);
    messages.push(body.subarray(at + 5, end));
    at = end;
  }
  return messages;
}

function connected(createTransport, httpVersion) {
  const sessions = [];
  const transport = createTransport({
    baseUrl: "http://localhost",
    httpVersion,
    useBinaryFormat: true,
    nodeOptions:
      httpVersion === "2"
        ? { createConnection: () => sessions[sessions.push(connect(socket)) - 1], ...PATIENT }
        : { socketPath: socket },
  });
  const rpcs = createClient(service, transport);
  const call = async (kind, messages) => {
    const [first] = messages.map(decode);
    const answers = [];
    let answered;
    if (kind === "unary") return [encode(await rpcs.echo(first))];
    if (kind === "client stream") return [encode(await rpcs.gather(requests()))];
    async function* requests() {
      for (const message of messages) {
        const answer = new Promise((resolve) => {
          answered = resolve;
        });
        yield decode(message);
        // HTTP/1.1's clients see no answer before they have sent all.
        if (kind === "bidi" && httpVersion === "2") await answer;
      }
    }
    for await (const answer of kind === "bidi" ? rpcs.chat(requests()) : rpcs.spread(first)) {
      answers.push(encode(answer));
      answered?.();
    }
    return answers;
  };
  return {
    call,
    close: () => {
      for (const session of sessions) session.destroy();
    },
  };
}

const say = (...line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const { call, close } = clients[name]();
const failure = ({ code, rawMessage, details, message }) => `${code}: ${rawMessage ?? details ?? message}`;

for (const kind of Object.keys(KINDS)) {
  for (const size of sizes) {
    const { messages, answers } = callOf(kind, size);
    const outcome = await call(kind, messages.map(encode)).then((got) => {
      if (got.length !== answers) return `${got.length} answers`;
      const wrong = got.find((answer) => !Buffer.from(decode(answer).data).equals(messages[0].data));
      return wrong === undefined ? "ok" : `an answer of ${wrong.length} bytes`;
    }, failure);
    say(kind, size, "both ways", outcome);
  }
  const { messages } = callOf(kind, over);
  say(kind, over, "up", await call(kind, messages.map(encode)).then(() => "answered", failure));
  const request = [encode({ text: "over", count: kind === "server stream" ? 1 : 0 })];
  say(kind, over, "down", await call(kind, request).then(() => "answered", failure));
}
close();
// Connect never ends a request of HTTP/1.1 that was answered while it was sent, which would keep us.
process.stdout.end(() => process.exit(0));
