package wrapper

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// SettingsPath is where the wrapper's settings are. It does not read the
// guard's configuration, which its users need not be able to read, nor its
// environment, which they choose.
const SettingsPath = "/etc/relayguard/sendmail.conf"

// maxSettings bounds the file.
const maxSettings = 64 << 10

// Settings of the wrapper.
type Settings struct {
	Sendmail string        // the MTA's program
	Socket   string        // of the daemon
	Timeout  time.Duration // of asking it
}

// Defaults are the settings without a file.
func Defaults() Settings {
	return Settings{"/usr/sbin/sendmail", "/run/relayguard-call/socket", 300 * time.Millisecond}
}

// Load reads the settings. A file that is not there means the defaults. One that
// others than root could have written, or that has a mistake, means them too,
// beside the error: the wrapper goes on, for mail is not kept for that.
func Load(path string) (Settings, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return Defaults(), nil
	}
	if err != nil {
		return Defaults(), fmt.Errorf("read the wrapper's settings: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Defaults(), fmt.Errorf("read the wrapper's settings: %w", err)
	}
	sys, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular() || info.Size() > maxSettings:
		return Defaults(), fmt.Errorf("read the wrapper's settings: %s is no file of at most %d octets", path, maxSettings)
	case !ok || sys.Uid != 0 || info.Mode().Perm()&0o022 != 0:
		return Defaults(), fmt.Errorf("read the wrapper's settings: others than root may write %s; chown root and chmod 644 it", path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxSettings))
	if err != nil {
		return Defaults(), fmt.Errorf("read the wrapper's settings: %w", err)
	}
	s, err := parseSettings(string(text))
	if err != nil {
		return Defaults(), fmt.Errorf("read %s: %w", path, err)
	}
	return s, nil
}

// Text is the settings as a file.
func (s Settings) Text() string {
	return fmt.Sprintf(`# What relayguard-sendmail goes by. It must be root's; all may read it.
# The MTA's program, which gets the mail.
sendmail = %q
# Where the daemon is asked: origin.call_socket of relayguard.toml.
socket = %q
# How long: origin.call_timeout. Then the mail goes all the same.
timeout = %q
`, s.Sendmail, s.Socket, s.Timeout)
}

func parseSettings(text string) (Settings, error) {
	s := Defaults()
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, found := strings.Cut(line, "=")
		value, err := strconv.Unquote(strings.TrimSpace(value))
		if !found || err != nil {
			return s, fmt.Errorf("line %d: want KEY = \"VALUE\"", n)
		}
		switch key = strings.TrimSpace(key); key {
		case "sendmail":
			s.Sendmail, err = value, absolute(value)
		case "socket":
			s.Socket, err = value, absolute(value)
		case "timeout":
			if s.Timeout, err = time.ParseDuration(value); err == nil && (s.Timeout <= 0 || s.Timeout > 10*time.Second) {
				err = fmt.Errorf("got %s, want more than 0 and at most 10s", value)
			}
		default:
			err = errors.New("there is sendmail, socket and timeout")
		}
		if err != nil {
			return s, fmt.Errorf("line %d: %s: %w", n, key, err)
		}
	}
	return s, nil
}

func absolute(path string) error {
	if !filepath.IsAbs(path) || strings.ContainsRune(path, 0) {
		return fmt.Errorf("got %q, want an absolute path", path)
	}
	return nil
}
