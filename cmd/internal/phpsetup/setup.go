package phpsetup

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"relayguard/cmd/internal/wrapper"
	"relayguard/wordpress"
)

// Setup says what is wanted, and where.
type Setup struct {
	Root     string           // before every path but Binary; "" on a real system
	Binary   string           // relayguard's own, absolute
	Settings wrapper.Settings // what the wrapper is to go by

	Wrapper bool
	Prepend bool   // needs Pool
	Version string // "8.2"; "": all
	SAPI    string // "fpm"; "": all
	Pool    string // a pool's file: the settings go there
	Chain   string // a prepend to run after ours in place of what the settings name; absolute, or "none"
}

// ErrUsage says that what is wanted cannot be had so.
var ErrUsage = errors.New("cannot be set up so")

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrUsage, fmt.Sprintf(format, args...))
}

func (s *Setup) etc() string      { return filepath.Join(s.Root, "/etc/php") }
func (s *Setup) share() string    { return filepath.Join(s.Root, "/usr/local/share/relayguard") }
func (s *Setup) siteMap() string  { return filepath.Join(s.Root, wordpress.DefaultSiteMap) }
func (s *Setup) settings() string { return filepath.Join(s.Root, wrapper.SettingsPath) }

// program is the wrapper: the same binary by its other name, beside it.
func (s *Setup) program() string { return filepath.Join(filepath.Dir(s.Binary), wrapper.Name) }

// Plan says what is to be as it is not, and what is so already, in the order in
// which it must be done.
func (s *Setup) Plan() ([]Change, error) {
	if !s.Wrapper && !s.Prepend {
		return nil, refuse("neither wrapper nor prepend is wanted")
	}
	if s.Chain != "" && !s.Prepend {
		return nil, refuse("a prepend to be chained needs relayguard's prepend")
	}
	var program, files, settings []Change
	var err error
	if s.Wrapper {
		if program, err = s.planWrapper(); err != nil {
			return nil, err
		}
	}
	if s.Pool != "" {
		files, settings, err = s.planPool()
	} else {
		settings, err = s.planAll()
	}
	if err != nil {
		return nil, err
	}
	all := slices.Concat(program, files, settings)
	for i, c := range all {
		if all[i], err = c.look(); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// planWrapper is the program and its settings.
func (s *Setup) planWrapper() ([]Change, error) {
	if err := trusted(s.Binary); err != nil {
		return nil, err
	}
	if err := shut(s.Root, s.Binary, othersRead|othersPass); err != nil {
		return nil, refuse("mail() would fail: %v", err)
	}
	if _, err := os.Stat(s.Settings.Sendmail); err != nil {
		return nil, refuse("the MTA's program: %v", err)
	}
	if s.Settings != wrapper.Defaults() {
		if err := shut(s.Root, filepath.Dir(s.settings()), othersPass); err != nil {
			return nil, refuse("the wrapper would not find its settings: %v", err)
		}
	}
	all := []Change{{Path: s.program(), Link: filepath.Base(s.Binary), Why: "The sendmail wrapper is relayguard by another name."}}
	now, err := wrapper.Load(s.settings())
	if err != nil || now != s.Settings || exists(s.settings()) && shut(s.Root, s.settings(), othersRead) != nil {
		all = slices.Insert(all, 0, Change{Path: s.settings(), Text: s.Settings.Text(), open: true, Why: "What the wrapper goes by, which does not read relayguard.toml."})
	}
	return all, nil
}

// planAll sets the wrapper for whole PHPs.
func (s *Setup) planAll() ([]Change, error) {
	if s.Prepend {
		return nil, refuse("the prepend needs --pool: outside a pool's php_admin_value a site's .user.ini or .htaccess can put another prepend in its place, and then has no mail() at all")
	}
	all, err := find(s.etc(), s.Version, s.SAPI)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, refuse("there is no PHP in %s%s", s.etc(), s.which())
	}
	var changes []Change
	for _, p := range all {
		c, err := s.planINI(p)
		if err != nil {
			return nil, err
		}
		changes = append(changes, c)
	}
	return changes, nil
}

func (s *Setup) which() string {
	text := ""
	if s.Version != "" {
		text += " of version " + s.Version
	}
	if s.SAPI != "" {
		text += " for " + s.SAPI
	}
	return text
}

func (s *Setup) planINI(p php) (Change, error) {
	before, err := p.settings(false)
	if err != nil {
		return Change{}, err
	}
	pools, err := poolsOf(p)
	if err != nil {
		return Change{}, err
	}
	for _, one := range pools {
		if _, own := one.settings["sendmail_path"]; one.chroot && !own {
			return Change{}, refuse("the pool in %s has a chroot, in which there is no %s; give it a php_admin_value[sendmail_path] of its own first", one.path, s.program())
		}
	}
	line, err := s.sendmailPath(before["sendmail_path"])
	if err != nil {
		return Change{}, err
	}
	return Change{
		Path: p.own(), service: p.service(),
		Text: "; Written by: relayguard php install. It is taken out by: relayguard php remove\nsendmail_path = " + line + "\n",
		Why:  p.String() + ": mail() goes through the wrapper, with the options as before.",
	}, nil
}

// standardPath is PHP's, where sendmail_path is empty.
const standardPath = "/usr/sbin/sendmail -t -i"

// sendmailPath is the setting with the wrapper in place of the program.
func (s *Setup) sendmailPath(old value) (string, error) {
	text := old.text
	if text == "" {
		text = standardPath
	}
	where := ""
	if old.file != "" {
		where = " (" + old.file + ")"
	}
	name, options, _ := strings.Cut(text, " ")
	switch {
	case !filepath.IsAbs(name):
		return "", refuse("sendmail_path is %q%s: it does not begin with a program's path, so that what it does is not clear", text, where)
	case old.text != "" && name != s.program() && !sameFile(name, s.Settings.Sendmail):
		return "", refuse("sendmail_path is %q%s, while the wrapper hands mail to %s; name that program with --sendmail", text, where, s.Settings.Sendmail)
	}
	return quote(strings.TrimSpace(s.program() + " " + strings.TrimSpace(options)))
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

func sameFile(a, b string) bool {
	one, err := os.Stat(a)
	if err != nil {
		return a == b
	}
	other, err := os.Stat(b)
	return err == nil && os.SameFile(one, other)
}

// planPool sets what is wanted for one pool.
func (s *Setup) planPool() (files, settings []Change, err error) {
	if s.SAPI != "" && s.SAPI != "fpm" {
		return nil, nil, refuse("a pool is php-fpm's, not %s's", s.SAPI)
	}
	p, err := readPool(s.Pool)
	if err != nil {
		return nil, nil, refuse("%v", err)
	}
	owner, err := s.phpOf(p)
	if err != nil {
		return nil, nil, err
	}
	switch {
	case len(p.names) != 1:
		return nil, nil, refuse("%s has %d pools; let each have a file of its own", p.path, len(p.names))
	case p.chroot:
		return nil, nil, refuse("the pool in %s has a chroot, in which relayguard's files are not", p.path)
	}
	v, err := owner.settings(true)
	if err != nil {
		return nil, nil, err
	}
	all := map[string][]value{}
	for _, name := range []string{"sendmail_path", "auto_prepend_file", "disable_functions", "open_basedir"} {
		for _, from := range []values{v, p.settings} {
			if one, found := from[name]; found {
				all[name] = append(all[name], one)
			}
		}
	}
	last := func(name string) (v value) {
		if n := len(all[name]); n > 0 {
			v = all[name][n-1]
		}
		return v
	}
	wrapped, prepended := s.Wrapper, s.Prepend
	chain := s.Chain
	if now := p.block(); now != nil { // what an earlier install put there stays
		_, found := now["sendmail_path"]
		wrapped = wrapped || found
		if old := now["auto_prepend_file"].text; isOurs(old) {
			prepended = true
			if text, err := os.ReadFile(old); err == nil && chain == "" {
				chain = chainOf(string(text))
			}
		}
	}
	var lines []string
	if wrapped {
		path, err := s.sendmailPath(last("sendmail_path"))
		if err != nil {
			return nil, nil, err
		}
		lines = append(lines, "php_admin_value[sendmail_path] = "+path)
	}
	if prepended {
		one, prepend, err := s.planPrepend(owner, chain, last("auto_prepend_file"), last("open_basedir"), all["disable_functions"])
		if err != nil {
			return nil, nil, err
		}
		files = one
		lines = append(lines, prepend...)
	}
	return files, []Change{{
		Path: p.path, Text: p.with(lines), Part: strings.Join(lines, "\n") + "\n", service: owner.service(),
		Why: "Pool " + p.names[0] + " of PHP " + owner.version + ". Sites cannot change these settings.",
	}}, nil
}

// phpOf finds the PHP of a pool's file: /etc/php/VERSION/fpm/pool.d/NAME.conf.
func (s *Setup) phpOf(p *pool) (php, error) {
	dir := filepath.Dir(filepath.Dir(p.path))
	version := s.Version
	if version == "" {
		version = filepath.Base(filepath.Dir(dir))
	}
	all, err := find(s.etc(), version, "fpm")
	if err != nil {
		return php{}, err
	}
	if len(all) != 1 {
		return php{}, refuse("which PHP has the pool in %s? There is no php-fpm %s in %s; name its --version", p.path, version, s.etc())
	}
	return all[0], nil
}

// disabled are the functions that the prepend defines anew.
var disabled = []string{"mail", "mb_send_mail"}

// planPrepend is the prepend's files, and the lines that a pool needs for it.
// chain is what is to run after ours; empty: what the settings name now.
func (s *Setup) planPrepend(p php, chain string, former, basedir value, off []value) (files []Change, lines []string, err error) {
	major, err := strconv.Atoi(strings.SplitN(p.version, ".", 2)[0])
	if err != nil || major < 8 {
		return nil, nil, refuse("the prepend needs PHP 8.0 or newer, which lets a disabled function be defined anew; this is %s. The wrapper and the must-use plugin do without it", p)
	}
	if chain == "" {
		chain = former.text
	}
	switch {
	case strings.EqualFold(chain, "none"):
		chain = ""
	case chain != "" && !filepath.IsAbs(chain):
		return nil, nil, refuse("auto_prepend_file is %q (%s): write its absolute path there, or name it with --chain", chain, former.file)
	case chain != "" && !exists(chain):
		return nil, nil, refuse("the prepend %s, which would run after relayguard's, is not there", chain)
	}
	if err := s.checkFunctions(off); err != nil {
		return nil, nil, err
	}
	if basedir.text != "" && !slices.ContainsFunc(filepath.SplitList(basedir.text), func(dir string) bool {
		return filepath.IsAbs(dir) && (dir == "/" || strings.HasPrefix(s.share()+"/", filepath.Clean(dir)+"/"))
	}) {
		return nil, nil, refuse("open_basedir (%s) does not let PHP read %s, so that every page would fail; add it and %s there", basedir.file, s.share(), s.siteMap())
	}
	path := filepath.Join(s.share(), "prepend.php")
	if chain != "" {
		if isOurs(chain) {
			return nil, nil, refuse("auto_prepend_file (%s) names relayguard's own prepend %s already", former.file, chain)
		}
		sum := sha256.Sum256([]byte(chain))
		path = filepath.Join(s.share(), "prepend-"+hex.EncodeToString(sum[:4])+".php")
	}
	if err := shut(s.Root, s.share(), othersPass); err != nil {
		return nil, nil, refuse("the prepend could not be read, and every page would fail: %v", err)
	}
	files = []Change{{Path: path, open: true, Text: string(wordpress.PrependWith(chain, s.siteMap())), Part: "(PHP, " + version(chain) + ")\n", Why: "Signs where a mail is from, whatever software of the site sends it."}}
	if !exists(s.siteMap()) {
		files = append(files, Change{Path: s.siteMap(), open: true, Text: string(wordpress.SiteMap(nil)), Why: "Where the prepend looks for keys that are not below wp-content; empty."})
	}
	quoted, err := quote(path)
	if err != nil {
		return nil, nil, err
	}
	return files, []string{
		"php_admin_value[auto_prepend_file] = " + quoted,
		"; beside those that php.ini disables",
		"php_admin_value[disable_functions] = " + strings.Join(disabled, ","),
	}, nil
}

func version(chain string) string {
	if chain == "" {
		return "with no other prepend after it"
	}
	return "runs " + chain + " after itself, as before"
}

func isOurs(path string) bool {
	text, err := os.ReadFile(path)
	return err == nil && wordpress.IsPrepend(text)
}

// checkFunctions refuses where mail() is off on purpose, and where the new one
// could not start a program.
func (s *Setup) checkFunctions(off []value) error {
	is := map[string]string{}
	for _, v := range off {
		for name := range strings.FieldsFuncSeq(v.text, func(r rune) bool { return r == ',' || r == ' ' }) {
			is[strings.ToLower(name)] = v.file
		}
	}
	popen := is["popen"] + is["pclose"]
	if file := is["mail"]; file != "" {
		return refuse("mail is among disable_functions of %s: sites are not to send mail, and the prepend would let them", file)
	}
	if proc := is["proc_open"] + is["proc_close"]; popen != "" && proc != "" {
		return refuse("disable_functions (%s) has both popen and proc_open, of which the prepend needs one; the wrapper and the must-use plugin do without it", popen)
	}
	return nil
}
