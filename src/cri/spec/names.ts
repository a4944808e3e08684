/** The containerd namespace of everything that CRI makes. */
export const K8S_NAMESPACE = "k8s.io";

export const DEV_SHM = "/dev/shm";
export const ETC_HOSTS = "/etc/hosts";
export const ETC_HOSTNAME = "/etc/hostname";
export const RESOLV_CONF = "/etc/resolv.conf";
