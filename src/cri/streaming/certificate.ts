import { createSign, generateKeyPairSync, randomBytes } from "node:crypto";
import { isIP } from "node:net";
import { hostname, networkInterfaces } from "node:os";

export interface KeyPair {
  /** PEM. */
  readonly cert: string;
  readonly key: string;
}

const YEAR_MS = 365 * 24 * 3_600_000;
const HOUR_MS = 3_600_000;
const [BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, OBJECT_ID, UTF8_STRING, SEQUENCE, SET] = [
  0x01, 0x02, 0x03, 0x04, 0x06, 0x0c, 0x30, 0x31,
];
const GENERALIZED_TIME = 0x18;
const [ECDSA_WITH_SHA256, COMMON_NAME] = ["1.2.840.10045.4.3.2", "2.5.4.3"];
const [SUBJECT_ALT_NAME, BASIC_CONSTRAINTS, KEY_USAGE, EXTENDED_KEY_USAGE] = [
  "2.5.29.17",
  "2.5.29.19",
  "2.5.29.15",
  "2.5.29.37",
];
const SERVER_AUTH = "1.3.6.1.5.5.7.3.1";

/**
 * A new key, and a certificate of it for a year that it has signed itself: for this host's name and all its addresses, as the reference's
 * (containerd `internal/cri/config/streaming.go`). X.509 v3 (RFC 5280), ECDSA on P-256.
 */
export function selfSignedCertificate(nowMs: number = Date.now()): KeyPair {
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "prime256v1" });
  const addresses = Object.values(networkInterfaces()).flatMap((list) =>
    (list ?? []).map(({ address }) => address),
  );
  const algorithm = der(SEQUENCE, objectId(ECDSA_WITH_SHA256));
  const name = der(
    SEQUENCE,
    der(
      SET,
      der(
        SEQUENCE,
        objectId(COMMON_NAME),
        der(UTF8_STRING, Buffer.from(`${hostname()}@${Math.floor(nowMs / 1000)}`)),
      ),
    ),
  );
  const serial = randomBytes(16);
  // Positive, and without leading zeros.
  serial[0] = ((serial[0] ?? 0) & 0x7f) | 0x40;
  const extensions = der(
    SEQUENCE,
    extension(BASIC_CONSTRAINTS, true, der(SEQUENCE, der(BOOLEAN, Buffer.of(0xff)))),
    // digitalSignature, keyCertSign
    extension(KEY_USAGE, true, der(BIT_STRING, Buffer.of(2, 0x84))),
    extension(EXTENDED_KEY_USAGE, false, der(SEQUENCE, objectId(SERVER_AUTH))),
    extension(
      SUBJECT_ALT_NAME,
      false,
      der(SEQUENCE, ...[hostname(), "localhost", ...new Set(addresses)].map(altName)),
    ),
  );
  const content = der(
    SEQUENCE,
    der(0xa0, der(INTEGER, Buffer.of(2))),
    der(INTEGER, serial),
    algorithm,
    name,
    der(SEQUENCE, time(nowMs - HOUR_MS), time(nowMs + YEAR_MS)),
    name,
    publicKey.export({ type: "spki", format: "der" }),
    der(0xa3, extensions),
  );
  const signature = createSign("sha256").update(content).sign(privateKey);
  const certificate = der(
    SEQUENCE,
    content,
    algorithm,
    der(BIT_STRING, Buffer.concat([Buffer.of(0), signature])),
  );
  const lines = certificate.toString("base64").replaceAll(/.{1,64}/g, "$&\n");
  return {
    cert: `-----BEGIN CERTIFICATE-----\n${lines}-----END CERTIFICATE-----\n`,
    key: privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
  };
}

/** Tag, length, value (X.690). */
function der(tag: number, ...values: readonly Uint8Array[]): Buffer {
  const value = Buffer.concat(values);
  if (value.length < 0x80) return Buffer.concat([Buffer.of(tag, value.length), value]);
  const length: number[] = [];
  for (let rest = value.length; rest > 0; rest >>= 8) length.unshift(rest & 0xff);
  return Buffer.concat([Buffer.of(tag, 0x80 | length.length, ...length), value]);
}

function objectId(dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split(".").map(Number);
  const bytes = [first * 40 + second, ...rest].flatMap((arc) => {
    const digits = [arc & 0x7f];
    for (let left = arc >>> 7; left > 0; left >>>= 7) digits.unshift((left & 0x7f) | 0x80);
    return digits;
  });
  return der(OBJECT_ID, Buffer.from(bytes));
}

function extension(id: string, critical: boolean, value: Uint8Array): Buffer {
  const mark = critical ? [der(BOOLEAN, Buffer.of(0xff))] : [];
  return der(SEQUENCE, objectId(id), ...mark, der(OCTET_STRING, value));
}

/** dNSName or iPAddress. */
function altName(name: string): Buffer {
  if (isIP(name) === 0) return der(0x82, Buffer.from(name));
  return der(0x87, isIP(name) === 4 ? Buffer.from(name.split(".").map(Number)) : ipv6Bytes(name));
}

function ipv6Bytes(address: string): Buffer {
  const [head = "", tail] = address.replace(/%.*$/, "").split("::");
  const groups = (text: string): string[] => text.split(":").filter((group) => group !== "");
  const [before, after] = [groups(head), groups(tail ?? "")];
  const zeros = Array.from({ length: 8 - before.length - after.length }, () => "0");
  const bytes = Buffer.alloc(16);
  [...before, ...zeros, ...after].forEach((group, index) => {
    bytes.writeUInt16BE(Number.parseInt(group, 16), 2 * index);
  });
  return bytes;
}

function time(ms: number): Buffer {
  const text = new Date(ms).toISOString().replaceAll(/[-:T]|\.\d+/g, "");
  return der(GENERALIZED_TIME, Buffer.from(text));
}
