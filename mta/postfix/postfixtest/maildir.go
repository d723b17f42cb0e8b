package postfixtest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"relayguard/mta"
)

func maildirName(address string) string { return strings.ToLower(address) }

// Maildir returns the messages delivered to one of Options.Mailboxes, as
// virtual(8) wrote them: with line feeds and its own headers on top.
func (p *Postfix) Maildir(address string) ([]string, error) {
	if !slices.Contains(p.options.Mailboxes, address) {
		return nil, fmt.Errorf("mailbox %s is not in the options", address)
	}
	paths, err := filepath.Glob(filepath.Join(p.mailDir(), maildirName(address), "new", "*"))
	if err != nil {
		return nil, fmt.Errorf("read mailbox %s: %w", address, err)
	}
	var messages []string
	for _, path := range paths {
		message, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read mailbox %s: %w", address, err)
		}
		messages = append(messages, string(message))
	}
	return messages, nil
}

// WaitMaildir waits until a mailbox holds at least n messages.
func (p *Postfix) WaitMaildir(ctx context.Context, address string, n int) ([]string, error) {
	for {
		messages, err := p.Maildir(address)
		if err != nil || len(messages) >= n {
			return messages, err
		}
		if !mta.Sleep(ctx, 10*time.Millisecond) {
			return messages, fmt.Errorf("wait for %d messages in mailbox %s, it has %d: %w", n, address, len(messages), ctx.Err())
		}
	}
}
