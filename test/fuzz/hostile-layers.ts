/** Layers that try to leave the root, or to exhaust memory, inodes or names. `outside` is a folder beside the root. */
import { LAYER_LIMITS, type LayerLimits } from "../../src/diff/limits.ts";
import { gnuLong, type TarEntry, tar } from "../support/tar.ts";

export interface HostileLayer {
  readonly bytes: Buffer;
  /** What the error must say; undefined where the layer applies without harm. */
  readonly refused: RegExp | undefined;
  /** Where it is refused; everywhere by default. */
  readonly only?: "remove";
  /** Lower than a layer's, which would take minutes to reach. */
  readonly limits?: LayerLimits;
}

const dir = (name: string): TarEntry => ({ name, type: "5", mode: 0o755 });
const link = (name: string, to: string): TarEntry => ({ name, type: "2", link: to });
const hard = (name: string, to: string): TarEntry => ({ name, type: "1", link: to });
const file = (name: string, data = "evil"): TarEntry => ({ name, data });

const harmless = (...entries: TarEntry[]): HostileLayer => ({ bytes: tar(entries), refused: undefined });
const refused = (error: RegExp, ...entries: TarEntry[]): HostileLayer => ({
  bytes: tar(entries),
  refused: error,
});
const raw = (error: RegExp, bytes: Buffer): HostileLayer => ({ bytes, refused: error });

/** Refused for the sixth of what there may be five of. */
const beyond = (
  limits: Partial<LayerLimits>,
  error: RegExp,
  entry: (name: string) => TarEntry,
  only?: "remove",
): HostileLayer => ({
  ...refused(error, ...Array.from({ length: 9 }, (_, at) => entry(`e${at}`))),
  limits: { ...LAYER_LIMITS, ...limits },
  ...(only === undefined ? {} : { only }),
});

const sparse = (map: string, size: string): NonNullable<TarEntry["pax"]> => ({
  "GNU.sparse.major": "0",
  "GNU.sparse.minor": "1",
  "GNU.sparse.map": map,
  "GNU.sparse.size": size,
});

/** Each by a name; `outside` is an absolute path. */
export function hostileLayers(outside: string): Readonly<Record<string, HostileLayer>> {
  const deep = "d/".repeat(3000);
  return {
    "file by ..": harmless(file("../outside/new")),
    "file by many ..": harmless(file(`${"../".repeat(60)}${outside.slice(1)}/new`)),
    "file by .. in the middle": harmless(file("a/../../outside/new")),
    "absolute file": harmless(file(`${outside}/new`)),
    "file by PAX path with ..": harmless({ ...file("x"), pax: { path: "../outside/new" } }),
    "file by GNU long name with ..": harmless(gnuLong("L", `${"../".repeat(80)}outside/new`), file("x")),
    "directory by ..": harmless(dir("../outside/secret.d")),
    "the root itself": harmless(dir("."), dir("/"), dir(".."), file("./")),
    "the root as a link": harmless(link(".", outside), link("/", outside), file("new")),
    "file through an absolute link": harmless(link("a", outside), file("a/new")),
    "file through a relative link": harmless(link("a", "../outside"), file("a/new")),
    "file through a link with many ..": harmless(link("a", `${"../".repeat(60)}${outside}`), file("a/new")),
    "file through links in a row": harmless(
      link("a", outside),
      link("b", "a"),
      link("c", "b/."),
      file("c/x"),
    ),
    "file through /proc": harmless(link("a", "/proc/self/root"), file(`a${outside}/new`)),
    "file through /proc/self/cwd": harmless(link("a", "/proc/self/cwd/.."), file("a/new")),
    "file over a link": harmless(link("a", `${outside}/secret`), file("a")),
    "directory over a link": harmless(link("a", outside), dir("a"), file("a/new")),
    "mode through a link": harmless(link("a", `${outside}/secret`), { name: "a", type: "5", mode: 0 }),
    "FIFO over a link": harmless(link("a", `${outside}/secret`), { name: "a", type: "6", mode: 0 }),
    "link turned after its directory": harmless(dir("a"), file("a/x"), link("a", outside), file("a/new")),
    "directory turned into a link and back": harmless(
      link("a", outside),
      dir("a"),
      link("a", outside),
      file("a/x"),
    ),
    "times of a directory that became a link": harmless(dir("a"), link("a", outside)),
    "times of a directory below one that became a link": harmless(
      dir("a"),
      dir("a/secret.d"),
      link("a", outside),
    ),
    "hard link by ..": refused(/"h".*no such file/, hard("h", "../outside/secret")),
    "absolute hard link": refused(/"h".*no such file/, hard("h", `${outside}/secret`)),
    "hard link through a link": refused(/"h".*no such file/, link("a", outside), hard("h", "a/secret")),
    "hard link to a link, then a write": harmless(link("a", `${outside}/secret`), hard("h", "a"), file("h")),
    "mode by a hard link to a link": harmless(link("a", `${outside}/secret`), {
      ...hard("h", "a"),
      mode: 0o4777,
    }),
    "hard link to the root": refused(/"h".*hard link to the root/, hard("h", "../..")),
    "hard link to a directory": refused(/"h".*not permitted/, dir("d"), hard("h", "d")),
    "hard link to itself": refused(/"h".*no such file/, hard("h", "h")),
    "whiteout by ..": harmless(file("../outside/.wh.secret", "")),
    "whiteout through a link": harmless(link("a", outside), file("a/.wh.secret", "")),
    "whiteout of ..": refused(/invalid whiteout name/, file(".wh...", "")),
    "whiteout of .": refused(/invalid whiteout name/, file("d/.wh..", "")),
    "whiteout of nothing": refused(/invalid whiteout name/, file("d/.wh.", "")),
    "opaque marker through a link": harmless(link("a", outside), file("a/.wh..wh..opq", "")),
    "opaque marker by ..": harmless(file("../outside/.wh..wh..opq", "")),
    "files without end": beyond({ inodes: 5 }, /"e5".*more than 5 files/, (name) => file(name, "")),
    "links without end": beyond({ inodes: 5 }, /"e5".*more than 5 files/, (name) => link(name, "x")),
    "whiteouts without end": beyond({ inodes: 5 }, /"\.wh\.e5".*more than 5 files/, (name) =>
      file(`.wh.${name}`, ""),
    ),
    "implied directories without end": beyond({ inodes: 5 }, /"e1\/a\/b".*more than 5 files/, (name) =>
      file(`${name}/a/b`, ""),
    ),
    "directories without end": beyond({ directories: 5 }, /"e5".*more than 5 directories/, dir),
    "names without end": beyond(
      { rememberedBytes: 10 },
      /"e5".*names of more than 10 bytes/,
      (name) => file(name, ""),
      "remove",
    ),
    "links in a circle": refused(/too many links/, link("a", "b"), link("b", "a"), file("a/x")),
    "link to itself": refused(/too many links/, link("a", "a"), file("a/x")),
    "links that double": refused(
      /too many links/,
      link("l0", "."),
      ...Array.from({ length: 9 }, (_, n) => link(`l${n + 1}`, `l${n}/l${n}`)),
      file("l9/x"),
    ),
    "file as a directory": refused(/"f\/x".*not a directory/, file("f"), file("f/x")),
    "FIFO as a directory": refused(/"f\/x".*not a directory/, { name: "f", type: "6" }, file("f/x")),
    "name with a NUL in PAX": refused(/holds a NUL/, { ...file("x"), pax: { path: "a\0b" } }),
    "link with a NUL in PAX": refused(/holds a NUL/, { ...link("x", "y"), pax: { linkpath: "/a\0b" } }),
    "name of 10,000 bytes": refused(/file name too long/, {
      ...file("x"),
      pax: { path: "n".repeat(10_000) },
    }),
    "component of 300 bytes": refused(/file name too long/, { ...file("x"), pax: { path: "n".repeat(300) } }),
    "path of 3,000 directories": refused(/file name too long/, { ...file("x"), pax: { path: `${deep}x` } }),
    "link of 10,000 bytes": refused(/file name too long/, {
      ...link("x", ""),
      pax: { linkpath: "n".repeat(10_000) },
    }),
    "empty link": refused(/"x".*no such file/, link("x", "")),
    "PAX record of 2 GiB": refused(/record of/, { name: "p", type: "x", size: 2 ** 31 }),
    "GNU name of 1 GiB": refused(/record of/, { name: "p", type: "L", size: 2 ** 30 }),
    "PAX record with a wrong length": raw(
      /broken PAX/,
      tar([{ name: "p", type: "x", data: "99 path=x\n" }, file("x")]),
    ),
    "PAX record without a key": raw(
      /broken PAX/,
      tar([{ name: "p", type: "x", data: "6 =abc\n" }, file("x")]),
    ),
    "PAX size that is none": refused(/is no number/, { ...file("x"), pax: { size: "1e9" } }),
    "negative size": refused(/negative size/, { ...file("x"), pax: { size: "-1" } }),
    "size beyond 2^53": refused(/is no number|out of range/, {
      ...file("x"),
      pax: { size: "99999999999999999" },
    }),
    "size beyond the archive": refused(/unexpected EOF/, { ...file("x"), size: 2 ** 32 }),
    "file of 8 EiB by a hole": refused(/"x".*(too large|out of range|broken sparse map)/, {
      ...file("x", ""),
      pax: sparse("", "9223372036854775807"),
    }),
    "overlapping sparse map": refused(/overlap/, { ...file("x", "abcdef"), pax: sparse("0,4,2,2", "6") }),
    "sparse map beyond the file": refused(/does not fit/, { ...file("x", "abc"), pax: sparse("9,3", "6") }),
    "sparse map of other length": refused(/does not fit/, { ...file("x", "abc"), pax: sparse("0,9", "9") }),
    "sparse map of millions": refused(/sparse map|too many/, {
      ...file("x", "9999999\n".padEnd(512, "1\n")),
      pax: { "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "1" },
    }),
    "device number out of range": refused(/out of range/, {
      name: "x",
      type: "3",
      patch: (header) => {
        header[329] = 0x80;
        header.writeUInt32BE(2, 331);
      },
    }),
    "xattr of overlayfs": harmless({
      ...dir("d"),
      pax: { "SCHILY.xattr.trusted.overlay.redirect": "/../.." },
    }),
    "xattr name with a slash": harmless({ ...file("x"), pax: { "SCHILY.xattr.security/../x": "1" } }),
    "xattr of 100 kB": refused(/"x"/, { ...file("x"), pax: { "SCHILY.xattr.user.x": "v".repeat(100_000) } }),
    "uid that is no id": refused(/"x".*uid.*out of range/, { ...file("x"), pax: { uid: "-5000000000" } }),
    "unknown type": refused(/"x".*unhandled tar header type 90/, { ...file("x"), type: "Z" }),
    "wrong checksum": refused(/checksum/, { ...file("x"), checksum: 1 }),
    "random bytes": raw(/invalid tar header/, Buffer.alloc(4096, "random")),
    "entry behind a block of zeros": raw(
      /block of zeros/,
      Buffer.concat([Buffer.alloc(512), tar([file("x")])]),
    ),
    "cut in a header": raw(/unexpected EOF/, tar([file("x")]).subarray(0, 300)),
    "cut behind a PAX header": raw(
      /unexpected EOF/,
      tar([{ ...file("x"), pax: { path: "y" } }]).subarray(0, 1024),
    ),
    "cut in the data": raw(/unexpected EOF/, tar([file("x", "y".repeat(2000))]).subarray(0, 1000)),
  };
}
