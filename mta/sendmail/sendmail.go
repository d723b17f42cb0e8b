// Package sendmail reads and changes the settings and the queues of Sendmail 8:
// what sendmail.cf and submit.cf say is in force, what lets mail round the guard
// (Inspect), the settings that attach it (Setup), its queue files, and the red
// switch.
//
// There is no tool that holds, releases or deletes 100,000 messages in Sendmail's
// queue in bearable time, nor one that tells what it did. So this package reads and
// rewrites the queue files itself, under Sendmail's own locks and in the form that
// Sendmail 8.12 to 8.18 write (queue.c; "Queue file format" in the Installation and
// Operation Guide).
//
// Traps: sendmail.cf is made of sendmail.mc by m4. What is changed in the one alone
// is gone the next time that somebody runs make in /etc/mail. And on a machine
// whose name has no domain every start of the sendmail binary sleeps for a minute:
// nothing here starts it but to deliver released mail.
package sendmail

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"relayguard/mta"
)

// Tools finds Sendmail's commands: where Debian puts them, else on PATH.
type Tools struct {
	Dir string // where sendmail and makemap are; empty: found
	// Runs bounds the queue runs that releases start, over all instances that are
	// loaded with it. nil: each instance has its own.
	Runs *Runs
}

// Path is where the command of that name is; the name alone if it was not found.
func (t Tools) Path(name string) string {
	if t.Dir != "" {
		return filepath.Join(t.Dir, name)
	}
	for _, dir := range []string{"/usr/libexec/sendmail", "/usr/lib/sm.bin", "/usr/sbin", "/usr/local/sbin", "/usr/lib", "/usr/bin"} {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && !info.IsDir() {
			return path
		}
	}
	return name
}

// Instance is one Sendmail as it was configured when Load read it: the MTA and,
// where there is one, the submission program's part of it. Safe for concurrent use.
type Instance struct {
	ConfigDir string // "/etc/mail"
	Config    string // "/etc/mail/sendmail.cf"
	Submit    string // "/etc/mail/submit.cf"; "" where there is none
	Version   string // "8.17.1.9", as the cf files were made for; "" if they do not say

	main   *Settings
	submit *Settings // without Submit: of an empty file
	tools  Tools
	runs   *Runs
}

// maxConfig bounds a cf file; Debian's have 60 KB.
const maxConfig = 4 << 20

// Load reads sendmail.cf and, if it is there, submit.cf in configDir ("":
// /etc/mail), and the files of class members that they name. What cannot be read
// of the latter is told by Settings.Unread. A daemon with other -O options on its
// command line has other settings than these.
func Load(ctx context.Context, tools Tools, configDir string) (*Instance, error) {
	i := &Instance{ConfigDir: cmp.Or(configDir, "/etc/mail"), tools: tools, runs: tools.Runs}
	if i.runs == nil {
		i.runs = NewRuns()
	}
	i.Config = filepath.Join(i.ConfigDir, "sendmail.cf")
	var err error
	if i.main, err = loadSettings(i.Config); err != nil {
		return nil, fmt.Errorf("read Sendmail's settings: %w", err)
	}
	i.submit = ParseSettings(nil)
	submit := filepath.Join(i.ConfigDir, "submit.cf")
	switch settings, err := loadSettings(submit); {
	case err == nil:
		i.Submit, i.submit = submit, settings
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("read Sendmail's settings: %w", err)
	}
	i.Version, _, _ = strings.Cut(i.main.Macro("Z"), "/")
	return i, ctx.Err()
}

func loadSettings(path string) (*Settings, error) {
	data, err := readFile(path, maxConfig)
	if err != nil {
		return nil, err
	}
	s := ParseSettings(data)
	s.Path = path
	s.readClasses()
	return s, nil
}

// readFile reads a regular file of at most limit octets.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe must not hold us up
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s has over %d octets", path, limit)
	}
	return data, err
}

// Settings are those of sendmail.cf; Submission those of submit.cf, which are
// empty where there is none.
func (i *Instance) Settings() *Settings   { return i.main }
func (i *Instance) Submission() *Settings { return i.submit }

// The following are of sendmail.cf: see the methods of Settings.
func (i *Instance) Option(name string) string    { return i.main.Option(name) }
func (i *Instance) Options(name string) []string { return i.main.Options(name) }
func (i *Instance) Class(name string) []string   { return i.main.Class(name) }
func (i *Instance) Macro(name string) string     { return i.main.Macro(name) }
func (i *Instance) Daemons() []Daemon            { return i.main.Daemons() }
func (i *Instance) Clients() []Daemon            { return i.main.Clients() }
func (i *Instance) Filters() []Filter            { return i.main.Filters() }
func (i *Instance) Mailers() []Mailer            { return i.main.Mailers() }
func (i *Instance) QueueGroups() []QueueGroup    { return i.main.QueueGroups() }

// SubmitOption is an option of submit.cf; "" unset.
func (i *Instance) SubmitOption(name string) string { return i.submit.Option(name) }

// QueueDirectory is the setting of that name, as written: it may end with a "*".
func (i *Instance) QueueDirectory() string { return i.main.queueDirectory() }

// ClientQueueDirectory is that of submit.cf; "" without.
func (i *Instance) ClientQueueDirectory() string {
	if i.Submit == "" {
		return ""
	}
	return i.submit.queueDirectory()
}

// Unread is what of both files Load could not follow.
func (i *Instance) Unread() []mta.Unread {
	return append(i.main.Unread(), i.submit.Unread()...)
}

// ParseTime reads a time as Sendmail writes it ("4h", "1d12h"); a number without
// a unit is in the given one (convtime.c). "now" is 0.
func ParseTime(text string, unit time.Duration) (time.Duration, bool) {
	units := map[byte]time.Duration{'w': 7 * 24 * time.Hour, 'd': 24 * time.Hour, 'h': time.Hour, 'm': time.Minute, 's': time.Second}
	text = strings.TrimSpace(text)
	if strings.EqualFold(text, "now") {
		return 0, true
	}
	var sum time.Duration
	const most = 100 * 366 * 24 * time.Hour
	for rest := text; rest != ""; {
		n, digits := time.Duration(0), 0
		for digits < len(rest) && rest[digits] >= '0' && rest[digits] <= '9' {
			if digits > 9 {
				return 0, false
			}
			n = n*10 + time.Duration(rest[digits]-'0')
			digits++
		}
		per := unit
		if digits < len(rest) {
			known := false
			if per, known = units[rest[digits]]; !known {
				return 0, false
			}
			digits++
		}
		if n > most/per || sum+n*per > most {
			return 0, false
		}
		sum += n * per
		rest = rest[digits:]
	}
	return sum, text != ""
}
