/**
 * True for the content-types that `grpc/` answers: `application/grpc` and `+proto`, with or without parameters.
 * `application/grpc-web` and `application/grpc+json` are Connect's. Source: gRPC's PROTOCOL-HTTP2.md, "Content-Type".
 */
export function isGrpc(contentType: string | undefined): boolean {
  if (contentType === "application/grpc" || contentType === "application/grpc+proto") return true;
  if (contentType === undefined || !contentType.startsWith("application/grpc")) return false;
  return /^application\/grpc(?:\+proto|\+)?(?:;.*)?$/.test(contentType);
}
