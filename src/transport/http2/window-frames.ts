import { FrameType } from "./frames.ts";
import type { Output } from "./output.ts";
import { BANDWIDTH_PING, type WindowWriter } from "./receive-window.ts";
import { Setting, settingsPayload } from "./settings.ts";

/** What a receive window decides, as frames. */
export function windowFrames(output: Output): WindowWriter {
  return {
    windowUpdate: (streamId, increment) => output.frame32(FrameType.windowUpdate, streamId, increment),
    probe: () => output.frame(FrameType.ping, 0, 0, BANDWIDTH_PING),
    announceWindow: (bytes) =>
      output.frame(FrameType.settings, 0, 0, settingsPayload([[Setting.initialWindowSize, bytes]])),
  };
}
