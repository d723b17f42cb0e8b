package database

import (
	"errors"
	"log/slog"
	"strings"
)

// Secret is a password. However it is printed or logged, it is "***".
type Secret string

func (s Secret) String() string               { return "***" }
func (s Secret) GoString() string             { return "***" }
func (s Secret) LogValue() slog.Value         { return slog.StringValue("***") }
func (s Secret) MarshalText() ([]byte, error) { return []byte("***"), nil }

// reveal is for the one place that sends it.
func (s Secret) reveal() string { return string(s) }

// scrub takes a secret out of a driver's error. An error that had it loses its
// chain: what wraps it might print it.
func scrub(err error, secrets ...Secret) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	for _, s := range secrets {
		if s != "" {
			text = strings.ReplaceAll(text, string(s), "***")
		}
	}
	if text == err.Error() {
		return err
	}
	return errors.New(text)
}
