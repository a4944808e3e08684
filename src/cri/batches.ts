/** Objects in one message of a stream (`internal/cri/util/stream.go`). */
const BATCH = 5000;

export function* batches<T>(all: readonly T[]): Generator<T[]> {
  for (let at = 0; at < all.length; at += BATCH) yield all.slice(at, at + BATCH);
}
