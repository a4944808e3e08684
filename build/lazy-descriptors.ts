/**
 * Protobuf descriptors that cost nothing until they are looked at. Generated code decodes each of its descriptors when it is
 * loaded, which for all services together takes longer than everything else that a start does. The executable has handles in their
 * place (`compile.ts` puts them there); a handle becomes a copy of its descriptor when one of its properties is first read.
 */
import { wireFields } from "../src/lib/wire.ts";

/** FileDescriptorProto and ServiceDescriptorProto of `google/protobuf/descriptor.proto`. */
const FILE_PACKAGE = 2;
const FILE_SERVICE = 6;
const SERVICE_NAME = 1;

const MEMBERS = ["fields", "field", "oneofs", "members"] as const;

/** Handles that nobody has looked at. */
const resolvers = new WeakMap<object, () => object>();
/** Base64 of the FileDescriptorProto behind a file's handle. */
const encodedFiles = new WeakMap<object, string>();

/** What messages' handles are copies of, while their members may have to be asked of them. */
const originals = new WeakMap<object, object>();

/** Every handle's prototype: it is asked for whatever a handle does not have itself, which at first is everything. */
const prototype = new Proxy(Object.prototype, {
  get: (target, key, handle: object) => {
    if (become(handle)) return Reflect.get(handle, key);
    const original = MEMBERS.some((member) => member === key) ? originals.get(handle) : undefined;
    if (original === undefined) return Reflect.get(target, key, handle);
    for (const member of MEMBERS) setMember(handle, member, Reflect.get(original, member));
    return Reflect.get(original, key);
  },
});

/** An object that becomes what `resolve` answers when it is first read. Listing its keys before shows none. */
export function lazyDescriptor(resolve: () => object): object {
  const handle = Object.create(prototype) as object;
  resolvers.set(handle, resolve);
  return handle;
}

/** The handle of a file; `encoded` is its FileDescriptorProto in base64. */
export function lazyFile(encoded: string, resolve: () => object): object {
  const handle = lazyDescriptor(resolve);
  encodedFiles.set(handle, encoded);
  return handle;
}

/** The handle of a file's service. It tells its full name without more: routing needs no more of most services. */
export function lazyService(file: object, index: number, resolve: () => object): object {
  const handle = lazyDescriptor(resolve);
  const encoded = encodedFiles.get(file);
  if (encoded === undefined) throw new Error("a service's file was not declared by lazyFile");
  Object.defineProperty(handle, "typeName", {
    configurable: true,
    enumerable: true,
    get: () => serviceNames(Buffer.from(encoded, "base64"))[index],
  });
  return handle;
}

/** False if it is no handle, or one that was looked at before. */
function become(handle: object): boolean {
  const resolve = resolvers.get(handle);
  if (resolve === undefined) return false;
  resolvers.delete(handle);
  const resolved = resolve();
  Object.defineProperties(handle, Object.getOwnPropertyDescriptors(resolved));
  if (!("fields" in handle) && "fields" in resolved) originals.set(handle, resolved);
  return true;
}

/** Messages whose members are put in at the first look, and what puts them in. */
const adding = new WeakMap<object, (message: object) => void>();

interface Message {
  readonly nestedMessages: readonly Message[];
}

/**
 * Puts off `add`, which fills in the fields of a message whose prototype is {@link lazyMessage}, and calls this for the messages in it: of a file's
 * messages a program uses few.
 */
export function lazyMembers(message: Message, add: (message: object) => void): void {
  adding.set(message, add);
  for (const nested of message.nestedMessages) lazyMembers(nested, add);
}

/** The prototype of message descriptors that have no members yet. */
export const lazyMessage: object = Object.create(
  Object.prototype,
  Object.fromEntries(
    MEMBERS.map((key) => [
      key,
      {
        get(this: object) {
          for (const each of MEMBERS) setMember(this, each, each === "field" ? {} : []);
          const add = adding.get(this);
          adding.delete(this);
          add?.(this);
          return Reflect.get(this, key) as unknown;
        },
      },
    ]),
  ),
);

function setMember(descriptor: object, key: string, value: unknown): void {
  Object.defineProperty(descriptor, key, { configurable: true, enumerable: true, writable: true, value });
}

/** Full names of the services in a FileDescriptorProto. */
function serviceNames(file: Uint8Array): string[] {
  let scope = "";
  const names: string[] = [];
  for (const field of wireFields(file)) {
    if (field?.number === FILE_PACKAGE) scope = `${Buffer.from(field.content)}.`;
    if (field?.number !== FILE_SERVICE) continue;
    for (const inner of wireFields(field.content)) {
      if (inner?.number === SERVICE_NAME) names.push(String(Buffer.from(inner.content)));
    }
  }
  return names.map((name) => scope + name);
}
