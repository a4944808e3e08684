/** What a pod learns about the machine that it runs on. */
export interface Node {
  readonly hostname: string;
  /** The address that containers see as `status.hostIP`; empty if the machine has none. */
  readonly hostIps: readonly string[];
  readonly memoryCapacityBytes: bigint;
  readonly cpuCount: number;
  readonly cgroupDriver: "cgroupfs" | "systemd";
  /** Text of the machine's resolv.conf. */
  readonly resolvConf: string;
  /** Text of the machine's hosts file. */
  readonly hostsFile: string;
  /** Sizes of huge pages, as in `2MB`. */
  readonly hugePageSizes: readonly string[];
}
