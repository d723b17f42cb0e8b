package queues_test

import (
	"encoding/base64"
	"fmt"
	"slices"
	"time"

	"relayguard/mta/smtptest"
	"relayguard/policy/origin/stamp"
)

// website is a web site of the house, registered with the guard, whose mail is
// signed. Many have the same Unix account.
type website struct {
	stamp.Site
	on *house
}

func (h *house) host(name string, key byte) *website {
	h.t.Helper()
	w := &website{Site: stamp.Site{Name: name, UID: wwwData, KeyID: fmt.Sprintf("%08x", key), Key: slices.Repeat([]byte{key}, stamp.KeySize)}, on: h}
	h.post("/v1/sites", map[string]any{"name": w.Name, "uid": w.UID, "key_id": w.KeyID, "key": []byte(w.Key)}, nil)
	return w
}

// letter is message n of a plugin to somebody.
func (w *website) letter(plugin string, n int64, to string) string {
	subject := fmt.Sprintf("News %d", n)
	nonce := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%012d", n))
	value := stamp.Make(time.Now(), &w.Site, &stamp.Stamp{Plugin: plugin, Entry: "ajax", Script: plugin + ".php:12"}, []string{to}, subject, nonce)
	return fmt.Sprintf("From: wordpress@%[1]s\nTo: %[2]s\nSubject: %[3]s\nMessage-ID: <%[4]d@%[1]s>\n%[5]s: %[6]s\n\nHave a look at https://%[1]s/%[7]s\n", w.Name, to, subject, n, stamp.Header, value, plugin)
}

// send runs one transaction in two round trips (RFC 2920); it returns the answer
// that decided.
func send(c *smtptest.Client, from, to, message string) (smtptest.Reply, error) {
	replies, err := c.Pipeline("MAIL FROM:<"+from+">", "RCPT TO:<"+to+">", "DATA")
	if err != nil {
		return smtptest.Reply{}, err
	}
	for _, r := range replies {
		if !r.Positive() {
			return r, nil
		}
	}
	return c.Message(message)
}
