/**
 * What probes ask, by Bun in a pod: grpc.health.v1 on one port, HTTPS on another.
 *
 *     bun probed-server.ts GRPC_PORT [HTTPS_PORT CERTIFICATE KEY]
 */
import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import { Server, ServerCredentials, type ServerUnaryCall, type sendUnaryData, status } from "@grpc/grpc-js";

/** `HealthCheckResponse{status: SERVING}` and `{status: NOT_SERVING}` */
const SERVING = Buffer.from([8, 1]);
const NOT_SERVING = Buffer.from([8, 2]);

/** The first field of a HealthCheckRequest is the service's name. */
function check({ request }: ServerUnaryCall<Buffer, Buffer>, answer: sendUnaryData<Buffer>): void {
  const service = request.subarray(2).toString();
  if (service === "" || service === "ready") answer(null, SERVING);
  else if (service === "stopped") answer(null, NOT_SERVING);
  else answer({ code: status.NOT_FOUND, details: "unknown service" });
}

const [grpcPort = "", httpsPort, certificate = "", key = ""] = process.argv.slice(2);
const bytes = {
  requestSerialize: asIs,
  requestDeserialize: asIs,
  responseSerialize: asIs,
  responseDeserialize: asIs,
};
const server = new Server();
server.addService(
  { Check: { path: "/grpc.health.v1.Health/Check", requestStream: false, responseStream: false, ...bytes } },
  { Check: check },
);
server.bindAsync(`0.0.0.0:${grpcPort}`, ServerCredentials.createInsecure(), (error) => {
  if (error !== null) throw error;
  process.stdout.write("grpc\n");
});
if (httpsPort !== undefined) {
  const tls = { cert: readFileSync(certificate), key: readFileSync(key) };
  createServer(tls, ({ url }, response) => {
    response.statusCode = url === "/ok" ? 200 : 500;
    response.end(`${url}\n`);
  }).listen(Number(httpsPort), "0.0.0.0", () => process.stdout.write("https\n"));
}

function asIs(value: Buffer): Buffer {
  return value;
}
