import { randomInt } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Any } from "@bufbuild/protobuf/wkt";
import type { SELinuxOption } from "#gen/runtime/v1/api_pb.ts";
import { unpackSpec } from "../../client/spec.ts";
import { lookUpMount } from "../../linux/mountinfo.ts";
import { BunkerdError, fail, quote } from "../../model/errors.ts";
import { relabelTree } from "./relabel.ts";
import type { Spec } from "./spec.ts";

/** Categories that a policy for containers has; the last two are kept for what no confined process may read. */
const MAX_CATEGORIES = 1024;
const UNREADABLE_LEVEL = `s0:c${MAX_CATEGORIES - 2},c${MAX_CATEGORIES - 1}`;
/** Pairs drawn by lot before free ones are looked for one by one. */
const DRAWS = 1000;

export interface LabelPair {
  /** Empty where the policy has none. */
  readonly processLabel: string;
  readonly mountLabel: string;
}

interface Context {
  user: string;
  role: string;
  type: string;
  level: string;
}

const NONE: LabelPair = { processLabel: "", mountLabel: "" };
const LEVEL = /^s\d(-s\d)??(:c\d{1,4}(\.c\d{1,4})?(,c\d{1,4}(\.c\d{1,4})?)*)?$/;
const CONTEXT_FILE = "/usr/share/containers/selinux/contexts";
const POLICY_ROOT = "/etc/selinux";

/** Checked even where SELinux is off. @throws Unknown for a level that is none */
export function assertSelinuxLevel(asked: SELinuxOption | undefined): void {
  if (asked === undefined || asked.level === "" || LEVEL.test(asked.level)) return;
  throw new BunkerdError("Unknown", `the format of 'level' ${quote(asked.level)} is not correct`);
}

/** No labels where SELinux is off. @throws ResourceExhausted */
export function selinuxLabels(
  labels: SelinuxLabels | undefined,
  asked: SELinuxOption | undefined,
  podLabel: string,
): LabelPair {
  return labels?.labelsFor(asked, podLabel) ?? NONE;
}

/**
 * The labels of containers where SELinux is on (opencontainers/selinux `go-selinux/label`). Each pod, and each container that does
 * not share its pod's level, gets a pair of categories that no other has: this remembers which are taken, and how often.
 */
export class SelinuxLabels {
  readonly #contexts: ReadonlyMap<string, string>;
  readonly #categories: number;
  /** Levels by how many containers and pods have them: those of a pod share one. */
  readonly #taken = new Map<string, number>([[UNREADABLE_LEVEL, 1]]);

  /** @param contexts the policy's file of contexts for containers, `process = "…"` a line */
  constructor(contexts: string, categories = MAX_CATEGORIES) {
    if (categories > MAX_CATEGORIES) {
      const reason = "SelinuxCategoryRange: can't have more than DefaultCategoryRange categories";
      throw new BunkerdError("InvalidArgument", reason);
    }
    this.#contexts = parseContexts(contexts);
    this.#categories = categories > 0 ? categories : MAX_CATEGORIES;
  }

  /** Those that a request asks for over the policy's; without, those of the pod. To be released once. @throws ResourceExhausted */
  labelsFor(asked: SELinuxOption | undefined, podLabel: string): LabelPair {
    const process = this.#contexts.get("process") ?? "";
    const file = this.#contexts.get("file") ?? "";
    if (process === "" || file === "") return { processLabel: "", mountLabel: file };
    const ofProcess = contextOf(process);
    const ofFile = contextOf(file);
    const wanted = isEmpty(asked) ? contextOf(podLabel) : asked;
    if (ofProcess.level !== "") {
      ofProcess.level = wanted.level || this.#freeLevel();
      ofFile.level = ofProcess.level;
    } else if (wanted.level !== "") {
      ofProcess.level = wanted.level;
      ofFile.level = wanted.level;
    }
    ofProcess.user = wanted.user || ofProcess.user;
    ofFile.user = wanted.user || ofFile.user;
    ofProcess.role = wanted.role || ofProcess.role;
    ofProcess.type = wanted.type || ofProcess.type;
    this.#take(ofProcess.level);
    return { processLabel: textOf(ofProcess), mountLabel: textOf(ofFile) };
  }

  /** Processes of a runtime with virtual machines (Kata) have a type of their own. */
  labelOfRuntime(label: string, runtimeType: string): string {
    if (label === "" || !runtimeType.includes("io.containerd.kata")) return label;
    const kind = this.#contexts.get("kvm_process") ?? this.#contexts.get("process") ?? "";
    return kind === "" ? label : textOf({ ...contextOf(label), type: contextOf(kind).type });
  }

  /** Its level may be given again once all that had it are gone. */
  release(label: string): void {
    const { level } = contextOf(label);
    const left = (this.#taken.get(level) ?? 0) - 1;
    if (left > 0) this.#taken.set(level, left);
    else this.#taken.delete(level);
  }

  /** One that is in use, found after a restart. */
  reserve(label: string): void {
    this.#take(contextOf(label).level);
  }

  /** Labels a file, or a folder with all that is in it. @throws Unknown for a folder of the system, ErrnoException */
  async relabel(path: string, label: string): Promise<void> {
    if (label !== "") await relabelTree(path, label);
  }

  #take(level: string): void {
    if (level.includes(":c")) this.#taken.set(level, (this.#taken.get(level) ?? 0) + 1);
  }

  #freeLevel(): string {
    for (let draw = 0; draw < DRAWS; draw++) {
      const level = levelOf(randomInt(this.#categories), randomInt(this.#categories));
      if (level !== undefined && !this.#taken.has(level)) return level;
    }
    for (let high = 1; high < this.#categories; high++) {
      for (let low = 0; low < high; low++) {
        const level = levelOf(low, high);
        if (level !== undefined && !this.#taken.has(level)) return level;
      }
    }
    throw fail("ResourceExhausted", `SELinux levels of ${this.#categories} categories`);
  }
}

/** A root file system's mounts, shown with the label that the container's spec has for files, as containerd's client asks for them. */
export function labelledMounts<M extends { readonly options: readonly string[] }>(
  mounts: readonly M[],
  spec: Any | undefined,
): M[] {
  const label = spec === undefined ? "" : ((unpackSpec(spec) as Partial<Spec>).linux?.mountLabel ?? "");
  if (label === "") return [...mounts];
  return mounts.map((mount) => ({
    ...mount,
    options: [...mount.options, `context=${JSON.stringify(label)}`],
  }));
}

/** Undefined where the kernel has no policy. @throws InvalidArgument if `categories` are too many */
export function openSelinux(categories: number): SelinuxLabels | undefined {
  const isOn = lookUpMount("/sys/fs/selinux")?.type === "selinuxfs" && ownContext() !== "kernel";
  if (!isOn) return undefined;
  const file = [CONTEXT_FILE, join(POLICY_ROOT, policyType(), "contexts/lxc_contexts")].find(existsSync);
  return new SelinuxLabels(file === undefined ? "" : readFileSync(file, "utf8"), categories);
}

function ownContext(): string {
  return readFileSync("/proc/thread-self/attr/current", "utf8").replace(/\0$/, "");
}

function policyType(): string {
  const path = join(POLICY_ROOT, "config");
  return existsSync(path) ? (parseContexts(readFileSync(path, "utf8")).get("SELINUXTYPE") ?? "") : "";
}

function parseContexts(text: string): Map<string, string> {
  const entries = text
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "" && !/^[;#]/.test(line))
    .flatMap((line): [string, string][] => {
      const equals = line.indexOf("=");
      if (equals < 0) return [];
      return [
        [
          line.slice(0, equals).trim(),
          line
            .slice(equals + 1)
            .trim()
            .replaceAll(/^"+|"+$/g, ""),
        ],
      ];
    });
  return new Map(entries);
}

/** `user:role:type[:level]`; the level has colons too. What is no label has nothing. */
function contextOf(label: string): Context {
  const [user = "", role = "", type, ...level] = label.split(":");
  if (type === undefined) return { user: "", role: "", type: "", level: "" };
  return { user, role, type, level: level.join(":") };
}

function textOf({ user, role, type, level }: Context): string {
  return [user, role, type, ...(level === "" ? [] : [level])].join(":");
}

function isEmpty(asked: SELinuxOption | undefined): asked is undefined {
  return (
    asked === undefined || [asked.user, asked.role, asked.type, asked.level].every((part) => part === "")
  );
}

function levelOf(one: number, other: number): string | undefined {
  return one === other ? undefined : `s0:c${Math.min(one, other)},c${Math.max(one, other)}`;
}
