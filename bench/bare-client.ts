/**
 * A client that does nothing but {@link bareCalls}: `bare-client SOCKET POD LOG-DIRECTORY`, where POD is a file with a pod as JSON, ready to be
 * used. Prints what it made once the container has written a line. `bench/pods.ts` compiles it as bunkerd is.
 */
import { readFileSync, writeSync } from "node:fs";
import { criClient } from "../src/client/cri.ts";
import type { Pod } from "../src/pod/api/pod.ts";
import { bareCalls, bareMounts } from "./bare-calls.ts";

const [socket = "", file = "", logDirectory = ""] = process.argv.slice(2);
const cri = criClient(socket);
const pod = JSON.parse(readFileSync(file, "utf8")) as Pod;
const made = await bareCalls(cri, pod, logDirectory, bareMounts(logDirectory));
writeSync(1, `${JSON.stringify(made)}\n`);
cri.close();
