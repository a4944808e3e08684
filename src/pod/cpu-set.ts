/** Sets of CPUs as the kernel writes them: `0-2,5`. */
export type CpuSet = ReadonlySet<number>;

/** @throws Error on what is no set */
export function parseCpuSet(text: string): CpuSet {
  const cpus = new Set<number>();
  for (const part of text
    .trim()
    .split(",")
    .filter((each) => each !== "")) {
    const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(part);
    if (match === null)
      throw new Error(`set of CPUs ${JSON.stringify(text)}: ${JSON.stringify(part)} is no CPU and no range`);
    const first = Number(match[1]);
    for (let cpu = first; cpu <= Number(match[2] ?? first); cpu++) cpus.add(cpu);
  }
  return cpus;
}

export function formatCpuSet(cpus: Iterable<number>): string {
  const sorted = [...cpus].sort((left, right) => left - right);
  const parts: string[] = [];
  for (let index = 0; index < sorted.length; ) {
    let end = index;
    while (sorted[end + 1] === (sorted[end] ?? 0) + 1) end += 1;
    parts.push(end === index ? `${sorted[index]}` : `${sorted[index]}-${sorted[end]}`);
    index = end + 1;
  }
  return parts.join(",");
}
