package main

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"hash"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/xdg-go/scram"
)

// Security is how this program makes sure of the broker, and the broker of this program.
type Security struct {
	TLS              bool   `name:"tls" help:"Speak TLS with the brokers."`
	TLSCA            string `name:"tls-ca" placeholder:"FILE" help:"PEM file of the authorities that may have signed the brokers' certificates. Default: the system's."`
	TLSCert          string `name:"tls-cert" placeholder:"FILE" help:"PEM file of this program's certificate, for brokers that ask for one. Read again for each connection."`
	TLSKey           string `name:"tls-key" placeholder:"FILE" help:"PEM file of that certificate's key."`
	SASLMechanism    string `name:"sasl-mechanism" default:"none" placeholder:"NAME" help:"How this program says who it is: none, plain, scram-sha-256 or scram-sha-512. Default ${default}."`
	SASLUser         string `name:"sasl-user" placeholder:"NAME" help:"Name it says."`
	SASLPassword     string `name:"sasl-password" secret:"text" placeholder:"TEXT" help:"Password of that name. Other users of this machine see flags: use the environment, or a file."`
	SASLPasswordFile string `name:"sasl-password-file" placeholder:"FILE" help:"File whose first line is that password."`

	// What check has read.
	authorities *x509.CertPool // nil: the system's
	password    string
}

// check returns every fault, those of the files too, and keeps what it has read.
func (s *Security) check() error {
	s.SASLMechanism = cmp.Or(strings.ToLower(s.SASLMechanism), "none")
	return errors.Join(s.checkTLS(), s.checkSASL())
}

func (s *Security) checkTLS() error {
	var faults []error
	for _, f := range []struct{ flag, file string }{{"tls-ca", s.TLSCA}, {"tls-cert", s.TLSCert}, {"tls-key", s.TLSKey}} {
		if f.file != "" && !s.TLS {
			faults = append(faults, fmt.Errorf("--%s: %q is of no use without --tls", f.flag, f.file))
		}
	}
	var err error
	if s.authorities, err = readAuthorities("tls-ca", s.TLSCA); err != nil {
		faults = append(faults, err)
	}
	_, err = readCertificate("tls-cert", s.TLSCert, "tls-key", s.TLSKey)
	return errors.Join(append(faults, err)...)
}

func (s *Security) checkSASL() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if _, known := mechanisms[s.SASLMechanism]; !known && s.SASLMechanism != "none" {
		fault("--sasl-mechanism: %q must be none, plain, scram-sha-256 or scram-sha-512", s.SASLMechanism)
	}
	if s.SASLMechanism == "none" {
		for _, f := range []struct{ flag, value string }{{"sasl-user", s.SASLUser}, {"sasl-password", s.SASLPassword}, {"sasl-password-file", s.SASLPasswordFile}} {
			if f.value != "" {
				fault("--%s: is of no use without --sasl-mechanism", f.flag)
			}
		}
		return errors.Join(faults...)
	}
	if s.SASLUser == "" {
		fault("--sasl-user: none given, --sasl-mechanism %s needs one", s.SASLMechanism)
	}
	s.password = s.SASLPassword
	switch {
	case s.SASLPassword != "" && s.SASLPasswordFile != "":
		fault("--sasl-password-file: %q and --sasl-password must not both be given", s.SASLPasswordFile)
	case s.SASLPasswordFile != "":
		text, err := os.ReadFile(s.SASLPasswordFile)
		if err != nil {
			fault("--sasl-password-file: %w", err)
			break
		}
		line, _, _ := bytes.Cut(text, []byte("\n"))
		if s.password = strings.TrimSuffix(string(line), "\r"); s.password == "" {
			fault("--sasl-password-file: the first line of %q is empty", s.SASLPasswordFile)
		}
	case s.SASLPassword == "":
		fault("--sasl-password: none given, --sasl-mechanism %s needs one, or --sasl-password-file", s.SASLMechanism)
	}
	return errors.Join(faults...)
}

// secure sets what the settings say. They were checked.
func (s *Security) secure(c *sarama.Config) {
	if s.TLS {
		c.Net.TLS.Enable = true
		c.Net.TLS.Config = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: s.authorities}
		if s.TLSCert != "" {
			c.Net.TLS.Config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				return readCertificate("tls-cert", s.TLSCert, "tls-key", s.TLSKey)
			}
		}
	} else {
		c.Net.Proxy.Enable, c.Net.Proxy.Dialer = true, brokerDialer{c}
	}
	m, ok := mechanisms[s.SASLMechanism]
	if !ok {
		return
	}
	c.Net.SASL.Enable, c.Net.SASL.Mechanism = true, m.name
	c.Net.SASL.User, c.Net.SASL.Password = s.SASLUser, s.password
	if m.hash != nil {
		c.Net.SASL.SCRAMClientGeneratorFunc = func() sarama.SCRAMClient { return &scramClient{hash: m.hash} }
	}
}

// inClear is whether a password is sent that anybody on the way can read.
func (s *Security) inClear() bool { return s.SASLMechanism == "plain" && !s.TLS }

// mechanisms are the ways of saying who one is.
var mechanisms = map[string]struct {
	name sarama.SASLMechanism
	hash func() hash.Hash // nil: the password itself is sent
}{
	"plain":         {name: sarama.SASLTypePlaintext},
	"scram-sha-256": {sarama.SASLTypeSCRAMSHA256, sha256.New},
	"scram-sha-512": {sarama.SASLTypeSCRAMSHA512, sha512.New},
}

// scramClient is one conversation of SCRAM.
type scramClient struct {
	hash func() hash.Hash
	talk *scram.ClientConversation
}

// Begin implements sarama.SCRAMClient.
func (c *scramClient) Begin(user, password, authzID string) error {
	client, err := scram.HashGeneratorFcn(c.hash).NewClient(user, password, authzID)
	if err != nil {
		return fmt.Errorf("prepare SCRAM for user %q: %w", user, err)
	}
	c.talk = client.NewConversation()
	return nil
}

// Step implements sarama.SCRAMClient.
func (c *scramClient) Step(challenge string) (string, error) { return c.talk.Step(challenge) }

// Done implements sarama.SCRAMClient.
func (c *scramClient) Done() bool { return c.talk.Done() }

// readAuthorities reads a PEM file of certificates; nil without a file.
func readAuthorities(flag, file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("--%s: %w", flag, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("--%s: %q holds no certificate; want PEM, with the line -----BEGIN CERTIFICATE-----", flag, file)
	}
	return pool, nil
}

// readCertificate reads a certificate and its key; nil without them.
func readCertificate(certFlag, certFile, keyFlag, keyFile string) (*tls.Certificate, error) {
	switch {
	case certFile == "" && keyFile == "":
		return nil, nil
	case keyFile == "":
		return nil, fmt.Errorf("--%s: none given, --%s needs its key", keyFlag, certFlag)
	case certFile == "":
		return nil, fmt.Errorf("--%s: none given, --%s needs its certificate", certFlag, keyFlag)
	}
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("--%s: read %q with --%s %q: %w", certFlag, certFile, keyFlag, keyFile, err)
	}
	return &pair, nil
}

// servedCertificate is the certificate this program shows, read again when its file has changed.
type servedCertificate struct {
	cert, key string
	log       *slog.Logger

	mu   sync.Mutex
	seen [2]time.Time // when the files were changed, as read last
	pair *tls.Certificate
}

// current returns the certificate for one connection. While the files cannot be read, it is the last that could.
func (s *servedCertificate) current(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := [2]time.Time{modified(s.cert), modified(s.key)}
	if s.pair != nil && changed == s.seen {
		return s.pair, nil
	}
	pair, err := readCertificate("http-tls-cert", s.cert, "http-tls-key", s.key)
	if err != nil && s.pair == nil {
		return nil, err
	}
	if s.seen = changed; err != nil { // it is looked at again at its next change
		s.log.Error("the certificate is not renewed", "error", err)
		return s.pair, nil
	}
	s.pair = pair
	return pair, nil
}

// modified is when a file was changed last; the zero time if it cannot be told.
func modified(file string) time.Time {
	info, err := os.Stat(file)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}
