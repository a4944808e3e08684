import { BunkerdError, unquoted } from "../model/errors.ts";
import { layerReading, OCI_LAYER } from "./media-types.ts";

/** A program that turns layers of some media types into another: `[stream_processors]`. */
export interface StreamProcessor {
  /** Names the payload that is meant for it. */
  readonly id: string;
  readonly accepts: readonly string[];
  readonly returns: string;
  /** Or a name that is looked for in PATH. */
  readonly path: string;
  readonly args: readonly string[];
  /** `NAME=value`. */
  readonly env: readonly string[];
}

export interface Step {
  readonly processor: StreamProcessor;
  /** Of what it is given. */
  readonly mediaType: string;
}

export interface LayerProcessing {
  readonly steps: readonly Step[];
  /** Of what comes out of the last one. */
  readonly reading: "plain" | "sniffed";
}

/**
 * How a layer is brought to a plain archive: a processor that accepts its type goes before what is built in, again and again
 * (containerd `core/diff/apply/apply.go`). @throws Unknown if there is no way, or it goes in a circle
 */
export function processingOf(mediaType: string, processors: readonly StreamProcessor[]): LayerProcessing {
  const steps: Step[] = [];
  for (let type = mediaType; ; ) {
    const processor = processors.find(({ accepts }) => accepts.includes(type));
    if (processor === undefined) {
      const reading = layerReading(type);
      if (reading !== undefined) return { steps, reading };
    }
    if (processor === undefined || steps.length > processors.length) {
      const reason = processor === undefined ? "no processor for media-type" : "processors go in a circle";
      throw new BunkerdError("Unknown", `failed to get stream processor for ${unquoted(type)}: ${reason}`);
    }
    steps.push({ processor, mediaType: type });
    type = processor.returns;
    if (type === OCI_LAYER) return { steps, reading: "plain" };
  }
}
