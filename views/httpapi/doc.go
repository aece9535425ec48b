// Package httpapi is the HTTP face of the pipeline: a REST API described in OpenAPI 3.1, a stream of server-sent events,
// and a page that shows both.
//
// The package knows no broker and no database. What it publishes goes through [Publisher], what it reads comes from
// [klgstream.dev/views.Store], [Pipeline], [Registry] and [Live]; all but the store and the publisher may be absent, and
// the routes that need them then answer 503 with the reason.
//
// # What holds
//
//   - H1 An event is answered with 202 only after the broker has acknowledged it, and its value is the bytes the client
//     sent, untouched.
//   - H2 A batch is taken as a whole or not at all: one faulty event refuses it, and every fault is named with its place.
//   - H3 Whatever a client sends is bounded before it is held: headers, body, events in a batch, faults in an answer,
//     requests and body bytes in flight, streams, idempotency keys.
//   - H4 A frame of the event stream is encoded once, however many listen; who cannot keep up is cut off and starts again
//     from a whole picture, so no listener costs another one anything.
//   - H5 Keys are kept as SHA-256 sums and compared in constant time; no header, key or body is ever logged.
//   - H6 Pages load nothing from elsewhere and run no inline script: the content security policy says so to the browser.
package httpapi
