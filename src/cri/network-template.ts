/** A CNI configuration from a template (`internal/cri/server/update_runtime_config.go`). */
import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { isIP } from "node:net";
import { join } from "node:path";
import { BunkerdError, quote } from "../model/errors.ts";
import type { Cri } from "./cri.ts";
import { step } from "./records.ts";

const FILE = "10-containerd-net.conflist";

/**
 * The kubelet tells the node's pod addresses. If the configuration names a template, and there is no network yet, that makes one.
 * @throws Unknown for what is no CIDR; Unimplemented for a template that does more than name values
 */
export async function updateRuntimeConfig(cri: Cri, podCidr: string): Promise<void> {
  if (podCidr === "") return;
  const cidrs = podCidr.split(",").map((text) => text.trim());
  const routes = await step("get routes", () => routesOf(cidrs));
  const { conf_template: template, conf_dir: folder } = cri.config.runtime.cni;
  if (template === "" || (await cri.networks.status()).ready) return;
  const values = { PodCIDR: cidrs[0] ?? "", PodCIDRRanges: cidrs, Routes: routes };
  const text = await step(`failed to parse cni config template ${quote(template)}`, () =>
    expand(readFileSync(template, "utf8"), values),
  );
  await step(`failed to create cni config directory: ${quote(folder)}`, () =>
    mkdirSync(folder, { recursive: true, mode: 0o755 }),
  );
  const path = join(folder, FILE);
  await step(`failed to generate cni config file ${quote(path)}`, () => {
    writeFileSync(`${path}.tmp`, text, { mode: 0o644 });
    renameSync(`${path}.tmp`, path);
  });
}

/** The default routes of the families that there are. */
function routesOf(cidrs: readonly string[]): string[] {
  const families = new Set(cidrs.map(familyOf));
  return [...(families.has(4) ? ["0.0.0.0/0"] : []), ...(families.has(6) ? ["::/0"] : [])];
}

function familyOf(cidr: string): number {
  const [address = "", length = "", ...rest] = cidr.split("/");
  // Go's addresses of networks have no zone.
  const family = address.includes("%") ? 0 : isIP(address);
  const longest = family === 4 ? 32 : 128;
  if (family === 0 || rest.length > 0 || !/^\d+$/.test(length) || Number(length) > longest)
    throw new BunkerdError("Unknown", `invalid CIDR address: ${cidr}`);
  return family;
}

const ACTION = /\{\{-?(.*?)-?\}\}/gs;

type Values = Readonly<Record<string, string | readonly string[]>>;

/**
 * Go's text/template, as far as the templates of containerd's documentation go: `{{.Name}}`, and `{{range $i, $x := .List}}…{{end}}` with
 * `{{if $i}}…{{end}}`, `{{$x}}` and `{{.}}` in it.
 */
function expand(template: string, values: Values): string {
  const range =
    /\{\{-?\s*range (?:\$(\w+), \$(\w+) := )?\.(\w+)\s*-?\}\}((?:\{\{-?\s*if \$\w+\s*-?\}\}.*?\{\{-?\s*end\s*-?\}\}|.)*?)\{\{-?\s*end\s*-?\}\}/gs;
  const text = template.replaceAll(
    range,
    (_whole, index: string, item: string, list: string, body: string) => {
      const items = values[list];
      if (!Array.isArray(items)) throw new BunkerdError("Unknown", `${list} is no list`);
      return items.map((value: string, at) => expandItem(body, { index, item, at, value })).join("");
    },
  );
  if (text.replaceAll(ACTION, "").includes("{{")) throw new BunkerdError("Unknown", "unclosed action");
  return text.replaceAll(ACTION, (_whole, action: string) => {
    const name = action.trim().replace(/^\./, "");
    const value = Object.hasOwn(values, name) ? values[name] : undefined;
    if (typeof value === "string") return value;
    throw new BunkerdError("Unimplemented", `action ${quote(action.trim())} is not implemented`);
  });
}

function expandItem(
  body: string,
  { index, item, at, value }: { index: string; item: string; at: number; value: string },
): string {
  return body
    .replaceAll(
      /\{\{-?\s*if \$(\w+)\s*-?\}\}(.*?)\{\{-?\s*end\s*-?\}\}/gs,
      (whole, name: string, then: string) => (name !== index ? whole : at > 0 ? then : ""),
    )
    .replaceAll(/\{\{-?\s*(\.|\$\w+)\s*-?\}\}/g, (whole, name: string) =>
      name === "." || name === `$${item}` ? value : whole,
    );
}
