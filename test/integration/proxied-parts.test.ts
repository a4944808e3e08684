/** Sandbox controllers and differs of another process (`[proxy_plugins]`), on containerd 2.1 and on bunkerd: the process is the test's, its parts are real ones. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { Controller } from "#gen/containerd/services/sandbox/v1/sandbox_pb.ts";
import { SandboxSchema } from "#gen/containerd/types/sandbox_pb.ts";
import { PodSandboxState } from "#gen/runtime/v1/api_pb.ts";
import { Client } from "../../src/client/client.ts";
import { Remote } from "../../src/client/remote.ts";
import { RemoteSandboxController } from "../../src/client/sandbox-controller.ts";
import { packSpec } from "../../src/client/spec.ts";
import { openDiffer } from "../../src/diff/differ.ts";
import { silentLogger } from "../../src/lib/log.ts";
import type { Differ } from "../../src/model/diff.ts";
import { diffService } from "../../src/services/diff.ts";
import { sandboxControllerService } from "../../src/services/sandboxes.ts";
import { Listener } from "../../src/transport/listener.ts";
import type { ServiceBinding } from "../../src/transport/registry.ts";
import { Layout } from "../support/archives.ts";
import { ctrIn, endNamespaces, newNamespace } from "../support/containers.ts";
import {
  type CriDaemon,
  exited,
  logOf,
  podConfig,
  podLeftovers,
  prepareCri,
  runContainer,
  script,
  startCri,
} from "../support/cri.ts";
import {
  containerdProgram,
  type Daemon,
  daemonKinds,
  startDaemon,
  WITHOUT_COLLECTION,
} from "../support/daemons.ts";
import { inNamespace } from "../support/grpc.ts";
import { enterHostNetwork } from "../support/netns.ts";
import { removeFolder, temporaryFolder } from "../support/processes.ts";
import { writeSandboxShim } from "../support/sandbox-shim.ts";
import { tar } from "../support/tar.ts";

const folder = temporaryFolder();
afterAll(() => {
  endNamespaces();
  removeFolder(folder);
});

const proxy = (name: string, type: string, address: string): string =>
  `[proxy_plugins.${name}]\ntype = "${type}"\naddress = "${address}"`;

/** A process of its own would do the same: what counts is the socket. */
async function serve(
  name: string,
  binding: ServiceBinding,
): Promise<{ path: string; close(): Promise<void> }> {
  const path = join(folder, name);
  const listener = new Listener({ path }, { bindings: [binding], logger: silentLogger });
  await listener.start();
  return { path, close: () => listener.close(0) };
}

describe.each(daemonKinds("containerd-2.1", "bunkerd"))("%s", (kind) => {
  test("layers are applied and made by another process's differ", async () => {
    const calls: string[] = [];
    let differ: Differ | undefined;
    const counting: Differ = {
      async apply(...given) {
        calls.push("apply");
        if (differ === undefined) throw new Error("not yet");
        return differ.apply(...given);
      },
      async compare(...given) {
        calls.push("compare");
        if (differ === undefined) throw new Error("not yet");
        return differ.compare(...given);
      },
    };
    const binding = diffService({ diff: { differs: [counting], syncFs: false } });
    const served = await serve(`diff-${kind}.sock`, binding as unknown as ServiceBinding);
    const config = [
      WITHOUT_COLLECTION,
      '[plugins."io.containerd.service.v1.diff-service"]\ndefault = ["far"]',
      proxy("far", "diff", served.path),
    ].join("\n");
    await using daemon = await startDaemon(kind, { config });
    const client = new Client(daemon.socket);
    differ = openDiffer({ content: client.content(), processors: [], inUserNamespace: false });
    try {
      const ctr = ctrIn("2.1", daemon, newNamespace());
      const layout = new Layout();
      const image = layout.image([tar([{ name: "greeting", data: "hello\n" }])], "amd64");
      const annotations = { "io.containerd.image.name": "example.org/one:1" };
      writeFileSync(join(daemon.folder, "one.tar"), layout.archive([{ ...image, annotations }]));
      expect(await ctr("images", "import", "--local", "one.tar")).toMatchObject({ code: 0 });
      expect(calls).toEqual(["apply"]);
      const [chain = ""] = (await ctr("snapshots", "ls")).stdout.match(/sha256:\w+/) ?? [];
      const made = await ctr(
        "snapshots",
        "diff",
        "--media-type",
        "application/vnd.oci.image.layer.v1.tar",
        chain,
      );
      expect(made).toMatchObject({ code: 0, stdout: expect.stringContaining("hello\n") });
      expect(calls).toEqual(["apply", "compare"]);
      const listed = await ctr("plugins", "ls", "-d", "id==far");
      expect(listed.stdout).toMatch(
        new RegExp(`Type: +io.containerd.differ.v1[\\s\\S]*address +${served.path}`),
      );
    } finally {
      client.close();
      await served.close();
    }
  }, 60_000);
});

describe.each(daemonKinds("containerd-2.1", "bunkerd"))("%s", (kind) => {
  let host: ReturnType<typeof enterHostNetwork>;
  let backend: Daemon;
  let remote: Remote;
  let served: Awaited<ReturnType<typeof serve>>;
  let cri: CriDaemon;
  let shim = "";
  const scope = inNamespace("k8s.io");
  const asked: string[] = [];

  beforeAll(async () => {
    await prepareCri();
    host = enterHostNetwork();
    shim = writeSandboxShim(temporaryFolder(), await containerdProgram("2.1", "containerd-shim-runc-v2"));
    // Whose shims are they that the controller runs: another daemon's.
    backend = await startDaemon("bunkerd", { config: WITHOUT_COLLECTION });
    remote = new Remote(backend.socket);
    const far = new RemoteSandboxController(remote, "shim");
    const binding = sandboxControllerService({
      controller: async (sandboxer) => {
        asked.push(sandboxer);
        return far;
      },
      publisher: { publish: () => undefined },
    });
    served = await serve(`sandbox-${kind}.sock`, binding as unknown as ServiceBinding);
    const handlers = { far: `runtime_type = "${shim}"\nsandboxer = "far"` };
    cri = await startCri(kind, { handlers, config: proxy("far", "sandbox", served.path) });
  }, 60_000);
  afterAll(async () => {
    await cri[Symbol.asyncDispose]();
    await served.close();
    remote.close();
    await backend.stop();
    host[Symbol.dispose]();
  }, 60_000);

  test("the sandbox service calls another process's controller by its name", async () => {
    const controller = cri.client(Controller);
    const name = { sandboxId: `far-${process.pid}-${kind.slice(0, 1)}`, sandboxer: "far" };
    const sandbox = create(SandboxSchema, { ...name, runtime: { name: shim } });
    sandbox.spec = packSpec({ ociVersion: "1.2.0" });
    await controller.create({ ...name, sandbox }, scope);
    expect(asked).toEqual(["far"]);
    expect((await controller.start(name, scope)).pid).toBeGreaterThan(0);
    expect(await controller.status(name, scope)).toMatchObject({ state: "SANDBOX_READY" });
    expect((await controller.metrics(name, scope)).metrics?.id).toBe(name.sandboxId);
    const ended = controller.wait(name, scope);
    await controller.stop({ ...name, timeoutSecs: 1 }, scope);
    expect((await ended).exitStatus).toBe(0);
    await controller.shutdown(name, scope);
    const unknown = controller.start({ ...name, sandboxer: "farther" }, scope);
    const refusal = await unknown.catch((error: Error) => error.message);
    expect(refusal).toContain("failed to get sandbox controller by farther");
  }, 60_000);

  test("a pod of such a handler runs containers, one after another", async () => {
    const { runtime } = cri;
    const config = podConfig(cri.daemon);
    const { podSandboxId } = await runtime.runPodSandbox({ config, runtimeHandler: "far" });
    const { status } = await runtime.podSandboxStatus({ podSandboxId });
    expect(status).toMatchObject({ state: PodSandboxState.SANDBOX_READY, runtimeHandler: "far" });
    for (const name of ["first", "second"]) {
      const container = script(name, `echo ${name}; exit 2`);
      const id = await runContainer(cri, podSandboxId, config, container);
      expect(await exited(cri, id)).toMatchObject({ exitCode: 2 });
      expect(logOf(config, container)).toBe(`${name}\n`);
    }
    const after = await runtime.podSandboxStatus({ podSandboxId });
    expect(after.status?.state).toBe(PodSandboxState.SANDBOX_READY);
    await runtime.stopPodSandbox({ podSandboxId });
    await runtime.removePodSandbox({ podSandboxId });
    expect(podLeftovers(cri.daemon)).toEqual([]);
  }, 60_000);
});
