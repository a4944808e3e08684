import { ownValue } from "../lib/record.ts";
import type { Labels } from "../model/labels.ts";

/** True if the labels have each of the selector's, with its value. */
export function matchesLabels(labels: Labels, selector: Labels): boolean {
  return Object.entries(selector).every(([key, value]) => ownValue(labels, key) === value);
}
