import { expect, test } from "bun:test";
import { editDistance, nearest } from "./nearest.ts";

test.each([
  ["root", "root", 0],
  ["root", "roto", 1],
  ["adress", "address", 1],
  ["kitten", "sitting", 3],
])("editDistance(%p, %p) is %p", (left, right, distance) =>
  expect(editDistance(left, right, 5)).toBe(distance),
);

test("the nearest name is offered, a far one is not", () => {
  expect(nearest("max_recv_mesage_size", ["address", "max_recv_message_size"])).toBe("max_recv_message_size");
  expect(nearest("colour", ["root", "state"])).toBeUndefined();
  expect(nearest("x".repeat(100_000), ["root"])).toBeUndefined();
});
