package postfixtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"time"
)

// Authority is a certification authority of this test run alone.
type Authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// NewAuthority makes one; its common name is what issued certificates show as
// issuer.
func NewAuthority(commonName string) (*Authority, error) {
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: commonName},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, key, err := sign(template, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("make authority %q: %w", commonName, err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make authority %q: %w", commonName, err)
	}
	return &Authority{certificate: certificate, key: key}, nil
}

// Pool trusts this authority only, for a client's tls.Config.RootCAs.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return pool
}

// Issue makes a certificate with its key, good for a server of that name (and
// for 127.0.0.1) and for a client.
func (a *Authority) Issue(commonName string) (tls.Certificate, error) {
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: commonName},
		DNSNames:    []string{commonName},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, key, err := sign(template, a.certificate, a.key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("issue certificate for %q: %w", commonName, err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// ClientConfig is a tls.Config that trusts this authority and shows a
// certificate for commonName; with an empty name it shows none.
func (a *Authority) ClientConfig(commonName string) (*tls.Config, error) {
	config := &tls.Config{RootCAs: a.Pool(), ServerName: "127.0.0.1"}
	if commonName == "" {
		return config, nil
	}
	certificate, err := a.Issue(commonName)
	if err != nil {
		return nil, err
	}
	// Shown even to a server that names other authorities.
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &certificate, nil
	}
	return config, nil
}

// sign completes the template and signs it; without a parent, with its own key.
func sign(template, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) ([]byte, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if parent == nil {
		parent, parentKey = template, key
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return nil, nil, err
	}
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = time.Now().Add(24 * time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	return der, key, err
}

// writeFiles writes the authority's certificate, and a key with certificate
// for a server of that name, in the forms that Postfix reads.
func (a *Authority) writeFiles(caFile, chainFile, serverName string) error {
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.certificate.Raw})
	if err := os.WriteFile(caFile, ca, 0o644); err != nil {
		return fmt.Errorf("write CA certificate: %w", err)
	}
	issued, err := a.Issue(serverName)
	if err != nil {
		return err
	}
	key, err := x509.MarshalPKCS8PrivateKey(issued.PrivateKey)
	if err != nil {
		return fmt.Errorf("encode the key of %q: %w", serverName, err)
	}
	chain := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
	chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: issued.Certificate[0]})...)
	if err := os.WriteFile(chainFile, chain, 0o600); err != nil {
		return fmt.Errorf("write server certificate: %w", err)
	}
	return nil
}
