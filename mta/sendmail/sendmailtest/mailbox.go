package sendmailtest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"relayguard/mta"
)

// mailboxPath is the file that an alias of Options.Mailboxes stands for. A path
// with @ in it would be an address.
func (s *Sendmail) mailboxPath(address string) string {
	return filepath.Join(s.mailDir(), strings.ReplaceAll(strings.ToLower(address), "@", "="))
}

// makeMailboxes makes the files; Sendmail delivers only to one that its
// DefaultUser may write.
func (s *Sendmail) makeMailboxes() error {
	for _, address := range s.options.Mailboxes {
		path := s.mailboxPath(address)
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			return fmt.Errorf("make mailbox %s: %w", address, err)
		}
		if err := os.Chown(path, s.accounts.mailbox.UID, s.accounts.mailbox.GID); err != nil {
			return fmt.Errorf("make mailbox %s: %w", address, err)
		}
	}
	return nil
}

// separator begins each message of an mbox file. Sendmail writes ">From " for
// such a line of the text.
var separator = regexp.MustCompile(`(?m)^From [^\n]*\n`)

// Mailbox returns the messages delivered to one of Options.Mailboxes, as
// Sendmail wrote them to the file, with line feeds, without the separators.
func (s *Sendmail) Mailbox(address string) ([]string, error) {
	if !slices.Contains(s.options.Mailboxes, address) {
		return nil, fmt.Errorf("mailbox %s is not in the options", address)
	}
	text, err := os.ReadFile(s.mailboxPath(address))
	if err != nil {
		return nil, fmt.Errorf("read mailbox %s: %w", address, err)
	}
	if len(text) == 0 {
		return nil, nil
	}
	if !strings.HasSuffix(string(text), "\n\n") {
		// The last one is being written.
		text = text[:max(0, strings.LastIndex(string(text), "\n\nFrom ")+2)]
	}
	messages := separator.Split(string(text), -1)
	return messages[1:], nil
}

// WaitMailbox waits until a mailbox holds at least n messages.
func (s *Sendmail) WaitMailbox(ctx context.Context, address string, n int) ([]string, error) {
	for {
		messages, err := s.Mailbox(address)
		if err != nil || len(messages) >= n {
			return messages, err
		}
		if !mta.Sleep(ctx, 10*time.Millisecond) {
			return messages, fmt.Errorf("wait for %d messages in mailbox %s, it has %d: %w", n, address, len(messages), ctx.Err())
		}
	}
}
