package incident

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// Webhook posts alerts as JSON, in the form that commands get. Any status of
// 200 to 299 is a delivery. It follows no redirects: what is told goes where the
// admin said, or nowhere. One goroutine at a time.
type Webhook struct {
	URL       string        // with its secret parts: errors show the host only
	TokenFile string        // its first line is sent as a bearer token, read for each alert; "": none
	Host      string        // this machine's name, in the JSON
	Client    *http.Client  // nil: one of its own
	Timeout   time.Duration // 0: 10 s
}

// maxToken bounds the file of a token, in octets.
const maxToken = 4096

// Name implements Channel.
func (w *Webhook) Name() string { return "webhook" }

// Deliver implements Channel.
func (w *Webhook) Deliver(ctx context.Context, a Alert) error {
	timeout := w.Timeout
	if timeout <= 0 {
		timeout = 10 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	body, err := json.Marshal(struct {
		Host  string `json:"host,omitempty"`
		Alert Alert  `json:"alert"`
	}{w.Host, a})
	if err != nil {
		return fmt.Errorf("post alert: %w", err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL, bytes.NewReader(body))
	if err != nil {
		return errors.New("post alert: alert.webhook is no URL")
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "relayguard")
	if w.TokenFile != "" {
		token, err := readToken(w.TokenFile)
		if err != nil {
			return fmt.Errorf("post alert: %w", err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := w.client().Do(r)
	if err != nil {
		var about *url.Error
		if errors.As(err, &about) { // it would show the URL, which may hold a secret
			err = about.Err
		}
		return fmt.Errorf("post alert to %s: %w", r.URL.Host, err)
	}
	defer answer.Body.Close()
	io.Copy(io.Discard, io.LimitReader(answer.Body, 64<<10)) // so that the connection can be used again
	if answer.StatusCode < 200 || answer.StatusCode > 299 {
		return fmt.Errorf("post alert to %s: got status %d", r.URL.Host, answer.StatusCode)
	}
	return nil
}

func (w *Webhook) client() *http.Client {
	if w.Client == nil {
		w.Client = &http.Client{
			Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConns: 1, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: 10 * time.Second},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	return w.Client
}

// readToken reads a secret: the first line of a file.
func readToken(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxToken))
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	line, _, _ := strings.Cut(string(data), "\n")
	if line = strings.TrimSpace(line); line == "" || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r > '~' }) {
		return "", fmt.Errorf("read the token: %s has none on its first line", path)
	}
	return line, nil
}

// Close implements io.Closer.
func (w *Webhook) Close() error {
	if w.Client != nil {
		w.Client.CloseIdleConnections()
	}
	return nil
}
