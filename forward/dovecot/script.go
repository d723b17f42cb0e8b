package dovecot

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"relayguard/forward"
	"relayguard/forward/sieve"
)

// scriptReader reads scripts for one owner and makes rules of them.
type scriptReader struct {
	*planner
	ctx         context.Context
	owner       string
	server      bool
	home        string
	user        user
	as          *forward.Account
	personalDir string
	store       store
	there       map[string]forward.Info // of a mailbox's paths: those that exist
	reading     forward.Reading
	included    map[string]bool
}

func (r *scriptReader) gap(source string, err error) {
	r.reading.Gaps = append(r.reading.Gaps, forward.Gap{Source: source, Why: err.Error()})
}

// maxScriptSize is read of a script; Pigeonhole takes 1 MiB by default, an
// administrator may allow more.
const maxScriptSize = 4 << 20

func (r *scriptReader) options() forward.ReadOptions {
	return forward.ReadOptions{Max: maxScriptSize, As: r.as}
}

// script reads one script with its compiled form, and notes its rules. link is
// what Lstat says of it.
func (r *scriptReader) script(file string, link forward.Info, dormant string) {
	if link.Mode&fs.ModeSymlink != 0 {
		r.reading.Uses = append(r.reading.Uses, r.linked(file))
	}
	text, info, err := r.host.Files.Read(r.ctx, file, r.options())
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		r.unread(file, err, dormant)
		return
	}
	changed := info.MTime
	if link.MTime.After(changed) {
		changed = link.MTime
	}
	run := r.run(file, text)
	if dormant == "" {
		if binary, ok := r.compiled(file, link, changed); ok {
			r.both(file, info, run, binary)
			if binary.Broken != "" {
				r.misread(file, info, text, binary.Broken)
			}
			return
		}
	}
	for _, t := range run.Targets {
		r.rule(t, file, info, dormant, run.Broken, "")
	}
	if run.Broken != "" && dormant == "" {
		r.misread(file, info, text, run.Broken)
	}
}

// misread tells of an active script that is not understood: that it does not
// compile may be an error of ours.
func (r *scriptReader) misread(file string, info forward.Info, text []byte, why string) {
	rule := forward.Rule{Kind: forward.Asked, Target: "sieve " + file, Mode: forward.Copy, Source: file, UID: info.UID,
		Digest: digest(text), Note: "it does not compile, as far as is known: " + why}
	if !r.server && r.user.uid == forward.NoUID {
		rule.UID = forward.NoUID
	}
	r.add(rule)
}

// linked is where a link leads, as it says it; the link itself, if that cannot be
// read.
func (r *scriptReader) linked(file string) string {
	to, err := r.host.Files.Readlink(r.ctx, file)
	if err != nil {
		return file
	}
	if !strings.HasPrefix(to, "/") {
		to = path.Join(path.Dir(file), to)
	}
	return path.Clean(to)
}

// unread is a script that there is and that could not be read: mail may go by it.
func (r *scriptReader) unread(file string, err error, dormant string) {
	r.gap(file, err)
	if r.as != nil && errors.Is(err, fs.ErrPermission) {
		dormant = join(dormant, "the mailbox's own account may not read it")
	}
	r.add(forward.Rule{Kind: forward.Asked, Target: "sieve " + file, Mode: forward.Copy, Source: file,
		UID: forward.NoUID, Dormant: dormant, Note: err.Error()})
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

// compiled is what the compiled forms of a script do that are newer than it: one
// of them runs. They lie beside the script, or beside the link to it, or in the
// directory that is set for them, there by the script's name.
func (r *scriptReader) compiled(file string, link forward.Info, changed time.Time) (sieve.Result, bool) {
	places := []string{binaryOf(file, "")}
	if _, ok := r.there[places[0]]; !ok && file == r.store.active {
		places = nil // LstatAll has said that there is none
	}
	if r.store.bindir != "" {
		places = append(places, binaryOf(file, r.store.bindir))
		if link.Mode&fs.ModeSymlink != 0 {
			places = append(places, binaryOf(r.linked(file), r.store.bindir))
		}
	}
	var out sieve.Result
	found := false
	for _, at := range places {
		if data, ok := r.newer(at, changed); ok {
			one := r.run(file, data)
			out.Targets = append(out.Targets, one.Targets...)
			out.Broken = join(out.Broken, one.Broken)
			found = true
		}
	}
	return out, found
}

func (r *scriptReader) newer(at string, changed time.Time) ([]byte, bool) {
	r.reading.Uses = append(r.reading.Uses, at)
	data, info, err := r.host.Files.Read(r.ctx, at, r.options())
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			r.gap(at, err)
		}
		return nil, false
	}
	return data, info.MTime.After(changed) && sieve.IsBinary(data)
}

// run is what a script does.
func (r *scriptReader) run(file string, script []byte) sieve.Result {
	return sieve.Targets(script, sieve.Options{
		MaxSize:     maxScriptSize,
		Include:     func(name string, global bool) ([]byte, error) { return r.include(file, name, global) },
		Environment: r.environment,
	})
}

func (r *scriptReader) environment(name string) (string, bool) {
	if v, ok := r.user.fields["sieve_env_"+name]; ok {
		return v, ok
	}
	e, ok := r.settings.Last("sieve_env_" + name)
	return e.Value, ok
}

// include reads an included script: names are no paths.
func (r *scriptReader) include(from, name string, global bool) ([]byte, error) {
	if name == "" || strings.ContainsAny(name, "/\x00") || len(name) > 256 {
		return nil, fs.ErrNotExist
	}
	dirs := r.globalDirs()
	as := r.as
	if !global {
		dirs = []string{r.personalDir}
		if r.personalDir == "" {
			dirs = []string{path.Dir(from)}
		}
	}
	if len(dirs) == 0 {
		return nil, errors.New("the directory of global scripts is not known")
	}
	var err error
	for _, dir := range dirs {
		file := path.Join(dir, name+".sieve")
		r.reading.Uses = append(r.reading.Uses, file)
		var data []byte
		if data, _, err = r.host.Files.Read(r.ctx, file, forward.ReadOptions{Max: maxScriptSize, As: as}); err == nil {
			if r.included == nil {
				r.included = map[string]bool{}
			}
			r.included[file] = true
			return data, nil
		}
	}
	return nil, err
}

// globalDirs are where global scripts lie: sieve_global, sieve_global_dir, and
// "sieve_script NAME { type = global }".
func (r *scriptReader) globalDirs() []string {
	var out []string
	for _, key := range []string{"sieve_global", "sieve_global_dir"} {
		if l, err := parseLocation(key, r.user.file, r.user.fields[key]); err == nil && r.user.fields[key] != "" {
			out = append(out, l.path.resolve(r.user))
		}
		for _, e := range r.settings.Delivery(key) {
			if l, err := parseLocation(key, e.File, e.Value); err == nil {
				out = append(out, l.path.resolve(r.user))
			}
		}
	}
	for _, b := range r.settings.blocks("sieve_script") {
		if b.values["type"] == "global" || b.values["sieve_script_type"] == "global" {
			at := b.values["path"] + b.values["sieve_script_path"]
			if t, err := parseTemplate(at); err == nil {
				out = append(out, t.resolve(r.user))
			}
		}
	}
	return out
}

const (
	onlyCompiled = "the compiled script, which is newer and runs, has it; the text has not"
	onlyText     = "the text has it; the compiled script, which is newer and runs, has not"
)

// both makes rules of a script whose compiled form is newer than its text.
func (r *scriptReader) both(file string, info forward.Info, text, binary sieve.Result) {
	has := func(all []sieve.Target, t sieve.Target) bool {
		for _, o := range all {
			if o.Kind == t.Kind && o.Target == t.Target && (o.Dormant == "") == (t.Dormant == "") {
				return true
			}
		}
		return false
	}
	for _, t := range binary.Targets {
		differs := ""
		if text.Broken != "" || !has(text.Targets, t) {
			differs = onlyCompiled
		}
		r.rule(t, file, info, "", binary.Broken, differs)
	}
	for _, t := range text.Targets {
		if !has(binary.Targets, t) {
			r.rule(t, file, info, "", text.Broken, onlyText)
		}
	}
}

func (r *scriptReader) rule(t sieve.Target, file string, info forward.Info, dormant, broken, differs string) {
	rule := forward.Rule{Kind: t.Kind, Target: t.Target, Mode: t.Mode, Source: file, Line: t.Line, Dynamic: t.Dynamic,
		Dormant: join(dormant, t.Dormant), Differs: differs, UID: info.UID, Note: t.Note}
	if !r.server && r.user.uid == forward.NoUID {
		rule.UID = forward.NoUID // nobody knows who is to own it
	}
	if broken != "" {
		rule.Broken = "the script does not compile: " + broken
	}
	if t.Broken != "" {
		rule.Broken = t.Broken
	}
	if t.Script != "" {
		rule.Note = strings.TrimSpace(fmt.Sprintf("%s of the included script %s", t.Note, t.Script))
	}
	switch t.Kind {
	case forward.Program:
		r.program(&rule, t)
	case forward.Asked:
		if data, _, err := r.host.Files.Read(r.ctx, file, r.options()); err == nil {
			rule.Digest = digest(data)
		}
	}
	r.add(rule)
}

// planted reports whether a user database names the place of the script, beside
// the user's home: he did not choose it.
func (r *scriptReader) planted() bool {
	return r.store.field && (r.home == "" || !strings.HasPrefix(r.store.path, r.home+"/"))
}

// program names the file behind pipe, filter, execute and its digest. Arguments
// that a message decides change nothing of what gets the mail: they are left out.
func (r *scriptReader) program(rule *forward.Rule, t sieve.Target) {
	name, args, _ := strings.Cut(t.Target, " ")
	if strings.Contains(name, forward.Unknown) {
		return
	}
	words := slices.DeleteFunc(strings.Fields(args), func(word string) bool { return strings.Contains(word, forward.Unknown) })
	rule.Dynamic = false
	rule.Target = strings.Join(append([]string{name}, words...), " ")
	dir := r.setting("sieve_"+t.Note+"_bin_dir", r.user.fields)
	if dir == "" || name == "" || strings.Contains(name, "/") {
		return
	}
	file := path.Join(dir, name)
	rule.Target = strings.Join(append([]string{file}, words...), " ")
	r.reading.Uses = append(r.reading.Uses, file)
	if data, _, err := r.host.Files.Read(r.ctx, file, forward.ReadOptions{}); err == nil {
		rule.Digest = digest(data)
	}
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func (r *scriptReader) add(rule forward.Rule) {
	rule.Owner, rule.Mechanism, rule.Server = r.owner, forward.Sieve, r.server || r.planted()
	if len(rule.Target) > forward.MaxTarget {
		rule.Target = rule.Target[:forward.MaxTarget]
		rule.Broken = join(rule.Broken, "the target is longer than is kept")
	}
	if rule.Kind == forward.Program && slices.Contains(r.reading.Rules, rule) {
		return // with other arguments
	}
	r.reading.Rules = append(r.reading.Rules, rule)
}
