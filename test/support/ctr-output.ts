/** What ctr prints, without what differs from run to run. */
import type { Daemon } from "./daemons.ts";
import type { Finished } from "./processes.ts";

/** Code, output and errors; folders, times, ages, speeds and the width of columns are left out, labels sorted: their order is a Go map's. */
export function transcript({ code, stdout, stderr }: Finished, daemon: Daemon): string {
  return (
    `code ${code}\n---\n${stdout}\n${stderr}`
      .replaceAll(daemon.folder, "<folder>")
      // What shows ctr's progress may ask for the last time when the pull is over.
      .replaceAll(/^time=.* msg="failed to get content info" error="context canceled"\n/gm, "")
      .replaceAll(/\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z| \+0000 UTC)/g, "<time>")
      .replaceAll(/Less than a second|\d+ seconds?|About a minute/g, "<age>")
      .replaceAll(/locked for \S+ \(since [^)]*\)/g, "locked for <age>")
      .replaceAll(/elapsed:\s*[\d.]+ ?m?s\s*total: .*/g, "elapsed")
      .replaceAll(/\(\d+(?:\.\d+)?[mµ]?s\)|took [\d.]+m?s/g, "<took>")
      .replaceAll(/\d{1,9}-[\w-]{4} (sha256:)/g, "<unique> $1")
      .replaceAll(/[\t ]+/g, " ")
      .replaceAll(/\S+=\S*(?:,\S+=\S*)+/g, (list) => list.split(",").sort().join(","))
  );
}
