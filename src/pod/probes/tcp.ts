/** A tcpSocket probe: `pkg/probe/tcp`. */
import { connect } from "node:net";
import { startTimer } from "../../lib/timer.ts";
import { dialWords, failure, type Outcome } from "./outcome.ts";

/** Success if the port takes a connection. */
export function tcpProbe(host: string, port: number, timeoutMs: number): Promise<Outcome> {
  return new Promise((resolve) => {
    const socket = connect({ host, port });
    const end = (outcome: Outcome): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(outcome);
    };
    const timer = startTimer(() => end(failure(`dial tcp ${host}:${port}: i/o timeout`)), timeoutMs);
    socket.once("connect", () => end({ result: "success", output: "" }));
    socket.once("error", (error) => end(failure(`dial tcp ${host}:${port}: ${dialWords(error)}`)));
  });
}
