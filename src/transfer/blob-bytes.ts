import type { ContentStore } from "../model/content.ts";
import { fail } from "../model/errors.ts";
import type { Scope } from "../model/scope.ts";

const PIECE_BYTES = 1 << 20;

/** The bytes of a blob, in pieces that the caller may keep. @throws NotFound, DataLoss */
export async function* readBlob(
  content: ContentStore,
  scope: Scope,
  digest: string,
  pieceBytes = PIECE_BYTES,
): AsyncGenerator<Buffer> {
  const blob = await content.open(scope, digest);
  try {
    for (let at = 0; at < blob.sizeBytes; ) {
      const piece = Buffer.allocUnsafeSlow(Math.min(pieceBytes, blob.sizeBytes - at));
      const count = await blob.read(piece, at);
      if (count === 0) throw fail("DataLoss", `blob ${digest} ends at byte ${at}`);
      at += count;
      yield piece.subarray(0, count);
    }
  } finally {
    await blob.close();
  }
}
