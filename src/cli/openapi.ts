import { API_SERVICES } from "../daemon/api.ts";
import { openApiDocument } from "../transport/openapi.ts";
import { VERSION } from "./version.ts";

export function printOpenapi(): void {
  const document = openApiDocument(API_SERVICES, { title: "bunkerd", version: VERSION });
  process.stdout.write(`${JSON.stringify(document, null, 2)}\n`);
}
