/**
 * Runs h2spec, built outside the repository, on the daemon's TCP listener, and holds what it ran beside `h2spec.md`:
 *
 *     bun test/conformance/http2/h2spec.ts H2SPEC
 *
 * Fails if a case fails, is skipped, or stands in one of the two alone.
 */
import { join } from "node:path";
import { startDaemon } from "../../support/daemons.ts";
import { freePort } from "../../support/ports.ts";
import { run } from "../../support/processes.ts";
import { h2specTable } from "./h2spec-table.ts";

interface Outcome {
  readonly id: string;
  readonly title: string;
  readonly failure: string | undefined;
}

const ESCAPES: Readonly<Record<string, string>> = {
  "&lt;": "<",
  "&gt;": ">",
  "&quot;": '"',
  "&#39;": "'",
  "&#34;": '"',
  "&amp;": "&",
};

function unescaped(text: string): string {
  return text.replace(/&(?:lt|gt|quot|#39|#34|amp);/g, (coded) => ESCAPES[coded] ?? coded);
}

/** The cases of a JUnit report: `package` is the section, cases are numbered in their order there. */
function outcomesOf(report: string): Outcome[] {
  const counts = new Map<string, number>();
  return [...report.matchAll(/<testcase\b([^>]*?)(?:\/>|>([\s\S]*?)<\/testcase>)/g)].map(
    ([, attributes = "", body = ""]) => {
      const attribute = (name: string): string =>
        unescaped(new RegExp(`\\b${name}="([^"]*)"`).exec(attributes)?.[1] ?? "");
      const section = attribute("package");
      const count = (counts.get(section) ?? 0) + 1;
      counts.set(section, count);
      const failed = /<(?:failure|error|skipped)\b[\s\S]*/.exec(body)?.[0];
      return { id: `${section}/${count}`, title: attribute("classname"), failure: failed };
    },
  );
}

const [h2spec] = process.argv.slice(2);
if (h2spec === undefined) throw new Error("usage: h2spec.ts H2SPEC");
const port = await freePort();
await using daemon = await startDaemon("bunkerd", {
  config: `tcp_address = "127.0.0.1:${port}"`,
});
const report = join(daemon.folder, "h2spec.xml");
// The case before http2/5.3.1 opens 16,385 streams: on a machine with other work the next one has to wait for their answers.
const command = [
  h2spec,
  "--strict",
  "--timeout",
  "10",
  "--host",
  "127.0.0.1",
  "--port",
  String(port),
  "--junit-report",
  report,
];
const { stdout } = await run([...command, "generic", "http2", "hpack"], { cwd: daemon.folder });
const outcomes = outcomesOf(await Bun.file(report).text());
const table = h2specTable();
const faults = outcomes.flatMap(({ id, title, failure }) => [
  ...(failure === undefined ? [] : [`${id}: ${title}: ${failure}`]),
  ...(table.get(id)?.title === title ? [] : [`h2spec.md has not "${id}: ${title}"`]),
]);
const ran = new Set(outcomes.map(({ id }) => id));
for (const id of table.keys()) if (!ran.has(id)) faults.push(`${id} of h2spec.md was not run`);
process.stdout.write(`${stdout.trimEnd().split("\n").slice(-2).join("\n")}\n`);
for (const fault of faults) process.stdout.write(`${fault}\n`);
if (outcomes.length === 0 || faults.length > 0) process.exitCode = 1;
