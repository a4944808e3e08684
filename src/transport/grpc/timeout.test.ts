import { expect, test } from "bun:test";
import { parseTimeout } from "./timeout.ts";

test("every unit is milliseconds", () => {
  const cases: [string, number][] = [
    ["2H", 7_200_000],
    ["3M", 180_000],
    ["4S", 4_000],
    ["5m", 5],
    ["6u", 0.006],
    ["70n", 0.00007],
    ["0n", 0],
    ["99999999H", 99_999_999 * 3_600_000],
  ];
  for (const [value, milliseconds] of cases) expect(parseTimeout(value)).toBeCloseTo(milliseconds, 9);
});

test("a malformed timeout is named as grpc-go names it", () => {
  const cases: [string, string][] = [
    ["", 'malformed grpc-timeout: transport: timeout string is too short: ""'],
    ["S", 'malformed grpc-timeout: transport: timeout string is too short: "S"'],
    ["123456789S", 'malformed grpc-timeout: transport: timeout string is too long: "123456789S"'],
    ["10s", 'malformed grpc-timeout: transport: timeout unit is not recognized: "10s"'],
    ["-1S", 'malformed grpc-timeout: strconv.ParseUint: parsing "-1": invalid syntax'],
    ["1.5S", 'malformed grpc-timeout: strconv.ParseUint: parsing "1.5": invalid syntax'],
    ["1eS", 'malformed grpc-timeout: strconv.ParseUint: parsing "1e": invalid syntax'],
  ];
  for (const [value, message] of cases) expect(() => parseTimeout(value)).toThrow(message);
});
