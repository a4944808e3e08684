import { type FileHandle, open } from "node:fs/promises";
import type { DigestAlgorithm } from "../model/digests.ts";

const READ_BYTES = 1 << 20;

/** A running digest. */
export class Digester {
  readonly algorithm: DigestAlgorithm;
  readonly #hasher: Bun.CryptoHasher;

  constructor(algorithm: DigestAlgorithm) {
    this.algorithm = algorithm;
    this.#hasher = new Bun.CryptoHasher(algorithm);
  }

  update(data: Uint8Array): void {
    this.#hasher.update(data);
  }

  /** `<algorithm>:<sum>` of what came so far; more may follow. */
  digest(): string {
    return `${this.algorithm}:${this.#hasher.copy().digest("hex")}`;
  }
}

/** Feeds a whole file, piece by piece; answers how many bytes that were. */
export async function digestFile(path: string, digester: Digester): Promise<number> {
  const file = await open(path, "r");
  try {
    return await digestOpen(file, digester);
  } finally {
    await file.close();
  }
}

/** The same of a file that is open. */
export async function digestOpen(file: FileHandle, digester: Digester): Promise<number> {
  const buffer = Buffer.allocUnsafeSlow(READ_BYTES);
  let position = 0;
  for (;;) {
    const { bytesRead } = await file.read(buffer, 0, buffer.length, position);
    if (bytesRead === 0) return position;
    digester.update(buffer.subarray(0, bytesRead));
    position += bytesRead;
  }
}
