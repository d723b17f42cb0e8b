package sendmail

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"relayguard/mta/backup"
)

// configuration is what the files say now. Files that are not there are nil.
type configuration struct {
	dir                        string
	mc, cf, submitMC, submitCF []byte
	mta, submit                *Settings
}

func readConfiguration(dir string) (*configuration, error) {
	c := &configuration{dir: dir}
	for name, text := range map[Place]*[]byte{InMTA: &c.mc, InMTACF: &c.cf, InSubmit: &c.submitMC, InSubmitCF: &c.submitCF} {
		var err error
		if *text, err = backup.ReadIfThere(c.path(name)); err != nil {
			return nil, err
		}
	}
	if c.cf == nil {
		return nil, fmt.Errorf("there is no %s", c.path(InMTACF))
	}
	c.mta = ParseSettings(c.cf)
	if c.submitCF != nil {
		c.submit = ParseSettings(c.submitCF)
	}
	return c, nil
}

func (c *configuration) path(p Place) string { return filepath.Join(c.dir, string(p)) }

// daemonText is the text of a daemon's options. Without any Sendmail listens at
// port smtp, which must be said once there is another.
func (c *configuration) daemonText(n int) string {
	if texts := c.mta.Options("DaemonPortOptions"); n < len(texts) {
		return texts[n]
	}
	return "Name=MTA"
}

// listed reports a daemon that the file names.
func (c *configuration) listed(n int) bool { return n < len(c.mta.Options("DaemonPortOptions")) }

// file is one that is to be written.
type file struct {
	path, text string
}

// candidate makes the new files, sources first: an mc file that is newer than its
// cf file would be made again by make. Each cf file is made of the old source
// too, which must give what is there: else somebody changed the one or the other,
// and more would change than the guard's settings.
func (p *plan) candidate(ctx context.Context) ([]file, error) {
	var sources, made []file
	if slices.ContainsFunc(p.settings, func(s Setting) bool { return s.Changes() && (s.Place == InMTA || s.Place == InMTACF) }) {
		mc, err := p.mtaMC()
		if err != nil {
			return nil, byHand(p.now.path(InMTA), err)
		}
		cf, err := p.rebuilt(ctx, InMTA, p.now.mc, mc, p.now.cf, p.sameMTA)
		if err != nil {
			return nil, err
		}
		sources, made = append(sources, file{p.now.path(InMTA), mc}), append(made, file{p.now.path(InMTACF), cf})
	}
	if p.submit != "" {
		mc, err := p.submitMCText()
		if err != nil {
			return nil, byHand(p.now.path(InSubmit), err)
		}
		cf, err := p.rebuilt(ctx, InSubmit, p.now.submitMC, mc, p.now.submitCF, p.sameSubmit)
		if err != nil {
			return nil, err
		}
		sources, made = append(sources, file{p.now.path(InSubmit), mc}), append(made, file{p.now.path(InSubmitCF), cf})
	}
	return append(sources, made...), nil
}

func byHand(path string, err error) error { return fmt.Errorf("%w: %s: %w", ErrByHand, path, err) }

// rebuilt makes a cf file of a new source, if it differs from the one that is there
// as it should and in nothing else.
func (p *plan) rebuilt(ctx context.Context, source Place, oldMC []byte, mc string, cf []byte, same func(was, is []string, s *Settings) error) (string, error) {
	path := p.now.path(source)
	old, err := m4(ctx, p.now.dir, path)
	if err != nil {
		return "", byHand(path, err)
	}
	if err := difference(cfLines(string(cf)), cfLines(old)); err != nil {
		return "", byHand(path, fmt.Errorf("what it makes is not what is in force: %w; bring both together first (make -C %s)", err, p.now.dir))
	}
	dir, err := os.MkdirTemp("", "relayguard-setup-")
	if err != nil {
		return "", fmt.Errorf("make a configuration to look at: %w", err)
	}
	defer os.RemoveAll(dir)
	draft := filepath.Join(dir, string(source))
	if err := os.WriteFile(draft, []byte(mc), 0o600); err != nil {
		return "", fmt.Errorf("make a configuration to look at: %w", err)
	}
	text, err := m4(ctx, p.now.dir, draft)
	if err != nil {
		return "", byHand(path, err)
	}
	if err := same(cfLines(old), cfLines(text), ParseSettings([]byte(text))); err != nil {
		return "", byHand(path, fmt.Errorf("with the guard's settings it would make another configuration than it should: %w", err))
	}
	return withSource(text, string(cf), path, mc), nil
}

// sameMTA compares sendmail.cf before and after: beside milters and daemons
// nothing differs, the daemons that were there are so still, and those that are to
// have the guard have it.
func (p *plan) sameMTA(was, is []string, s *Settings) error {
	ours := func(line string) bool {
		return strings.HasPrefix(line, "O DaemonPortOptions=") || line[0] == 'X' || strings.HasPrefix(line, "O Milter.")
	}
	if err := difference(slices.DeleteFunc(was, ours), slices.DeleteFunc(is, ours)); err != nil {
		return err
	}
	want := p.now.mta.Daemons()
	for n, list := range p.lists {
		want[n].Own, want[n].InputMailFilters = true, list
	}
	if p.local != "" {
		want = append(want, portOptions(p.local, 0))
	}
	got := s.Daemons()
	if len(got) != len(want) {
		return fmt.Errorf("%d services instead of %d", len(got), len(want))
	}
	for n, d := range want {
		if d.Name == "Daemon0" && !p.now.listed(n) {
			d.Name = "MTA"
		}
		at := slices.IndexFunc(got, func(g Daemon) bool { return g.Name == d.Name })
		if at < 0 || !sameDaemon(d, got[at]) || !slices.Equal(p.now.mta.FiltersOf(d), s.FiltersOf(got[at])) {
			return fmt.Errorf("service %s differs", d.Name)
		}
	}
	for name, equates := range p.filters {
		if f, found := s.filterNamed(name); !found || f.equates() != equates {
			return fmt.Errorf("milter %s differs", name)
		}
	}
	return nil
}

func sameDaemon(a, b Daemon) bool {
	return a.Family == b.Family && a.Addr == b.Addr && samePort(a.Port, b.Port) && a.Modifiers == b.Modifiers && a.DeliveryMode == b.DeliveryMode
}

var relayArgs = regexp.MustCompile(`(TCP \$h) \w+`)

// sameSubmit compares submit.cf before and after: only where it hands mail to
// differs.
func (p *plan) sameSubmit(was, is []string, s *Settings) error {
	for _, lines := range [][]string{was, is} {
		for n, line := range lines {
			if lines[n] = relayArgs.ReplaceAllString(line, "$1"); strings.HasPrefix(line, "D{MTAHost}") {
				lines[n] = ""
			}
		}
	}
	if err := difference(was, is); err != nil {
		return err
	}
	if host, port := s.handsTo(); host != "127.0.0.1" || !samePort(port, p.submit) {
		return fmt.Errorf("mail would be handed to port %s of %s", port, host)
	}
	return nil
}

// mtaMC is the new sendmail.mc.
func (p *plan) mtaMC() (string, error) {
	if p.now.mc == nil {
		return "", errors.New("there is no such file, of which sendmail.cf could be made")
	}
	text := string(p.now.mc)
	calls, err := macroCalls(text, "DAEMON_OPTIONS", "MAIL_FILTER", "INPUT_MAIL_FILTER")
	if err != nil {
		return "", err
	}
	start, end, has := block(text)
	if !has {
		if start, err = blockPlace(text, "MAILER"); err != nil {
			return "", err
		}
		end = start
	}
	calls = slices.DeleteFunc(calls, func(c macroCall) bool { return c.start >= start && c.start < end })
	changes, restated, err := p.daemonChanges(calls, text[start:end])
	if err != nil {
		return "", err
	}
	with := p.mtaBlock(calls, restated)
	return replaced(text, append(changes, replacement{start, end, with})), nil
}

// daemonChanges finds the lines of the services that change. Those that no line of
// the admin's names are restated in the block: what the block had, and what
// Sendmail's m4 files say where there is no DAEMON_OPTIONS at all.
func (p *plan) daemonChanges(calls []macroCall, oldBlock string) (changes []replacement, restated []string, err error) {
	used := map[int]bool{}
	for n, d := range p.now.mta.Daemons() {
		text := p.now.daemonText(n)
		list, changed := p.lists[n]
		if changed {
			text = withFilters(text, list)
		}
		at := slices.IndexFunc(calls, func(c macroCall) bool {
			name, _ := optionOf(c.arg(0), 'N')
			return c.name == "DAEMON_OPTIONS" && !used[c.start] && (c.arg(0) == p.now.daemonText(n) || name == d.Name)
		})
		switch {
		case at >= 0:
			used[calls[at].start] = true
			if changed {
				changes = append(changes, replacement{calls[at].start, calls[at].end, "DAEMON_OPTIONS(`" + withFilters(calls[at].arg(0), list) + "')"})
			}
		case strings.Contains(oldBlock, "`"+p.now.daemonText(n)+"'"), !p.now.listed(n), isDefault(p.now.daemonText(n), changed):
			restated = append(restated, text)
		case changed:
			return nil, nil, fmt.Errorf("the service %s is named in no line DAEMON_OPTIONS(...) of it, but in a file that it includes", d.Name)
		}
	}
	if p.local != "" {
		restated = append(restated, p.local)
	}
	return changes, restated, nil
}

// isDefault reports a service of Sendmail's own m4 files. The submission service
// of port 587 stays by itself; those of port 25 do only while no other is named.
func isDefault(text string, changed bool) bool {
	return slices.Contains([]string{"Name=MTA", "Name=MTA-v4, Family=inet", "Name=MTA-v6, Family=inet6"}, text) || changed && text == defaultMSA
}

const defaultMSA = "Port=587, Name=MSA, M=E"

// mtaBlock is setup's block of sendmail.mc: the milters that services name and
// that no line of the admin's defines, and the services of its own.
func (p *plan) mtaBlock(calls []macroCall, services []string) string {
	var b strings.Builder
	b.WriteString(blockBegin + "\n")
	for _, name := range p.used() {
		if !slices.ContainsFunc(calls, func(c macroCall) bool { return c.name != "DAEMON_OPTIONS" && c.arg(0) == name }) {
			b.WriteString("MAIL_FILTER(`" + name + "', `" + p.definition(name) + "')dnl\n")
		}
	}
	for _, text := range services {
		if strings.HasPrefix(text, defaultMSA) {
			b.WriteString("FEATURE(`no_default_msa')dnl\n")
		}
	}
	for _, text := range services {
		b.WriteString("DAEMON_OPTIONS(`" + text + "')dnl\n")
	}
	b.WriteString(blockEnd + "\n")
	return b.String()
}

func (p *plan) definition(name string) string {
	if equates, ours := p.filters[name]; ours {
		return equates
	}
	f, _ := p.now.mta.filterNamed(name)
	return f.equates()
}

// used names the milters of setup's own that services will ask.
func (p *plan) used() []string {
	var names []string
	note := func(list []string) {
		for _, name := range list {
			if strings.HasPrefix(name, filterPrefix) && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	for n, d := range p.now.mta.Daemons() {
		if list, changed := p.lists[n]; changed {
			note(list)
		} else {
			note(p.now.mta.FiltersOf(d))
		}
	}
	if p.local != "" {
		note(portOptions(p.local, 0).InputMailFilters)
	}
	slices.Sort(names)
	return names
}

// submitMCText is the new submit.mc. Sendmail's FEATURE(`msp') knows two ports
// only; the mailer's arguments know all.
func (p *plan) submitMCText() (string, error) {
	if p.now.submitMC == nil {
		return "", errors.New("there is no such file, of which submit.cf could be made")
	}
	text := string(p.now.submitMC)
	if start, end, has := block(text); has {
		text = text[:start] + text[end:]
	}
	calls, err := macroCalls(text, "FEATURE")
	if err != nil {
		return "", err
	}
	at := slices.IndexFunc(calls, func(c macroCall) bool { return c.arg(0) == "msp" })
	if at < 0 {
		return "", errors.New("there is no FEATURE(`msp') in it")
	}
	msp := calls[at]
	line := strings.LastIndexByte(text[:msp.start], '\n') + 1
	changes := []replacement{{line, line, blockBegin + "\ndefine(`RELAY_MAILER_ARGS', `TCP $h " + p.submit + "')dnl\n" + blockEnd + "\n"}}
	if msp.arg(1) != "[127.0.0.1]" || msp.arg(2) == "MSA" {
		changes = append(changes, replacement{msp.start, msp.end, "FEATURE(`msp', `[127.0.0.1]')"})
	}
	return replaced(text, changes), nil
}
