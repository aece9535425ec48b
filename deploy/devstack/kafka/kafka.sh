#!/usr/bin/env bash
# A real Apache Kafka for the tests, without a container: Java 17 and Maven are enough.
#
# usage: kafka.sh COMMAND [--dir DIR] [--port PORT] [--brokers N]
#   start          start N brokers and print where they listen, once each of them is ready
#   stop           stop them; their data stays in DIR
#   kill ID        end broker ID at once (SIGKILL)
#   pause ID       stop broker ID where it stands (SIGSTOP); resume ID lets it go on
#   revive ID      start a killed broker ID again on the data it left, and wait for it
#   clean          stop them and remove DIR
#   cli TOOL ...   run one of Kafka's own tools: topics, groups, configs, offsets, or a class name
#                  e.g. kafka.sh cli topics --bootstrap-server 127.0.0.1:19092 --list
#
# Broker ID (from 1) takes 127.0.0.1:PORT+ID-1 and, for its controller, PORT+1000+ID-1. Default: one broker, port 19092.
# Maven fetches the jars once into KLGSTREAM_KAFKA_CACHE (default ~/.cache/klgstream-kafka).
# KAFKA_HEAP_OPTS: memory of a broker (default -Xms256m -Xmx512m). EXTRA_PROPERTIES: further settings, "a=b c=d".
# The controller waits for a killed broker's session to run out before it lets the broker in again, about 12 s;
# EXTRA_PROPERTIES="broker.session.timeout.ms=2000 broker.heartbeat.interval.ms=500" makes that about 4 s.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${KLGSTREAM_KAFKA_CACHE:-$HOME/.cache/klgstream-kafka}
jars=$cache/$(cksum < "$here/pom.xml" | cut -d' ' -f1) # another pom.xml, another folder
dir=${TMPDIR:-/tmp}/klgstream-kafka
port=19092
brokers=1

fail() { echo "kafka.sh: $*" >&2; exit 1; }

usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit 2; }

# ---- jars ----------------------------------------------------------------------------------------------------------

need_jars() {
  [ -e "$jars/complete" ] && return
  command -v mvn > /dev/null || fail "mvn is missing: install Maven, it downloads Kafka"
  echo "kafka.sh: downloading Kafka into $jars" >&2
  mkdir -p "$jars"
  mvn -q -B -ntp -Dstyle.color=never -f "$here/pom.xml" dependency:copy-dependencies -DincludeScope=runtime "-DoutputDirectory=$jars" >&2 ||
    fail "download Kafka with Maven: see above"
  touch "$jars/complete"
}

# tool CLASS ARGS...: a short-lived JVM, tuned to start quickly.
tool() {
  java -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xmx256m "-Dlog4j2.configurationFile=$here/log4j2.properties" -cp "$jars/*" "$@"
}

# ---- one broker ----------------------------------------------------------------------------------------------------

# running ID: a pid alone could have been given to another process; its command line must name our properties.
running() {
  local pid_file=$dir/$1/kafka.pid
  [ -s "$pid_file" ] && tr '\0' ' ' 2> /dev/null < "/proc/$(cat "$pid_file")/cmdline" | grep -qF "$dir/$1/server.properties"
}

properties() { # properties ID
  local id=$1 i voters=() copies=$((brokers < 3 ? brokers : 3)) in_sync
  in_sync=$((copies > 1 ? 2 : 1))
  for ((i = 1; i <= brokers; i++)); do voters+=("$i@127.0.0.1:$((port + 999 + i))"); done
  cat << END
process.roles=broker,controller
node.id=$id
controller.quorum.voters=$(IFS=,; echo "${voters[*]}")
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$((port + id - 1)),CONTROLLER://127.0.0.1:$((port + 999 + id))
advertised.listeners=PLAINTEXT://127.0.0.1:$((port + id - 1))
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$dir/$id/data
# A misspelt topic is an error.
auto.create.topics.enable=false
num.partitions=1
default.replication.factor=$copies
min.insync.replicas=$in_sync
# Events of 2013 are to stay: nothing is deleted for its age.
log.retention.ms=-1
log.retention.bytes=-1
offsets.retention.minutes=525600
# Groups form at once.
group.initial.rebalance.delay.ms=0
# Kafka's own topics, small.
offsets.topic.num.partitions=8
offsets.topic.replication.factor=$copies
transaction.state.log.num.partitions=8
transaction.state.log.replication.factor=$copies
transaction.state.log.min.isr=$in_sync
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=$copies
share.coordinator.state.topic.min.isr=1
END
  # shellcheck disable=SC2086 # several settings in one variable
  [ -z "${EXTRA_PROPERTIES:-}" ] || printf '%s\n' $EXTRA_PROPERTIES
}

prepare() { # prepare ID: write its settings, and format its data folder the first time
  mkdir -p "$dir/$1"
  properties "$1" > "$dir/$1/server.properties"
  [ -e "$dir/$1/data/meta.properties" ] && return
  tool kafka.tools.StorageTool format -t "$cluster" -c "$dir/$1/server.properties" > "$dir/$1/format.log" 2>&1 ||
    { cat "$dir/$1/format.log" >&2; fail "format the data of broker $1: see above"; }
}

launch() { # launch ID: in a session of its own, so that neither Ctrl-C nor the end of this script stops it
  : > "$dir/$1/kafka.log"
  # shellcheck disable=SC2086 # several flags in one variable
  setsid java ${KAFKA_HEAP_OPTS:--Xms256m -Xmx512m} -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -Djava.awt.headless=true \
    -Dkafka.log.level=INFO "-Dlog4j2.configurationFile=$here/log4j2.properties" \
    -cp "$jars/*" kafka.Kafka "$dir/$1/server.properties" >> "$dir/$1/kafka.log" 2>&1 < /dev/null &
  echo $! > "$dir/$1/kafka.pid"
  disown
}

await() { # await ID: the line is logged when the broker has joined its cluster and answers
  local try
  for ((try = 0; try < 900; try++)); do
    grep -q 'Kafka Server started' "$dir/$1/kafka.log" && return
    kill -0 "$(cat "$dir/$1/kafka.pid")" 2> /dev/null || { tail -n 20 "$dir/$1/kafka.log" >&2; fail "broker $1 ended: see above"; }
    sleep 0.1
  done
  fail "broker $1 is not ready after 90 s: see $dir/$1/kafka.log"
}

halt() { # halt ID SIGNAL: and SIGKILL after 30 s
  local try pid
  if running "$1"; then
    pid=$(cat "$dir/$1/kafka.pid")
    kill "-$2" "$pid"
    for ((try = 0; try < 300; try++)); do running "$1" || break; sleep 0.1; done
    if running "$1"; then kill -9 "$pid"; fi
  fi
  rm -f "$dir/$1/kafka.pid"
}

# ---- commands ------------------------------------------------------------------------------------------------------

# made: DIR is a folder this script has made; from here on it is an absolute path.
made() { [ -s "$dir/cluster" ] && dir=$(cd "$dir" && pwd); }

every() { local d; for d in "$dir"/[0-9]*/; do [ -d "$d" ] && basename "$d"; done; true; }

start_all() {
  local i made_port made_brokers
  need_jars
  mkdir -p "$dir"
  dir=$(cd "$dir" && pwd)
  if made; then # the brokers of a folder know each other by port
    read -r cluster made_port made_brokers < "$dir/cluster"
    [ "$made_port/$made_brokers" = "$port/$brokers" ] ||
      fail "$dir belongs to --port $made_port --brokers $made_brokers: use those, or run: kafka.sh clean --dir $dir"
  else
    cluster=A$(head -c 15 /dev/urandom | base64 | tr '+/' '-_')Q
    echo "$cluster $port $brokers" > "$dir/cluster"
  fi
  for ((i = 1; i <= brokers; i++)); do if running "$i"; then fail "broker $i of $dir is running already"; fi; done
  for ((i = 1; i <= brokers; i++)); do prepare "$i"; done
  for ((i = 1; i <= brokers; i++)); do launch "$i"; done
  for ((i = 1; i <= brokers; i++)); do await "$i"; done
  sed -n 's,^advertised.listeners=PLAINTEXT://,,p' "$dir"/[0-9]*/server.properties | paste -sd, -
}

stop_all() {
  local id pids=()
  for id in $(every); do halt "$id" TERM & pids+=($!); done
  for id in ${pids[@]+"${pids[@]}"}; do wait "$id"; done
}

one() { # one ID: the broker that kill and revive are about
  made || fail "$dir is not a folder of this script"
  [ -n "$id" ] && [ -d "$dir/$id" ] || fail "no broker ${id:-(which one?)} in $dir"
}

[ $# -gt 0 ] || usage
command=$1
shift
id=
if [ "$command" != cli ]; then
  while [ $# -gt 0 ]; do
    case $1 in
      --dir) dir=${2:?a folder}; shift 2 ;;
      --port) port=${2:?a number}; shift 2 ;;
      --brokers) brokers=${2:?a number}; shift 2 ;;
      -*) fail "unknown flag $1" ;;
      *) id=$1; shift ;;
    esac
  done
fi

case $command in
  start) start_all ;;
  stop) if made; then stop_all; fi ;;
  clean) if made; then stop_all; rm -rf "$dir"; fi ;;
  kill)
    one
    running "$id" || fail "broker $id is not running"
    halt "$id" KILL
    ;;
  pause | resume)
    one
    running "$id" || fail "broker $id is not running"
    kill "-$([ "$command" = pause ] && echo STOP || echo CONT)" "$(cat "$dir/$id/kafka.pid")"
    ;;
  revive)
    one
    if running "$id"; then fail "broker $id is running"; fi
    need_jars
    mv "$dir/$id/kafka.log" "$dir/$id/kafka.log.old"
    launch "$id"
    await "$id"
    ;;
  cli)
    need_jars
    [ $# -gt 0 ] || usage
    class=$1
    shift
    case $class in
      topics) class=org.apache.kafka.tools.TopicCommand ;;
      groups) class=org.apache.kafka.tools.consumer.group.ConsumerGroupCommand ;;
      configs) class=kafka.admin.ConfigCommand ;;
      offsets) class=org.apache.kafka.tools.GetOffsetShell ;;
    esac
    tool "$class" "$@"
    ;;
  *) usage ;;
esac
