import { expect, test } from "bun:test";
import { MetricsRegistry, ValueFamily } from "./metrics.ts";

test("counters, gauges and histograms as Prometheus reads them", async () => {
  const registry = new MetricsRegistry();
  const calls = registry.counter("calls_total", "Calls.\nAll of them.", ["method", "code"]);
  calls.child("Get", "OK").value++;
  calls.child("Get", "OK").value++;
  calls.child('a"b\\c\nd', "OK").value++;
  const open = registry.gauge("open", "Open connections.");
  registry.onCollect(() => {
    open.child().value = 7;
  });
  const seconds = registry.histogram("seconds", "Time.", [0.1, 1], ["method"]);
  for (const value of [0.05, 0.1, 0.5, 3]) seconds.child("Get").observe(value);
  registry.counter("unused_total", "Nothing yet.", ["x"]);
  expect(await registry.text()).toBe(`# HELP calls_total Calls.\\nAll of them.
# TYPE calls_total counter
calls_total{method="Get",code="OK"} 2
calls_total{method="a\\"b\\\\c\\nd",code="OK"} 1
# HELP open Open connections.
# TYPE open gauge
open 7
# HELP seconds Time.
# TYPE seconds histogram
seconds_bucket{method="Get",le="0.1"} 2
seconds_bucket{method="Get",le="1"} 3
seconds_bucket{method="Get",le="+Inf"} 4
seconds_sum{method="Get"} 3.65
seconds_count{method="Get"} 4
`);
});

test("a name is given once, labels and values match", () => {
  const registry = new MetricsRegistry();
  const family = registry.counter("a_total", "A.", ["x"]);
  expect(() => registry.gauge("a_total", "A.")).toThrow("exists twice");
  expect(() => family.child()).toThrow("1 labels, 0 values");
});

test("what is measured for a text is in that one alone", async () => {
  const registry = new MetricsRegistry();
  registry.counter("calls_total", "Calls.").child().value = 1;
  let id = "a";
  registry.onMeasure(async () => {
    const family = new ValueFamily("gauge", "pids", "Processes.", ["id"]);
    family.child(id).value = 3;
    return [family];
  });
  const before = "# HELP calls_total Calls.\n# TYPE calls_total counter\ncalls_total 1\n";
  const pids = "# HELP pids Processes.\n# TYPE pids gauge\n";
  expect(await registry.text()).toBe(`${before}${pids}pids{id="a"} 3\n`);
  id = "b";
  expect(await registry.text()).toBe(`${before}${pids}pids{id="b"} 3\n`);
});
