/**
 * What was attached where, kept on the disk: `<folder>/results/<network>-<container>-<interface>`, in libcni's format `cniCacheV1`, so that
 * an attachment is ended with the configuration that it was made with, by whichever daemon.
 */
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { isObject, type JsonObject } from "./json.ts";

const KIND = "cniCacheV1";

/** One interface of one container in one network. */
export interface Attachment {
  readonly containerId: string;
  readonly interfaceName: string;
  readonly networkName: string;
  /** Text of the network's configuration. */
  readonly config: string;
  readonly netnsPath: string;
  readonly args: readonly (readonly [string, string])[];
  readonly capabilityArgs: JsonObject;
  /** Undefined if it is not known. */
  readonly result: JsonObject | undefined;
}

export type AttachmentKey = Pick<Attachment, "networkName" | "containerId" | "interfaceName">;

export class AttachmentCache {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = join(folder, "results");
  }

  /** @throws ErrnoException */
  save(attachment: Attachment): void {
    const { containerId, interfaceName, networkName, config, netnsPath, args, capabilityArgs, result } =
      attachment;
    const path = this.#pathOf(attachment);
    mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
    const text = JSON.stringify({
      kind: KIND,
      containerId,
      config: Buffer.from(config).toString("base64"),
      ifName: interfaceName,
      networkName,
      ...(netnsPath === "" ? {} : { netns: netnsPath }),
      ...(args.length === 0 ? {} : { cniArgs: args }),
      ...(Object.keys(capabilityArgs).length === 0 ? {} : { capabilityArgs }),
      ...(result === undefined ? {} : { result }),
    });
    // A half-written one would be taken for none, and its address would stay taken.
    writeFileSync(`${path}.tmp`, text, { mode: 0o600 });
    renameSync(`${path}.tmp`, path);
  }

  /** Undefined if there is none, or none that can be read. */
  load(key: AttachmentKey): Attachment | undefined {
    return readAttachment(this.#pathOf(key));
  }

  remove(key: AttachmentKey): void {
    rmSync(this.#pathOf(key), { force: true });
  }

  /** Of one container, or all, in the order of their file names. */
  list(containerId?: string): readonly Attachment[] {
    let names: string[];
    try {
      names = readdirSync(this.#folder);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
      throw error;
    }
    return names
      .filter((name) => containerId === undefined || name.includes(`-${containerId}-`))
      .sort()
      .flatMap((name) => readAttachment(join(this.#folder, name)) ?? [])
      .filter((found) => containerId === undefined || found.containerId === containerId);
  }

  #pathOf({ networkName, containerId, interfaceName }: AttachmentKey): string {
    return join(this.#folder, `${networkName}-${containerId}-${interfaceName}`);
  }
}

/** Undefined for what is no attachment: another's file, a torn one. */
function readAttachment(path: string): Attachment | undefined {
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(path, "utf8"));
  } catch (error) {
    if (error instanceof SyntaxError || (error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
  if (!isObject(json) || json["kind"] !== KIND) return undefined;
  const text = (key: string): string => (typeof json[key] === "string" ? json[key] : "");
  const [containerId, interfaceName, networkName] = [
    text("containerId"),
    text("ifName"),
    text("networkName"),
  ];
  if (interfaceName === "" || networkName === "") return undefined;
  const { capabilityArgs, result } = json;
  return {
    containerId,
    interfaceName,
    networkName,
    config: Buffer.from(text("config"), "base64").toString(),
    netnsPath: text("netns"),
    args: pairsOf(json["cniArgs"]),
    capabilityArgs: isObject(capabilityArgs) ? capabilityArgs : {},
    result: isObject(result) ? result : undefined,
  };
}

function pairsOf(value: unknown): readonly (readonly [string, string])[] {
  return (Array.isArray(value) ? value : []).flatMap((pair: unknown) =>
    Array.isArray(pair) && typeof pair[0] === "string" && typeof pair[1] === "string"
      ? [[pair[0], pair[1]] as const]
      : [],
  );
}
