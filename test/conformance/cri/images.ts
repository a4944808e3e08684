/** Images that stand in for those that critest pulls, built from Debian's busybox, under the names that it asks for. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { debianPackage } from "../../support/debian.ts";
import { output } from "../../support/processes.ts";
import { pushImage, type Registry } from "../../support/registry.ts";
import { type BuiltImage, buildImage, type TarEntry, tar } from "../../support/tar.ts";

/** Hosts whose images come from the test's registry. */
export const MIRRORED: readonly string[] = ["registry.k8s.io", "gcr.io", "k8s.gcr.io"];

const LAYER = "application/vnd.oci.image.layer.v1.tar+gzip";
const pack = (layer: Buffer) => ({ blob: gzipSync(layer), mediaType: LAYER });

/** Serves one page, as nginx would by its defaults; its pid file and its title are what critest looks at. */
const WEB_SERVER = "#!/bin/sh\necho httpd\necho $$ > /var/run/nginx.pid\nhttpd -f -p $PORT -h /www\n";

async function busyboxEntries(): Promise<TarEntry[]> {
  const busybox = join(await debianPackage("bookworm", "busybox-static"), "bin/busybox");
  const applets = (await output([busybox, "--list"])).trim().split("\n");
  const directory = (name: string, mode = 0o755): TarEntry => ({ name, type: "5", mode });
  return [
    ...[
      "bin/",
      "dev/",
      "etc/",
      "home/",
      "proc/",
      "root/",
      "sys/",
      "usr/",
      "usr/bin/",
      "var/",
      "var/run/",
    ].map((name) => directory(name)),
    directory("tmp/", 0o1777),
    directory("www/"),
    { name: "bin/busybox", mode: 0o755, data: readFileSync(busybox) },
    ...applets
      .filter((name) => name !== "busybox")
      .map((name) => ({ name: `bin/${name}`, type: "1", mode: 0o755, link: "bin/busybox" })),
    { name: "usr/bin/env", type: "2", link: "../../bin/busybox" },
    {
      name: "etc/passwd",
      data: [
        "root:x:0:0:root:/root:/bin/sh",
        "www-data:x:33:33:www-data:/var/www:/bin/false",
        "default-user:x:1000:1000::/home/default-user:/bin/sh",
        "nobody:x:65534:65534:nobody:/home:/bin/false",
        "",
      ].join("\n"),
    },
    {
      name: "etc/group",
      data: "root:x:0:\nwww-data:x:33:\ngroup-defined-in-image:x:50000:default-user\nnobody:x:65534:\n",
    },
    { name: "www/index.html", data: "<html><title>Welcome to nginx!</title></html>\n" },
    { name: "bin/nginx", mode: 0o755, data: WEB_SERVER },
  ];
}

/** Fills the registry. Applets are hard links, as a path that is masked must be a file. A test's repository is what the reference has behind its host. */
export async function pushCritestImages(registry: Registry): Promise<void> {
  const base = tar(await busyboxEntries());
  const image = (config: object, ...more: readonly TarEntry[]): BuiltImage =>
    buildImage("critest", more.length === 0 ? [base] : [base, tar(more)], pack, {
      Env: ["PATH=/bin:/usr/bin"],
      Cmd: ["sh"],
      ...config,
    });
  const push = (repository: string, tag: string, built: BuiltImage) =>
    pushImage(registry, repository, tag, built);
  const pause = image({ Cmd: undefined, Entrypoint: ["/bin/tail", "-f", "/dev/null"] });
  for (const tag of ["3.9", "3.10", "3.10.1", "3.10.2"]) await push("pause", tag, pause);
  const e2e = "e2e-test-images/";
  await push(`${e2e}busybox`, "1.29-2", image({}));
  const server = ["/bin/nginx", "nginx: master process"];
  const port = (value: number) => ({ Env: ["PATH=/bin:/usr/bin", `PORT=${value}`] });
  const web = { Cmd: server, ExposedPorts: { "80/tcp": {} }, ...port(80) };
  await push(`${e2e}nginx`, "1.14-2", image(web));
  await push(`${e2e}httpd`, "2.4.39-4", image(web));
  const tools = "k8s-staging-cri-tools/";
  await push(`${tools}hostnet-nginx-amd64`, "latest", image({ Cmd: server, ...port(12_003) }));
  const named = (name: string) => image({}, { name, data: name });
  for (const n of [1, 2, 3]) await push(`${tools}test-image-${n}`, "latest", named(`test-image-${n}`));
  for (const tag of ["1", "2", "3"]) await push(`${tools}test-image-tags`, tag, named("test-image-tags"));
  await push(`${tools}test-image-latest`, "latest", named("test-image-latest"));
  for (const tag of ["test", "all"])
    await push(`${tools}test-image-tag`, tag, named(`test-image-tag-${tag}`));
  for (const [name, user] of [
    ["user-uid", "1002"],
    ["user-username", "www-data"],
    ["user-uid-group", "1003:users"],
    ["user-username-group", "www-data:100"],
    ["predefined-group", "1000"],
  ] as const) {
    await push(
      `${tools}test-image-${name}`,
      "latest",
      image({ User: user }, { name: `${name}.txt`, data: user }),
    );
  }
}
