import type { ActiveMount, Mount } from "#gen/containerd/types/mount_pb.ts";
import { fail, quote } from "../model/errors.ts";

/*
 * `format/<type>`: values of earlier mounts in later ones (containerd `docs/mounts.md`, "Format Transformer"). There the text is a Go
 * template; these four functions of numbers are all that it is given to work with.
 */

const ACTION = /\{\{([^{}]*)\}\}/g;

/** Source, target and options with `{{ source 0 }}`, `{{ target 0 }}`, `{{ mount 0 }}`, `{{ overlay 0 2 }}` filled in. @throws InvalidArgument */
export function formatMount(mount: Mount, active: readonly ActiveMount[]): Mount {
  return {
    ...mount,
    source: formatText(mount.source, active),
    target: formatText(mount.target, active),
    options: mount.options.map((option) => formatText(option, active)),
  };
}

function formatText(text: string, active: readonly ActiveMount[]): string {
  if (!text.includes("{{")) return text;
  if (text.replaceAll(ACTION, "").includes("{{")) throw invalid(text, "unclosed action");
  return text.replaceAll(ACTION, (_all, action: string) =>
    resultOf(text, action.trim().split(/\s+/), active),
  );
}

function resultOf(text: string, words: readonly string[], active: readonly ActiveMount[]): string {
  const [name = "", ...rest] = words;
  const numbers = rest.map((word) => (/^-?\d+$/.test(word) ? Number(word) : Number.NaN));
  const field = FIELDS.get(name);
  const wanted = name === "overlay" ? 2 : 1;
  if (field === undefined && name !== "overlay") throw invalid(text, `function ${quote(name)} not defined`);
  if (numbers.length !== wanted || numbers.some(Number.isNaN))
    throw invalid(text, `${name}: want ${wanted === 1 ? "a number" : "two numbers"}`);
  const [first = 0, last = 0] = numbers;
  if (field === undefined) return overlay(text, first, last, active);
  const found = active[first];
  if (found === undefined)
    throw invalid(text, `index out of bounds: ${first}, has ${active.length} active mounts`);
  return field(found);
}

const FIELDS: ReadonlyMap<string, (active: ActiveMount) => string> = new Map([
  ["source", ({ mount }: ActiveMount) => mount?.source ?? ""],
  ["target", ({ mount }: ActiveMount) => mount?.target ?? ""],
  ["mount", ({ mountPoint }: ActiveMount) => mountPoint],
]);

/** Mount points from one to another, in either direction, as overlayfs lists folders. */
function overlay(text: string, first: number, last: number, active: readonly ActiveMount[]): string {
  const [low, high] = first > last ? [last, first] : [first, last];
  if (low < 0 || high >= active.length)
    throw invalid(text, `invalid range: ${first}-${last}, has ${active.length} active mounts`);
  const points = active.slice(low, high + 1).map(({ mountPoint }) => mountPoint);
  return (first > last ? points.reverse() : points).join(":");
}

function invalid(text: string, problem: string): Error {
  return fail("InvalidArgument", `mount format ${quote(text)}: ${problem}`);
}
