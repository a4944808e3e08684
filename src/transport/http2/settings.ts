import { ConnectionError, ErrorCode } from "./errors.ts";
import { MAX_FRAME_BYTES, MAX_WINDOW_BYTES, MIN_FRAME_BYTES, putUint32, uint32At } from "./frames.ts";
import type { Http2Limits } from "./limits.ts";

/** RFC 9113 section 6.5.2. */
export const Setting = {
  headerTableSize: 0x1,
  enablePush: 0x2,
  maxConcurrentStreams: 0x3,
  initialWindowSize: 0x4,
  maxFrameSize: 0x5,
  maxHeaderListSize: 0x6,
} as const;

const ENTRY_BYTES = 6;

/** What a peer's SETTINGS frame says; undefined where it does not. */
export interface PeerSettings {
  /** The smallest of several: an encoder must have been there. */
  headerTableBytes: number | undefined;
  initialWindowBytes: number | undefined;
  maxFrameBytes: number | undefined;
  /** Of a server. */
  maxConcurrentStreams: number | undefined;
}

/** The last value of each setting, so that a frame of many costs no more than one. @throws ConnectionError for a value out of its range */
export function readSettings(payload: Uint8Array): PeerSettings {
  const settings: PeerSettings = {
    headerTableBytes: undefined,
    initialWindowBytes: undefined,
    maxFrameBytes: undefined,
    maxConcurrentStreams: undefined,
  };
  for (let at = 0; at < payload.length; at += ENTRY_BYTES) {
    const id = ((payload[at] ?? 0) << 8) | (payload[at + 1] ?? 0);
    readSetting(settings, id, uint32At(payload, at + 2));
  }
  return settings;
}

function readSetting(settings: PeerSettings, id: number, value: number): void {
  if (id === Setting.headerTableSize) {
    settings.headerTableBytes = Math.min(value, settings.headerTableBytes ?? value);
  } else if (id === Setting.enablePush) {
    if (value > 1) throw new ConnectionError(ErrorCode.protocolError, `SETTINGS_ENABLE_PUSH is ${value}`);
  } else if (id === Setting.initialWindowSize) {
    if (value > MAX_WINDOW_BYTES) {
      throw new ConnectionError(ErrorCode.flowControlError, `SETTINGS_INITIAL_WINDOW_SIZE is ${value}`);
    }
    settings.initialWindowBytes = value;
  } else if (id === Setting.maxConcurrentStreams) {
    settings.maxConcurrentStreams = value;
  } else if (id === Setting.maxFrameSize) {
    if (value < MIN_FRAME_BYTES || value > MAX_FRAME_BYTES) {
      throw new ConnectionError(ErrorCode.protocolError, `SETTINGS_MAX_FRAME_SIZE is ${value}`);
    }
    settings.maxFrameBytes = value;
  }
}

export function settingsPayload(entries: readonly (readonly [id: number, value: number])[]): Uint8Array {
  const payload = new Uint8Array(entries.length * ENTRY_BYTES);
  entries.forEach(([id, value], index) => {
    payload[index * ENTRY_BYTES + 1] = id;
    putUint32(payload, index * ENTRY_BYTES + 2, value);
  });
  return payload;
}

/** What we announce in our first frame; what is left out is as the RFC has it. */
export function ownSettings(limits: Http2Limits): Uint8Array {
  return settingsPayload([
    [Setting.maxConcurrentStreams, limits.maxConcurrentStreams],
    [Setting.initialWindowSize, limits.streamWindowBytes],
    [Setting.maxFrameSize, limits.maxFrameBytes],
    [Setting.maxHeaderListSize, limits.maxHeaderListBytes],
  ]);
}
