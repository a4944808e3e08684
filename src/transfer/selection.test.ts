import { expect, test } from "bun:test";
import { MediaType } from "../model/media-types.ts";
import type { OciDescriptor } from "../model/oci.ts";
import { childLabels } from "./selection.ts";

const of = (mediaType: string, digest: string, annotations = {}): OciDescriptor => ({
  ...{ mediaType, digest, size: 1, annotations },
});
const LAYER = "application/vnd.oci.image.layer.v1.tar";

test("children are named by their kinds, numbered where there may be several", () => {
  const children = [
    of("application/vnd.oci.image.config.v1+json", "config"),
    of(LAYER, "one"),
    of(LAYER, "two"),
    of(MediaType.ociManifest, "manifest"),
    of(MediaType.ociManifest, "signature", { "io.containerd.manifest.subject": "sha256:of" }),
    of("application/vnd.example", "other"),
  ];
  const prefix = "containerd.io/gc.ref.content.";
  const layers = { [`${prefix}l.0`]: "one", [`${prefix}l.1`]: "two" };
  const others = {
    [`${prefix}config`]: "config",
    [`${prefix}m.0`]: "manifest",
    [`${prefix}referrer.sha256.0`]: "signature",
    [`${prefix}0`]: "other",
  };
  expect(childLabels(children, true)).toEqual({ ...layers, ...others });
  expect(childLabels(children, false)).toEqual(others);
});
