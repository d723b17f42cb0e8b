package postfix

import (
	"context"
	"path"
	"slices"
	"strings"

	"relayguard/forward"
)

// variable is one item of import_environment or export_environment: NAME, or
// NAME=VALUE.
type variable struct {
	name, value string
	set         bool // has a value
}

func (v *variable) String() string {
	if v.set {
		return v.name + "=" + v.value
	}
	return v.name
}

// variables reads such a list: mail_parm_split.c.
func variables(list string) []variable {
	var all []variable
	for _, item := range splitList(list) {
		item, _ = inBraces(item)
		name, value, set := strings.Cut(item, "=")
		all = append(all, variable{strings.Trim(name, spaces), strings.Trim(value, spaces), set})
	}
	return all
}

// harmlessVariables change where mail goes for no program. Names alone are the
// defaults of the two settings; they are taken from whoever starts Postfix.
var harmlessVariables = []string{"TZ", "LANG", "LC_ALL", "LC_CTYPE", "LC_MESSAGES", "MAIL_LOGTAG", "MAIL_DEBUG", "POSTLOG_SERVICE", "POSTLOG_HOSTNAME", "DISPLAY", "XAUTHORITY"}

// environment are import_environment, with which all programs of Postfix run, and
// export_environment, with which those run that it hands mail to. A variable may
// have them load another program's code (LD_PRELOAD), or other settings
// (MAIL_CONFIG): what they do then is not known.
func (f *finder) environment(ctx context.Context) forward.Reading {
	places := append([]place{f.i.mainPlace("import_environment")}, f.i.places("export_environment", "local", "pipe", "spawn")...)
	var r forward.Reading
	for n := range places {
		p := &places[n]
		for _, v := range variables(p.value) {
			if f.harmless(&v) {
				continue
			}
			rule := p.rule(forward.Setting)
			if n > 0 { // pipe(8) and spawn(8) read it, or .forward makes local(8)
				rule.Mechanism = forward.Command
			}
			rule.Kind, rule.Target = forward.Asked, p.name+" "+v.String()
			rule.Note = "programs run with this variable, and may do something else by it"
			if file := path.Clean(v.value); path.IsAbs(file) {
				r.Uses = append(r.Uses, file)
				if data, _, err := f.h.Files.Read(ctx, file, forward.ReadOptions{Max: maxProgram}); err == nil {
					rule.Digest = digest(string(data))
				}
			}
			r.Rules = append(r.Rules, bounded(rule))
		}
	}
	return r
}

func (f *finder) harmless(v *variable) bool {
	if v.name == "MAIL_CONFIG" {
		return !v.set || path.Clean(v.value) == f.i.master
	}
	return slices.Contains(harmlessVariables, v.name)
}

// configElsewhere is the directory that MAIL_CONFIG in import_environment gives to
// the programs that master(8) starts: their main.cf is there. Empty: none.
func (i *instance) configElsewhere() string {
	dir := ""
	for _, v := range variables(i.value("import_environment")) {
		if v.name == "MAIL_CONFIG" && v.set && path.IsAbs(v.value) && path.Clean(v.value) != i.dir {
			dir = path.Clean(v.value) // the last one counts
		}
	}
	return dir
}
