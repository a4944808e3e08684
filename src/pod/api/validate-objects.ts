/** What every object's metadata and the data of ConfigMaps and Secrets must hold to: Kubernetes' `ValidateObjectMeta`, `ValidateConfigMap`, `ValidateSecret`. */
import type { ConfigMap, ObjectMeta, Secret } from "./meta.ts";
import {
  DNS_LABEL,
  DNS_SUBDOMAIN,
  isDnsLabel,
  isDnsSubdomain,
  isQualifiedName,
  isWord,
  type Problem,
  Problems,
  QUALIFIED_NAME,
  WORD,
} from "./problems.ts";

const MAX_DATA_BYTES = 1 << 20;
const MAX_ANNOTATIONS_BYTES = 256 << 10;
const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

export function validateMeta(
  { name, namespace, labels = {}, annotations = {} }: ObjectMeta,
  problems: Problems,
): void {
  problems.at("name").check(isDnsSubdomain(name), DNS_SUBDOMAIN);
  if (namespace !== undefined) problems.at("namespace").check(isDnsLabel(namespace), DNS_LABEL);
  for (const [key, value] of Object.entries(labels)) {
    const at = problems.at("labels", key);
    at.check(isQualifiedName(key), QUALIFIED_NAME);
    at.check(value === "" || isWord(value), `its value ${WORD}`);
  }
  let bytes = 0;
  for (const [key, value] of Object.entries(annotations)) {
    problems.at("annotations", key).check(isQualifiedName(key.toLowerCase()), QUALIFIED_NAME);
    bytes += Buffer.byteLength(key) + Buffer.byteLength(value);
  }
  problems
    .at("annotations")
    .check(bytes <= MAX_ANNOTATIONS_BYTES, `must have at most ${MAX_ANNOTATIONS_BYTES} bytes`);
}

export function validateConfigMap({ metadata, data = {}, binaryData = {} }: ConfigMap): Problem[] {
  const problems = new Problems();
  validateMeta(metadata, problems.at("metadata"));
  validateKeys(data, problems.at("data"));
  validateKeys(binaryData, problems.at("binaryData"));
  for (const key of Object.keys(data))
    problems.at("data", key).check(!Object.hasOwn(binaryData, key), "duplicate of key present in binaryData");
  const bytes = textBytes(data) + validateBase64(binaryData, problems.at("binaryData"));
  problems.check(bytes <= MAX_DATA_BYTES, `must have at most ${MAX_DATA_BYTES} bytes of data`);
  return problems.found;
}

export function validateSecret({ metadata, type = "", data = {}, stringData = {} }: Secret): Problem[] {
  const problems = new Problems();
  validateMeta(metadata, problems.at("metadata"));
  validateKeys(data, problems.at("data"));
  validateKeys(stringData, problems.at("stringData"));
  const encoded = Object.entries(data).filter(([key]) => !Object.hasOwn(stringData, key));
  const bytes = textBytes(stringData) + validateBase64(Object.fromEntries(encoded), problems.at("data"));
  problems.at("data").check(bytes <= MAX_DATA_BYTES, `must have at most ${MAX_DATA_BYTES} bytes`);
  const textOf = (key: string): string | undefined =>
    stringData[key] ?? (data[key] === undefined ? undefined : Buffer.from(data[key], "base64").toString());
  validateType(type, textOf, problems.at("data"));
  return problems.found;
}

const REQUIRED: Readonly<Record<string, readonly string[]>> = {
  "kubernetes.io/dockercfg": [".dockercfg"],
  "kubernetes.io/dockerconfigjson": [".dockerconfigjson"],
  "kubernetes.io/ssh-auth": ["ssh-privatekey"],
  "kubernetes.io/tls": ["tls.crt", "tls.key"],
};

function validateType(type: string, textOf: (key: string) => string | undefined, problems: Problems): void {
  if (type === "kubernetes.io/basic-auth")
    problems
      .at("username")
      .check(textOf("username") !== undefined || textOf("password") !== undefined, `is required by ${type}`);
  for (const key of REQUIRED[type] ?? []) {
    const text = textOf(key);
    problems.at(key).check(text !== undefined, `is required by ${type}`);
    // What is in it is nobody's business.
    if (text !== undefined && type.startsWith("kubernetes.io/docker"))
      problems.at(key).check(isJsonObject(text), "must hold a JSON object");
  }
}

function isJsonObject(text: string): boolean {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value);
  } catch {
    return false;
  }
}

/** Keys are file names in volumes: `validation.IsConfigMapKey`. */
function validateKeys(data: Readonly<Record<string, string>>, problems: Problems): void {
  for (const key of Object.keys(data)) {
    const valid = /^[-._a-zA-Z0-9]{1,253}$/.test(key);
    problems.at(key).check(valid, "a key must be at most 253 of letters, digits, '-', '_' and '.'");
    problems.at(key).check(key !== "." && !key.startsWith(".."), "a key must not be '.' or begin with '..'");
  }
}

function textBytes(data: Readonly<Record<string, string>>): number {
  return Object.values(data).reduce((sum, text) => sum + Buffer.byteLength(text), 0);
}

/** Bytes that it stands for. */
function validateBase64(data: Readonly<Record<string, string>>, problems: Problems): number {
  return Object.entries(data).reduce((sum, [key, text]) => {
    const bare = text.replaceAll(/[\r\n]/g, "");
    problems.at(key).check(BASE64.test(bare), "must be base64");
    return sum + Buffer.byteLength(bare, "base64");
  }, 0);
}
