import type { DescMethod } from "@bufbuild/protobuf";
import { CallContext } from "../grpc/context.ts";
import type { RequestHead } from "../grpc/request-headers.ts";
import type { Call } from "./messages.ts";

/** Connect's context over a ttrpc request: metadata are its headers. */
export class TtrpcCallContext extends CallContext {
  constructor(method: DescMethod, call: Call, deadlineMs: number) {
    super(method, headOf(call), deadlineMs);
  }

  override get protocolName(): string {
    return "ttrpc";
  }
}

function headOf({ service, method, metadata }: Call): RequestHead {
  return {
    method: "POST",
    path: `/${service}/${method}`,
    header: (name) => headerOf(metadata, name),
    headers: () => metadata.filter(isHeader),
  };
}

/** All values of a name, joined as HTTP's are. */
function headerOf(metadata: Call["metadata"], name: string): string | undefined {
  const values = metadata.filter(([key]) => key.toLowerCase() === name).map(([, value]) => value);
  return values.length === 0 ? undefined : values.join(", ");
}

/** What `Headers` can hold: metadata may be any text. */
function isHeader([name, value]: readonly [string, string]): boolean {
  return /^[\w!#$%&'*+.^`|~-]+$/.test(name) && /^[\t\x20-\x7e\x80-\xff]*$/.test(value);
}
