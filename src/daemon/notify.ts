import type { Logger } from "../lib/log.ts";

/** What systemd is told about the daemon: sd_notify(3). */
export type ServiceState = "READY=1" | "STOPPING=1" | "RELOADING=1";

/** Tells the service manager, if there is one. Its absence or failure is no failure of ours. */
export async function notifyServiceManager(state: ServiceState, logger: Logger): Promise<void> {
  const socket = process.env["NOTIFY_SOCKET"];
  if (socket === undefined || socket === "") return;
  const { sendDatagram } = await import("../linux/notify.ts");
  // RELOADING=1 is dated, so that systemd can tell it from the READY=1 of an earlier reload.
  const monotonicUs = process.hrtime.bigint() / 1000n;
  const text = state === "RELOADING=1" ? `${state}\nMONOTONIC_USEC=${monotonicUs}` : state;
  if (!sendDatagram(socket, text)) logger.warn("systemd notification failed", { socket, state });
}
