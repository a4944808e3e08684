/** What HTTP/2 needs of a byte stream. A `net.Socket` is one. */
export interface Wire {
  readonly connecting: boolean;
  readonly destroyed: boolean;
  /** Bytes that the kernel has not taken. */
  readonly writableLength: number;
  readonly remoteAddress?: string | undefined;
  /** False: "drain" is told when all is written. @param written called when these bytes are */
  write(bytes: Uint8Array, written?: () => void): boolean;
  /** When all is written the peer hears that nothing more comes. */
  end(): unknown;
  destroy(): unknown;
  pause(): unknown;
  resume(): unknown;
  /** Whether it keeps the process. */
  ref(): unknown;
  unref(): unknown;
  on(event: "connect" | "drain" | "end" | "close", listener: () => void): unknown;
  on(event: "data", listener: (chunk: Buffer) => void): unknown;
  on(event: "error", listener: (error: Error) => void): unknown;
}
