#!/usr/bin/env bash
# Measures the API with wrk, beside an HTTP handler that does nothing, in one run on one machine: events posted one by one and
# in batches of 500, each answered after the broker's acknowledgement; queries on a million rows; a thousand streams. The broker is the
# embedded one, in a process of its own. Needs wrk, curl and Python 3. SECONDS_EACH (10), ROUNDS (3) and ROWS (1000000) may be set.
set -euo pipefail
cd "$(dirname "$0")/../.."
each=${SECONDS_EACH:-10} rounds=${ROUNDS:-3} rows=${ROWS:-1000000}

dir=$(mktemp -d)
pids=()
trap 'echo "line $LINENO failed" >&2; tail -n 3 "$dir"/*.log >&2' ERR
trap 'kill "${pids[@]}" 2> /dev/null || true; wait; rm -rf "$dir"' EXIT
run() { # NAME COMMAND...: in the background, with a log
  "${@:2}" > "$dir/$1" 2>&1 &
  pids+=($!)
}
await() { # NAME PATTERN: prints what the pattern captures in the log, as soon as it is there
  for _ in $(seq 600); do
    sed -nE "s#.*$2.*#\\1#p" "$dir/$1" | head -1 | grep . && return
    sleep 0.2
  done
  cat "$dir/$1" >&2
  return 1
}

CGO_ENABLED=0 go build -o "$dir" ./cmd/klgstream ./deploy/devstack/bench/rig
run rig.log "$dir/rig"
empty=$(await rig.log '^empty (.*)')
export REDPANDA_BROKERS RISINGWAVE_URL=sqlite:$dir/windows.db
REDPANDA_BROKERS=$(await rig.log '^broker (.*)')
"$dir/klgstream" topics > /dev/null 2>&1

echo "filling a store with $rows windows"
python3 - "$rows" > "$dir/events.jsonl" << 'PY'
import sys
n, aircraft = int(sys.argv[1]), 10000
for i in range(n):
    h = i // aircraft
    print('{"event_type":"departed","registration_number":"N%d","timestamp":"2026-01-%02dT%02d:00:00Z"}' % (i % aircraft, 1 + h // 24, h % 24))
PY
run processor.log "$dir/klgstream" processor --ops-url=http://127.0.0.1:0 --idle=hold --bound=240h
processor=${pids[-1]}
run sink.log "$dir/klgstream" sink --sink-ops-addr=127.0.0.1:0
sink=${pids[-1]}
"$dir/klgstream" replay --key=registration "$dir/events.jsonl" > /dev/null 2>&1
count() { python3 -c 'import sqlite3,sys; print(sqlite3.connect("file:%s?mode=ro" % sys.argv[1], uri=True).execute("select count(*) from aircraft_windows").fetchone()[0])' "$dir/windows.db"; }
until [ "$(count)" -ge "$rows" ]; do sleep 1; done
kill "$processor" "$sink"
wait "$processor" "$sink" || true

run api.log "$dir/klgstream" api --http-addr=127.0.0.1:0 --api-ops-addr=127.0.0.1:0 --log-format=json
api=${pids[-1]}
url=$(await api.log '"address":"([^"]*)"')
events=$url/api/v1/streaming/events

cat > "$dir/post.lua" << 'LUA'
local n = tonumber(os.getenv("BATCH"))
local function event(i) return '{"event_type":"departed","aircraft_id":178,"registration_number":"N' .. i .. '","timestamp":"2026-02-01T10:17:10.984Z"}' end
local list = {}
for i = 1, n do list[i] = event(10000 + i) end
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = n == 1 and event(10000) or "[" .. table.concat(list, ",") .. "]"
done = function(summary) if summary.errors.status > 0 then print("ANSWERS THAT ARE NO SUCCESS: " .. summary.errors.status) end end
LUA
cat > "$dir/query.lua" << 'LUA'
math.randomseed(1)
local views = "/api/v1/streaming/views/"
local forms = {
  function(n) return "aircraft_windows?limit=100&registration_number=N" .. n end,
  function(n) return "aircraft_windows?limit=100&order=-window_start&registration_number=N" .. n end,
  function(n) return "aircraft_windows?limit=100&registration_number=N" .. n .. "&window_start.ge=2026-01-02T00:00:00Z" end,
  function(n) return "aircraft_stats?registration_number=N" .. n end,
  function(n) return "last_seen?registration_number=N" .. n end,
}
request = function()
  local form = forms[math.random(#forms)]
  return wrk.format("GET", views .. form(math.random(0, 9999)))
end
done = function(summary) if summary.errors.status > 0 then print("ANSWERS THAT ARE NO SUCCESS: " .. summary.errors.status) end end
LUA

load() { wrk -t"$(($1 > 1 ? 2 : 1))" -c"$1" -d"${each}s" --latency "${@:2}" | tee -a "$dir/wrk.log"; }
rate() { awk '/^Requests\/sec/ {print $2}'; }
quantile() { awk '/^ +99%/ {print $2}'; }
export BATCH=1
load 128 -s "$dir/post.lua" "$events" > /dev/null # warm
echo "round  empty/s  single/s  ratio  batches of 500, events/s"
for round in $(seq "$rounds"); do
  export BATCH=1
  nothing=$(load 128 -s "$dir/post.lua" "$empty/" | rate)
  single=$(load 128 -s "$dir/post.lua" "$events" | rate)
  export BATCH=500
  batch=$(load 16 -s "$dir/post.lua" "$events" | rate)
  awk -v r="$round" -v e="$nothing" -v s="$single" -v b="$batch" 'BEGIN {printf "%5d  %7.0f  %8.0f  %5.2f  %24.0f\n", r, e, s, s / e, 500 * b}'
done
echo "queries on $rows rows, 4 clients: $(load 4 -s "$dir/query.lua" "$url" | tee "$dir/query.log" | rate) a second, 99% within $(quantile < "$dir/query.log")"
for list in 'busiest_aircraft?limit=10' 'aircraft_stats?limit=100' 'aircraft_windows?limit=100&order=-window_start'; do
  curl -s -o /dev/null "$url/api/v1/streaming/views/$list" # the first who asks waits
  echo "  $list: 99% within $(load 1 "$url/api/v1/streaming/views/$list" | quantile)"
done
grep 'NO SUCCESS' "$dir/wrk.log" || true

memory() { awk '/^VmRSS/ {print $2}' "/proc/$api/status"; }
before=$(memory)
python3 - "$url" << 'PY' &
import socket, sys, urllib.parse
u = urllib.parse.urlparse(sys.argv[1])
streams = [socket.create_connection((u.hostname, u.port)) for _ in range(1000)]
for s in streams:
    s.sendall(b"GET /api/v1/streaming/updates HTTP/1.1\r\nHost: localhost\r\n\r\n")
for _ in range(10):
    for s in streams:
        s.recv(1 << 16)
print("1000 streams listen", flush=True)
import time
time.sleep(5)
PY
streams=$!
sleep 12
echo "1000 streams: resident memory $((before / 1024)) MiB before, $(($(memory) / 1024)) MiB with them"
wait "$streams" || true
