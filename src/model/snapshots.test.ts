import { expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { type Info, InfoSchema } from "#gen/containerd/services/snapshots/v1/snapshots_pb.ts";
import { changedLabels } from "./snapshots.ts";

const infoOf = (json: string): Info => create(InfoSchema, { name: "s", labels: JSON.parse(json) });

test("labels are changed by their keys alone, whatever those are", () => {
  const [stored, wanted] = [infoOf('{"a":"1","b":"2"}'), infoOf('{"a":"3","__proto__":"4"}')];
  const changed = changedLabels(stored, wanted, ["labels.__proto__", "labels.b", "labels.toString"]);
  expect(Object.entries(changed)).toEqual([
    ["a", "1"],
    ["b", ""],
    ["__proto__", "4"],
    ["toString", ""],
  ]);
  expect(Object.entries(changedLabels(stored, wanted, []))).toEqual(Object.entries(wanted.labels));
  expect(() => changedLabels(stored, wanted, ["parent"])).toThrow(
    'cannot update "parent" field on snapshot "s": invalid argument',
  );
});
