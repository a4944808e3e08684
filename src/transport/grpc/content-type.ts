/** Source: gRPC's PROTOCOL-HTTP2.md, "Content-Type". */

/**
 * True for requests that go to `grpc/`: `application/grpc` with whatever follows, but for gRPC-Web and JSON, which are
 * Connect's. What follows may be wrong still: see {@link isGrpcProto}.
 */
export function isGrpc(contentType: string | undefined): boolean {
  if (contentType === "application/grpc") return true;
  if (contentType === undefined || !contentType.startsWith("application/grpc")) return false;
  return !contentType.startsWith("-web", 16) && !contentType.startsWith("+json", 16);
}

/** True for the content-types that `grpc/` answers: `application/grpc` and `+proto`, with or without parameters. */
export function isGrpcProto(contentType: string | undefined): boolean {
  if (contentType === "application/grpc" || contentType === "application/grpc+proto") return true;
  return contentType !== undefined && /^application\/grpc(?:\+proto|\+)?(?:;.*)?$/.test(contentType);
}
