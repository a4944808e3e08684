#!/usr/bin/env bash
# Installs the Debian programs that the tests call, if they are missing.
set -euo pipefail
missing=()
need() { command -v "$1" >/dev/null 2>&1 || missing+=("$2"); }
need curl curl
need jq jq
need make make
need git git
need strace strace
need runc runc
need script bsdutils
need h2load nghttp2-client
need ip iproute2
need iptables iptables
if [ ${#missing[@]} -gt 0 ]; then
  apt-get update -q
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
fi
