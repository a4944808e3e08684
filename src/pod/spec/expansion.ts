/** `$(NAME)` as Kubernetes expands it (`third_party/forked/golang/expansion`): `$$` is a dollar, an unknown name stays as it stands. */
export type Lookup = (name: string) => string | undefined;

export function expand(text: string, lookup: Lookup): string {
  return text.replace(/\$(?:\$|\(([^)]*)\))/g, (written, name?: string) =>
    name === undefined ? "$" : (lookup(name) ?? written),
  );
}

/** The same where an unknown name is a failure: `subPathExpr`. @throws with the names */
export function expandAll(text: string, lookup: Lookup): string {
  const missing: string[] = [];
  const expanded = expand(text, (name) => {
    const value = lookup(name);
    if (value === undefined) missing.push(name);
    return value;
  });
  if (missing.length > 0)
    throw new Error(`missing value for ${missing.map((name) => JSON.stringify(name)).join(", ")}`);
  return expanded;
}
