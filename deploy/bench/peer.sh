#!/usr/bin/env bash
# One engine in a JVM of its own, until a signal ends it.
#
# usage: peer.sh build
#        peer.sh flink|flink-sql|kafka-streams BROKERS INPUT OUTPUT GROUP THREADS BOUND_MS
#
# Classes and jars are in KLGSTREAM_PEERS_CACHE (default ~/.cache/klgstream-peers); build puts them there.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${KLGSTREAM_PEERS_CACHE:-$HOME/.cache/klgstream-peers}

if [ "${1:-}" = build ]; then
  mvn -q -B -ntp -Dstyle.color=never -f "$here/pom.xml" "-Dpeers.directory=$cache" compile dependency:copy-dependencies -DincludeScope=runtime "-DoutputDirectory=$cache/jars"
  exit
fi

flags=(
  # A heap that none of the jobs fills, of one size from the start: a larger one only costs memory, a smaller one collects more often.
  -Xms1g -Xmx1g
  # Throughput is what is measured: of the collectors this one costs the least CPU time on few cores.
  -XX:+UseParallelGC
  # What Flink asks for on Java 17.
  --add-opens=java.base/java.util=ALL-UNNAMED --add-opens=java.base/java.lang=ALL-UNNAMED --add-opens=java.base/java.time=ALL-UNNAMED
  --add-opens=java.base/java.nio=ALL-UNNAMED --add-opens=java.base/java.net=ALL-UNNAMED
)
exec java "${flags[@]}" -cp "$cache/classes:$cache/jars/*" dev.klgstream.peers.Main "$@"
