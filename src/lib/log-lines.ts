/**
 * Log lines as containerd's logrus writes them, so that what reads containerd's log reads ours:
 * `time="…" level=info msg="…" key=value` with sorted keys, or one JSON object a line.
 */
import { writeSync } from "node:fs";
import type { LogFields, Logger, LogLevel } from "./log.ts";

export type LogFormat = "text" | "json";

const SEVERITY: Readonly<Record<LogLevel, number>> = {
  panic: 0,
  fatal: 1,
  error: 2,
  warn: 3,
  info: 4,
  debug: 5,
  trace: 6,
};

/** A Logger whose level and format may change while it is in use; loggers made by `with` follow. */
export interface LineLogger extends Logger {
  level: LogLevel;
  format: LogFormat;
  /** Lines that could not be written: a reader that is gone, a full disk. */
  readonly lostLines: number;
}

export interface LineLoggerOptions {
  readonly level?: LogLevel;
  readonly format?: LogFormat;
  /** Takes one line with its newline; stderr by default. */
  readonly write?: (line: string) => void;
  readonly now?: () => Date;
}

export function isLogLevel(text: string): text is LogLevel {
  return Object.hasOwn(SEVERITY, text);
}

/** Never throws: a line that cannot be written is counted and dropped. */
export function createLogger(options: LineLoggerOptions = {}): LineLogger {
  const write = options.write ?? writeToStderr;
  const now = options.now ?? (() => new Date());
  const state = { level: options.level ?? "info", format: options.format ?? "text", lostLines: 0 };
  const emit = (level: LogLevel, message: string, fields: LogFields): void => {
    try {
      const formatLine = state.format === "json" ? formatJson : formatText;
      write(formatLine(now(), level, message, fields));
    } catch {
      state.lostLines++;
    }
  };
  const loggerWith = (bound: LogFields): Logger => {
    const at =
      (level: LogLevel) =>
      (message: string, fields?: LogFields): void => {
        if (SEVERITY[level] > SEVERITY[state.level]) return;
        emit(level, message, fields === undefined ? bound : { ...bound, ...fields });
      };
    return {
      trace: at("trace"),
      debug: at("debug"),
      info: at("info"),
      warn: at("warn"),
      error: at("error"),
      with: (fields) => loggerWith({ ...bound, ...fields }),
    };
  };
  return Object.defineProperties(loggerWith({}) as LineLogger, {
    level: { get: () => state.level, set: (level: LogLevel) => (state.level = level) },
    format: { get: () => state.format, set: (format: LogFormat) => (state.format = format) },
    lostLines: { get: () => state.lostLines },
  });
}

/** @throws the errno error of write(2), EAGAIN included: a daemon does not wait for who reads its log */
function writeToStderr(line: string): void {
  const bytes = Buffer.from(line);
  for (let at = 0; at < bytes.length; ) at += writeSync(2, bytes, at);
}

/** logrus' names. */
const LEVEL_NAMES: Readonly<Record<LogLevel, string>> = {
  trace: "trace",
  debug: "debug",
  info: "info",
  warn: "warning",
  error: "error",
  fatal: "fatal",
  panic: "panic",
};

/** containerd's `log.RFC3339NanoFixed`, with the milliseconds that JavaScript has. */
function formatTime(time: Date): string {
  return time.toISOString().replace(/\.(\d{3})Z$/, ".$1000000Z");
}

function formatText(time: Date, level: LogLevel, message: string, fields: LogFields): string {
  let line = `time="${formatTime(time)}" level=${LEVEL_NAMES[level]} msg=${quoteIfNeeded(message)}`;
  for (const key of Object.keys(fields).sort()) {
    const value = fields[key];
    if (value !== undefined) line += ` ${clashFree(key)}=${quoteIfNeeded(textOf(value))}`;
  }
  return `${line}\n`;
}

function formatJson(time: Date, level: LogLevel, message: string, fields: LogFields): string {
  const entries = Object.entries(fields).map(([key, value]) => [clashFree(key), plainOf(value)]);
  const line = {
    ...Object.fromEntries(entries),
    level: LEVEL_NAMES[level],
    msg: message,
    time: formatTime(time),
  };
  return `${JSON.stringify(line, (_, value) => (typeof value === "bigint" ? String(value) : value))}\n`;
}

/** logrus' way with a field that is named as one of its own. */
function clashFree(key: string): string {
  return key === "time" || key === "level" || key === "msg" ? `fields.${key}` : key;
}

function quoteIfNeeded(text: string): string {
  if (/^[A-Za-z0-9\-._/@^+]+$/.test(text)) return text;
  // JSON leaves DEL, the C1 controls and line separators as they are; a terminal or a pager acts on them.
  return JSON.stringify(text).replace(
    /[\u007f-\u009f\u2028\u2029]/g,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

function plainOf(value: unknown): unknown {
  return value instanceof Error ? value.message : value;
}

function textOf(value: unknown): string {
  const plain = plainOf(value);
  if (typeof plain === "object" && plain !== null) {
    return JSON.stringify(plain, (_, item) => (typeof item === "bigint" ? String(item) : item));
  }
  return String(plain);
}
