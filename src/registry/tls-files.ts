import { readFileSync, statSync } from "node:fs";
import { BunkerdError, messageOf } from "../model/errors.ts";
import type { TlsFiles } from "./hosts.ts";
import { MAX_PEM_BYTES } from "./limits.ts";

/** Where distributions keep the authorities that a machine trusts (Go `crypto/x509/root_linux.go`). */
const SYSTEM_BUNDLES = [
  "/etc/ssl/certs/ca-certificates.crt",
  "/etc/pki/tls/certs/ca-bundle.crt",
  "/etc/ssl/ca-bundle.pem",
  "/etc/ssl/cert.pem",
];

/**
 * Reads certificates and keys as fetch takes them; the machine's authorities stay trusted beside those of a host.
 * @throws Unknown, naming the file
 */
export function readTls({ ca, client, skipVerify }: TlsFiles): BunFetchRequestInitTLS | undefined {
  const system = systemBundle();
  const authorities = [...(system === undefined ? [] : [system]), ...(ca ?? []).map(readAuthority)];
  const pairs = (client ?? []).map(([cert, key]) => ({
    cert: readPem(cert, "CERT file", "CERTIFICATE"),
    key: readPem(key ?? cert, "CERT file", "PRIVATE KEY"),
  }));
  if (authorities.length === 0 && pairs.length === 0 && skipVerify === undefined) return undefined;
  return {
    ...(authorities.length === 0 ? {} : { ca: authorities }),
    ...(pairs.length === 0 ? {} : { cert: pairs.map(({ cert }) => cert), key: pairs.map(({ key }) => key) }),
    rejectUnauthorized: skipVerify !== true,
  };
}

function readAuthority(file: string): string {
  return readPem(file, "CA cert", "CERTIFICATE");
}

function readPem(file: string, what: string, block: string): string {
  let text: string;
  try {
    if (statSync(file).size > MAX_PEM_BYTES) throw new Error("too large");
    text = readFileSync(file, "utf8");
  } catch (cause) {
    throw new BunkerdError("Unknown", `unable to read ${what} "${file}": ${messageOf(cause)}`, { cause });
  }
  if (!new RegExp(`-----BEGIN [A-Z ]*${block}-----`).test(text)) {
    throw new BunkerdError("Unknown", `unable to load ${what} "${file}": no ${block.toLowerCase()} in it`);
  }
  return text;
}

function systemBundle(): string | undefined {
  const named = process.env["SSL_CERT_FILE"];
  for (const file of named === undefined || named === "" ? SYSTEM_BUNDLES : [named]) {
    if (statSync(file, { throwIfNoEntry: false })?.isFile() === true) return readFileSync(file, "utf8");
  }
  return undefined;
}
