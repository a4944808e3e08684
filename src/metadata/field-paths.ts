import { create } from "@bufbuild/protobuf";
import { AnySchema } from "@bufbuild/protobuf/wkt";
import { ownValue, setOwn } from "../lib/record.ts";
import type { AnyMap, TextMap } from "./fields.ts";

/** What containers and sandboxes have that a field mask may reach into. */
interface Masked {
  labels: TextMap;
  extensions: AnyMap;
}

/**
 * Carries out a path `labels.<key>` or `extensions.<key>`; false for any other. A missing label becomes empty, which removes
 * it when written; a missing extension becomes an empty Any, as in containerd.
 */
export function applyKeyPath(target: Masked, source: Readonly<Masked>, path: string): boolean {
  const dot = path.indexOf(".");
  const [field, key] = [path.slice(0, dot), path.slice(dot + 1)];
  if (dot === -1) return false;
  if (field === "labels") {
    setOwn(target.labels, key, ownValue(source.labels, key) ?? "");
    return true;
  }
  if (field === "extensions") {
    setOwn(target.extensions, key, ownValue(source.extensions, key) ?? create(AnySchema));
    return true;
  }
  return false;
}
