/**
 * Counters, gauges and histograms in Prometheus' text format 0.0.4
 * (https://prometheus.io/docs/instrumenting/exposition_formats/). A child is looked up once and kept; counting is one addition.
 */

/** One series of a counter or gauge. */
export interface Value {
  value: number;
}

/** One series of a histogram. */
export interface Distribution {
  observe(value: number): void;
}

type LabelValues = readonly string[];

interface Family {
  readonly name: string;
  readonly help: string;
  readonly type: "counter" | "gauge" | "histogram";
  samples(): Iterable<string>;
}

export class ValueFamily implements Family {
  readonly name: string;
  readonly help: string;
  readonly type: "counter" | "gauge";
  readonly #labels: readonly string[];
  readonly #children = new Map<string, { readonly suffix: string; readonly value: Value }>();

  constructor(type: "counter" | "gauge", name: string, help: string, labels: readonly string[]) {
    this.type = type;
    this.name = name;
    this.help = help;
    this.#labels = labels;
  }

  /** The series of these label values, made at 0. */
  child(...values: LabelValues): Value {
    const suffix = formatLabels(this.#labels, values);
    let child = this.#children.get(suffix);
    if (child === undefined) {
      child = { suffix, value: { value: 0 } };
      this.#children.set(suffix, child);
    }
    return child.value;
  }

  *samples(): Iterable<string> {
    for (const { suffix, value } of this.#children.values())
      yield `${this.name}${suffix} ${formatNumber(value.value)}`;
  }
}

export class HistogramFamily implements Family {
  readonly name: string;
  readonly help: string;
  readonly type = "histogram";
  readonly #labels: readonly string[];
  readonly #bounds: readonly number[];
  readonly #children = new Map<string, { readonly values: LabelValues; readonly child: HistogramChild }>();

  constructor(name: string, help: string, labels: readonly string[], bounds: readonly number[]) {
    this.name = name;
    this.help = help;
    this.#labels = labels;
    this.#bounds = bounds;
  }

  child(...values: LabelValues): Distribution {
    const key = formatLabels(this.#labels, values);
    let found = this.#children.get(key);
    if (found === undefined) {
      found = { values, child: new HistogramChild(this.#bounds) };
      this.#children.set(key, found);
    }
    return found.child;
  }

  *samples(): Iterable<string> {
    for (const { values, child } of this.#children.values()) {
      const labels = [...this.#labels, "le"];
      let below = 0;
      for (const [index, bound] of [...this.#bounds, Number.POSITIVE_INFINITY].entries()) {
        below += child.counts[index] ?? 0;
        yield `${this.name}_bucket${formatLabels(labels, [...values, formatNumber(bound)])} ${below}`;
      }
      const suffix = formatLabels(this.#labels, values);
      yield `${this.name}_sum${suffix} ${formatNumber(child.sum)}`;
      yield `${this.name}_count${suffix} ${below}`;
    }
  }
}

class HistogramChild implements Distribution {
  readonly #bounds: readonly number[];
  /** Of each bucket alone; the last is +Inf. */
  readonly counts: number[];
  sum = 0;

  constructor(bounds: readonly number[]) {
    this.#bounds = bounds;
    this.counts = new Array<number>(bounds.length + 1).fill(0);
  }

  observe(value: number): void {
    let index = 0;
    while (index < this.#bounds.length && value > (this.#bounds[index] ?? 0)) index++;
    this.counts[index] = (this.counts[index] ?? 0) + 1;
    this.sum += value;
  }
}

/** The families of one endpoint. */
export class MetricsRegistry {
  readonly #families: Family[] = [];
  readonly #collectors: (() => void)[] = [];
  readonly #measurements: (() => Promise<readonly ValueFamily[]>)[] = [];

  counter(name: string, help: string, labels: readonly string[] = []): ValueFamily {
    return this.#add(new ValueFamily("counter", name, help, labels));
  }

  gauge(name: string, help: string, labels: readonly string[] = []): ValueFamily {
    return this.#add(new ValueFamily("gauge", name, help, labels));
  }

  /** `bounds` ascend; +Inf is added. */
  histogram(
    name: string,
    help: string,
    bounds: readonly number[],
    labels: readonly string[] = [],
  ): HistogramFamily {
    return this.#add(new HistogramFamily(name, help, labels, bounds));
  }

  /** Called before each text, to set gauges from what is true then. */
  onCollect(collect: () => void): void {
    this.#collectors.push(collect);
  }

  /** Called for each text: families whose series are known only then, and gone the next time. */
  onMeasure(measure: () => Promise<readonly ValueFamily[]>): void {
    this.#measurements.push(measure);
  }

  async text(): Promise<string> {
    const measured = (await Promise.all(this.#measurements.map((measure) => measure()))).flat();
    for (const collect of this.#collectors) collect();
    const lines: string[] = [];
    for (const family of [...this.#families, ...measured]) {
      const samples = [...family.samples()];
      if (samples.length === 0) continue;
      lines.push(
        `# HELP ${family.name} ${escapeHelp(family.help)}`,
        `# TYPE ${family.name} ${family.type}`,
        ...samples,
      );
    }
    return `${lines.join("\n")}\n`;
  }

  #add<F extends Family>(family: F): F {
    if (this.#families.some(({ name }) => name === family.name))
      throw new Error(`metric ${family.name} exists twice`);
    this.#families.push(family);
    return family;
  }
}

function formatLabels(names: readonly string[], values: LabelValues): string {
  if (names.length !== values.length) throw new Error(`${names.length} labels, ${values.length} values`);
  if (names.length === 0) return "";
  return `{${names.map((name, index) => `${name}="${escapeLabel(values[index] ?? "")}"`).join(",")}}`;
}

function escapeHelp(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n");
}

function escapeLabel(text: string): string {
  return escapeHelp(text).replaceAll('"', '\\"');
}

function formatNumber(value: number): string {
  if (value === Number.POSITIVE_INFINITY) return "+Inf";
  return value === Number.NEGATIVE_INFINITY ? "-Inf" : String(value);
}
