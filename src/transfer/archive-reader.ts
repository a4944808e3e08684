import { posix } from "node:path";
import { type TarHeader, TarType } from "../diff/tar/header.ts";
import { TarReader, type TarSink } from "../diff/tar/reader.ts";
import { fail, quote } from "../model/errors.ts";

/** Of names in one archive, and of what its symbolic links point at: they are remembered, some 80 bytes for each blob of an image. */
const MAX_NAME_BYTES = 32 << 20;

/** A file of an archive that is being read. */
export interface ArchiveFile {
  /** Cleaned: without `./` and `..`. */
  readonly name: string;
  readonly sizeBytes: number;
  /** The next bytes, which are not to be kept; empty at the end. */
  read(): Promise<Buffer>;
}

export interface Archive {
  /** Calls `visit` for each regular file in its order; what it leaves unread is skipped. */
  walk(visit: (file: ArchiveFile) => Promise<void>): Promise<void>;
  /** Of those walked over: names of symbolic links to the names that they point at. */
  readonly links: ReadonlyMap<string, string>;
}

type Event =
  | { readonly kind: "entry"; readonly header: TarHeader }
  | { readonly kind: "data"; readonly bytes: Buffer }
  | { readonly kind: "end" };

/** Reads a tar that comes in pieces. Memory: one piece, and names. @throws Unknown on what is no tar, ResourceExhausted on too many names, and what `pieces` throws */
export function readArchive(pieces: AsyncIterable<Buffer>): Archive {
  const links = new Map<string, string>();
  let nameBytes = 0;
  const events = eventsOf(pieces);
  const next = async (): Promise<Event | undefined> => {
    const { value, done } = await events.next();
    return done === true ? undefined : value;
  };
  const walk = async (visit: (file: ArchiveFile) => Promise<void>): Promise<void> => {
    try {
      for (let event = await next(); event !== undefined; event = await next()) {
        if (event.kind !== "entry") continue;
        const { header } = event;
        const name = textOf(header.name);
        nameBytes += header.name.length + header.linkName.length;
        if (nameBytes > MAX_NAME_BYTES)
          throw fail("ResourceExhausted", `${quote(name)}: names of more than ${MAX_NAME_BYTES} bytes`);
        if (header.type === TarType.symbolicLink)
          links.set(name, posix.join(posix.dirname(name), textOf(header.linkName)));
        if (header.type !== TarType.file) continue;
        let ended = false;
        await visit({
          name: posix.normalize(name),
          sizeBytes: header.sizeBytes,
          async read() {
            const piece = ended ? undefined : await next();
            if (piece?.kind === "data") return piece.bytes;
            ended = true;
            return Buffer.alloc(0);
          },
        });
      }
    } finally {
      await events.return(undefined);
    }
  };
  return { links, walk };
}

/** What the reader tells of each piece, before the next one is taken. */
async function* eventsOf(pieces: AsyncIterable<Buffer>): AsyncGenerator<Event, undefined> {
  let told: Event[] = [];
  let position = 0;
  const sink: TarSink = {
    entry(header) {
      position = 0;
      told.push({ kind: "entry", header });
    },
    data(bytes, offset) {
      if (offset !== position) throw fail("InvalidArgument", "archive holds a sparse file");
      position += bytes.length;
      told.push({ kind: "data", bytes });
    },
    end: () => void told.push({ kind: "end" }),
  };
  const reader = new TarReader(sink);
  for await (const piece of pieces) {
    reader.push(piece);
    const events = told;
    told = [];
    yield* events;
  }
  reader.finish();
}

/** A file's whole content. @throws ResourceExhausted if it is larger */
export async function readWhole(file: ArchiveFile, maxBytes: number): Promise<Buffer> {
  if (file.sizeBytes > maxBytes)
    throw fail("ResourceExhausted", `${quote(file.name)} of ${file.sizeBytes} bytes`);
  const parts: Buffer[] = [];
  for (let part = await file.read(); part.length > 0; part = await file.read()) parts.push(Buffer.from(part));
  return Buffer.concat(parts);
}

/** Names are bytes, one character each. */
function textOf(name: string): string {
  return Buffer.from(name, "latin1").toString();
}
