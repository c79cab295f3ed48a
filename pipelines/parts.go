package pipelines

import (
	"crypto/tls"
	"crypto/x509"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gobroadway/gobroadway/broadway"
)

// Backoff is a section for a [broadway.Backoff]: "{initial: 1s, max: 30s, factor:
// 2, jitter: 0.2}", each with the default of who uses it.
type Backoff struct {
	// Initial, Max, Factor and Jitter are those of broadway.Backoff; a Jitter of
	// 0 means none here.
	Initial time.Duration `yaml:"initial"`
	Max     time.Duration `yaml:"max"`
	Factor  float64       `yaml:"factor" max:"1000"`
	Jitter  *float64      `yaml:"jitter" allow:"zero"`
}

// Backoff is b as a Config has it: there, no jitter is -1.
func (b Backoff) Backoff() broadway.Backoff {
	out := broadway.Backoff{Initial: b.Initial, Max: b.Max, Factor: b.Factor}
	if b.Jitter != nil {
		out.Jitter = *b.Jitter
		if out.Jitter == 0 {
			out.Jitter = -1
		}
	}
	return out
}

// maxPEMBytes bounds a file of certificates.
const maxPEMBytes = 1 << 20

// TLS is a section for encrypted connections: "tls:" alone verifies the server by
// the certificates of the system. TLS 1.2 is the least.
type TLS struct {
	// CAFile has the certificates that sign the server's, in PEM. Default: the
	// system's.
	CAFile string `yaml:"ca_file"`
	// CertFile and KeyFile have the client's certificate and its key, in PEM.
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
	// ServerName is what the server's certificate must be for. Default: the
	// host that is dialled.
	ServerName string `yaml:"server_name"`
	// InsecureSkipVerify accepts any server, which makes encryption worthless
	// against whoever is in between. It is warned of at each start.
	InsecureSkipVerify bool `yaml:"insecure_skip_verify"`
}

// Config is t, which stands at key in s, as Go has it; nil for nil. Files that
// cannot be used are reported as mistakes.
func (t *TLS) Config(s *Section, key string) *tls.Config {
	if t == nil {
		return nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.InsecureSkipVerify {
		cfg.InsecureSkipVerify = true //nolint:gosec // asked for by its full name, and warned of
		s.Warn(key+".insecure_skip_verify", "the server is not verified: whoever is in between can read and change everything")
	}
	if t.CAFile != "" {
		cfg.RootCAs = x509.NewCertPool()
		if pem := s.pem(key+".ca_file", t.CAFile); pem != nil && !cfg.RootCAs.AppendCertsFromPEM(pem) {
			_ = s.Fail(key+".ca_file", "the file has no certificate in PEM")
		}
	}
	switch {
	case t.CertFile != "" && t.KeyFile != "":
		t.identify(s, key, cfg)
	case t.CertFile != "" || t.KeyFile != "":
		_ = s.Fail(key, "cert_file and key_file need each other")
	}
	return cfg
}

// identify adds the client's certificate to cfg.
func (t *TLS) identify(s *Section, key string, cfg *tls.Config) {
	cert, private := s.pem(key+".cert_file", t.CertFile), s.pem(key+".key_file", t.KeyFile)
	s.doc.warnReadable(s.File(t.KeyFile), join(s.path, key+".key_file"), s.doc.at(join(s.path, key+".key_file")))
	if cert == nil || private == nil {
		return
	}
	pair, err := tls.X509KeyPair(cert, private)
	if err != nil {
		_ = s.Fail(key+".cert_file", "the certificate and the key cannot be used: %s", err)
		return
	}
	cfg.Certificates = []tls.Certificate{pair}
}

// pem reads a file; nil says that it could not, which was reported.
func (s *Section) pem(key, name string) []byte {
	data, err := readBounded(s.File(name), maxPEMBytes)
	switch {
	case err != nil:
		_ = s.Fail(key, "%s", withoutPath(err))
		return nil
	case len(data) > maxPEMBytes:
		_ = s.Fail(key, "the file is larger than %d KiB", maxPEMBytes>>10)
		return nil
	}
	return data
}

// Choose is the choice named value, which stands at key in s. An empty value is
// the zero T, any other that is no choice a mistake.
func Choose[T any](s *Section, key, value string, choices map[string]T) T {
	choice, ok := choices[value]
	if !ok && value != "" {
		_ = s.Fail(key, "there is no choice %q; there are %s", excerpt(value), strings.Join(slices.Sorted(maps.Keys(choices)), ", "))
	}
	return choice
}
