/** What the schemas of `v1` are made of: Kubernetes' names for types, and a field that is known but not carried out. */
import * as v from "valibot";

export const string = v.string();
export const boolean = v.boolean();
export const strings = v.array(v.string());

const whole = (low: number, high: number) =>
  v.pipe(
    v.number(),
    v.integer("must be a whole number"),
    v.minValue(low, `must be at least ${low}`),
    v.maxValue(high, `must be at most ${high}`),
  );

export const int32 = whole(-(2 ** 31), 2 ** 31 - 1);
export const int64 = whole(Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER);
export const natural = whole(0, 2 ** 31 - 1);
export const positive = whole(1, 2 ** 31 - 1);
/** A user's or a group's. */
export const id = whole(0, 2 ** 31 - 1);
export const port = whole(1, 65_535);
/** Of a volume's file: 0 to 0777. */
export const fileMode = whole(0, 0o777);

/** A port's number or its name in `ports`. */
export const intOrString = v.union([port, v.string()], "must be a port's number or its name");

const PATTERN = /^[+-]?(?:\d+\.?\d*|\.\d+)(?:[KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?$/;

/** As `resource.Quantity` is written: `1`, `500m`, `64Mi`, `1e3`. */
export const quantity = v.pipe(
  v.union([v.string(), v.number()], "must be a quantity such as 500m or 64Mi"),
  v.transform(String),
  v.regex(PATTERN, "must be a quantity such as 500m or 64Mi"),
);

/** The values may be numbers in YAML only where Kubernetes takes them. */
export const stringMap = v.record(v.string(), v.string());
export const quantities = v.record(v.string(), quantity);

export const oneOf = <const Values extends readonly string[]>(...values: Values) =>
  v.picklist(values, `must be one of ${values.join(", ")}`);

/** A field of `v1` whose meaning nobody here carries out: naming it is an error that tells why. */
export const refused = (reason: string) =>
  v.optional(v.custom<never>(() => false, `is not carried out: ${reason}`));

/** The same, where nothing, as templates often write it, means nothing. */
export const notCarriedOut = (reason: string) =>
  v.optional(
    v.pipe(
      v.custom<unknown>(isNothing, `is not carried out: ${reason}`),
      v.transform(() => undefined),
    ),
  );

function isNothing(value: unknown): boolean {
  if (typeof value === "object" && value !== null) return Object.keys(value).length === 0;
  return value === "" || value === false;
}

/** A field whose zero is, as in Kubernetes' own types, the same as none: it has its default then. */
export const defaulted = <Schema extends v.GenericSchema, const Default>(
  schema: Schema,
  fallback: Default,
  zero: "" | 0 = "",
): v.OptionalSchema<v.GenericSchema<unknown, v.InferOutput<Schema> | Default>, "" | 0> =>
  v.optional(
    v.pipe(
      v.unknown(),
      v.transform((value) => (value === zero ? undefined : value)),
      v.optional(schema, fallback as never),
    ),
    zero,
  );

export const optional = v.optional;
export const list = v.array;
/** Every key that it does not name is an error. */
export const object = v.strictObject;
