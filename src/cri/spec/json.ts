/** JSON whose integers stay exact: what a number cannot hold comes as bigint. @throws SyntaxError */
export function parseExact(text: string): unknown {
  return JSON.parse(text, exactInteger);
}

function exactInteger(_key: string, value: unknown, context?: { source?: string }): unknown {
  if (typeof value !== "number" || Number.isSafeInteger(value)) return value;
  return context?.source !== undefined && /^-?\d+$/.test(context.source) ? BigInt(context.source) : value;
}
