/**
 * The kubelet's hash of a container, byte for byte, so that either takes the other's containers for what they are: FNV-1a of 32
 * bits over Go's printed form of the JSON of name and image (`pkg/kubelet/container/helpers.go`, `HashContainer`).
 */
export function containerHash({ name, image }: { readonly name: string; readonly image: string }): string {
  const json = Buffer.from(JSON.stringify({ image, name }));
  return fnv1a32(`([]uint8)[${[...json].join(" ")}]`).toString(16);
}

function fnv1a32(text: string): number {
  let hash = 0x811c9dc5;
  for (const byte of Buffer.from(text)) hash = Math.imul(hash ^ byte, 0x01000193);
  return hash >>> 0;
}
