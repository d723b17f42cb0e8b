package sendmailtest

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
)

// makeCertificate writes the server's certificate and key. Clients' certificates
// do not count: the only authority that Sendmail trusts is that certificate.
func (s *Sendmail) makeCertificate() error {
	issued, err := s.CA.Issue(s.options.Hostname)
	if err != nil {
		return err
	}
	key, err := x509.MarshalPKCS8PrivateKey(issued.PrivateKey)
	if err != nil {
		return fmt.Errorf("encode the server's key: %w", err)
	}
	blocks := map[string]*pem.Block{
		"server.crt": {Type: "CERTIFICATE", Bytes: issued.Certificate[0]},
		"server.key": {Type: "PRIVATE KEY", Bytes: key},
	}
	for name, block := range blocks {
		if err := os.WriteFile(filepath.Join(s.tlsDir(), name), pem.EncodeToMemory(block), 0o600); err != nil {
			return fmt.Errorf("write the server's certificate: %w", err)
		}
	}
	return nil
}
