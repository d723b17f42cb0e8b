package postfix

import (
	_ "embed"
	"strings"
	"sync"
)

// defaultsText is what "postconf -d" of Postfix 3.7.11 (Debian 12) prints, without
// what depends on the machine.
//
//go:embed defaults.cf
var defaultsText string

var defaults = sync.OnceValue(func() map[string]string {
	all := map[string]string{}
	for line := range strings.Lines(defaultsText) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " =")
		all[name] = strings.TrimSpace(value)
	}
	return all
})

// raw are the settings that Postfix does not expand where it reads main.cf: they
// have names of their own, which only a delivery fills in ($user, $extension).
// postconf -x leaves them alone, too (observed, 3.7.11).
var raw = map[string]bool{
	"command_execution_directory": true, "default_rbl_reply": true, "forward_path": true, "luser_relay": true,
	"mailbox_command": true, "postscreen_expansion_filter": true, "postscreen_reject_footer": true,
	"smtpd_expansion_filter": true, "smtpd_reject_footer": true,
}

// evaluation is main.cf by itself: its settings, those of a service before
// them, and the defaults of Postfix behind them.
type evaluation struct {
	main      map[string]setting
	overrides map[string]string
	hostname  string // the machine's name
	configDir string
}

// get returns a setting as written.
func (e *evaluation) get(name string) string {
	if value, ok := e.overrides[name]; ok {
		return value
	}
	if s, ok := e.main[name]; ok {
		return s.value
	}
	switch name {
	case "myhostname":
		return e.defaultHostname()
	case "mydomain":
		return e.defaultDomain()
	case "config_directory":
		return e.configDir
	}
	return defaults()[name]
}

// defaultHostname is check_myhostname of Postfix's mail_params.c.
func (e *evaluation) defaultHostname() string {
	name := e.hostname
	if name == "" {
		name = "localhost"
	}
	if strings.Contains(name, ".") {
		return name
	}
	domain := "localdomain"
	if s, ok := e.overrides["mydomain"]; ok {
		domain = s
	} else if s, ok := e.main["mydomain"]; ok {
		domain = s.value
	}
	domain, _ = expand(domain, e.without("myhostname"))
	return name + "." + domain
}

// defaultDomain is check_mydomainname: myhostname without its first label.
func (e *evaluation) defaultDomain() string {
	name, _ := expand(e.get("myhostname"), e.without("mydomain"))
	if _, domain, found := strings.Cut(name, "."); found {
		return domain
	}
	return "localdomain"
}

// without looks settings up, one of them as if it were not there: its default is
// being made.
func (e *evaluation) without(name string) func(string) string {
	return func(n string) string {
		if _, written := e.main[n]; n == name || (n == "myhostname" || n == "mydomain") && !written {
			return ""
		}
		return e.get(n)
	}
}

// value returns a setting expanded, as far as that goes.
func (e *evaluation) value(name string) string {
	value, _ := e.expand(name)
	return value
}

func (e *evaluation) expand(name string) (string, error) {
	if raw[name] {
		return e.get(name), nil
	}
	value, err := expand(e.get(name), e.get)
	return strings.Trim(value, spaces), err
}

// all returns every setting that is known, expanded, and the first error.
func (e *evaluation) all() (map[string]string, error) {
	values := make(map[string]string, len(defaults())+len(e.main))
	var first *settingError
	add := func(name string) {
		value, err := e.expand(name)
		if err != nil && (first == nil || name < first.name) {
			first = &settingError{name, err}
		}
		values[name] = value
	}
	for name := range defaults() {
		add(name)
	}
	for name := range e.main {
		if _, done := values[name]; !done {
			add(name)
		}
	}
	for name := range e.overrides {
		if _, done := values[name]; !done {
			add(name)
		}
	}
	for _, name := range []string{"myhostname", "mydomain", "config_directory"} {
		add(name)
	}
	if first != nil {
		return values, first
	}
	return values, nil
}

type settingError struct {
	name string
	err  error
}

func (e *settingError) Error() string { return "expand " + e.name + ": " + e.err.Error() }
func (e *settingError) Unwrap() error { return e.err }
