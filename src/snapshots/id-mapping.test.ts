import { expect, test } from "bun:test";
import { mappedRoot } from "./id-mapping.ts";

const uids = (map: string) => ({ "containerd.io/snapshot/uidmapping": map });
const both = (uid: string, gid: string) => ({ ...uids(uid), "containerd.io/snapshot/gidmapping": gid });

test("the container's root is whom the maps say, itself without a map", () => {
  expect(mappedRoot({})).toBeUndefined();
  expect(mappedRoot(both("0:100000:65536", "0:200000:10"))).toEqual({ uid: 100_000, gid: 200_000 });
  expect(mappedRoot(uids("0:100000:65536"))).toEqual({ uid: 100_000, gid: 0 });
  expect(mappedRoot(both("1:5:1,0:7:1", ""))).toEqual({ uid: 7, gid: 0 });
});

test.each([
  ["nonsense", "failed to unmarshal snapshot ID mapped labels: input value nonsense unparsable"],
  ["0:1", "failed to unmarshal snapshot ID mapped labels: input value 0:1 unparsable"],
  ["0:1:2,", "failed to unmarshal snapshot ID mapped labels: input value  unparsable"],
  ["0:-1:5", 'failed to unmarshal snapshot ID mapped labels: invalid mapping "0:-1:5"'],
  ["0:4294967295:1", 'failed to unmarshal snapshot ID mapped labels: invalid mapping "0:4294967295:1"'],
  ["1:2:3", "failed to find root pair: container ID 0 cannot be mapped to a host ID"],
  ["0:5:0", "failed to find root pair: container ID 0 cannot be mapped to a host ID"],
])("%s is refused", (map, message) => {
  expect(() => mappedRoot(uids(map))).toThrow(message);
});
