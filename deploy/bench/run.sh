#!/usr/bin/env bash
# Compares klgstream with Apache Flink and Kafka Streams on a real Apache Kafka of its own. `make bench-peers` runs this.
#
# usage: run.sh [flags of "klgstream bench peers", e.g. --events=4000000 --keys=200000 --rounds=3 --json=figures.json]
#
# Needs Go, Java 17 and Maven; the first time a network. KLGSTREAM_BENCH_PORT: where the broker listens (default 29192).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$here/../..
work=$(mktemp -d)
kafka=$top/deploy/devstack/kafka/kafka.sh
trap '"$kafka" clean --dir "$work/kafka"; rm -rf "$work"' EXIT

"$here/peer.sh" build
(cd "$top" && CGO_ENABLED=0 "${GO:-go}" build -trimpath -o "$work/klgstream" ./cmd/klgstream)
# The broker gets memory enough not to be what is measured.
brokers=$(KAFKA_HEAP_OPTS="${KAFKA_HEAP_OPTS:--Xms1g -Xmx1g}" "$kafka" start --dir "$work/kafka" --port "${KLGSTREAM_BENCH_PORT:-29192}")
"$work/klgstream" bench peers --brokers="$brokers" --runner="$here/peer.sh" "$@"
