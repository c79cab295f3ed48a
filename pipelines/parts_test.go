package pipelines_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gobroadway/gobroadway/broadway"
	"github.com/gobroadway/gobroadway/pipelines"
)

// identity writes a certificate for name and its key into folder, signed by
// parent, or by itself.
func identity(t *testing.T, folder, name string, parent *tls.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: parent == nil, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	signer, signerKey := template, any(key)
	if parent != nil {
		signer, signerKey = parent.Leaf, parent.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer, key.Public(), signerKey)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	require.NoError(t, os.WriteFile(filepath.Join(folder, name+".pem"), certPEM, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(folder, name+".key"), keyPEM, 0o600))
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	require.NoError(t, err)
	return pair
}

// tlsOf is what a section "tls" becomes, and what was warned of.
func tlsOf(t *testing.T, folder, section string) (*tls.Config, string) {
	t.Helper()
	var cfg *tls.Config
	var log strings.Builder
	r := program()
	r.Logger(slog.New(slog.NewTextHandler(&log, nil)))
	r.Source("secure", func(s *pipelines.Section) (broadway.Producer, error) {
		var spec struct {
			TLS *pipelines.TLS `yaml:"tls"`
		}
		if err := s.Decode(&spec); err != nil {
			return nil, err
		}
		cfg = spec.TLS.Config(s, "tls")
		return &feed{cfg: feedConfig{URL: "x"}}, nil
	})
	_, err := pipelines.Parse(filepath.Join(folder, "x.yaml"),
		[]byte("producers: [{secure: {"+section+"}}]\nprocessor: {handler: render}\nfailure: {action: drop}\n"), r)
	require.NoError(t, err)
	return cfg, log.String()
}

func TestTLSVerifiesAndIdentifies(t *testing.T) {
	folder := t.TempDir()
	authority := identity(t, folder, "authority", nil)
	stranger := identity(t, folder, "stranger", nil)
	server := identity(t, folder, "server.test", &authority)
	identity(t, folder, "client", &authority)
	identity(t, folder, "intruder", &stranger)
	clients := x509.NewCertPool()
	clients.AddCert(authority.Leaf)

	const name, known, ca = "server_name: server.test", "cert_file: client.pem, key_file: client.key", "ca_file: authority.pem"
	for _, c := range []struct {
		section string
		max     uint16
		fails   string // who refuses: "", "client" or "server"
	}{
		{section: fmt.Sprintf("tls: {%s, %s, %s}", ca, name, known)},
		{section: fmt.Sprintf("tls: {ca_file: stranger.pem, %s, %s}", name, known), fails: "client"},
		{section: fmt.Sprintf("tls: {%s, %s}", name, known), fails: "client"},
		{section: fmt.Sprintf("tls: {%s, server_name: other.test, %s}", ca, known), fails: "client"},
		{section: fmt.Sprintf("tls: {%s, %s}", ca, name), fails: "server"},
		{section: fmt.Sprintf("tls: {%s, %s, cert_file: intruder.pem, key_file: intruder.key}", ca, name), fails: "server"},
		{section: fmt.Sprintf("tls: {%s, %s, %s}", ca, name, known), max: tls.VersionTLS11, fails: "client"},
		{section: fmt.Sprintf("tls: {insecure_skip_verify: true, %s}", known)},
	} {
		cfg, warned := tlsOf(t, folder, c.section)
		require.Equal(t, strings.Contains(c.section, "insecure"), strings.Contains(warned, "producers[0].secure.tls.insecure_skip_verify: the server is not verified"), warned)
		client, server := handshake(t, cfg, &tls.Config{
			Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients,
			MinVersion: tls.VersionTLS10, MaxVersion: c.max,
		})
		switch c.fails {
		case "":
			require.NoError(t, client, c.section)
			require.NoError(t, server, c.section)
		case "client":
			require.Error(t, client, c.section)
		case "server":
			require.Error(t, server, c.section)
		}
	}
}

// handshake is how one ended for both.
func handshake(t *testing.T, client, server *tls.Config) (clientErr, serverErr error) {
	t.Helper()
	a, b := net.Pipe()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		err := tls.Server(b, server).HandshakeContext(ctx)
		done <- errors.Join(err, b.Close())
	}()
	conn := tls.Client(a, client)
	clientErr = conn.HandshakeContext(ctx)
	if clientErr == nil {
		_, _ = conn.Read(make([]byte, 1)) // takes in the server's last word
	}
	_ = a.Close()
	return clientErr, <-done
}

func TestNoTLSIsNil(t *testing.T) {
	cfg, _ := tlsOf(t, t.TempDir(), "")
	require.Nil(t, cfg)
	cfg, _ = tlsOf(t, t.TempDir(), "tls: ")
	require.NotNil(t, cfg, "tls alone is encryption with the defaults")
	require.False(t, cfg.InsecureSkipVerify)
	require.EqualValues(t, tls.VersionTLS12, cfg.MinVersion)
}

func TestAKeyThatEverybodyCanReadIsWarnedOf(t *testing.T) {
	folder := t.TempDir()
	identity(t, folder, "client", nil)
	require.NoError(t, os.Chmod(filepath.Join(folder, "client.key"), 0o644))
	_, warned := tlsOf(t, folder, "tls: {cert_file: client.pem, key_file: client.key}")
	require.Contains(t, warned, "producers[0].secure.tls.key_file: every user of this machine can read the file")
}
