import { expect, test } from "bun:test";
import { parseImageConfig } from "./image-config.ts";

const parse = (text: string) => parseImageConfig(new TextEncoder().encode(text), "sha256:1");

const NOTHING = {
  user: "",
  env: [],
  entrypoint: [],
  cmd: [],
  volumes: [],
  workingDir: "",
  labels: {},
  stopSignal: "",
};

test.each(["{}", '{"config":null}', '{"config":{"Env":null,"Volumes":null,"Labels":{}}}'])(
  "%s says nothing",
  (text) => {
    expect(parse(text)).toEqual(NOTHING);
  },
);

test("what an image says", () => {
  const config = {
    User: "web:1",
    Env: ["A=b"],
    Entrypoint: ["e"],
    Cmd: ["c", "d"],
    Volumes: { "/z": {}, "/a": {} },
    WorkingDir: "/w",
    Labels: { l: "m" },
    StopSignal: "SIGINT",
  };
  expect(parse(JSON.stringify({ config }))).toEqual({
    user: "web:1",
    env: ["A=b"],
    entrypoint: ["e"],
    cmd: ["c", "d"],
    volumes: ["/a", "/z"],
    workingDir: "/w",
    labels: { l: "m" },
    stopSignal: "SIGINT",
  });
});

test.each([
  ["[]", "expected an object"],
  ['{"config":{"User":1}}', 'expected a text, not "1"'],
  ['{"config":{"Env":"A=b"}}', "expected a list of texts"],
  ['{"config":{"Cmd":[1]}}', "expected a text"],
  ["nonsense", "unmarshal image config sha256:1"],
])("%s is refused", (text, message) => {
  expect(() => parse(text)).toThrow(message);
});
