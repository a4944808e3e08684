# bunkerd. `make help` lists the targets.
SHELL := /bin/bash
BUN := node_modules/.bin/bun
BIN := node_modules/.bin
SOURCES := $(shell find src gen build -name '*.ts' 2>/dev/null)
COMMIT := $(shell git rev-parse HEAD 2>/dev/null || echo unknown)

.DEFAULT_GOAL := help
.PHONY: help run demo build check check-gen fmt gen proto-compat test test-unit test-integration test-crash test-long h2spec critest crictl kubelet crio bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# npm 11 and later may leave install scripts out: bun's is run by hand then.
node_modules/.installed: package.json package-lock.json
	npm ci --no-fund --no-audit
	@$(BUN) --version >/dev/null 2>&1 || node node_modules/bun/install.js
	@$(BUN) --version >/dev/null
	@touch $@

dist/bunkerd: node_modules/.installed $(SOURCES)
	@mkdir -p dist
	$(BUN) build/compile.ts $@ $(COMMIT)

build: dist/bunkerd ## compile dist/bunkerd, one executable

run: dist/bunkerd ## build and start the daemon on /run/bunkerd/bunkerd.sock
	dist/bunkerd $(ARGS)

demo: dist/bunkerd ## build, start a daemon and run docs/sample/pod.yaml on it (as root); IMAGE=reference to pull one
	$(BUN) docs/sample/demo.ts $(IMAGE)

fmt: node_modules/.installed ## format and apply safe fixes
	$(BIN)/biome check --write .

check: node_modules/.installed check-gen ## format, lint, types, tidy, generated code up to date
	$(BIN)/biome ci .
	$(BIN)/tsc --noEmit
	$(BUN) test ./test/tidy.test.ts

gen: node_modules/.installed ## generate gen/ from proto/
	PATH="$(CURDIR)/$(BIN):$$PATH" buf generate

check-gen: node_modules/.installed ## fail if gen/ is not what proto/ generates
	$(BUN) test/support/check-gen.ts

proto-compat: node_modules/.installed ## proto/ against the upstream files of Debian's packages
	$(BUN) test/support/proto-compat.ts

test: dist/bunkerd ## every test, with samples of the long ones
	$(BUN) test/support/run.ts build src test

test-unit: node_modules/.installed ## the tests beside the code
	$(BUN) test/support/run.ts build src

test-integration: dist/bunkerd ## against ctr, curl and containerd (as root)
	$(BUN) test/support/run.ts test/integration test/conformance

test-crash: dist/bunkerd ## kill -9 and power-cut replay
	$(BUN) test/support/run.ts test/crash

test-long: dist/bunkerd ## crash, fuzz and soak at full length
	BUNKERD_TEST_LONG=1 $(BUN) test/support/run.ts test/crash test/fuzz test/conformance

critest: dist/bunkerd ## CRITEST=program: cri-tools' conformance suite on containerd and bunkerd (as root)
	unshare --net --mount --propagation private $(BUN) test/conformance/cri/critest.ts $(CRITEST)

h2spec: dist/bunkerd ## H2SPEC=program: every case of h2spec on the TCP listener
	$(BUN) test/conformance/http2/h2spec.ts $(H2SPEC)

crictl: dist/bunkerd ## CRICTL=program: every command of crictl on containerd and bunkerd, compared (as root)
	unshare --net --mount --propagation private $(BUN) test/conformance/cri/crictl.ts $(CRICTL)

kubelet: dist/bunkerd ## KUBELET=program: pods by a standalone kubelet on containerd and bunkerd (as root)
	unshare --net --mount --propagation private $(BUN) test/conformance/cri/kubelet.ts $(KUBELET)

crio: dist/bunkerd ## CRIO=program, pinns beside it: the tests of pods on CRI-O (as root)
	BUNKERD_TEST_CRIO=$(abspath $(CRIO)) $(BUN) test/support/run.ts test/integration/pod

bench: dist/bunkerd ## side by side with containerd, as ratios
	$(BUN) bench/run.ts

clean: ## remove what was built
	rm -rf dist node_modules .cache
