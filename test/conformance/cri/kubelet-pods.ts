/** Pods for a kubelet, each of one thing, and what is seen of it: the same lines are wanted on every daemon. */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { REPOSITORY } from "../../support/daemons.ts";
import { NODE_ADDRESS, type PodStatus, podStatus, within } from "./kubelet-node.ts";

const IMAGES = "registry.k8s.io/e2e-test-images";
const BUSYBOX = `${IMAGES}/busybox:1.29-2`;
const WEB = `${IMAGES}/nginx:1.14-2`;
const HOST_PORT = 18_080;

function container(name: string, script: string, more: object = {}): object {
  return {
    name,
    image: BUSYBOX,
    imagePullPolicy: "IfNotPresent",
    command: ["sh", "-c", script],
    ...more,
  };
}

const loop = (atEnd: string) => `trap '${atEnd}exit 0' TERM; while :; do sleep 0.2; done`;

/** What a folder's pods are made with. */
interface Place {
  /** The kubelet's. */
  readonly folder: string;
  /** Nothing of the pod of that manifest runs. */
  ended(name: string): Promise<boolean>;
  /** What the kubelet has logged of it lately. */
  explain(name: string): string;
}

interface Subject {
  readonly name: string;
  spec(place: Place): object;
  /** What was seen, once all is as it should be. @throws if it never is */
  look(place: Place): Promise<string>;
  /** What bunkerd shows where containerd 2.1 shows something else. */
  readonly ours?: string;
}

const marks = ({ folder }: Place): string => join(folder, "marks");
const MARKS = { volumeMounts: [{ name: "marks", mountPath: "/marks" }] };

/** Each hook leaves a word before its container's handler of SIGTERM does; one takes longer than there is time. */
const hooks: Subject = {
  name: "hooks",
  spec(place) {
    mkdirSync(marks(place));
    const term = (name: string) => loop(`echo term >> /marks/${name}; `);
    const cgi =
      '#!/bin/sh\\necho hook >> /marks/http\\nprintf "Content-Type: text/plain\\\\r\\\\n\\\\r\\\\n"\\n';
    const server = `mkdir -p /srv/cgi-bin; printf '${cgi}' > /srv/cgi-bin/stop; chmod +x /srv/cgi-bin/stop; httpd -p 8080 -h /srv; ${term("http")}`;
    const preStop = (handler: object) => ({ ...MARKS, lifecycle: { preStop: handler } });
    const exec = (script: string) => preStop({ exec: { command: ["sh", "-c", script] } });
    return {
      terminationGracePeriodSeconds: 4,
      volumes: [{ name: "marks", hostPath: { path: marks(place) } }],
      containers: [
        container("exec", term("exec"), exec("echo hook >> /marks/exec")),
        container("http", server, preStop({ httpGet: { port: 8080, path: "/cgi-bin/stop" } })),
        container("slow", term("slow"), exec("echo hook >> /marks/slow; sleep 100")),
      ],
    };
  },
  async look(place) {
    await untilRunning("hooks", place);
    const startedAt = performance.now();
    rmSync(manifestOf(place, "hooks"));
    await untilEnded("hooks", place);
    const seconds = (performance.now() - startedAt) / 1000;
    const said = ["exec", "http", "slow"].map((name) => `${name} ${wordsIn(join(marks(place), name))}`);
    return `${said.join(", ")}; a hook of 100 s is given up: ${seconds < 60}`;
  },
};

const crashes: Subject = {
  name: "crashes",
  spec: () => ({
    containers: [
      container("fails", "echo no; exit 3"),
      container("grows", "tail /dev/zero", { resources: { limits: { memory: "16Mi" } } }),
      container("ends", "exit 0"),
    ],
  }),
  async look(place) {
    const found = await within(
      "all are held back",
      async () => {
        const status = await podStatus("crashes");
        const held = status?.containers.every(
          ({ restartCount, state }) => restartCount > 1 && state.waiting?.reason === "CrashLoopBackOff",
        );
        return held === true && status;
      },
      () => explanation("crashes", place),
    );
    return found.containers
      .map(({ name, state, lastState: { terminated } }) => {
        const held = /^back-off \d+s restarting failed container=/.test(state.waiting?.message ?? "");
        return `${name} ${terminated?.reason} ${terminated?.exitCode}${held ? ", held back" : ""}`;
      })
      .sort()
      .join(", ");
  },
};

const messages: Subject = {
  name: "messages",
  spec: () => {
    const fallback = { terminationMessagePolicy: "FallbackToLogsOnError" };
    return {
      restartPolicy: "Never",
      containers: [
        container("file", "echo from file > /dev/termination-log; echo from log; exit 1"),
        container("path", "echo elsewhere > /tmp/said", { terminationMessagePath: "/tmp/said" }),
        container("both", "echo from file > /dev/termination-log; echo from log; exit 4", fallback),
        container("log", "echo first; echo last words; exit 4", fallback),
        container("quiet", "echo all is well", fallback),
        container("long", "head -c 5000 /dev/zero | tr '\\0' x > /dev/termination-log"),
      ],
    };
  },
  look: (place) => untilDone("messages", place),
};

const volumes: Subject = {
  name: "volumes",
  spec: () => {
    const item = (path: string, fieldPath: string, mode?: number) => ({
      path,
      fieldRef: { fieldPath },
      ...(mode === undefined ? {} : { mode }),
    });
    // A projected volume wants an API server, whatever is projected.
    const items = [item("labels", "metadata.labels"), item("deep/name", "metadata.name", 0o400)];
    const script = [
      "cat /all/labels; echo; cat /all/deep/name; echo; stat -L -c %a /all/labels /all/deep/name",
      "cat /image/www/index.html; touch /image/x 2>/dev/null || echo read-only",
    ];
    return {
      restartPolicy: "Never",
      volumes: [
        { name: "all", downwardAPI: { items, defaultMode: 0o440 } },
        { name: "image", image: { reference: WEB, pullPolicy: "IfNotPresent" } },
      ],
      containers: [
        container("reads", `{ ${script.join("; ")}; } > /dev/termination-log 2>&1`, {
          volumeMounts: [
            { name: "all", mountPath: "/all" },
            { name: "image", mountPath: "/image" },
          ],
        }),
      ],
    };
  },
  look: (place) => untilDone("volumes", place),
};

/** containerd 2.1 passes over the path within the image. */
const subPath: Subject = {
  name: "sub-path",
  spec: () => ({
    restartPolicy: "Never",
    volumes: [{ name: "image", image: { reference: WEB, pullPolicy: "IfNotPresent" } }],
    containers: [
      container("reads", "ls /page > /dev/termination-log", {
        volumeMounts: [{ name: "image", mountPath: "/page", subPath: "www" }],
      }),
    ],
  }),
  look: (place) => untilDone("sub-path", place),
  ours: 'reads Completed 0 "index.html\\n"',
};

/** A server by Bun, which this machine's libraries run in busybox's image. */
const probes: Subject = {
  name: "probes",
  spec: () => {
    const paths = { repository: REPOSITORY, lib: "/lib", lib64: "/lib64" };
    const server = join(REPOSITORY, "test/support/probed-server.ts");
    const bun = [process.execPath, server, "9000"];
    const ready = (handler: object) => ({
      readinessProbe: { ...handler, periodSeconds: 1, timeoutSeconds: 5 },
    });
    return {
      terminationGracePeriodSeconds: 1,
      volumes: Object.entries(paths).map(([name, path]) => ({ name, hostPath: { path } })),
      containers: [
        container("open", `httpd -p 8081 -h /www; ${loop("")}`, ready({ tcpSocket: { port: 8081 } })),
        container("closed", loop(""), ready({ tcpSocket: { port: 8099 } })),
        container("serves", "", {
          command: bun,
          volumeMounts: Object.entries(paths).map(([name, mountPath]) => ({
            name,
            mountPath,
            readOnly: true,
          })),
          ...ready({ grpc: { port: 9000 } }),
          livenessProbe: { grpc: { port: 9000, service: "ready" }, initialDelaySeconds: 30 },
        }),
        container("named", loop(""), ready({ grpc: { port: 9000, service: "ready" } })),
        container("stopped", loop(""), ready({ grpc: { port: 9000, service: "stopped" } })),
        container("unknown", loop(""), ready({ grpc: { port: 9000, service: "nobody" } })),
      ],
    };
  },
  async look(place) {
    const wanted = ["named", "open", "serves"].join();
    const readyOf = ({ containers }: PodStatus): string =>
      containers
        .filter(({ ready }) => ready)
        .map(({ name }) => name)
        .sort()
        .join();
    await within(
      `${wanted} are ready`,
      async () => {
        const status = await podStatus("probes");
        return status !== undefined && readyOf(status) === wanted;
      },
      () => explanation("probes", place),
    );
    return `ready: ${wanted}; not: closed, stopped, unknown`;
  },
};

const hostPort: Subject = {
  name: "host-port",
  spec: () => ({
    terminationGracePeriodSeconds: 1,
    containers: [
      {
        name: "web",
        image: WEB,
        imagePullPolicy: "IfNotPresent",
        ports: [{ containerPort: 80, hostPort: HOST_PORT }],
      },
    ],
  }),
  async look(place) {
    const get = async (): Promise<string | undefined> => {
      const answer = await fetch(`http://${NODE_ADDRESS}:${HOST_PORT}/`, {
        signal: AbortSignal.timeout(1000),
      }).catch(() => undefined);
      return await answer?.text();
    };
    const page = await within("the port of the host answers", get, () => explanation("host-port", place));
    rmSync(manifestOf(place, "host-port"));
    await within(
      "it answers no more",
      async () => (await get()) === undefined,
      () => explanation("host-port", place),
    );
    return `${page.trim()}, and nothing after the pod`;
  },
};

const SUBJECTS: readonly Subject[] = [hooks, crashes, messages, volumes, subPath, probes, hostPort];

/** Runs all of them side by side; what each has shown, in order, but for what the daemons are known to show differently. */
export async function showPods(
  place: Place,
  isOurs: boolean,
  say: (text: string) => void,
): Promise<string[]> {
  for (const subject of SUBJECTS) {
    const pod = {
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name: subject.name, namespace: "default", labels: { app: subject.name } },
      spec: subject.spec(place),
    };
    writeFileSync(manifestOf(place, subject.name), JSON.stringify(pod));
  }
  const shown: string[] = [];
  for (const subject of SUBJECTS) {
    const seen = await subject.look(place);
    say(`${subject.name}: ${seen}`);
    if (subject.ours === undefined) shown.push(`${subject.name}: ${seen}`);
    else if (isOurs && seen !== subject.ours)
      throw new Error(`${subject.name}: not ${subject.ours}, but ${seen}`);
  }
  for (const { name } of SUBJECTS) rmSync(manifestOf(place, name), { force: true });
  for (const { name } of SUBJECTS) await untilEnded(name, place);
  return shown;
}

function manifestOf({ folder }: Place, name: string): string {
  return join(folder, "manifests", `${name}.json`);
}

function wordsIn(path: string): string {
  return existsSync(path) ? readFileSync(path, "utf8").trim().split("\n").join(" ") : "said nothing";
}

async function explanation(name: string, { explain }: Place): Promise<string> {
  return `${JSON.stringify(await podStatus(name))}\n${explain(name)}`;
}

async function untilEnded(name: string, place: Place): Promise<void> {
  await within(
    `${name} ends`,
    () => place.ended(name),
    () => place.explain(name),
  );
}

async function untilRunning(name: string, place: Place): Promise<void> {
  await within(
    `${name} runs`,
    async () => {
      const status = await podStatus(name);
      return status?.containers.every(({ state }) => state.running !== undefined) === true;
    },
    () => explanation(name, place),
  );
}

/** Its containers' ends. */
async function untilDone(name: string, place: Place): Promise<string> {
  const { containers } = await within(
    `${name} is done`,
    async () => {
      const status = await podStatus(name);
      return status !== undefined && ["Succeeded", "Failed"].includes(status.phase) && status;
    },
    () => explanation(name, place),
  );
  return containers
    .map(({ name: each, state: { terminated } }) => {
      const message = terminated?.message ?? "";
      const said = message.length > 500 ? `${message.length} characters` : JSON.stringify(message);
      return `${each} ${terminated?.reason} ${terminated?.exitCode} ${said}`;
    })
    .sort()
    .join(", ");
}
