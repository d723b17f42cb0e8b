package sendmail

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"relayguard/forward"
	"relayguard/forward/aliases"
)

// Options say where to look. The zero value is right for a real host.
type Options struct {
	Config string // sendmail.cf; empty: ConfigFile
}

// sendmailPath is Sendmail's own default of ForwardPath (forward in alias.c); m4 writes the
// option into every cf file.
const sendmailPath = "$z/.forward"

// finder makes the units of one sendmail.cf.
type finder struct {
	host   *forward.Host
	file   string
	config Config
	world  forward.World
}

// Plan is what Sendmail may forward by; it is empty if there is no sendmail.cf.
// The unit "sendmail.cf" reads the file anew; that other tables are named in it
// asks for another plan (Uses).
func Plan(ctx context.Context, h *forward.Host, o Options) forward.Plan {
	file := o.Config
	if file == "" {
		file = ConfigFile
	}
	plan := forward.Plan{Uses: []string{file}}
	data, _, err := h.Files.Read(ctx, file, forward.ReadOptions{})
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			plan.Gaps = append(plan.Gaps, forward.Gap{Source: file, Why: err.Error()})
		}
		return plan
	}
	f := &finder{host: h, file: file, config: Parse(data)}
	f.readWorld(ctx, &plan)
	plan.World = f.world
	plan.Units = append(plan.Units, f.settings())
	plan.Units = append(plan.Units, f.aliasUnits(&plan)...)
	for name, m := range f.config.Maps {
		if unit, ok := f.mapUnit(name, m); ok {
			plan.Units = append(plan.Units, unit)
		}
	}
	plan.Units = append(plan.Units, aliases.Homes(h, f.homes())...)
	return plan
}

// readWorld takes the domains of class w and those of the virtual user table.
func (f *finder) readWorld(ctx context.Context, plan *forward.Plan) {
	w := &f.world
	*w = forward.World{Inside: map[string]bool{}, Local: map[string]bool{}, Mailboxes: map[string]bool{}, Hosts: map[string]bool{},
		Delimiters: "+", PercentHack: true, AppendAtOrigin: true, AppendDotDomain: true}
	take := func(class string, into map[string]bool) {
		for _, name := range append(f.members(ctx, class, plan), f.config.Classes[class]...) {
			if name = strings.ToLower(strings.TrimSuffix(f.expand(name), ".")); name != "" && !strings.Contains(name, "$") {
				w.Inside[name], into[name] = true, true
				w.Hosts[name] = true
			}
		}
	}
	take("w", w.Local)
	take("VirtHost", w.Mailboxes)
	take("R", map[string]bool{}) // relay domains: ours to pass on
	w.Origin = strings.ToLower(f.expand(f.config.Macros["j"]))
	if w.Origin == "" || strings.Contains(w.Origin, "$") {
		w.Origin = strings.ToLower(f.host.Hostname)
	}
	if w.Origin != "" {
		w.Inside[w.Origin], w.Local[w.Origin], w.Hosts[w.Origin] = true, true, true
		_, w.Domain, _ = strings.Cut(w.Origin, ".")
	}
}

// members reads the files of a class.
func (f *finder) members(ctx context.Context, class string, plan *forward.Plan) []string {
	var found []string
	for _, file := range f.config.Files[class] {
		if !strings.HasPrefix(file, "/") {
			plan.Gaps = append(plan.Gaps, forward.Gap{Source: f.file, Why: fmt.Sprintf("members of class %s come from %q", class, file)})
			continue
		}
		plan.Uses = append(plan.Uses, file)
		data, _, err := f.host.Files.Read(ctx, file, forward.ReadOptions{})
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				plan.Gaps = append(plan.Gaps, forward.Gap{Source: file, Why: err.Error()})
			}
			continue
		}
		for line := range strings.Lines(string(data)) {
			line, _, _ = strings.Cut(line, "#")
			found = append(found, strings.Fields(line)...)
		}
	}
	return found
}

// expand puts $w and $j in, as far as they are known.
func (f *finder) expand(s string) string {
	short, domain, _ := strings.Cut(f.host.Hostname, ".")
	if v := f.config.Macros["m"]; v != "" {
		domain = v
	}
	return strings.NewReplacer("$w", orSelf(f.host.Hostname, "$w"), "${w}", short, "$m", orSelf(domain, "$m"), "$j", orSelf(f.host.Hostname, "$j")).Replace(s)
}

func orSelf(value, macro string) string {
	if value == "" {
		return macro
	}
	return value
}

// homes are the options of .forward, in Postfix's words.
func (f *finder) homes() aliases.HomesOptions {
	paths, have := f.config.Options["forwardpath"]
	if !have {
		paths = sendmailPath
	}
	host := f.host.Hostname
	paths = strings.NewReplacer("$z", "$home", "$u", "$user", "$w", host, "$h", "${extension}", ":", ",").Replace(paths)
	o := aliases.HomesOptions{ForwardPath: paths, Delimiters: "+", Prefix: "sendmail forward"}
	o.Sendmail = true
	local := f.world.Local
	o.Local = func(domain string) bool { return local[domain] }
	return o
}

// aliasUnits are those of O AliasFile.
func (f *finder) aliasUnits(plan *forward.Plan) []forward.Unit {
	value := f.config.Options["aliasfile"]
	var units []forward.Unit
	for _, spec := range strings.Split(value, ",") {
		class, file := "", strings.TrimSpace(spec)
		if before, after, found := strings.Cut(file, ":"); found && !strings.HasPrefix(file, "/") {
			class, file = strings.ToLower(strings.TrimSpace(before)), strings.TrimSpace(after)
			if _, last, flags := strings.Cut(file, " "); flags && strings.HasPrefix(file, "-") {
				file = strings.TrimSpace(last)
			}
		}
		switch {
		case file == "":
		case !strings.HasPrefix(file, "/"):
			plan.Units = append(plan.Units, f.asked("aliases "+spec, forward.Aliases, class+":"+file, f.config.Lines["O aliasfile"]))
		default:
			units = append(units, f.tableUnit("sendmail aliases "+file, file, true, f.aliasRules))
		}
	}
	return units
}

// tableUnit is a unit over a table that rules are made of.
func (f *finder) tableUnit(id, file string, isAliases bool, rules func(context.Context, table) forward.Reading) forward.Unit {
	return forward.Unit{ID: id, Paths: paths(path.Clean(file)), Writer: 0, Server: true,
		Read: func(ctx context.Context) forward.Reading {
			t := readTable(ctx, f.host, path.Clean(file), isAliases)
			reading := rules(ctx, t)
			reading.Gaps = append(t.gaps, reading.Gaps...)
			if t.flawed {
				reading.Rules = append(reading.Rules, forward.Rule{Owner: forward.Everybody, Mechanism: forward.Setting,
					Kind: forward.Asked, Target: file, Mode: forward.Redirect, Source: file, Server: true, UID: t.uid,
					Note: "it could not be read whole"})
			}
			return reading
		}}
}

// asked is a unit for a table that cannot be listed.
func (f *finder) asked(id string, m forward.Mechanism, target string, line int) forward.Unit {
	rule := forward.Rule{Owner: forward.Everybody, Mechanism: m, Kind: forward.Asked, Target: target, Mode: forward.Redirect,
		Source: f.file, Line: line, Server: true, UID: forward.NoUID}
	return forward.Unit{ID: "sendmail " + id, Paths: []string{f.file}, Writer: 0, Server: true,
		Read: func(context.Context) forward.Reading {
			return forward.Reading{Rules: []forward.Rule{rule},
				Gaps: []forward.Gap{{Source: f.file, Why: target + " cannot be listed"}}}
		}}
}
