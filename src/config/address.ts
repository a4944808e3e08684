/** In a file of its own: commands that only want to know where the daemon listens load no more of its configuration. */
export const DEFAULT_ADDRESS = "/run/bunkerd/bunkerd.sock";
