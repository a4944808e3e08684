import { readFileSync } from "node:fs";
import type { CriConfig } from "../../config/config.ts";
import { type Lazy, lazily } from "../../lib/lazily.ts";
import { BunkerdError, messageOf } from "../../model/errors.ts";
import { attachForClient } from "../containers/attach.ts";
import { execForClient } from "../containers/exec.ts";
import type { Cri } from "../cri.ts";
import { portForwardForClient } from "../sandboxes/port-forward.ts";
import { type KeyPair, selfSignedCertificate } from "./certificate.ts";
import { StreamingServer } from "./server.ts";

type StreamingConfig = CriConfig["streaming"];

const MAX_PORT = 2 ** 16 - 1;

/** The streaming server, which listens from its first use on; at once where config.toml names a port. @throws InvalidArgument on a setting */
export async function openStreaming(cri: Omit<Cri, "streaming">): Promise<Lazy<StreamingServer>> {
  const { streaming } = cri.config;
  checkKeyPair(streaming);
  const port = /^\d+$/.test(streaming.stream_server_port) ? Number(streaming.stream_server_port) : Number.NaN;
  if (!(port <= MAX_PORT)) throw refused(`stream server port ${streaming.stream_server_port}`);
  const started = lazily(() => {
    const whole: Cri = { ...cri, streaming: started };
    const runtime = {
      exec: (...given: Tail<typeof execForClient>) => execForClient(whole, ...given),
      attach: (...given: Tail<typeof attachForClient>) => attachForClient(whole, ...given),
      portForward: (...given: Tail<typeof portForwardForClient>) => portForwardForClient(whole, ...given),
    };
    const options = {
      address: streaming.stream_server_address,
      port,
      idleTimeoutMs: streaming.stream_idle_timeout,
      tls: keyPairOf(streaming),
    };
    return StreamingServer.start(options, { runtime, logger: cri.logger });
  });
  if (port !== 0) await started.get();
  return started;
}

type Tail<F> = F extends (cri: Cri, ...given: infer Given) => unknown ? Given : never;

/** containerd `internal/cri/config/streaming.go`, getStreamListenerMode. @throws InvalidArgument */
function checkKeyPair({
  enable_tls_streaming: enabled,
  x509_key_pair_streaming: pair,
}: StreamingConfig): void {
  const [cert, key] = [pair.tls_cert_file !== "", pair.tls_key_file !== ""];
  if (enabled && cert && !key) throw refused("must set X509KeyPairStreaming.TLSKeyFile");
  if (enabled && key && !cert) throw refused("must set X509KeyPairStreaming.TLSCertFile");
  if (!enabled && (cert || key))
    throw refused(
      `X509KeyPairStreaming.${cert ? "TLSCertFile" : "TLSKeyFile"} is set but EnableTLSStreaming is not set`,
    );
}

/** @throws InvalidArgument if the files cannot be read */
function keyPairOf({
  enable_tls_streaming: enabled,
  x509_key_pair_streaming: pair,
}: StreamingConfig): KeyPair | undefined {
  if (!enabled) return undefined;
  if (pair.tls_cert_file === "") return selfSignedCertificate();
  try {
    return {
      cert: readFileSync(pair.tls_cert_file, "utf8"),
      key: readFileSync(pair.tls_key_file, "utf8"),
    };
  } catch (error) {
    throw refused(`failed to load x509 key pair for stream server: ${messageOf(error)}`);
  }
}

function refused(reason: string): BunkerdError {
  return new BunkerdError("InvalidArgument", `invalid stream server configuration: ${reason}`);
}
