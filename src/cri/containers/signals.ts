import { constants } from "node:os";
import { Signal } from "#gen/runtime/v1/api_pb.ts";
import { BunkerdError, fail } from "../../model/errors.ts";
import { enumName } from "../enums.ts";

const FIRST_REALTIME = 34;
const LAST_REALTIME = 64;

/** CRI's name of a signal as containers' configurations have it: `SIGRTMIN+1`. Empty for the default. @throws InvalidArgument */
export function signalName(signal: Signal): string {
  if (signal === Signal.RUNTIME_DEFAULT) return "";
  const name = enumName(Signal, signal);
  if (name === undefined) throw fail("InvalidArgument", `unknown CRI stop signal ${signal}`);
  return name.replace("PLUS", "+").replace("MINUS", "-");
}

/** The inverse; the default for a name that CRI does not have. */
export function criSignal(name: string): Signal {
  const key = name.replace("+", "PLUS").replace("-", "MINUS");
  const signals = Signal as unknown as Readonly<Record<string, Signal>>;
  return Object.hasOwn(signals, key) ? (signals[key] ?? Signal.RUNTIME_DEFAULT) : Signal.RUNTIME_DEFAULT;
}

/** A number, or a name with or without `SIG`, in any case (moby/sys `signal`). @throws Unknown */
export function signalNumber(text: string): number {
  const invalid = new BunkerdError("Unknown", `invalid signal: ${text}`);
  if (/^[+-]?\d+$/.test(text)) {
    const number = Number(text);
    if (number === 0) throw invalid;
    return number;
  }
  const name = text.toUpperCase().replace(/^SIG/, "");
  const [, end, sign, offset = "0"] = /^RT(MIN|MAX)(?:([+-])(\d+))?$/.exec(name) ?? [];
  if (end !== undefined) {
    const number = end === "MIN" ? FIRST_REALTIME + Number(offset) : LAST_REALTIME - Number(offset);
    const fits = sign === undefined || sign === (end === "MIN" ? "+" : "-");
    if (!fits || number < FIRST_REALTIME || number > LAST_REALTIME) throw invalid;
    return number;
  }
  const known = constants.signals as Readonly<Record<string, number>>;
  const number = Object.hasOwn(known, `SIG${name}`) ? known[`SIG${name}`] : undefined;
  if (number === undefined) throw invalid;
  return number;
}
