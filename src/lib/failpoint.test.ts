import { expect, test } from "bun:test";
import { armFailpoint, failpoint, systemError } from "./failpoint.ts";

test("a failpoint does nothing until it is armed", () => {
  failpoint("test.point");
  const disarm = armFailpoint("test.point", () => {
    throw systemError("ENOSPC");
  });
  expect(() => failpoint("test.point")).toThrow("ENOSPC");
  failpoint("test.other");
  disarm();
  failpoint("test.point");
});

test("the environment arms failpoints of a process, from the visit it names", async () => {
  const script = `import { failpoint } from "${import.meta.dir}/failpoint.ts";
    for (let visit = 1; ; visit++) { process.stdout.write(visit + " "); failpoint("test.point"); }`;
  const env = { ...process.env, BUNKERD_FAILPOINTS: "test.other=error:EIO;test.point=kill@3" };
  const child = Bun.spawn([process.execPath, "-e", script], { env, stdout: "pipe", stderr: "ignore" });
  expect(await new Response(child.stdout).text()).toBe("1 2 3 ");
  await child.exited;
  expect(child.signalCode).toBe("SIGKILL");
});
