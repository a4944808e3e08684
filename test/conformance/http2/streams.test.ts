/** RFC 9113 sections 5.1 to 5.4 and 8: the life of a stream and what a request may look like. h2spec's `http2/5` and `8`, `generic/2` and `4`. */
import { describe, expect, test } from "bun:test";
import { alive, breaks, passes, resets, served } from "./cases.ts";
import type { RawClient } from "./raw-client.ts";
import { block, bodyOf, E, F, grpcRequest, REQUEST, request, T, u32 } from "./raw-client.ts";

const GET = request("/");
const HOLD = grpcRequest("/hold");

describe("5.1 idle", () => {
  breaks("CONTINUATION", E.protocol, (client) => client.frame(T.continuation, F.endHeaders, 1, GET));
  breaks("WINDOW_UPDATE on a stream that a client never opens", E.protocol, (client) => {
    client.headers(3, GET, F.endStream);
    client.frame(T.window, 0, 2, u32(1));
  });
});

describe("5.1 half-closed (remote)", () => {
  resets("DATA", 1, E.streamClosed, (client) => {
    client.headers(1, HOLD, F.endStream);
    client.frame(T.data, F.endStream, 1, "x");
  });
  resets("HEADERS", 1, E.streamClosed, (client) => {
    client.headers(1, HOLD, F.endStream);
    client.headers(1, GET, F.endStream);
  });
  breaks("CONTINUATION", E.protocol, (client) => {
    client.headers(1, HOLD, F.endStream);
    client.frame(T.continuation, F.endHeaders, 1, GET);
  });
  test("the call is cancelled by what is wrong", () =>
    served(async (client, server) => {
      client.headers(1, HOLD, F.endStream);
      client.frame(T.data, 0, 1, "x");
      await client.streamError(1);
      expect(server.cancelled).toEqual(["DATA behind END_STREAM"]);
    }));
});

describe("5.1 closed", () => {
  const closedByReset = (client: RawClient): void => {
    client.headers(1, HOLD);
    client.frame(T.reset, 0, 1, u32(E.cancel));
  };
  resets("DATA behind RST_STREAM", 1, E.streamClosed, (client) => {
    closedByReset(client);
    client.frame(T.data, F.endStream, 1, "x");
  });
  resets("HEADERS behind RST_STREAM", 1, E.streamClosed, (client) => {
    closedByReset(client);
    client.headers(1, GET, F.endStream);
  });
  breaks("CONTINUATION behind RST_STREAM", E.protocol, (client) => {
    closedByReset(client);
    client.frame(T.continuation, F.endHeaders, 1, GET);
  });
  for (const [name, code, send] of [
    ["DATA", E.streamClosed, (client: RawClient) => client.frame(T.data, F.endStream, 1, "x")],
    ["HEADERS", E.streamClosed, (client: RawClient) => client.headers(1, GET, F.endStream)],
    ["CONTINUATION", E.protocol, (client: RawClient) => client.frame(T.continuation, F.endHeaders, 1, GET)],
  ] as const) {
    test(`${name} behind END_STREAM of both sides ends the connection`, () =>
      served(async (client) => {
        client.headers(1, GET, F.endStream);
        await client.answer(1);
        send(client);
        expect(await client.connectionError()).toMatchObject({ code });
      }));
  }
  test("what was on its way when we reset a stream is let pass, and its window given back", () =>
    served(async (client) => {
      client.headers(1, block([...REQUEST, ["X", "y"]]));
      expect(await client.streamError(1)).toBe(E.protocol);
      // More than the connection's window, if none came back.
      for (let sent = 0; sent < 100; sent++) {
        client.frame(T.data, 0, 1, Buffer.alloc(16384));
        if (sent % 10 === 9) await client.settle();
      }
      client.headers(1, block([["trailer", "x"]]), F.endStream);
      client.frame(T.reset, 0, 1, u32(8));
      await alive(client);
    }));
  test("streams that ended long ago are forgotten, not mixed up", () =>
    served(async (client) => {
      for (let id = 1; id < 2001; id += 2) {
        client.headers(id, GET, F.endStream);
        await client.answer(id);
      }
      client.headers(1, GET, F.endStream);
      expect(await client.streamError(1)).toBe(E.streamClosed);
      await alive(client);
    }));
});

describe("5.1.1 stream identifiers", () => {
  breaks("even", E.protocol, (client) => client.headers(2, GET, F.endStream));
  breaks("lower than one before, never opened", E.protocol, (client) => {
    client.headers(5, GET, F.endStream);
    client.headers(3, GET, F.endStream);
  });
  test("the highest there is", () =>
    served(async (client) => {
      client.headers(2 ** 31 - 1, GET, F.endStream);
      expect((await client.answer(2 ** 31 - 1)).length).toBeGreaterThan(0);
    }));
});

describe("5.3 priority", () => {
  resets("HEADERS of a stream that depends on itself", 1, E.protocol, (client) =>
    client.headers(1, Buffer.concat([u32(1), Buffer.from([15]), GET]), F.priority | F.endStream),
  );
  resets("PRIORITY of a stream that depends on itself", 1, E.protocol, (client) => {
    client.headers(1, HOLD);
    client.frame(T.priority, 0, 1, Buffer.concat([u32(1), Buffer.from([15])]));
  });
});

describe("8.1 message framing", () => {
  resets("second HEADERS without END_STREAM", 1, E.protocol, (client) => {
    client.headers(1, GET);
    client.headers(1, block([["x", "y"]]));
  });
  resets("pseudo-headers in trailers", 1, E.protocol, (client) => {
    client.headers(1, GET);
    client.headers(1, block([[":method", "POST"]]), F.endStream);
  });
  resets("upper case in trailers", 1, E.protocol, (client) => {
    client.headers(1, GET);
    client.headers(1, block([["Trailer", "x"]]), F.endStream);
  });
  test("trailers end a request", () =>
    served(async (client) => {
      client.headers(1, GET);
      client.frame(T.data, 0, 1, "body");
      client.headers(1, block([["x-sum", "1"]]), F.endStream);
      expect(bodyOf(await client.answer(1)).toString()).toBe("body");
    }));
  test("an answer before the request's end is followed by RST_STREAM of NO_ERROR", () =>
    served(async (client, server) => {
      client.headers(1, HOLD);
      client.frame(T.data, 0, 1, "x");
      await client.settle();
      server.streams[0]?.end([["grpc-status", "12"]]);
      const [answer, reset] = [await client.next(), await client.next()];
      expect(answer).toMatchObject({ type: T.headers, flags: F.endHeaders | F.endStream });
      expect(reset).toMatchObject({ type: T.reset, payload: u32(E.none) });
      expect(server.cancelled).toEqual([]);
    }));
});

describe("8.1 an early answer to a request that is no gRPC", () => {
  const EARLY = request("/", [["x-early", "1"]]);
  test("does not excuse a body that is not as long as content-length", () =>
    served(async (client) => {
      for (const [id, body] of [
        [1, "four"],
        [3, "sixsix"],
      ] as const) {
        client.headers(
          id,
          request("/", [
            ["x-early", "1"],
            ["content-length", "5"],
          ]),
        );
        await client.answer(id);
        client.frame(T.data, F.endStream, id, body);
        expect(await client.streamError(id)).toBe(E.protocol);
      }
    }));
  test("lets the client finish", () =>
    served(async (client, server) => {
      client.headers(
        1,
        request("/", [
          ["x-early", "1"],
          ["content-length", "3"],
        ]),
      );
      expect(bodyOf(await client.answer(1)).toString()).toBe("too large");
      client.frame(T.data, 0, 1, "abc");
      expect((await client.settle()).filter((got) => got.id === 1)).toEqual([]);
      expect(server.engine.openStreams).toBe(1);
      client.frame(T.data, F.endStream, 1, "");
      await client.settle();
      expect(server.engine.openStreams).toBe(0);
    }));
  test("but takes no more than 32 MiB of it", () =>
    served(async (client) => {
      client.headers(1, EARLY);
      await client.answer(1);
      let [sent, reset] = [0, undefined as number | undefined];
      while (reset === undefined && sent <= 33 << 20) {
        for (let frames = 0; frames < 8; frames++) client.frame(T.data, 0, 1, Buffer.alloc(16_384));
        sent += 8 * 16_384;
        for (const got of await client.settle()) {
          if (got.type === T.ping && got.flags === 0) client.frame(T.ping, F.ack, 0, got.payload);
          if (got.type === T.reset) reset = got.payload.readUInt32BE(0);
        }
      }
      expect(reset).toBe(E.none);
      expect(sent).toBeGreaterThan(32 << 20);
    }));
});

/** HEADERS with END_STREAM of these fields are malformed. */
function malformed(name: string, fields: readonly (readonly [string, string])[]): void {
  resets(name, 1, E.protocol, (client) => client.headers(1, block(fields), F.endStream));
}

const without = (name: string) => REQUEST.filter(([other]) => other !== name);

describe("8.2 fields", () => {
  malformed("upper case in a name", [...REQUEST, ["X-Test", "ok"]]);
  malformed("a space in a name", [...REQUEST, ["x test", "ok"]]);
  malformed("an empty name", [...REQUEST, ["", "ok"]]);
  malformed("a byte over 0x7f in a name", [...REQUEST, ["x\xe4", "ok"]]);
  for (const [name, value] of [
    ["NUL", "a\0b"],
    ["CR", "a\rb"],
    ["LF", "a\nb"],
    ["a space in front", " a"],
    ["a tab behind", "a\t"],
  ] as const) {
    malformed(`${name} in a value`, [...REQUEST, ["x-test", value]]);
  }
  passes("any other byte in a value, and none", (client) =>
    client.headers(1, block([...REQUEST, ["x-test", "a b\tc\xff\x7f"], ["x-empty", ""]]), F.endStream),
  );
  for (const [name, value] of [
    ["connection", "keep-alive"],
    ["proxy-connection", "keep-alive"],
    ["keep-alive", "timeout=5"],
    ["transfer-encoding", "chunked"],
    ["upgrade", "foo"],
    ["te", "trailers, deflate"],
    ["te", "gzip"],
  ] as const) {
    malformed(`8.2.2 ${name}: ${value}`, [...REQUEST, [name, value]]);
  }
  passes("8.2.2 te: trailers", (client) =>
    client.headers(1, request("/", [["te", "trailers"]]), F.endStream),
  );
});

describe("8.3 pseudo-headers", () => {
  malformed("unknown", [...REQUEST, [":test", "ok"]]);
  malformed("of a response", [...REQUEST, [":status", "200"]]);
  malformed("of a protocol that we do not speak", [...REQUEST, [":protocol", "websocket"]]);
  malformed("behind a regular field", [["x-test", "ok"], ...REQUEST]);
  malformed("empty :path", [...without(":path"), [":path", ""]]);
  for (const name of [":method", ":scheme", ":path"] as const) {
    malformed(`${name} missing`, without(name));
    malformed(`${name} twice`, [...REQUEST, REQUEST.find(([other]) => other === name) ?? ["", ""]]);
  }
  malformed(":authority twice", [...REQUEST, [":authority", "localhost"]]);
  passes(":authority missing", (client) => client.headers(1, block(without(":authority")), F.endStream));
  malformed("8.5 CONNECT with :path", [
    [":method", "CONNECT"],
    [":authority", "a:1"],
    [":path", "/"],
  ]);
  malformed("8.5 CONNECT without :authority", [[":method", "CONNECT"]]);
  test("8.5 CONNECT is refused with 405", () =>
    served(async (client) => {
      client.headers(
        1,
        block([
          [":method", "CONNECT"],
          [":authority", "a:1"],
        ]),
        F.endStream,
      );
      const [answer] = await client.answer(1);
      expect(answer?.flags).toBe(F.endHeaders | F.endStream);
      // A literal "405" behind the static table's name.
      expect(answer?.payload.toString("hex")).toBe("0803343035");
    }));
  test("a path that is no path is refused with 400", () =>
    served(async (client) => {
      client.headers(1, request("*"), F.endStream);
      // `:status: 400` is index 12 of the static table.
      expect((await client.answer(1))[0]?.payload[0]).toBe(0x8c);
    }));
});

describe("8.1.1 content-length", () => {
  for (const [name, length, chunks] of [
    ["longer than one frame", "5", ["data"]],
    ["longer than two", "9", ["data", "data"]],
    ["shorter", "3", ["data"]],
    ["shorter than the second frame", "5", ["data", "data"]],
  ] as const) {
    resets(name, 1, E.protocol, (client) => {
      client.headers(1, request("/", [["content-length", length]]));
      for (const [at, chunk] of chunks.entries()) {
        client.frame(T.data, at === chunks.length - 1 ? F.endStream : 0, 1, chunk);
      }
    });
  }
  resets("of a body that is not there", 1, E.protocol, (client) =>
    client.headers(1, request("/", [["content-length", "1"]]), F.endStream),
  );
  resets("ended by trailers too early", 1, E.protocol, (client) => {
    client.headers(1, request("/", [["content-length", "1"]]));
    client.headers(1, block([["x", "y"]]), F.endStream);
  });
  malformed("no number", [...REQUEST, ["content-length", "1x"]]);
  malformed("negative", [...REQUEST, ["content-length", "-1"]]);
  malformed("two that differ", [...REQUEST, ["content-length", "0"], ["content-length", "1"]]);
  test("padding does not count", () =>
    served(async (client) => {
      client.headers(1, request("/", [["content-length", "2"]]));
      client.frame(T.data, F.padded | F.endStream, 1, Buffer.from([3, 104, 105, 0, 0, 0]));
      expect(bodyOf(await client.answer(1)).toString()).toBe("hi");
    }));
  test("what is wrong cancels the call", () =>
    served(async (client, server) => {
      client.headers(1, grpcRequest("/hold", [["content-length", "2"]]));
      client.frame(T.data, 0, 1, "abc");
      expect(await client.streamError(1)).toBe(E.protocol);
      expect(server.cancelled).toEqual(["data is longer than content-length"]);
    }));
});

describe("requests of all methods", () => {
  for (const method of ["GET", "HEAD", "POST", "OPTIONS", "PATCH"]) {
    test(method, () =>
      served(async (client) => {
        const fields = REQUEST.map(([name, value]) => [name, name === ":method" ? method : value] as const);
        client.headers(1, block([...fields, ["x-size", "4"]]), F.endStream);
        expect(bodyOf(await client.answer(1)).toString()).toBe(method === "HEAD" ? "" : "xxxx");
      }),
    );
  }
});

describe("broken handlers", () => {
  for (const path of ["/throw", "/throw-data"]) {
    test(`${path} costs its stream, not the connection`, () =>
      served(async (client, server) => {
        client.headers(1, grpcRequest(path));
        client.frame(T.data, F.endStream, 1, "x");
        expect(await client.streamError(1)).toBe(E.internal);
        expect(server.errors.splice(0)).toEqual(["http2 handler failed"]);
        await alive(client);
      }));
  }
});
