/** Whether a host, with or without a port, is this machine: it is spoken to in plain HTTP unless something else is said. */
export function isLoopback(host: string): boolean {
  const name = host === "::1" ? host : host.replace(/:\d+$/, "").replace(/^\[(.*)\]$/, "$1");
  return name === "localhost" || name === "::1" || /^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(name);
}
