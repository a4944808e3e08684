/** gRPC's rules on the wire: what is sent when, and what bad input gets. Sources: PROTOCOL-HTTP2.md, grpc-go's behaviour. */
import { describe, expect, test } from "bun:test";
import { gunzipSync, gzipSync } from "node:zlib";
import { fromBinary } from "@bufbuild/protobuf";
import { anyUnpack, StringValueSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, type HandlerContext } from "@connectrpc/connect";
import { StatusSchema } from "#gen/google/rpc/status_pb.ts";
import { BunkerdError, fail } from "../../../src/model/errors.ts";
import { answerOf, connectWire, envelope, messagesOf, statusOf } from "./client.ts";
import { ENGINES, startServer } from "./server.ts";
import { aborted, decodePayload, encodePayload, pathOf } from "./service.ts";

const MIB = 1 << 20;
const ECHO = pathOf("Echo");
const empty = envelope(new Uint8Array(0));

for (const [name, engine] of ENGINES) {
  describe(`${name}: answers`, () => {
    test("a unary answer has headers, one message and trailers", async () => {
      await using server = await startServer(engine);
      await using client = connectWire(server.path);
      for (const rpc of ["Echo", "EchoEncoded"]) {
        const answer = await client.call(pathOf(rpc), envelope(encodePayload({ count: 7 })));
        expect(answer.headers).toMatchObject({ ":status": 200, "content-type": "application/grpc" });
        expect(answer.headers["grpc-encoding"]).toBeUndefined();
        expect(messagesOf(answer.body).map(decodePayload)).toMatchObject([{ count: 7 }]);
        expect(answer.trailers["grpc-status"]).toBe("0");
      }
      expect(server.observed.map(({ method, code, protocol }) => [method, code, protocol])).toEqual([
        ["Echo", "OK", "grpc"],
        ["EchoEncoded", "OK", "grpc"],
      ]);
    });

    test("a stream's headers leave before its first message", async () => {
      await using server = await startServer(engine);
      await using client = connectWire(server.path);
      for (const rpc of ["Spread", "Chat"]) {
        const stream = client.open(pathOf(rpc));
        if (rpc === "Spread") stream.end(envelope(encodePayload({ count: -1 })));
        const headers = await new Promise<Record<string, unknown>>((resolve) =>
          stream.on("response", resolve),
        );
        expect(headers["content-type"]).toBe("application/grpc");
        stream.close(8);
        await answerOf(stream);
      }
    });

    test("a stream that fails at once answers trailers only", async () => {
      const refuse = () => Promise.reject(fail("InvalidArgument", "no"));
      await using server = await startServer(engine, { behaviours: { refuse } });
      await using client = connectWire(server.path);
      const answer = await client.call(pathOf("Spread"), envelope(encodePayload({ text: "refuse" })));
      expect(answer.headers).toMatchObject({ "grpc-status": "3", "content-type": "application/grpc" });
      expect(answer.trailers).toEqual({});
    });

    test("headers and trailers that a handler sets are sent, with binary ones", async () => {
      const decorate = (_: unknown, context: HandlerContext): void => {
        context.responseHeader.set("x-head", context.requestHeader.get("x-ask") ?? "");
        context.responseTrailer.set("x-tail-bin", context.requestHeader.get("x-ask-bin") ?? "");
      };
      await using server = await startServer(engine, { behaviours: { decorate } });
      await using client = connectWire(server.path);
      const headers = { "x-ask": "hello", "x-ask-bin": "AAECAw" };
      for (const rpc of ["Echo", "Spread", "Collect", "Chat"]) {
        const body = envelope(encodePayload({ text: "decorate", count: 1 }));
        const answer = await client.call(pathOf(rpc), body, headers);
        expect(statusOf(answer)).toEqual({ status: 0, message: "" });
        if (rpc === "Echo" || rpc === "Collect") expect(answer.headers["x-head"]).toBe("hello");
        expect(answer.trailers["x-tail-bin"]).toBe("AAECAw");
      }
    });

    test("request headers read like any Headers", async () => {
      const found: unknown[] = [];
      const look = (_: unknown, { requestHeader }: HandlerContext): void => {
        found.push(requestHeader.get("TE"), requestHeader.get("x-two"), requestHeader.has("x-none"));
        found.push(requestHeader.get("user-agent"), new Headers(requestHeader).get("x-two"));
        found.push([...requestHeader.keys()].includes("content-type"));
      };
      await using server = await startServer(engine, { behaviours: { look } });
      await using client = connectWire(server.path);
      const headers = { "x-two": "a, b", "user-agent": "test/1" };
      await client.call(ECHO, envelope(encodePayload({ text: "look" })), headers);
      expect(found).toEqual(["trailers", "a, b", false, "test/1", "a, b", true]);
    });

    test("an error's message is percent-encoded and its details travel", async () => {
      const message = 'container "é" 100%\n';
      const behaviours = {
        plain: () => Promise.reject(fail("NotFound", message)),
        detailed: () => {
          const detail = { desc: StringValueSchema, value: { value: "why" } };
          throw new ConnectError("no", Code.Aborted, { "x-hint": "later" }, [detail]);
        },
        huge: () => Promise.reject(new BunkerdError("InvalidArgument", "x".repeat(2 * MIB))),
      };
      await using server = await startServer(engine, { behaviours });
      await using client = connectWire(server.path);
      const plain = await client.call(ECHO, envelope(encodePayload({ text: "plain" })));
      expect(plain.headers["grpc-message"]).toBe('container "%C3%A9" 100%25%0A: not found');
      expect(statusOf(plain)).toEqual({ status: 5, message: `${message}: not found` });
      const detailed = await client.call(ECHO, envelope(encodePayload({ text: "detailed" })));
      const bytes = Buffer.from(String(detailed.headers["grpc-status-details-bin"]), "base64");
      const { code, message: text, details } = fromBinary(StatusSchema, bytes);
      expect({ code, text }).toEqual({ code: 10, text: "no" });
      expect(details.map((detail) => anyUnpack(detail, StringValueSchema)?.value)).toEqual(["why"]);
      expect(detailed.headers["x-hint"]).toBe("later");
      const huge = await client.call(ECHO, envelope(encodePayload({ text: "huge" })));
      expect(statusOf(huge).status).toBe(3);
      expect(statusOf(huge).message.length).toBe(8192);
    });

    test("an error that nobody expected is Unknown and logged once with its stack", async () => {
      const behaviours = { bug: () => Promise.reject(new TypeError("undefined is not a function")) };
      await using server = await startServer(engine, { behaviours });
      await using client = connectWire(server.path);
      const answer = await client.call(ECHO, envelope(encodePayload({ text: "bug" })));
      expect(statusOf(answer)).toEqual({ status: 2, message: "undefined is not a function" });
      const [logged, ...others] = server.errors.splice(0);
      expect(others).toEqual([]);
      expect(logged?.fields).toMatchObject({ method: "Echo", error: expect.any(TypeError) });
    });
  });

  describe(`${name}: bad input`, () => {
    test("unknown paths are Unimplemented, in grpc-go's words", async () => {
      await using server = await startServer(engine);
      await using client = connectWire(server.path);
      const cases: [string, string][] = [
        ["/no.Such/Call", "unknown service no.Such"],
        [pathOf("Nothing"), "unknown method Nothing for service bunkerd.conformance.v1.Conformance"],
        [pathOf("Missing"), "unknown method Missing for service bunkerd.conformance.v1.Conformance"],
        [`${ECHO}?x=1`, "unknown method Echo?x=1 for service bunkerd.conformance.v1.Conformance"],
        ["/a%2fb", 'malformed method name: "/a%2fb"'],
        ["/%zz/%", "unknown service %zz"],
        ["/", 'malformed method name: "/"'],
      ];
      for (const [path, message] of cases) {
        const answer = await client.call(path, empty);
        expect(statusOf(answer)).toEqual({ status: 12, message });
        expect(answer.headers[":status"]).toBe(200);
      }
      expect(server.observed.every(({ service, code }) => service === "" && code === "Unimplemented")).toBe(
        true,
      );
    });

    test("a method other than POST is 405", async () => {
      await using server = await startServer(engine);
      await using client = connectWire(server.path);
      for (const method of ["GET", "PUT"]) {
        const stream = client.open(ECHO, { ":method": method });
        stream.end();
        const answer = await answerOf(stream);
        expect(answer.headers[":status"]).toBe(405);
        const message = `Received a HEADERS frame with :method "${method}" which should be POST`;
        expect(statusOf(answer)).toEqual({ status: 13, message });
      }
    });

    test("a content-type that is no gRPC is 415", async () => {
      await using server = await startServer(engine);
      await using client = connectWire(server.path);
      for (const type of ["text/plain", "application/grpcx", undefined]) {
        const answer = await client.call(ECHO, empty, { "content-type": type });
        expect(answer.headers[":status"], String(type)).toBe(415);
      }
    });

    test("a malformed timeout is 400 and Internal, one of zero has passed", async () => {
      await using server = await startServer(engine);
      await using client = connectWire(server.path);
      const malformed = await client.call(ECHO, empty, { "grpc-timeout": "1x" });
      expect(malformed.headers[":status"]).toBe(400);
      expect(statusOf(malformed)).toEqual({
        status: 13,
        message: 'malformed grpc-timeout: transport: timeout unit is not recognized: "1x"',
      });
      const passed = await client.call(ECHO, empty, { "grpc-timeout": "0n" });
      expect(statusOf(passed)).toEqual({ status: 4, message: "context deadline exceeded" });
      const far = await client.call(ECHO, empty, { "grpc-timeout": "99999999H" });
      expect(statusOf(far).status).toBe(0);
    });

    test("truncated bodies, missing and surplus messages are Internal", async () => {
      await using server = await startServer(engine);
      await using client = connectWire(server.path);
      const whole = envelope(encodePayload({ count: 3, data: new Uint8Array(50) }));
      for (const rpc of ["Echo", "Spread", "Collect", "Chat"]) {
        for (const length of [1, 4, 5, 20, whole.length - 1]) {
          const answer = await client.call(pathOf(rpc), whole.subarray(0, length));
          expect(statusOf(answer), `${rpc} ${length}`).toEqual({ status: 13, message: "unexpected EOF" });
        }
      }
      for (const rpc of ["Echo", "Spread"]) {
        const answer = await client.call(pathOf(rpc), new Uint8Array(0));
        expect(statusOf(answer).message).toStartWith("cardinality violation: received no request message");
        expect(statusOf(answer).status).toBe(13);
      }
      const surplus = await client.call(pathOf("Spread"), Buffer.concat([whole, whole]));
      expect(statusOf(surplus).message).toStartWith("cardinality violation: expected <EOF>");
      expect(statusOf(surplus).status).toBe(13);
    });

    test("messages that are no protobuf are Internal", async () => {
      await using server = await startServer(engine);
      await using client = connectWire(server.path);
      const broken = [[0xff], [0x0a, 5, 1], [0x1a, 1, 0xff], [0x0c]];
      for (const bytes of broken) {
        const unary = statusOf(await client.call(ECHO, envelope(Uint8Array.from(bytes))));
        expect(unary.status).toBe(13);
        expect(unary.message).toStartWith("grpc: error unmarshalling request: ");
        for (const rpc of ["Spread", "Collect", "Chat"]) {
          const streaming = statusOf(await client.call(pathOf(rpc), envelope(Uint8Array.from(bytes))));
          expect(streaming.status).toBe(13);
          expect(streaming.message).toStartWith("grpc: failed to unmarshal the received message: ");
        }
      }
    });

    test("a message over the limit is refused at its prefix, both ways", async () => {
      const large = (request: { data: Uint8Array; text: string }): void => {
        request.text = "x".repeat(16 * MIB);
      };
      await using server = await startServer(engine, { behaviours: { large } });
      await using client = connectWire(server.path);
      for (const rpc of ["Echo", "Spread", "Collect", "Chat"]) {
        const lying = envelope(new Uint8Array(10), 0, 16 * MIB + 1);
        const stream = client.open(pathOf(rpc));
        stream.write(lying);
        // No END_STREAM: the answer must not wait for it.
        const answer = await answerOf(stream);
        const message = "grpc: received message larger than max (16777217 vs. 16777216)";
        expect(statusOf(answer), rpc).toEqual({ status: 8, message });
        const sent = await client.call(pathOf(rpc), envelope(encodePayload({ text: "large", count: 1 })));
        if (rpc === "Echo" || rpc === "Chat") {
          expect(statusOf(sent).status).toBe(8);
          expect(statusOf(sent).message).toStartWith("grpc: trying to send message larger than max (167772");
        }
      }
    });

    test("an encoding that is not known is Unimplemented and says which are", async () => {
      await using server = await startServer(engine);
      await using client = connectWire(server.path);
      const answer = await client.call(ECHO, empty, { "grpc-encoding": "zstd" });
      expect(statusOf(answer)).toEqual({
        status: 12,
        message: 'grpc: Decompressor is not installed for grpc-encoding "zstd"',
      });
      expect(answer.headers["grpc-accept-encoding"]).toBe("identity,gzip");
    });

    test("a compressed flag needs an encoding, and bytes that inflate within the limit", async () => {
      await using server = await startServer(engine, { limits: { maxReceiveBytes: MIB } });
      await using client = connectWire(server.path);
      const gzip = { "grpc-encoding": "gzip" };
      const bomb = gzipSync(Buffer.alloc(200 * MIB));
      for (const rpc of ["Echo", "Spread", "Collect", "Chat"]) {
        const unannounced = await client.call(pathOf(rpc), envelope(gzipSync(encodePayload({})), 1));
        expect(statusOf(unannounced)).toEqual({
          status: 13,
          message: "grpc: compressed flag set with identity or empty encoding",
        });
        const garbage = await client.call(pathOf(rpc), envelope(Buffer.from("no gzip"), 1), gzip);
        expect(statusOf(garbage).status).toBe(13);
        expect(statusOf(garbage).message).toStartWith("grpc: failed to read decompressed data: ");
        const flags = await client.call(pathOf(rpc), envelope(encodePayload({}), 3));
        expect(statusOf(flags)).toEqual({
          status: 13,
          message: "grpc: received unexpected payload format 3",
        });
        const exploded = await client.call(pathOf(rpc), envelope(bomb, 1), gzip);
        expect(statusOf(exploded)).toEqual({
          status: 8,
          message: "grpc: received message after decompression larger than max 1048576",
        });
      }
    });
  });

  describe(`${name}: compression`, () => {
    test("gzip is read, and answered only to who asks and where it is worth it", async () => {
      await using server = await startServer(engine);
      await using client = connectWire(server.path);
      const payload = encodePayload({ data: Buffer.alloc(100_000, "bunkerd "), count: 2 });
      const asked = { "grpc-encoding": "gzip", "grpc-accept-encoding": "identity,deflate,gzip" };
      for (const rpc of ["Echo", "Spread", "Chat"]) {
        const body = envelope(gzipSync(payload), 1);
        const plain = await client.call(pathOf(rpc), body, { "grpc-encoding": "gzip" });
        expect(plain.headers["grpc-encoding"]).toBeUndefined();
        expect(plain.body[0]).toBe(0);
        expect(statusOf(plain).status).toBe(0);
        const small = await client.call(pathOf(rpc), body, asked);
        expect(small.headers["grpc-encoding"]).toBe("gzip");
        expect(small.body[0]).toBe(1);
        expect(small.body.length).toBeLessThan(10_000);
        const [first] = messagesOf(small.body);
        expect(decodePayload(gunzipSync(first ?? empty)).data.length).toBe(100_000);
        const tiny = await client.call(pathOf(rpc), envelope(encodePayload({ count: 1 })), asked);
        expect(tiny.body[0]).toBe(0);
      }
      const collected = await client.call(pathOf("Collect"), envelope(gzipSync(payload), 1), asked);
      expect(messagesOf(collected.body).map(decodePayload)).toMatchObject([{ count: 1, text: "100000" }]);
    });
  });

  describe(`${name}: life of a call`, () => {
    test("a client that resets aborts the signal and leaves no generator behind", async () => {
      const hang = (_: unknown, { signal }: HandlerContext) => aborted(signal);
      await using server = await startServer(engine, { behaviours: { hang } });
      await using client = connectWire(server.path);
      for (const rpc of ["Echo", "Spread", "Collect", "Chat"]) {
        const stream = client.open(pathOf(rpc));
        stream.write(envelope(encodePayload({ text: "hang" })));
        if (rpc === "Spread") stream.end();
        await server.seen.entered(rpc);
        const left = server.seen.left();
        stream.close(8);
        await left;
        expect(server.seen.running).toBe(0);
        const context = server.seen.contexts.at(-1);
        expect(context?.signal.aborted).toBe(true);
        expect(context?.signal.reason).toMatchObject({ code: "Canceled", message: "context canceled" });
      }
      expect(server.observed.map(({ code }) => code)).toEqual(Array(4).fill("Canceled"));
    });

    test("a connection that breaks cancels all its calls", async () => {
      await using server = await startServer(engine);
      const client = connectWire(server.path);
      for (let at = 0; at < 10; at++) client.open(pathOf("Chat"));
      for (let at = 0; at < 10; at++)
        client.open(pathOf("Spread")).end(envelope(encodePayload({ count: -1 })));
      while (server.seen.running < 20) await server.seen.entered("");
      client.session.destroy();
      while (server.seen.running > 0) await server.seen.left();
      expect(server.observed.map(({ code }) => code)).toEqual(Array(20).fill("Canceled"));
    });

    test("a deadline aborts the signal and answers DeadlineExceeded", async () => {
      const hang = (_: unknown, { signal }: HandlerContext) => aborted(signal);
      const deaf = () => new Promise<void>((resolve) => setTimeout(resolve, 100));
      await using server = await startServer(engine, { behaviours: { hang, deaf } });
      await using client = connectWire(server.path);
      for (const text of ["hang", "deaf"]) {
        for (const rpc of ["Echo", "Spread", "Collect", "Chat"]) {
          const body = envelope(encodePayload({ text }));
          const answer = await client.call(pathOf(rpc), body, { "grpc-timeout": "20m" });
          expect(statusOf(answer)).toEqual({ status: 4, message: "context deadline exceeded" });
          const context = server.seen.contexts.at(-1);
          expect(context?.signal.reason).toMatchObject({ code: "DeadlineExceeded" });
          expect(context?.timeoutMs()).toBeLessThanOrEqual(0);
        }
      }
      while (server.seen.running > 0) await server.seen.left();
      expect(server.observed.every(({ code }) => code === "DeadlineExceeded")).toBe(true);
    });

    test("a call that has ended aborts its signal, and has none of its timers left", async () => {
      await using server = await startServer(engine);
      await using client = connectWire(server.path);
      await client.call(ECHO, empty, { "grpc-timeout": "1H" });
      const context = server.seen.contexts[0];
      expect(context?.signal.aborted).toBe(true);
      expect(context?.timeoutMs()).toBeGreaterThan(3_590_000);
      expect(context?.values).toBeDefined();
      expect(context).toMatchObject({ protocolName: "grpc", requestMethod: "POST" });
      expect(context?.service.typeName).toBe("bunkerd.conformance.v1.Conformance");
    });

    test("half-closed streams: an early answer does not wait for the client, a late one for nobody", async () => {
      const early = () => Promise.reject(fail("FailedPrecondition", "enough"));
      await using server = await startServer(engine, { behaviours: { early } });
      await using client = connectWire(server.path);
      const stream = client.open(pathOf("Collect"));
      stream.write(envelope(encodePayload({ text: "early" })));
      const answer = await answerOf(stream);
      expect(statusOf(answer)).toEqual({ status: 9, message: "enough: failed precondition" });
      expect(answer.reset).toBe(0);
      const idle = client.open(pathOf("Collect"));
      idle.end();
      expect(statusOf(await answerOf(idle)).status).toBe(0);
    });
  });

  describe(`${name}: back-pressure`, () => {
    test("a producer stops when the client reads nothing", async () => {
      await using server = await startServer(engine);
      await using client = connectWire(server.path);
      const data = new Uint8Array(64 << 10);
      const stream = client.open(pathOf("Spread"));
      stream.pause();
      stream.end(envelope(encodePayload({ data, count: 2000 })));
      await server.seen.entered("Spread");
      await settled(() => server.seen.yielded);
      // 125 MiB are wanted; the send limit, one message and the client's windows are what may be under way.
      expect(server.seen.yielded).toBeLessThan(200);
      const answered = answerOf(stream);
      stream.resume();
      expect(messagesOf((await answered).body)).toHaveLength(2000);
      expect(server.seen.yielded).toBe(2000);
    }, 30_000);

    test("a client stops when the handler reads nothing", async () => {
      let go: () => void = () => undefined;
      const waiting = new Promise<void>((resolve) => {
        go = resolve;
      });
      await using server = await startServer(engine, { behaviours: { wait: () => waiting } });
      await using client = connectWire(server.path);
      const stream = client.open(pathOf("Collect"));
      stream.write(envelope(encodePayload({ text: "wait" })));
      const message = envelope(encodePayload({ data: new Uint8Array(64 << 10) }));
      let written = 0;
      const pump = (): void => {
        while (written < 1000) {
          written += 1;
          if (!stream.write(message)) {
            stream.once("drain", pump);
            return;
          }
        }
        stream.end();
      };
      await server.seen.entered("Collect");
      pump();
      await settled(() => written);
      expect(written).toBeLessThan(100);
      const answered = answerOf(stream);
      go();
      const [collected] = messagesOf((await answered).body).map(decodePayload);
      expect(collected).toMatchObject({ count: 1001, text: String(1000 * (64 << 10)) });
    }, 30_000);
  });
}

/** Waits until a figure stands still: 50 turns of the event loop with work in between. */
async function settled(figure: () => number): Promise<void> {
  for (let still = 0, last = figure(); still < 50; ) {
    await new Promise((resolve) => setTimeout(resolve, 2));
    still = figure() === last ? still + 1 : 0;
    last = figure();
  }
}
