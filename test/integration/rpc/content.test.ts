import { createHash } from "node:crypto";
import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  Content,
  type ReadContentRequestSchema,
  WriteAction,
  type WriteContentRequestSchema,
} from "#gen/containerd/services/content/v1/content_pb.ts";
import { Leases } from "#gen/containerd/services/leases/v1/leases_pb.ts";
import { Namespaces } from "#gen/containerd/services/namespaces/v1/namespaces_pb.ts";
import {
  compareSteps,
  departs,
  fatal,
  mask,
  none,
  ODD_DIGESTS,
  type Step,
  step,
} from "../../support/comparison.ts";
import { WITHOUT_COLLECTION } from "../../support/daemons.ts";
import { inNamespace } from "../../support/grpc.ts";

type Request = MessageInitShape<typeof WriteContentRequestSchema>;
type Options = ReturnType<typeof inNamespace>;

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const digestOf = (text: string): string => `sha256:${createHash("sha256").update(text).digest("hex")}`;
const leased = (lease: string) => inNamespace("default", { "containerd-lease": lease });

/** The answers up to the failure, and the failure: both are the session's outcome. */
async function collect(answers: AsyncIterable<unknown>): Promise<unknown[]> {
  const collected: unknown[] = [];
  try {
    for await (const answer of answers) collected.push(answer);
  } catch (error) {
    const { code, rawMessage } = error as { code: number; rawMessage: string };
    collected.push({ code, message: rawMessage });
  }
  return collected;
}

/** One session of Write; it ends with the last request. */
function write(
  requests: readonly Request[],
  shows?: RegExp,
  options: Options = inNamespace("default"),
): Step {
  async function* send() {
    yield* requests;
  }
  return {
    name: `Content.write ${requests.map(({ action, ref = "" }) => `${action} ${ref.slice(0, 20)}`).join(", ")}`,
    call: (connection) => collect(connection.client(Content).write(send(), options)),
    shows,
  };
}

function read(
  request: MessageInitShape<typeof ReadContentRequestSchema>,
  shows?: RegExp,
  options: Options = inNamespace("default"),
): Step {
  return {
    name: `Content.read ${request.digest?.slice(0, 20)} ${request.offset} ${request.size}`,
    call: (connection) => collect(connection.client(Content).read(request, options)),
    shows,
  };
}

function list(filters: readonly string[], shows?: RegExp, options: Options = inNamespace("default")): Step {
  return {
    name: `Content.list ${filters.join(" or ")}`,
    call: (connection) => collect(connection.client(Content).list({ filters: [...filters] }, options)),
    shows,
  };
}

const { STAT, WRITE, COMMIT } = WriteAction;
const hello = digestOf("hello");

const ODD_REFS = [
  ".",
  "..",
  "/",
  "../../etc/passwd",
  "a/b",
  "ä",
  "a b",
  "a\u0000b",
  "a\nb",
  "x".repeat(5000),
];

const commit = (ref: string, text: string, extra: Request = {}): Request => ({
  action: COMMIT,
  ref,
  data: bytes(text),
  ...extra,
});

const basics: readonly Step[] = [
  step(Content, "info", { digest: hello }, /namespace is required/, none),
  step(Content, "info", { digest: "x" }, /failed validation/, none),
  step(Content, "info", { digest: hello }, /content digest sha256:.*not found/),
  ...ODD_DIGESTS.map((digest) => step(Content, "info", { digest }, /failed validation/)),
  ...ODD_DIGESTS.map((digest) => step(Content, "delete", { digest })),
  ...ODD_DIGESTS.map((digest) => step(Content, "update", { info: { digest } })),
  ...ODD_DIGESTS.map((digest) => read({ digest })),
  fatal(step(Content, "update", {})),
  list([]),
  step(Content, "listStatuses", {}),
  step(Content, "status", { ref: "none" }, /could not get status for ref "none": reference none: not found/),
  step(Content, "status", { ref: "" }, /not found/),
  step(Content, "abort", { ref: "none" }, /not found/),
  step(Content, "abort", { ref: "" }, /not found/),
  step(Content, "abort", { ref: "x" }, /namespace is required/, none),
  write([{ action: STAT, ref: "x" }], /namespace is required/, none),
  write([{ action: STAT, ref: "" }], /first message must have a reference/),
  write([{ action: STAT, ref: "" }], /first message must have a reference/, none),
  ...ODD_REFS.map((ref) => write([{ action: STAT, ref }])),
  ...ODD_REFS.map((ref) => step(Content, "status", { ref })),
  ...ODD_REFS.map((ref) => step(Content, "abort", { ref })),
];

const sessions: readonly Step[] = [
  write([{ action: STAT, ref: "r", total: 5n }], /"ref"|startedAt/),
  step(Content, "status", { ref: "r" }, /"total":"5"/),
  write([{ action: WRITE, ref: "r", data: bytes("hel") }]),
  step(Content, "listStatuses", {}, /"offset":"3"/),
  step(Content, "listStatuses", { filters: ["ref==r"] }, /"offset":"3"/),
  step(Content, "listStatuses", { filters: ["ref==s"] }),
  step(Content, "listStatuses", { filters: ["nonsense"] }),
  step(Content, "listStatuses", { filters: ["ref=r"] }, /invalid argument/),
  step(Content, "status", { ref: "r" }, /not found/, inNamespace("other")),
  write(
    [
      { action: STAT, ref: "r" },
      { action: WRITE, offset: 4n, data: bytes("x") },
    ],
    /must occur at current offset 3/,
  ),
  write([{ action: WRITE, ref: "r", offset: 3n, data: bytes("l") }]),
  write(
    [
      { action: STAT, ref: "r", total: 5n },
      { action: WRITE, offset: 4n, data: bytes("o") },
      { action: STAT },
      { action: COMMIT, offset: 5n, total: 6n },
    ],
    /failed size validation: 5 != 6/,
  ),
  write(
    [{ action: COMMIT, ref: "r", offset: 5n, total: 5n, expected: digestOf("other") }],
    /unexpected commit digest/,
  ),
  write([{ action: COMMIT, ref: "r", offset: 5n, expected: "md5:00" }], /unexpected commit digest/),
  write([{ action: COMMIT, ref: "r", offset: 5n, labels: { l: "x".repeat(4096) } }], /info.Labels/),
  write([{ action: COMMIT, ref: "r", offset: 5n, expected: "garbage" }]),
  write(
    [{ action: COMMIT, ref: "r", offset: 5n, total: 5n, expected: hello, labels: { a: "b", e: "" } }],
    /"digest"/,
  ),
  step(Content, "info", { digest: hello }, /"a":"b"/),
  step(Content, "status", { ref: "r" }, /not found/),
  write([{ action: STAT, ref: "r2", expected: hello }], /content .* already exists/),
  write(
    [
      { action: STAT, ref: "r2" },
      { action: WRITE, expected: hello, data: bytes("x") },
    ],
    /blob with expected digest/,
  ),
  step(Content, "status", { ref: "r2" }, /not found/),
  write([commit("r3", "hello")], /already exists/),
  step(Content, "status", { ref: "r3" }, /not found/),
  write([{ action: WRITE, ref: "r4", data: bytes("wrong start") }]),
  write([commit("r4", "right")]),
  step(Content, "info", { digest: digestOf("right") }, /"size":"5"/),
  write([commit("empty", "")], /e3b0c44298fc/),
  read({ digest: digestOf("") }),
  write([{ action: 7 as never, ref: "odd" }, { action: 9 as never, data: bytes("x") }, { action: STAT }]),
  write([
    { action: WRITE, ref: "neg", data: bytes("abc") },
    { action: WRITE, offset: -5n, data: bytes("d"), total: -1n },
  ]),
  write([{ action: STAT, ref: "neg", total: -1n }]),
  write([commit("neg", "", { offset: 4n })]),
  step(Content, "info", { digest: digestOf("abcd") }),
  write([{ action: STAT, ref: "expected garbage", expected: "garbage" }]),
  step(Content, "abort", { ref: "expected garbage" }),
  step(Content, "abort", { ref: "odd" }),
  step(Content, "abort", { ref: "odd" }, /not found/),
];

const reading: readonly Step[] = [
  ...[
    [0n, 0n],
    [1n, 0n],
    [1n, 2n],
    [0n, 99n],
    [5n, 0n],
    [5n, 1n],
    [-1n, 2n],
    [2n, -1n],
    [6n, 0n],
    [2n ** 62n, 2n ** 62n],
    [3n, 2n ** 63n - 1n],
  ].map(([offset = 0n, size = 0n]) => read({ digest: hello, offset, size })),
  read({ digest: hello, offset: 6n }, /read past object length 5 bytes/),
  read({ digest: hello }, /namespace is required/, none),
  read({ digest: hello }, /not found/, inNamespace("other")),
  write([{ action: WRITE, ref: "long", data: new Uint8Array(1_500_000).fill(1) }]),
  write([{ action: COMMIT, ref: "long", offset: 1_500_000n, data: new Uint8Array(1_500_000).fill(2) }]),
  read({
    digest: `sha256:${createHash("sha256").update(new Uint8Array(1_500_000).fill(1)).update(new Uint8Array(1_500_000).fill(2)).digest("hex")}`,
    offset: 7n,
  }),
  list([], /"size"/),
  list(["labels.a==b"], /"a":"b"/),
  list([`digest==${hello}`], /"a":"b"/),
  list(["digest~=^sha512"]),
  list(["size==5"]),
  list(["digest="], /invalid argument/),
  list([], undefined, inNamespace("nowhere")),
  step(Content, "update", { info: { digest: hello, labels: { x: "y" } } }, /"x":"y"/),
  step(Content, "update", {
    info: { digest: hello, labels: { n: "m", o: "p" } },
    updateMask: mask("labels.n"),
  }),
  step(Content, "update", { info: { digest: hello }, updateMask: mask("labels.x") }),
  step(Content, "update", {
    info: { digest: hello, labels: { only: "this", e: "" } },
    updateMask: mask("labels"),
  }),
  step(Content, "update", { info: { digest: hello, size: 9n }, updateMask: mask("size") }, /cannot update/),
  step(Content, "update", { info: { digest: hello, labels: { a: "x".repeat(4096) } } }, /info.Labels/),
  step(Content, "update", { info: { digest: digestOf("no") } }, /not found/),
  step(Content, "info", { digest: hello }, /"only"/),
];

const sharing: readonly Step[] = [
  write([{ action: STAT, ref: "s", expected: hello }], /"offset":"5"/, inNamespace("second")),
  step(Content, "info", { digest: hello }, /not found/, inNamespace("second")),
  // containerd tells the path of the file that is missing.
  departs(
    { code: "NotFound", message: 'could not get status for ref "s": ingest ref "second/1/s": not found' },
    step(Content, "status", { ref: "s" }, /not found/, inNamespace("second")),
  ),
  step(Content, "listStatuses", {}, undefined, inNamespace("second")),
  write(
    [{ action: COMMIT, ref: "s", expected: hello, offset: 5n, total: 4n }],
    undefined,
    inNamespace("second"),
  ),
  step(Content, "abort", { ref: "s" }, undefined, inNamespace("second")),
  write(
    [{ action: COMMIT, ref: "s", expected: hello, offset: 5n, total: 5n }],
    undefined,
    inNamespace("second"),
  ),
  step(Content, "info", { digest: hello }, /"size":"5"/, inNamespace("second")),
  write(
    [
      { action: STAT, ref: "append", expected: digestOf("right") },
      { action: COMMIT, offset: 5n, data: bytes(" on"), expected: digestOf("right on") },
    ],
    undefined,
    inNamespace("second"),
  ),
  step(Content, "info", { digest: digestOf("right on") }, undefined, inNamespace("second")),
  write(
    [
      { action: STAT, ref: "t", expected: digestOf("right") },
      { action: WRITE, data: bytes("new") },
      { action: STAT },
    ],
    undefined,
    inNamespace("second"),
  ),
  write([commit("same", "right")], undefined, inNamespace("second")),
  step(Content, "delete", { digest: hello }, undefined, inNamespace("second")),
  step(Content, "delete", { digest: hello }, /not found/, inNamespace("second")),
  step(Content, "info", { digest: hello }, /"only"/),
  step(Namespaces, "delete", { name: "second" }, /blobs/),
];

const leases: readonly Step[] = [
  step(Leases, "create", { id: "l" }),
  write([{ action: WRITE, ref: "held", data: bytes("held") }], undefined, leased("l")),
  step(Leases, "listResources", { id: "l" }, /ingests/),
  write([{ action: STAT, ref: "held", expected: hello }], /already exists/, leased("l")),
  step(Leases, "listResources", { id: "l" }, /content/),
  write([{ action: COMMIT, ref: "held", offset: 4n }], undefined, leased("l")),
  step(Leases, "listResources", { id: "l" }, /content/),
  step(Content, "delete", { digest: hello }, undefined, leased("l")),
  step(Leases, "listResources", { id: "l" }, /content/),
  write([{ action: STAT, ref: "unheld" }], /lease does not exist/, leased("none")),
  step(Content, "status", { ref: "unheld" }, /not found/),
  write([{ action: WRITE, ref: "aborted", data: bytes("x") }], undefined, leased("l")),
  step(Content, "abort", { ref: "aborted" }, undefined, leased("l")),
  step(Leases, "listResources", { id: "l" }),
];

compareSteps([...basics, ...sessions, ...reading, ...sharing, ...leases], WITHOUT_COLLECTION);
