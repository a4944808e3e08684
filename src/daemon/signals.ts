import type { Logger } from "../lib/log.ts";

export interface SignalHandlers {
  /** SIGTERM and SIGINT. */
  stop(signal: NodeJS.Signals): void;
  /** SIGHUP. */
  reload(): void;
  /** SIGUSR1, as containerd dumps its stacks. */
  dump(): void;
}

/** Listens to signals until `close`. A second SIGTERM or SIGINT ends the process at once: its first may hang in a drain. */
export function handleSignals(handlers: SignalHandlers, logger: Logger): { close(): void } {
  let stopping = false;
  const stop = (signal: NodeJS.Signals): void => {
    logger.debug("received signal", { signal });
    if (stopping) {
      logger.warn("stopping without drain", { signal });
      process.exit(1);
    }
    stopping = true;
    handlers.stop(signal);
  };
  const listeners: [NodeJS.Signals, (signal: NodeJS.Signals) => void][] = [
    ["SIGTERM", stop],
    ["SIGINT", stop],
    ["SIGHUP", () => handlers.reload()],
    ["SIGUSR1", () => handlers.dump()],
  ];
  // A log reader that is gone must not end the daemon, to its last line: taking a listener away would bring back the default.
  process.on("SIGPIPE", () => undefined);
  for (const [signal, listener] of listeners) process.on(signal, listener);
  return {
    close() {
      for (const [signal, listener] of listeners) process.off(signal, listener);
    },
  };
}
