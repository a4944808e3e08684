/** What a .proto file calls a value of an enum; undefined of one that it does not have. */
export function enumName(values: Readonly<Record<string, number>>, value: number): string | undefined {
  return Object.keys(values).find((name) => values[name] === value);
}
