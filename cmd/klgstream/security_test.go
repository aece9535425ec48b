package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

// authority signs certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // its certificate
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t}
	a.cert, a.key, a.file, _ = a.issue(name, func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
	})
	return a
}

// issue makes a certificate with its key, and the files of both. The first one signs itself.
func (a *authority) issue(name string, change ...func(*x509.Certificate)) (cert *x509.Certificate, key *ecdsa.PrivateKey, certFile, keyFile string) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	a.must(err)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	a.must(err)
	c := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, f := range change {
		f(c)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	a.must(err)
	cert, err = x509.ParseCertificate(der)
	a.must(err)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	a.must(err)
	certFile = write(a.t, name+".pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	keyFile = write(a.t, name+"-key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})))
	return cert, key, certFile, keyFile
}

func (a *authority) must(err error) {
	a.t.Helper()
	if err != nil {
		a.t.Fatal(err)
	}
}

// server is the configuration of a server with a certificate of this authority.
func (a *authority) server() *tls.Config {
	a.t.Helper()
	cert, key, _, _ := a.issue("server")
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}}}
}

// pool trusts this authority alone.
func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// guarded is a broker that looks at who comes.
func guarded(t *testing.T, opts ...kfake.Opt) string {
	t.Helper()
	c, err := kfake.NewCluster(append(opts, kfake.NumBrokers(1), kfake.DefaultNumPartitions(1), kfake.GroupMinSessionTimeout(time.Millisecond))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c.ListenAddrs()[0]
}

// A broker lets in who has the right password, by each mechanism, and nobody else.
func TestSASL(t *testing.T) {
	t.Parallel()
	for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		t.Run(mechanism, func(t *testing.T) {
			t.Parallel()
			addr := guarded(t, kfake.EnableSASL(), kfake.Superuser(mechanism, "klg", "open sesame"))
			right := []string{"--sasl-mechanism=" + strings.ToLower(mechanism), "--sasl-user=klg", "--sasl-password=open sesame"}
			file := write(t, "password", "open sesame\n")
			for name, c := range map[string]struct {
				args []string
				in   bool
			}{
				"right":          {right, true},
				"right, by file": {[]string{right[0], right[1], "--sasl-password-file=" + file}, true},
				"wrong password": {[]string{right[0], right[1], "--sasl-password=open barley"}, false},
				"wrong user":     {[]string{right[0], "--sasl-user=ali", right[2]}, false},
				"nobody":         {nil, false},
			} {
				knock(t, name, addr, c.args, c.in)
			}
		})
	}
}

// knock tries to get in by creating the topics.
func knock(t *testing.T, name, addr string, args []string, in bool) {
	t.Helper()
	o := newOutside()
	code := run(t.Context(), append([]string{"topics", "--brokers=" + addr}, args...), o.environment)
	if in != (code == exitOK) {
		t.Errorf("%s: exit code %d, want in = %v: %s", name, code, in, o.errs.String())
	}
	if strings.Contains(o.errs.String()+o.out.String(), "open ") {
		t.Errorf("%s: the password is told: %s", name, o.errs.String())
	}
}

// A broker that asks for a certificate lets in who has one of its authority, and is talked to only if its own is good.
func TestMutualTLS(t *testing.T) {
	t.Parallel()
	ours, theirs := newAuthority(t, "ours"), newAuthority(t, "theirs")
	config := ours.server()
	config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, ours.pool()
	addr := guarded(t, kfake.TLS(config))
	_, _, cert, key := ours.issue("client")
	_, _, alien, alienKey := theirs.issue("alien")
	_, _, stale, staleKey := ours.issue("stale", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	for name, c := range map[string]struct {
		args []string
		in   bool
	}{
		"right":                        {[]string{"--tls", "--tls-ca=" + ours.file, "--tls-cert=" + cert, "--tls-key=" + key}, true},
		"no certificate":               {[]string{"--tls", "--tls-ca=" + ours.file}, false},
		"certificate of others":        {[]string{"--tls", "--tls-ca=" + ours.file, "--tls-cert=" + alien, "--tls-key=" + alienKey}, false},
		"certificate is over":          {[]string{"--tls", "--tls-ca=" + ours.file, "--tls-cert=" + stale, "--tls-key=" + staleKey}, false},
		"broker of others":             {[]string{"--tls", "--tls-ca=" + theirs.file, "--tls-cert=" + cert, "--tls-key=" + key}, false},
		"broker unknown to the system": {[]string{"--tls", "--tls-cert=" + cert, "--tls-key=" + key}, false},
		"in the clear":                 {nil, false},
	} {
		knock(t, name, addr, c.args, c.in)
	}
}

// Every role works with a broker that wants TLS, a certificate and a password: the flow from a replay to the store, the
// live windows and the tools.
func TestRolesOnGuardedBroker(t *testing.T) {
	t.Parallel()
	ours := newAuthority(t, "ours")
	config := ours.server()
	config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, ours.pool()
	addr := guarded(t, kfake.TLS(config), kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-512", "klg", "open sesame"))
	_, _, cert, key := ours.issue("client")
	common := []string{
		"--brokers=" + addr, "--log-format=json", "--tls", "--tls-ca=" + ours.file, "--tls-cert=" + cert, "--tls-key=" + key,
		"--sasl-mechanism=scram-sha-512", "--sasl-user=klg", "--sasl-password-file=" + write(t, "password", "open sesame"),
	}
	role := func(args ...string) *program { return launch(t, append(args, common...)...) }
	finish := func(args ...string) string {
		t.Helper()
		o := newOutside()
		if code := run(t.Context(), append(args, common...), o.environment); code != exitOK {
			t.Fatalf("%s: exit code %d: %s\n%s", args, code, o.errs.String(), o.out.String())
		}
		return o.out.String()
	}
	finish("topics")
	store := "--store-url=sqlite:" + filepath.Join(t.TempDir(), "windows.db")
	role("processor", "--ops-url=http://127.0.0.1:0", "--idle=hold")
	role("sink", store, "--sink-ops-addr=127.0.0.1:0")
	api := role("api", store, "--http-addr=127.0.0.1:0", "--api-ops-addr=127.0.0.1:0")
	web := api.logged(`"msg":"api",.*"address":"([^"]+)"`)[1]

	events := `{"event_type":"departed","aircraft_id":1,"registration_number":"N1","timestamp":"2026-01-01T00:00:01Z"}` + "\nnonsense\n"
	finish("replay", write(t, "events.jsonl", events))
	eventually(t, func() bool { // the registry's table may not be read yet
		status, _ := fetch(t, http.MethodPost, web+"/api/v1/aircraft", `{"registration_number":"RA-1","aircraft_type":"A320"}`)
		return status == http.StatusCreated || status == http.StatusAccepted
	})
	for path, want := range map[string]string{
		"/api/v1/streaming/views/aircraft_stats?registration_number=N1": `"total_events":1`,
		"/api/v1/streaming/views/dead_letters":                          `"reason"`,
		"/api/v1/streaming/live/N1":                                     `"event_count":1`,
		"/api/v1/aircraft?registration_number=RA-1":                     "A320",
		"/api/v1/streaming/health":                                      `"status":"ok"`,
	} {
		eventually(t, func() bool {
			status, body := fetch(t, http.MethodGet, web+path, "")
			return status == http.StatusOK && strings.Contains(body, want)
		})
	}
	if list := finish("dlq", "list"); !strings.Contains(list, "aircraft-events") {
		t.Errorf("dead letters: %s", list)
	}
	finish("state", "inspect", "N1")
	finish("doctor", store)
}

// Every fault of the security settings is told at once, without what is secret.
func TestSecurityFaults(t *testing.T) {
	t.Parallel()
	ours := newAuthority(t, "ours")
	_, _, cert, _ := ours.issue("one")
	_, _, _, otherKey := ours.issue("other")
	empty := write(t, "empty", "\n")
	for want, args := range map[string][]string{
		`--tls-ca: "` + ours.file + `" is of no use without --tls`: {"--tls-ca=" + ours.file},
		"--tls-ca: open":                              {"--tls", "--tls-ca=" + filepath.Join(t.TempDir(), "none")},
		"holds no certificate":                        {"--tls", "--tls-ca=" + otherKey},
		"--tls-key: none given":                       {"--tls", "--tls-cert=" + cert},
		"--tls-cert: none given":                      {"--tls", "--tls-key=" + otherKey},
		"private key does not match":                  {"--tls", "--tls-cert=" + cert, "--tls-key=" + otherKey},
		`--sasl-mechanism: "gssapi" must be`:          {"--sasl-mechanism=gssapi"},
		"--sasl-user: is of no use without":           {"--sasl-user=u"},
		"--sasl-password: is of no use without":       {"--sasl-password=hidden"},
		"--sasl-user: none given":                     {"--sasl-mechanism=plain", "--sasl-password=hidden"},
		"--sasl-password: none given":                 {"--sasl-mechanism=PLAIN", "--sasl-user=u"},
		"must not both be given":                      {"--sasl-mechanism=plain", "--sasl-user=u", "--sasl-password=hidden", "--sasl-password-file=" + empty},
		"--http-tls-key: none given":                  {"--http-tls-cert=" + cert},
		"the first line of":                           {"--sasl-mechanism=plain", "--sasl-user=u", "--sasl-password-file=" + empty},
		"--sasl-password-file: open":                  {"--sasl-mechanism=plain", "--sasl-user=u", "--sasl-password-file=" + empty + "x"},
		"4 faults in the configuration\n  --tls-cert": {"--tls-cert=" + cert, "--tls-key=" + otherKey, "--sasl-password=hidden"},
	} {
		o := newOutside()
		if code := run(t.Context(), append([]string{"config"}, args...), o.environment); code != exitConfig || !strings.Contains(o.errs.String(), want) {
			t.Errorf("%q: exit code %d, want %q in %s", args, code, want, o.errs.String())
		}
		if strings.Contains(o.errs.String(), "hidden") {
			t.Errorf("%q: the password is told: %s", args, o.errs.String())
		}
	}
}

// A password comes from the environment too, and is never shown.
func TestPasswordIsMasked(t *testing.T) {
	t.Parallel()
	o := newOutside("KLGSTREAM_SASL_PASSWORD=hidden", "KLGSTREAM_SASL_MECHANISM=plain", "KLGSTREAM_SASL_USER=klg")
	got := effective(t, o)
	for name, want := range map[string]string{
		"sasl-password": "******** # environment KLGSTREAM_SASL_PASSWORD", "sasl-user": "klg # environment KLGSTREAM_SASL_USER",
	} {
		if got[name] != want {
			t.Errorf("%s: %q, want %q", name, got[name], want)
		}
	}
	if strings.Contains(o.out.String(), "hidden") {
		t.Error("the password is shown")
	}
}

// A certificate that is renewed in its file is used from the next connection on.
func TestClientCertificateIsReadAgain(t *testing.T) {
	t.Parallel()
	ours := newAuthority(t, "ours")
	_, _, cert, key := ours.issue("one")
	s := Security{TLS: true, TLSCA: ours.file, TLSCert: cert, TLSKey: key, SASLMechanism: "none"}
	if err := s.check(); err != nil {
		t.Fatal(err)
	}
	c := clientConfig(Kafka{Security: s})
	second, _, newCert, newKey := ours.issue("two")
	for from, to := range map[string]string{newCert: cert, newKey: key} {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	got, err := c.Net.TLS.Config.GetClientCertificate(nil)
	if err != nil || string(got.Certificate[0]) != string(second.Raw) {
		t.Errorf("not the new certificate: %v", err)
	}
}

// The doctor says what mends a broker that does not let this program in.
func TestDoctorOnGuardedBroker(t *testing.T) {
	t.Parallel()
	ours, theirs := newAuthority(t, "ours"), newAuthority(t, "theirs")
	open := guarded(t, kfake.EnableSASL(), kfake.Superuser("PLAIN", "klg", "open sesame"))
	closed := guarded(t, kfake.TLS(ours.server()))
	plain := []string{"--brokers=" + open, "--sasl-mechanism=plain", "--sasl-user=klg"}
	for want, args := range map[string][]string{
		"and --sasl-mechanism, --sasl-user": append(plain[:3:3], "--sasl-password=x"),
		"for anybody on the way to read":    append(plain[:3:3], "--sasl-password=open sesame"),
		"set --tls-ca":                      {"--brokers=" + closed, "--tls", "--tls-ca=" + theirs.file},
	} {
		o := newOutside()
		args = append([]string{"doctor", "--read-only"}, append(args, "--store-url=sqlite:"+filepath.Join(t.TempDir(), "w.db"))...)
		if code := run(t.Context(), args, o.environment); code != exitFailed || !strings.Contains(o.out.String(), want) {
			t.Errorf("exit code %d, want %q in %s%s", code, want, o.out.String(), o.errs.String())
		}
	}
}

// The API by HTTPS: clients that trust its authority are served, by HTTP/2 too, and told to stay; others and those who
// talk in the clear or with an old protocol get nothing. A renewed certificate is shown without a restart.
func TestHTTPS(t *testing.T) {
	t.Parallel()
	ours, theirs := newAuthority(t, "ours"), newAuthority(t, "theirs")
	_, _, cert, key := ours.issue("first")
	p := launch(t, "dev", "--file=none", "--broker-addr=127.0.0.1:0", "--http-addr=127.0.0.1:0", "--ops-url=http://127.0.0.1:0", "--http-tls-cert="+cert, "--http-tls-key="+key)
	web := p.await(`open\s+(https://\S+)`)[1]
	ask := func(url string, config *tls.Config) (*http.Response, error) {
		transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
		defer transport.CloseIdleConnections()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/api/v1/streaming/views", nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := (&http.Client{Transport: transport}).Do(request)
		if err == nil {
			answer.Body.Close()
		}
		return answer, err
	}
	trusting := &tls.Config{RootCAs: ours.pool()}
	answer, err := ask(web, trusting)
	if err != nil {
		t.Fatal(err)
	}
	if answer.StatusCode != http.StatusOK || answer.ProtoMajor != 2 || answer.Header.Get("Strict-Transport-Security") == "" {
		t.Errorf("status %d by %s, Strict-Transport-Security %q", answer.StatusCode, answer.Proto, answer.Header.Get("Strict-Transport-Security"))
	}
	for name, config := range map[string]*tls.Config{
		"trusts others": {RootCAs: theirs.pool()}, "old protocol": {RootCAs: ours.pool(), MaxVersion: tls.VersionTLS11},
	} {
		if answer, err := ask(web, config); err == nil {
			t.Errorf("%s: status %d", name, answer.StatusCode)
		}
	}
	if answer, err := ask("http"+strings.TrimPrefix(web, "https"), nil); err == nil && answer.StatusCode != http.StatusBadRequest {
		t.Errorf("in the clear: status %d", answer.StatusCode)
	}

	if err := os.WriteFile(cert, []byte("half of"), 0o600); err != nil {
		t.Fatal(err)
	}
	if answer, err := ask(web, trusting); err != nil || answer.TLS.PeerCertificates[0].Subject.CommonName != "first" {
		t.Errorf("with a file half written: %v", err)
	}
	_, _, newCert, newKey := ours.issue("second")
	for from, to := range map[string]string{newCert: cert, newKey: key} {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	if answer, err := ask(web, trusting); err != nil || answer.TLS.PeerCertificates[0].Subject.CommonName != "second" {
		t.Errorf("with a renewed certificate: %v", err)
	}
}

// Whoever is no broker is named, and no memory is reserved for what it seems to announce.
func TestNoBroker(t *testing.T) {
	t.Parallel()
	for want, answer := range map[string]string{
		"it speaks HTTP and is no broker":                            "HTTP/1.1 400 Bad Request\r\n\r\n",
		`it does not speak Kafka's protocol, but begins with "SSH-"`: "SSH-2.0-x\r\n",
		"it speaks TLS: set --tls":                                   "\x15\x03\x03\x00\x02\x02\x0a",
		"before any answer (does it want --tls?)":                    "",
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = c.Read(make([]byte, 1<<10))
				_, _ = c.Write([]byte(answer))
				c.Close()
			}
		}()
		o := newOutside()
		code := run(t.Context(), []string{"dlq", "list", "--brokers", l.Addr().String()}, o.environment)
		if said := o.errs.String(); code != exitUnavailable || !strings.Contains(said, strings.ReplaceAll(want, `\"`, `"`)) {
			t.Errorf("exit code %d, said %s, want %s", code, said, want)
		}
	}
}
