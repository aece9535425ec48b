package risingwave_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"klgstream.dev/views/risingwave"
)

// signed is a certificate with its key, and the PEM text of both.
type signed struct {
	cert              *x509.Certificate
	key               *ecdsa.PrivateKey
	certText, keyText []byte
}

// sign makes a certificate; without an authority it signs itself.
func sign(t *testing.T, name string, by *signed) *signed {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	must(t, err)
	c := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		IsCA: by == nil, BasicConstraintsValid: true,
	}
	if by == nil {
		by = &signed{cert: c, key: key}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by.cert, &key.PublicKey, by.key)
	must(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	s := &signed{key: key}
	s.cert, err = x509.ParseCertificate(der)
	must(t, err)
	s.certText = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	s.keyText = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// encrypted is a PostgreSQL of its own that takes the user klg by TLS only, with a certificate of the authority and a password.
func encrypted(t *testing.T, authority, cert *signed) *server {
	t.Helper()
	postgres(t) // or the test is skipped
	s, err := start()
	must(t, err)
	t.Cleanup(func() {
		s.kill()
		_ = os.RemoveAll(filepath.Dir(s.data))
	})
	owner := s.owner.Credential
	for name, text := range map[string][]byte{"server.crt": cert.certText, "server.key": cert.keyText, "root.crt": authority.certText} {
		path := filepath.Join(s.data, name)
		must(t, os.WriteFile(path, text, 0o600))
		if owner != nil {
			must(t, os.Chown(path, int(owner.Uid), int(owner.Gid)))
		}
	}
	rules := filepath.Join(s.data, "pg_hba.conf")
	others, err := os.ReadFile(rules)
	must(t, err)
	ours := "hostssl all klg 127.0.0.1/32 scram-sha-256 clientcert=verify-full\nhost all klg all reject\n"
	must(t, os.WriteFile(rules, append([]byte(ours), others...), 0o600))
	s.kill()
	for _, line := range []string{"ssl = on", "ssl_ca_file = 'root.crt'"} {
		conf, err := os.OpenFile(filepath.Join(s.data, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
		must(t, err)
		_, err = conf.WriteString("\n" + line + "\n")
		must(t, err)
		must(t, conf.Close())
	}
	must(t, s.run())
	conn, err := pgx.Connect(t.Context(), s.url("postgres"))
	must(t, err)
	defer conn.Close(t.Context())
	_, err = conn.Exec(t.Context(), "CREATE ROLE klg SUPERUSER LOGIN PASSWORD 'open sesame'")
	must(t, err)
	return s
}

// What the URL says of TLS, certificates and the password is done, and a client that comes otherwise does not get in; nor
// does the password get out.
func TestEncryptedPostgreSQL(t *testing.T) {
	ours, theirs := sign(t, "ours", nil), sign(t, "theirs", nil)
	s := encrypted(t, ours, sign(t, "server", ours))
	dir := t.TempDir()
	keep := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, text, 0o600))
		return path
	}
	client, alien := sign(t, "klg", ours), sign(t, "klg", theirs)
	certs := func(s *signed) string {
		name := s.cert.Issuer.CommonName
		return "&sslcert=" + keep(name+".pem", s.certText) + "&sslkey=" + keep(name+"-key.pem", s.keyText)
	}
	root, otherRoot := "&sslrootcert="+keep("root.pem", ours.certText), "&sslrootcert="+keep("other.pem", theirs.certText)
	for name, c := range map[string]struct {
		password, rest string
		in             bool
	}{
		"right":                 {"open%20sesame", "sslmode=verify-full" + root + certs(client), true},
		"server not looked at":  {"open%20sesame", "sslmode=require" + certs(client), true},
		"wrong password":        {"open%20barley", "sslmode=verify-full" + root + certs(client), false},
		"no certificate":        {"open%20sesame", "sslmode=verify-full" + root, false},
		"certificate of others": {"open%20sesame", "sslmode=verify-full" + root + certs(alien), false},
		"server of others":      {"open%20sesame", "sslmode=verify-full" + otherRoot + certs(client), false},
		"in the clear":          {"open%20sesame", "sslmode=disable", false},
	} {
		store, err := risingwave.Open(t.Context(), risingwave.Config{URL: fmt.Sprintf("postgresql://klg:%s@127.0.0.1:%s/postgres?%s", c.password, s.port, c.rest)})
		must(t, err)
		err = store.Migrate(t.Context())
		if c.in != (err == nil) {
			t.Errorf("%s: %v, want in = %v", name, err, c.in)
		}
		if err != nil && strings.Contains(err.Error(), "open") {
			t.Errorf("%s: the password is told: %v", name, err)
		}
		must(t, store.Close())
	}
}
