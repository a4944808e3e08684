import type { AuthConfig } from "#gen/runtime/v1/api_pb.ts";
import { BunkerdError, quote } from "../../model/errors.ts";
import type { CredentialSource, Credentials } from "../../model/remotes.ts";

/** What a pull is allowed by: what the kubelet sends with it, or what config.toml has for the host (`internal/cri/server/images` ParseAuth). */
export function credentialsOf(
  auth: AuthConfig | undefined,
  configured: ReadonlyMap<string, Credentials>,
): CredentialSource {
  return async ({ host }) => {
    if (auth === undefined) return configured.get(host);
    if (auth.serverAddress !== "" && hostOf(auth.serverAddress) !== host) return undefined;
    return credentials(auth);
  };
}

type Fields = Pick<AuthConfig, "username" | "password" | "auth" | "identityToken">;

/** @throws InvalidArgument on an `auth` that is not `user:password` in base64 */
export function credentials({ username, password, auth, identityToken }: Fields): Credentials | undefined {
  if (username !== "") return { username, secret: password };
  if (identityToken !== "") return { secret: identityToken };
  if (auth === "") return undefined;
  const decoded = Buffer.from(auth, "base64").toString("utf8");
  const colon = decoded.indexOf(":");
  if (colon < 0)
    throw new BunkerdError("InvalidArgument", "invalid decoded auth: no colon between user and password");
  return { username: decoded.slice(0, colon), secret: decoded.slice(colon + 1).replace(/^\0+|\0+$/g, "") };
}

/** @throws InvalidArgument */
function hostOf(address: string): string {
  try {
    return new URL(address).host;
  } catch (cause) {
    throw new BunkerdError("InvalidArgument", `parse server address: ${quote(address)}`, { cause });
  }
}
