/** RFC 9113 section 7. */
export const ErrorCode = {
  noError: 0x0,
  protocolError: 0x1,
  internalError: 0x2,
  flowControlError: 0x3,
  settingsTimeout: 0x4,
  streamClosed: 0x5,
  frameSizeError: 0x6,
  refusedStream: 0x7,
  cancel: 0x8,
  compressionError: 0x9,
  connectError: 0xa,
  enhanceYourCalm: 0xb,
  inadequateSecurity: 0xc,
  http11Required: 0xd,
} as const;

const NAMES = Object.entries(ErrorCode);

/** As the RFC writes it, or the number. */
export function errorCodeName(code: number): string {
  const name = NAMES.find(([, known]) => known === code)?.[0];
  return name === undefined
    ? String(code)
    : name.replaceAll(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase();
}

/** Section 5.4.1: ends the connection with a GOAWAY of this code, the message as its debug data. */
export class ConnectionError extends Error {
  override readonly name = "ConnectionError";
  readonly code: number;

  constructor(code: number, message: string) {
    super(message);
    this.code = code;
  }
}

/** @throws ConnectionError FRAME_SIZE_ERROR */
export function expectSize(frame: string, right: boolean): void {
  if (!right) throw new ConnectionError(ErrorCode.frameSizeError, `${frame} frame of a wrong length`);
}
