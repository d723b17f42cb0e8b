package dovecot

import (
	"path"
	"slices"
	"strings"

	"relayguard/forward"
)

// executables are what Dovecot's own services run, where it is not called as the
// service is.
var executables = map[string]string{"auth-worker": "auth -w", "dict-async": "dict", "dict-expire": "dict-expire", "doveadm": "doveadm-server",
	"health-check": "script -p health-check.sh", "dns_client": "dns-client", "managesieve-login": "managesieve-login"}

// stock reports whether a service runs what it does as Dovecot comes.
func stock(name, executable string) bool {
	want := executables[name]
	if want == "" {
		want = name
	}
	f := strings.Fields(executable)
	if len(f) > 0 && slices.Contains(stockDirs, path.Dir(f[0])) {
		f[0] = path.Base(f[0])
	}
	return strings.Join(f, " ") == want
}

// services are rules for the programs of services that are not Dovecot's own, or
// are called otherwise than it calls them.
func (p *planner) services() {
	for _, b := range p.settings.blocks("service") {
		executable := b.values["executable"]
		if executable == "" || stock(b.name, executable) {
			continue
		}
		source := "executable of service " + b.name + " in " + b.file
		p.extra = append(p.extra, forward.Rule{Owner: forward.Everybody, Mechanism: forward.Command, Kind: forward.Program,
			Target: executable, Mode: forward.Copy, Source: source, Line: b.line, Server: true, UID: forward.NoUID,
			Digest: p.serviceDigest(executable), Note: "Dovecot runs it as its service " + b.name})
		p.commandLine(b.name, executable, b.file)
	}
}

// serviceDigest is of the files of a service's command line: the program, and the
// script behind "script".
func (p *planner) serviceDigest(executable string) string {
	var all []byte
	for i, word := range strings.Fields(executable) {
		file := word
		if i == 0 && !strings.HasPrefix(word, "/") {
			dir := p.settings.Get("libexec_dir")
			if dir == "" {
				dir = stockDirs[0]
			}
			file = path.Join(dir, word)
		}
		if !strings.HasPrefix(file, "/") {
			continue
		}
		p.uses(file)
		if data, _, err := p.host.Files.Read(p.ctx, file, forward.ReadOptions{}); err == nil {
			all = append(all, digest(data)...)
		}
	}
	return digest(append(all, executable...))
}

// commandLine follows the options of a service: "-o SETTING=VALUE" counts above
// the files, "-c FILE" is another configuration.
func (p *planner) commandLine(service, executable, file string) {
	words := strings.Fields(executable)
	for i := 1; i < len(words); i++ {
		option, value := words[i], ""
		if len(option) < 2 || option[0] != '-' {
			return
		}
		if value = option[2:]; value == "" && i+1 < len(words) {
			value = words[i+1]
		}
		switch option[1] {
		case 'o':
			p.override(service, value, file)
		case 'c':
			p.further(value)
		default:
			continue
		}
		if len(option) == 2 {
			i++
		}
	}
}

func (p *planner) override(service, setting, file string) {
	key, value, ok := strings.Cut(setting, "=")
	if !ok || key == "" {
		return
	}
	sections := []string{"protocol lmtp", "plugin"}
	if service != "lmtp" {
		sections[0] = "protocol " + service
	}
	if _, rest, ok := strings.Cut(key, "/"); ok {
		key = rest
	}
	p.settings = append(p.settings, Entry{Sections: sections, Key: key, Value: value, File: file})
}

// further notes another configuration that a service is run with.
func (p *planner) further(file string) {
	file = path.Clean(file)
	if strings.HasPrefix(file, "/") && file != p.file && !slices.Contains(p.others, file) && len(p.others) < 16 {
		p.others = append(p.others, file)
	}
}

// environment are rules for variables that Dovecot gives its processes: by some
// of them other code is loaded, or settings are set.
func (p *planner) environment() {
	rule := func(e Entry, text string) {
		_, value, _ := strings.Cut(text, "=")
		p.extra = append(p.extra, forward.Rule{Owner: forward.Everybody, Mechanism: forward.Setting, Kind: forward.Asked, Target: text,
			Mode: forward.Copy, Source: "import_environment in " + e.File, Line: e.Line, Server: true, UID: forward.NoUID,
			Digest: p.programDigest(value), Note: "Dovecot's processes get this variable"})
	}
	for _, e := range p.settings {
		switch {
		case e.Key == "import_environment":
			for word := range strings.FieldsSeq(e.Value) {
				if strings.Contains(word, "=") {
					rule(e, word)
				}
			}
		case e.inside("import_environment") && e.Key != "" && !strings.HasPrefix(e.Value, "%{env:"):
			rule(e, e.Key+"="+e.Value)
		}
	}
}
