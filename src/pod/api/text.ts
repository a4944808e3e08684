/** The text of a manifest's file. */
import { isUtf8 } from "node:buffer";
import { BunkerdError } from "../../model/errors.ts";

/** @throws InvalidArgument of what is no UTF-8: decoded all the same, it would say something else than its author wrote */
export function manifestText(bytes: Buffer, file: string): string {
  const text = bytes.toString("utf8");
  if (isUtf8(bytes)) return text;
  const isUtf16 = ["fffe", "feff"].includes(bytes.subarray(0, 2).toString("hex"));
  const line = isUtf16 ? 1 : text.slice(0, text.indexOf("\ufffd")).split("\n").length;
  const what = isUtf16 ? "is UTF-16: save it as UTF-8" : "is not UTF-8";
  throw new BunkerdError("InvalidArgument", `${file}:${line}: ${what}`);
}
