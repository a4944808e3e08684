import type { PodSandbox } from "#gen/runtime/v1/api_pb.ts";
import { type CriClient, criClient } from "../../client/cri.ts";
import type { Manifest } from "../../pod/api/manifest.ts";
import { type PodOptions, readManifestTexts } from "./options.ts";

/** The pods of files, and the runtime that they are for. */
export interface Asked {
  readonly manifest: Manifest;
  /** Closed by whom it is handed to. */
  readonly cri: CriClient;
  /** What the runtime had when it was asked. */
  readonly sandboxes: Promise<readonly PodSandbox[]>;
}

/**
 * Asks the runtime first: it answers while the rest of the command is loaded and the files are understood. @throws NotFound, InvalidArgument of files;
 * what the runtime answers is told by who awaits it
 */
export async function askFor({
  file,
  runtimeEndpoint,
}: PodOptions & { readonly file: readonly string[] }): Promise<Asked> {
  const texts = await readManifestTexts(file);
  const cri = criClient(runtimeEndpoint);
  try {
    const driver = cri.cgroupDriver();
    const sandboxes = cri.listPodSandbox();
    // Who awaits them hears of their failure, unless the files' comes first.
    for (const answer of [driver, sandboxes]) answer.catch(() => undefined);
    // Loading holds up the event loop: the connection is made and the first is sent before it, the second as soon as the runtime takes more.
    await turns(2);
    const { readPods } = await import("./manifest.ts");
    await turns(1);
    const manifest = readPods(texts);
    return { manifest, cri: { ...cri, cgroupDriver: () => driver }, sandboxes };
  } catch (error) {
    cri.close();
    throw error;
  }
}

async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) await new Promise((resolve) => setImmediate(resolve));
}
