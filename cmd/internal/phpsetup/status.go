package phpsetup

import (
	"maps"
	"os"
	"path/filepath"
	"strings"

	"relayguard/cmd/internal/wrapper"
	"relayguard/wordpress"
)

// Place is where PHP reads settings.
type Place struct {
	Version      string `json:"version"`
	SAPI         string `json:"sapi"`
	Pool         string `json:"pool,omitempty"` // its file; "": the PHP as a whole
	SendmailPath string `json:"sendmail_path"`
	Wrapper      bool   `json:"wrapper"`
	Prepend      bool   `json:"prepend"`
	Note         string `json:"note,omitempty"` // what is wrong
}

// Report is how PHP is set up now.
type Report struct {
	Places   []Place `json:"places"`
	Program  string  `json:"program"`
	Problem  string  `json:"problem,omitempty"` // of the wrapper itself
	Wrappers int     `json:"wrappers"`          // places with the wrapper
}

// Status looks how PHP is set up, by its files. A pool that settles nothing of
// ours for itself is not named: it goes by its PHP.
func (s *Setup) Status() (Report, error) {
	r := Report{Program: s.program(), Places: []Place{}}
	all, err := find(s.etc(), s.Version, s.SAPI)
	if err != nil {
		return r, err
	}
	for _, p := range all {
		v, err := p.settings(true)
		if err != nil {
			return r, err
		}
		r.Places = append(r.Places, s.place(p, "", v))
		pools, err := poolsOf(p)
		if err != nil {
			return r, err
		}
		for _, one := range pools {
			own := values{}
			own.readPoolValues(one)
			if _, found := own["sendmail_path"]; !found && own["auto_prepend_file"].text == "" {
				continue
			}
			for key, value := range v {
				if _, found := own[key]; !found {
					own[key] = value
				}
			}
			r.Places = append(r.Places, s.place(p, one.path, own))
		}
	}
	for _, p := range r.Places {
		if p.Wrapper {
			r.Wrappers++
		}
	}
	r.Problem = s.problem(r.Wrappers > 0)
	return r, nil
}

// problem is what is wrong with the wrapper itself.
func (s *Setup) problem(used bool) string {
	now, err := wrapper.Load(s.settings())
	unread := shut(s.Root, s.settings(), othersRead)
	switch {
	case err != nil:
		return err.Error() + "; it goes by its defaults"
	case !used:
		return ""
	case !exists(s.program()):
		return s.program() + " is not there: mail() fails; put it back: relayguard php install --apply"
	}
	if err := shut(s.Root, s.program(), othersRead|othersPass); err != nil {
		return "mail() fails: " + err.Error()
	}
	if exists(s.settings()) && now != wrapper.Defaults() && unread != nil {
		return "the wrapper goes by its defaults: " + unread.Error()
	}
	return ""
}

// readPoolValues reads a pool with our block, which has the last word.
func (v values) readPoolValues(p *pool) {
	maps.Copy(v, p.settings)
	maps.Copy(v, p.block())
}

func (s *Setup) place(p php, pool string, v values) Place {
	out := Place{Version: p.version, SAPI: p.sapi, Pool: pool, SendmailPath: v["sendmail_path"].text}
	if out.SendmailPath == "" {
		out.SendmailPath = standardPath
	}
	name := firstWord(out.SendmailPath)
	out.Wrapper = name == s.program()
	prepend := v["auto_prepend_file"].text
	out.Prepend = prepend != "" && filepath.Dir(prepend) == s.share()
	unread := shut(s.Root, prepend, othersRead)
	switch {
	case pool == "" && exists(p.own()) && !out.Wrapper:
		out.Note = v["sendmail_path"].file + " comes after relayguard's file, and has the last word"
	case out.Prepend && !exists(prepend):
		out.Note = prepend + " is not there: every page fails"
	case out.Prepend && unread != nil:
		out.Note = "every page fails: " + unread.Error()
	case out.Prepend && !sameText(prepend, s.siteMap()):
		out.Note = "the prepend is of another version; renew it: relayguard php install --prepend --pool " + pool + " --apply"
	case out.Prepend && s.mapShut() != nil:
		out.Note = "keys of sites are not found: " + s.mapShut().Error()
	case !out.Wrapper && name != firstWord(standardPath) && !sameFile(name, s.Settings.Sendmail):
		out.Note = "a program of its own"
	}
	return out
}

// mapShut says what keeps sites from a map that has a site in it.
func (s *Setup) mapShut() error {
	text, err := os.ReadFile(s.siteMap())
	if err != nil || wordpress.IsEmptySiteMap(text) {
		return nil
	}
	return shut(s.Root, s.siteMap(), othersRead)
}

// sameText reports whether a prepend is what this version writes, whatever it
// chains.
func sameText(path, siteMap string) bool {
	text, err := os.ReadFile(path)
	return err == nil && string(text) == string(wordpress.PrependWith(chainOf(string(text)), siteMap))
}

// chainOf is what a prepend of ours runs after itself.
func chainOf(text string) string {
	for line := range strings.Lines(text) {
		if _, rest, found := strings.Cut(line, "is_file('"); found && strings.Contains(line, "// relayguard:chain") {
			if chain, _, found := strings.Cut(rest, "')) {"); found {
				return strings.NewReplacer(`\\`, `\`, `\'`, `'`).Replace(chain)
			}
		}
	}
	return ""
}
