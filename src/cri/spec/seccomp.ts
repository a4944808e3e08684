import type { HostFacts } from "./host.ts";
import type { Seccomp, SeccompArgument, SeccompRule, Spec } from "./spec.ts";

/*
 * The default seccomp profile: which system calls containers may make. The list is a fact of containerd 2.1's
 * `contrib/seccomp/seccomp_default.go`, written here as data. containerd HEAD has more calls of linux 6.8 to 6.13 and keeps AF_ALG out.
 */

const words = (text: string): string[] => text.trim().split(/\s+/);

/** What any process may call. */
const COMMON = words(`
  accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32 clock_adjtime
  clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep
  clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1
  epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit
  exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2
  fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat
  fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait
  futex_waitv futex_wake futimesat getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid
  getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid
  getresgid32 getresuid getresuid32 getrlimit get_robust_list getrusage getsid getsockname getsockopt get_thread_area
  gettid gettimeofday getuid getuid32 getxattr inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel
  ioctl io_destroy io_getevents io_pgetevents io_pgetevents_time64 ioprio_get ioprio_set io_setup io_submit ipc kill
  landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat listen
  listxattr llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 madvise membarrier memfd_create memfd_secret
  mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall map_shadow_stack mmap mmap2 mprotect mq_getsetattr
  mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap msgctl
  msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat _newselect open openat
  openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64
  prctl pread64 preadv preadv2 prlimit64 process_mrelease pselect6 pselect6_time64 pwrite64 pwritev pwritev2 read
  readahead readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr
  rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo
  rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_getaffinity sched_getattr
  sched_getparam sched_get_priority_max sched_get_priority_min sched_getscheduler sched_rr_get_interval
  sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp
  select semctl semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto setfsgid
  setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid
  setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit set_robust_list setsid
  setsockopt set_thread_area set_tid_address setuid setuid32 setxattr shmat shmctl shmdt shmget shutdown sigaltstack
  signalfd signalfd4 sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs statfs64 statx symlink
  symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun
  timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64
  timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat utime
  utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev
`);

const ARCHITECTURES: Readonly<Record<string, readonly string[]>> = {
  amd64: ["X86_64", "X86", "X32"],
  arm64: ["ARM", "AARCH64"],
  mips64: ["MIPS", "MIPS64", "MIPS64N32"],
  mips64n32: ["MIPS", "MIPS64", "MIPS64N32"],
  mipsel64: ["MIPSEL", "MIPSEL64", "MIPSEL64N32"],
  mipsel64n32: ["MIPSEL", "MIPSEL64", "MIPSEL64N32"],
  s390x: ["S390", "S390X"],
  riscv64: ["RISCV64"],
  loong64: ["LOONGARCH64"],
};

/** What one architecture has besides. */
const OF_ARCHITECTURE: Readonly<Record<string, readonly string[]>> = {
  ppc64le: words("sync_file_range2 swapcontext"),
  arm: words("arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls"),
  arm64: words("arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls"),
  amd64: words("arch_prctl modify_ldt"),
  386: words("modify_ldt"),
  s390: words("s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr"),
  s390x: words("s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr"),
  riscv64: words("riscv_flush_icache"),
};

/** What a capability of the bounding set brings. */
const OF_CAPABILITY: Readonly<Record<string, readonly string[]>> = {
  CAP_DAC_READ_SEARCH: words("open_by_handle_at"),
  CAP_SYS_ADMIN: words(`
    bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount open_tree
    perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare
  `),
  CAP_SYS_BOOT: words("reboot"),
  CAP_SYS_CHROOT: words("chroot"),
  CAP_SYS_MODULE: words("delete_module init_module finit_module"),
  CAP_SYS_PACCT: words("acct"),
  CAP_SYS_PTRACE: words("kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
  CAP_SYS_RAWIO: words("iopl ioperm"),
  CAP_SYS_TIME: words("settimeofday stime clock_settime clock_settime64"),
  CAP_SYS_TTY_CONFIG: words("vhangup"),
  CAP_SYS_NICE: words("get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
  CAP_SYSLOG: words("syslog"),
  CAP_BPF: words("bpf"),
  CAP_PERFMON: words("perf_event_open"),
};

/** Personalities that change nothing but how the machine is called: PER_LINUX, PER_LINUX32, their UNAME26, and to ask. */
const PERSONALITIES: readonly number[] = [0x0, 0x0008, 0x20000, 0x20008, 0xffffffff];

/** From the virtual machine to its host: not for containers. */
const AF_VSOCK = 40;
/** clone(2)'s CLONE_NEW… flags: namespaces need CAP_SYS_ADMIN. */
const NEW_NAMESPACES = 0x7e020000;
const ENOSYS = 38;

/** The profile for the capabilities that stand in the spec. */
export function defaultSeccomp(
  { process }: Pick<Spec, "process">,
  { architecture, kernel }: Pick<HostFacts, "architecture" | "kernel">,
): Seccomp {
  const capabilities = process.capabilities?.bounding ?? [];
  const ofArchitecture = OF_ARCHITECTURE[architecture];
  return {
    defaultAction: "SCMP_ACT_ERRNO",
    architectures: (ARCHITECTURES[architecture] ?? []).map((name) => `SCMP_ARCH_${name}`),
    syscalls: [
      allow(COMMON),
      allow(["socket"], { index: 0, value: AF_VSOCK, op: "SCMP_CMP_NE" }),
      ...PERSONALITIES.map((value) => allow(["personality"], { index: 0, value, op: "SCMP_CMP_EQ" })),
      // Before linux 4.8 a tracer could step around seccomp.
      ...(kernel.major > 4 || (kernel.major === 4 && kernel.minor >= 8)
        ? [allow(["process_vm_readv", "process_vm_writev", "ptrace"])]
        : []),
      ...(ofArchitecture === undefined ? [] : [allow(ofArchitecture)]),
      ...capabilities.flatMap((name) => {
        const calls = OF_CAPABILITY[name];
        return calls === undefined ? [] : [allow(calls)];
      }),
      ...(capabilities.includes("CAP_SYS_ADMIN") ? [] : withoutNamespaces(architecture)),
    ],
  };
}

/** clone3 hides its flags from filters: a libc that hears that there is none falls back to clone. */
function withoutNamespaces(architecture: string): SeccompRule[] {
  const index = architecture === "s390" || architecture === "s390x" ? 1 : 0;
  return [
    allow(["clone"], { index, value: NEW_NAMESPACES, op: "SCMP_CMP_MASKED_EQ" }),
    { names: ["clone3"], action: "SCMP_ACT_ERRNO", errnoRet: ENOSYS },
  ];
}

function allow(names: readonly string[], ...args: SeccompArgument[]): SeccompRule {
  return { names, action: "SCMP_ACT_ALLOW", args };
}
