#!/usr/bin/env bash
# Installs the real peers that tests/peers runs against: MinIO, Apache Kafka with its tools, kcat and kafkajs.
# Each comes through its package registry; what is installed already is left as it is.
# A peer that cannot be had is an error: these tests never skip.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
home=${PEERS_HOME:-$HOME/.cache/headwater-peers}
mkdir -p "$home"

apt_get() {
  if [ "$(id -u)" = 0 ]; then DEBIAN_FRONTEND=noninteractive apt-get "$@"
  elif command -v sudo >/dev/null; then sudo DEBIAN_FRONTEND=noninteractive apt-get "$@"
  else echo "tests/peers/install.sh: run as root once, or: apt-get install -y $missing" >&2; exit 1; fi
}

missing=
command -v go >/dev/null || missing="$missing golang-go"
command -v java >/dev/null || missing="$missing default-jdk-headless"
command -v mvn >/dev/null || missing="$missing maven"
command -v node >/dev/null || missing="$missing nodejs"
command -v npm >/dev/null || missing="$missing npm"
command -v kcat >/dev/null || missing="$missing kcat"
if [ -n "$missing" ]; then
  echo "installing:$missing"
  apt_get -qq update
  # shellcheck disable=SC2086
  apt_get -qq install -y --no-install-recommends $missing >"$home/apt.log" 2>&1 || { tail -5 "$home/apt.log" >&2; exit 1; }
fi

"$here/minio.sh" install
"$here/kafka.sh" install
if ! [ -e "$home/kafkajs/node_modules/kafkajs" ]; then
  mkdir -p "$home/kafkajs"
  (cd "$home/kafkajs" && npm install --silent --no-fund --no-audit kafkajs@2.2.4 kafkajs-snappy@1.1.0 kafkajs-lz4@1.2.1 >"$home/npm.log" 2>&1) || { tail -5 "$home/npm.log" >&2; exit 1; }
fi
echo "peers are ready in $home"
