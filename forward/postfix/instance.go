package postfix

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"relayguard/forward"
)

// instance is one Postfix as its configuration was when load read it. Nothing
// changes it afterwards; safe for concurrent use.
type instance struct {
	dir      string // of main.cf
	master   string // directory of master.cf: dir, but where MAIL_CONFIG leads elsewhere
	queueDir string
	values   map[string]string  // main.cf and defaults, expanded
	written  map[string]setting // main.cf as written
	services []service          // without those that master_service_disable names
	uid      int                // who owns main.cf
	masterID int                // who owns master.cf
	dormant  string             // why nothing of it is in force; empty: it is
	gaps     []forward.Gap

	eval evaluation
}

func (i *instance) mainFile() string   { return path.Join(i.dir, "main.cf") }
func (i *instance) masterFile() string { return path.Join(i.master, "master.cf") }

// value is a setting of main.cf, expanded, or its default.
func (i *instance) value(name string) string {
	if value, known := i.values[name]; known {
		return value
	}
	return i.eval.value(name)
}

// effective is what a setting is for one service.
func (i *instance) effective(s *service, name string) string {
	if s.settings == nil {
		return i.value(name)
	}
	if value, known := s.settings[name]; known {
		return value
	}
	e := i.eval
	e.overrides = s.overrides
	return e.value(name)
}

// find is the service that a transport name stands for; nil if there is none.
func (i *instance) find(name, kind string) *service {
	for n := range i.services {
		if s := &i.services[n]; s.name == name && s.kind == kind {
			return s
		}
	}
	return nil
}

// runs reports whether master.cf has a service of one of these programs.
func (i *instance) runs(commands ...string) bool {
	return slices.ContainsFunc(i.services, func(s service) bool { return slices.Contains(commands, s.command) })
}

// load reads the instance in dir; master is where its master.cf is, empty: there,
// too. On a live machine what postconf(1) says is in
// force, else, or where postconf refuses, main.cf and master.cf themselves.
// exists is false where there is no main.cf and no master.cf.
func load(ctx context.Context, h *forward.Host, dir, master string) (i *instance, exists bool) {
	if master == "" {
		master = dir
	}
	i = &instance{dir: path.Clean(dir), master: path.Clean(master), uid: forward.NoUID, masterID: forward.NoUID}
	main, hasMain := i.read(ctx, h, i.mainFile(), &i.uid)
	text, hasMaster := i.read(ctx, h, i.masterFile(), &i.masterID)
	if !hasMain && (!hasMaster || i.master != i.dir) {
		return i, false
	}
	var err error
	if i.written, err = parseMain(main); err != nil {
		i.gap(i.mainFile(), fmt.Errorf("Postfix would not start on it: %w", err))
	}
	i.eval = evaluation{main: i.written, hostname: h.Hostname, configDir: i.dir}
	if i.values, err = i.eval.all(); err != nil {
		i.gap(i.mainFile(), fmt.Errorf("Postfix would not start on it: %w", err))
	}
	live := h.Live()
	if live {
		if values, err := postconfSettings(ctx, h, i.dir, nil); err != nil {
			live = false
			i.gap(i.mainFile(), fmt.Errorf("read without Postfix's own tools: %w", err))
		} else {
			i.values = values
		}
	}
	i.queueDir = i.value("queue_directory")
	i.loadServices(ctx, h, text, live)
	return i, true
}

func (i *instance) read(ctx context.Context, h *forward.Host, file string, uid *int) (string, bool) {
	data, info, err := h.Files.Read(ctx, file, forward.ReadOptions{})
	if err != nil {
		if info, lerr := h.Files.Lstat(ctx, file); lerr != nil || info.Name == "" {
			return "", false
		}
		i.gap(file, err)
		return "", true
	}
	*uid = info.UID
	return string(data), true
}

// loadServices reads master.cf. The text says the lines, and, live, postconf
// what counts.
func (i *instance) loadServices(ctx context.Context, h *forward.Host, text string, live bool) {
	chroot := false
	if l, ok := level(i.value("compatibility_level")); ok && l < 1<<20 {
		chroot = true
	}
	services, err := parseMaster(text, chroot)
	if err != nil {
		i.gap(i.masterFile(), fmt.Errorf("not all of it could be read: %w", err))
	}
	if live {
		out, err := h.Run(ctx, nil, "postconf", "-c", i.master, "-M")
		if err != nil {
			i.gap(i.masterFile(), fmt.Errorf("read without Postfix's own tools: %w", err))
		} else {
			said, _ := parseMaster(string(out), chroot) // what is amiss was told of the text
			services = withLines(said, services)
		}
	}
	for _, s := range services {
		if i.disabled(&s) {
			continue
		}
		if len(s.overrides) > 0 {
			s.settings = i.overridden(ctx, h, &s, live)
		}
		i.services = append(i.services, s)
	}
}

// withLines gives services the lines that the text has them in. What the text has
// and postconf does not tell is kept.
func withLines(said, text []service) []service {
	told := map[string]int{}
	for n := range said {
		told[said[n].id()] = n
	}
	for _, s := range text {
		if n, is := told[s.id()]; is {
			said[n].line = s.line
		} else {
			said = append(said, s)
		}
	}
	return said
}

// overridden is what is in force for a service: only programs that read a
// setting which matters here are asked about.
func (i *instance) overridden(ctx context.Context, h *forward.Host, s *service, live bool) map[string]string {
	if live && slices.Contains(readers, s.command) {
		values, err := postconfSettings(ctx, h, i.dir, s.overrides)
		if err == nil {
			return values
		}
		i.gap(s.id()+" in "+i.masterFile(), fmt.Errorf("read without Postfix's own tools: %w", err))
	}
	e := i.eval
	e.overrides = s.overrides
	values, err := e.all()
	if err != nil {
		i.gap(s.id()+" in "+i.masterFile(), fmt.Errorf("the service would not start: %w", err))
	}
	return values
}

// readers are the programs whose settings may send mail elsewhere.
var readers = []string{"smtpd", "qmqpd", "pickup", "cleanup", "trivial-rewrite", "local", "smtp", "lmtp", "bounce", "virtual", "pipe"}

// disabled reports services that master(8) does not start, by the list of
// master_service_disable: name/type, name.type or type (match_service.c). There is
// no word for all of them.
func (i *instance) disabled(s *service) bool {
	for _, item := range splitList(i.value("master_service_disable")) {
		name := strings.TrimLeft(item, "!")
		not := (len(item)-len(name))%2 == 1
		if dot := strings.LastIndexByte(name, '.'); dot >= 0 && !strings.Contains(name, "/") {
			name = name[:dot] + "/" + name[dot+1:]
		}
		if name == s.kind || name == s.id() {
			return !not
		}
	}
	return false
}

func (i *instance) gap(source string, err error) {
	i.gaps = append(i.gaps, forward.Gap{Source: source, Why: err.Error()})
}

// postconfSettings asks postconf(1) for all settings, expanded. An override is
// handed in as a setting of its own, so that whatever main.cf derives from it
// follows.
func postconfSettings(ctx context.Context, h *forward.Host, dir string, overrides map[string]string) (map[string]string, error) {
	args := []string{"-c", dir, "-x"}
	for _, name := range sortedKeys(overrides) {
		args = append(args, "-o", name+"="+overrides[name])
	}
	out, err := h.Run(ctx, nil, "postconf", args...)
	if err != nil {
		return nil, err
	}
	values := map[string]string{}
	for line := range strings.Lines(string(out)) {
		name, value, found := strings.Cut(line, "=")
		if name = strings.Trim(name, spaces); found && name != "" && !strings.ContainsAny(name, spaces) {
			values[name] = strings.Trim(value, spaces)
		}
	}
	if _, known := values["queue_directory"]; !known {
		return nil, fmt.Errorf("postconf -c %s -x: no queue_directory in what it printed", dir)
	}
	return values, nil
}
