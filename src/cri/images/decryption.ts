import { create } from "@bufbuild/protobuf";
import { type Any, AnySchema } from "@bufbuild/protobuf/wkt";
import type { CriConfig } from "../../config/config.ts";
import { descriptorJson, type OciDescriptor } from "../../model/oci.ts";
import type { LayerPayloads } from "../../transfer/unpack-targets.ts";
import { type GoValue, goText } from "../store/go-json.ts";

/** Of the stream processors that decrypt layers: imgcrypt's `payload.go`. */
const DECODERS = ["io.containerd.ocicrypt.decoder.v1.tar", "io.containerd.ocicrypt.decoder.v1.tar.gzip"];
const TYPE_URL = "io.containerd.ocicrypt.v1.Payload";

/**
 * What decoders are told with a layer: its descriptor, in whose annotations its wrapped key is, and no key to unwrap that, which is the node's own
 * (`image_decryption.key_model = "node"`). By any other model nothing is decrypted (containerd `internal/cri/server/images/image_pull.go`).
 */
export function decryptionPayloads({ images }: CriConfig): LayerPayloads | undefined {
  if (images.image_decryption.key_model !== "node") return undefined;
  return (layer) => {
    const payload = payloadOf(layer);
    return Object.fromEntries(DECODERS.map((id) => [id, payload]));
  };
}

/** As imgcrypt's structure stands in Go's JSON. */
function payloadOf(layer: OciDescriptor): Any {
  const text = goText({
    DecryptConfig: { Parameters: null },
    Descriptor: descriptorJson(layer) as GoValue,
  });
  return create(AnySchema, { typeUrl: TYPE_URL, value: new TextEncoder().encode(text) });
}
