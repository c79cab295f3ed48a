package brokers

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// The files of an instance's certificate: what a broker serves (the key first), its two halves, and what a client must trust.
const (
	serverPEM      = "server.pem"
	keyPEM         = "key.pem"
	certificatePEM = "certificate.pem"
)

// writeCertificates makes a self-signed certificate for loopback, good for a day, and returns the path of the file with both key
// and certificate.
func writeCertificates(dir string) (string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "localhost"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		DNSNames:              []string{"localhost"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return "", err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", err
	}
	keyText := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	certificateText := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	both := filepath.Join(dir, serverPEM)
	return both, errors.Join(
		os.WriteFile(filepath.Join(dir, keyPEM), keyText, 0o600),
		os.WriteFile(filepath.Join(dir, certificatePEM), certificateText, 0o600),
		os.WriteFile(both, append(keyText, certificateText...), 0o600),
	)
}

// trust returns the client configuration that trusts the instance's certificate and nothing else.
func trust(dir string) (*tls.Config, error) {
	text, err := os.ReadFile(filepath.Join(dir, certificatePEM))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, errors.New("no certificate in " + certificatePEM)
	}
	return &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS12}, nil
}
