/** A cell of the matrix of clients: a kind of RPC, a size, and what a client made of it. */

/** The method of the conformance service for each kind. */
export const KINDS = {
  unary: "Echo",
  "client stream": "Gather",
  "server stream": "Spread",
  bidi: "Chat",
} as const;

export type Kind = keyof typeof KINDS;

export const ALL_KINDS = Object.keys(KINDS) as readonly Kind[];

/** `outcome` is "ok", or what came instead: a code and a message where the call was refused. */
export type Cell = readonly [
  kind: Kind,
  bytes: number,
  direction: "both ways" | "up" | "down",
  outcome: string,
];
