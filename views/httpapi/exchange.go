package httpapi

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// exchange is the response writer every handler gets: it knows what was answered and who asked, and it turns the plain
// 404 and 405 of the mux into problems.
type exchange struct {
	http.ResponseWriter
	request   *http.Request
	proxies   proxies
	key       *secret // nil if the client showed none
	accept    string  // the Accept header, which only queries of views heed
	status    int
	bytes     int64
	swallow   bool   // the mux's own text follows; ours is written already
	counted   string // as whose it is in flight
	streaming bool   // not one of the requests in flight any more
}

// Unwrap lets http.ResponseController reach the connection.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

func (x *exchange) WriteHeader(status int) {
	if x.status != 0 {
		return
	}
	x.status = status
	if x.request.Pattern == "" && (status == http.StatusNotFound || status == http.StatusMethodNotAllowed) {
		x.refuse(status)
		return
	}
	x.ResponseWriter.WriteHeader(status)
}

// refuse answers for a path or a method no route has.
func (x *exchange) refuse(status int) {
	detail := "no such resource: see /docs"
	if status == http.StatusMethodNotAllowed {
		detail = "method not allowed here, but: " + x.Header().Get("Allow")
	}
	x.swallow = true
	x.Header().Del("X-Content-Type-Options")
	setCommonHeaders(x.Header())
	writeProblem(x.ResponseWriter, problem(status, detail))
}

func (x *exchange) Write(b []byte) (int, error) {
	if x.swallow {
		return len(b), nil
	}
	if x.status == 0 {
		x.WriteHeader(http.StatusOK)
	}
	n, err := x.ResponseWriter.Write(b)
	x.bytes += int64(n)
	return n, err
}

// client names who asks, for limits and idempotency: the key's name, else the address.
func (x *exchange) client() string {
	if x.key != nil {
		return "key " + x.key.name
	}
	return x.address()
}

// address is where a request comes from: the connection's other end, or, if that is a trusted proxy, whom it says it speaks for.
func (x *exchange) address() string {
	host, _, err := net.SplitHostPort(x.request.RemoteAddr)
	if err != nil {
		host = x.request.RemoteAddr
	}
	if !x.proxies.trusted(host) {
		return host
	}
	return x.proxies.client(host, x.request.Header["X-Forwarded-For"])
}

// proxies are those whose X-Forwarded-For is believed.
type proxies []netip.Prefix

func (p proxies) trusted(host string) bool {
	if len(p) == 0 {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && slices.ContainsFunc(p, func(n netip.Prefix) bool { return n.Contains(ip.Unmap().WithZone("")) })
}

// client is the last address that is no trusted proxy: each proxy adds whom it heard from, and what stands before was said by a client.
func (p proxies) client(host string, forwarded []string) string {
	chain := strings.Split(strings.Join(forwarded, ","), ",")
	for _, said := range slices.Backward(chain) {
		ip, err := netip.ParseAddr(strings.TrimSpace(said))
		if err != nil {
			return host
		}
		if host = ip.Unmap().String(); !p.trusted(host) {
			return host
		}
	}
	return host
}

// exchangeOf finds the exchange behind a handler's writer. Handlers are only ever called through ServeHTTP.
func exchangeOf(w http.ResponseWriter) *exchange {
	x, ok := w.(*exchange)
	if !ok {
		panic("handler called past ServeHTTP")
	}
	return x
}
