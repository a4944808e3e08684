/** The same requests to containerd 2.1's CRI and to ours: answers, codes and messages must be the same, but for what is each daemon's own. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { Code, ConnectError } from "@connectrpc/connect";
import { type CriDaemon, type CriOptions, type podConfig, prepareCri, startCri } from "./cri.ts";
import { daemonKinds } from "./daemons.ts";
import { enterHostNetwork } from "./netns.ts";

/** A daemon, and the ids that it gave to what the steps name. */
export interface Scene extends CriDaemon {
  readonly pods: Map<string, { readonly id: string; readonly config: ReturnType<typeof podConfig> }>;
  readonly ids: Map<string, string>;
}

type Call = (scene: Scene) => Promise<unknown>;

export interface CriComparison {
  /** @param shows what the reference's answer must match, so that the comparison is of the case that is meant */
  same(name: string, shows: RegExp, call: Call): void;
  /** What containerd 2.1 does not know, or ends of, or answers otherwise on purpose. */
  ours(name: string, shows: RegExp, call: Call): void;
}

const START_TIMEOUT_MS = 60_000;

/** Starts both daemons before the file's tests, and ends them after. `prepare` is done with each first. */
export function compareCri(prepare: Call = async () => undefined, options: CriOptions = {}): CriComparison {
  const kinds = daemonKinds("containerd-2.1", "bunkerd");
  const scenes: Scene[] = [];
  let host: ReturnType<typeof enterHostNetwork>;

  beforeAll(async () => {
    await prepareCri();
    host = enterHostNetwork();
    for (const kind of kinds)
      scenes.push({ ...(await startCri(kind, options)), pods: new Map(), ids: new Map() });
    await Promise.all(scenes.map(prepare));
  }, START_TIMEOUT_MS);
  afterAll(async () => {
    for (const scene of scenes) await scene[Symbol.asyncDispose]();
    host[Symbol.dispose]();
  }, START_TIMEOUT_MS);

  return {
    same(name, shows, call) {
      test(name, async () => {
        const outcomes = await Promise.all(scenes.map((scene) => outcomeOf(scene, call)));
        const [reference, ...others] = outcomes;
        if (process.env["BUNKERD_TEST_SHOW"] !== undefined)
          for (const outcome of outcomes)
            process.stdout.write(`${name}\n   ${JSON.stringify(outcome)?.slice(0, 600)}\n`);
        expect(JSON.stringify(reference)).toMatch(shows);
        for (const other of others) expect(other).toEqual(reference);
      });
    },
    ours(name, shows, call) {
      test(name, async () => {
        for (const scene of scenes.filter(({ daemon: { kind } }) => kind === "bunkerd"))
          expect(JSON.stringify(await outcomeOf(scene, call))).toMatch(shows);
      });
    },
  };
}

/** The pod that the steps call so. */
export function pod(scene: Scene, name: string) {
  const found = scene.pods.get(name);
  if (found === undefined) throw new Error(`no pod ${name}`);
  return found;
}

/** Newer than 2.1. */
const NEWER =
  process.env["BUNKERD_TEST_CONTAINERD"] === undefined
    ? ["imageId", "stopSignal", "ImageDigest", "ImageName", "userNamespacesHostNetwork"]
    : [];

/** What is each daemon's own: ids in the order in which they come up, times, folders, addresses, process ids. */
function normalized(value: unknown, { daemon }: Scene): unknown {
  const text = JSON.stringify(value, (key, item: unknown) => {
    if (key === "$typeName" || key === "$unknown") return undefined;
    if (item instanceof Uint8Array) return jsonOf(Buffer.from(item).toString());
    if (key === "info" && typeof item === "string") return jsonOf(item);
    if (NEWER.includes(key)) return undefined;
    if (/^(pid|seconds|nanos)$/.test(key) && item !== 0) return "<number>";
    return typeof item === "bigint" ? String(item) : item;
  });
  const ids = new Map<string, string>();
  return JSON.parse(
    text
      .replaceAll(daemon.folder, "<folder>")
      // Only 2.1 looks for checkpoints among the images.
      .replaceAll(/(current|peak) usage: \d+/g, "usage")
      .replaceAll(/mount callback failed on \S+: /g, "")
      .replaceAll("failed to check if this is a checkpoint image: ", "")
      .replaceAll(/\b[0-9a-f]{64}\b/g, (id) => {
        if (!ids.has(id)) ids.set(id, `<id ${ids.size}>`);
        return ids.get(id) ?? "";
      })
      .replaceAll(/"17\d{17}"/g, '"<time>"')
      .replaceAll(/cni-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/g, "<netns>")
      .replaceAll(/\b10\.88\.\d+\.\d+/g, "<ip>")
      .replaceAll(/\b[0-9a-f]{2}(:[0-9a-f]{2}){5}\b/g, "<mac>")
      .replaceAll(/"veth[0-9a-f]{8}"/g, '"<veth>"')
      .replaceAll(/cni-[0-9A-Za-z]{6}\b|net-[0-9A-Za-z]{6}\b/g, "<bridge>")
      .replaceAll(/pod-\d+/g, "<pod>")
      .replaceAll(/\/proc\/\d+\/ns/g, "/proc/<pid>/ns"),
  );
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

async function outcomeOf(scene: Scene, call: (scene: Scene) => Promise<unknown>): Promise<unknown> {
  try {
    return normalized(await call(scene), scene);
  } catch (error) {
    if (!(error instanceof ConnectError)) throw error;
    return normalized({ code: Code[error.code], message: error.rawMessage }, scene);
  }
}
