package phpsetup

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"relayguard/cmd/internal/phptest"
	"relayguard/cmd/internal/wrapper"
)

// machine is a file system with PHPs, below a directory that all may read.
type machine struct {
	t *testing.T
	Setup
}

// newMachine has these files, by their path; @ in them is the root.
func newMachine(t *testing.T, files map[string]string) *machine {
	t.Helper()
	root, err := os.MkdirTemp("", "phpsetup")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	m := &machine{t, Setup{Root: root, Binary: root + "/usr/local/sbin/relayguard",
		Settings: wrapper.Settings{Sendmail: root + "/usr/sbin/sendmail", Socket: "/run/relayguard-call/socket", Timeout: time.Second}}}
	m.write("/usr/local/sbin/relayguard", "")
	m.mode("/usr/local/sbin/relayguard", 0o755)
	m.write("/usr/sbin/sendmail", "")
	for path, text := range files {
		m.write(path, strings.ReplaceAll(text, "@", root))
	}
	return m
}

func (m *machine) write(path, text string) {
	m.t.Helper()
	path = m.Root + path
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) mode(path string, mode os.FileMode) {
	m.t.Helper()
	if err := os.Chmod(m.Root+path, mode); err != nil {
		m.t.Fatal(err)
	}
}

// files are all there are, by their path, with @ for the root.
func (m *machine) files() map[string]string {
	m.t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(m.Root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if d.Type()&os.ModeSymlink != 0 {
			to, _ := os.Readlink(path)
			text = []byte("-> " + to)
		}
		all[strings.TrimPrefix(path, m.Root)] = strings.ReplaceAll(string(text), m.Root, "@")
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return all
}

func (m *machine) apply() []Change {
	m.t.Helper()
	plan, err := m.Plan()
	if err == nil {
		err = Apply(plan)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	return plan
}

const poolText = "; a site\n[shop]\nuser = shop\nphp_admin_value[memory_limit] = 64M"

func debian() map[string]string {
	return map[string]string{
		"/etc/php/8.2/fpm/php.ini":             "[mail function]\n;sendmail_path =\ndisable_functions = \n",
		"/etc/php/8.2/fpm/conf.d/10-x.ini":     "extension=x\n",
		"/etc/php/8.2/cli/php.ini":             "sendmail_path = \"@/usr/sbin/sendmail -t -i -f bounce\" ; ours\n[HOST=other.example.jp]\nsendmail_path = /opt/other\n",
		"/etc/php/8.2/cli/conf.d/10-x.ini":     "extension=x\n",
		"/etc/php/7.4/fpm/conf.d/10-x.ini":     "extension=x\n",
		"/etc/php/8.2/fpm/pool.d/shop.conf":    poolText,
		"/etc/php/7.4/fpm/pool.d/old.conf":     "[old]\nuser = old\n",
		"/etc/php/8.2/mods-available/x.ini":    "extension=x\n",
		"/srv/waf.php":                         "<?php\n",
		"/etc/php/8.2/fpm/pool.d/several.conf": "[a]\nuser = a\n[b]\nuser = b\n",
	}
}

func TestWrapperGoesIntoEachPHPAndOutAgain(t *testing.T) {
	m := newMachine(t, debian())
	before := m.files()
	m.Wrapper = true
	plan := m.apply()
	after := m.files()
	for path, want := range map[string]string{
		"/etc/php/8.2/fpm/conf.d/99-relayguard.ini": "sendmail_path = \"@/usr/local/sbin/relayguard-sendmail -t -i\"\n",
		"/etc/php/7.4/fpm/conf.d/99-relayguard.ini": "sendmail_path = \"@/usr/local/sbin/relayguard-sendmail -t -i\"\n",
		"/etc/php/8.2/cli/conf.d/99-relayguard.ini": "sendmail_path = \"@/usr/local/sbin/relayguard-sendmail -t -i -f bounce\"\n",
		"/usr/local/sbin/relayguard-sendmail":       "-> relayguard",
	} {
		if got := after[path]; !strings.HasSuffix(got, want) {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
	if s, err := wrapper.Load(m.Root + wrapper.SettingsPath); os.Getuid() == 0 && (err != nil || s != m.Settings) {
		t.Errorf("settings: %+v, %v", s, err)
	}
	if got := Reload(plan); !slices.Equal(got, []string{"systemctl reload php7.4-fpm", "systemctl reload php8.2-fpm"}) {
		t.Errorf("reload %q", got)
	}
	for _, c := range m.apply() {
		if c.Changes() {
			t.Errorf("the second time: %s changes", c.Path)
		}
	}
	r, err := m.Status()
	if err != nil || r.Wrappers != 3 || len(r.Places) != 3 || r.Problem != "" {
		t.Errorf("status %+v, %v", r, err)
	}
	out, err := m.Remove(false)
	if err != nil || len(out.Files) != 3 || len(out.Kept) != 2 || len(out.Reload) != 2 {
		t.Fatalf("removed %+v, %v", out, err)
	}
	if out, err = m.Remove(true); err != nil || len(out.Files) != 2 || len(out.Kept) != 0 {
		t.Fatalf("removed %+v, %v", out, err)
	}
	if !maps.Equal(m.files(), before) {
		t.Errorf("left: %q", m.files())
	}
}

func TestProgramsStayWhileASettingNamesThem(t *testing.T) {
	m := newMachine(t, debian())
	m.Wrapper = true
	m.apply()
	m.SAPI = "cli"
	out, err := m.Remove(true)
	if err != nil || len(out.Files) != 1 || len(out.Kept) != 2 || len(out.Reload) != 0 {
		t.Fatalf("removed %+v, %v", out, err)
	}
}

func TestPoolGetsBothPiecesAndIsAsBeforeAfterwards(t *testing.T) {
	m := newMachine(t, debian())
	m.write("/etc/php/8.2/fpm/conf.d/20-waf.ini", "auto_prepend_file = "+m.Root+"/srv/waf.php\n")
	before := m.files()
	m.Prepend, m.Pool = true, m.Root+"/etc/php/8.2/fpm/pool.d/shop.conf"
	m.apply()
	m.Prepend, m.Wrapper = false, true // one after the other: both stay
	m.apply()
	text := m.files()["/etc/php/8.2/fpm/pool.d/shop.conf"]
	prepends, _ := filepath.Glob(m.share() + "/prepend-*.php")
	if len(prepends) != 1 {
		t.Fatalf("%d prepends", len(prepends))
	}
	want := poolText + "\n" + blockBegin + "\nphp_admin_value[sendmail_path] = \"@/usr/local/sbin/relayguard-sendmail -t -i\"\n" +
		"php_admin_value[auto_prepend_file] = \"" + strings.ReplaceAll(prepends[0], m.Root, "@") + "\"\n; beside those that php.ini disables\nphp_admin_value[disable_functions] = mail,mb_send_mail\n" + blockEnd + "\n"
	if text != want {
		t.Errorf("got %q, want %q", text, want)
	}
	if code, err := os.ReadFile(prepends[0]); err != nil || chainOf(string(code)) != m.Root+"/srv/waf.php" {
		t.Errorf("%v: %q", err, chainOf(string(code)))
	}
	for _, c := range m.apply() {
		if c.Changes() {
			t.Errorf("the second time: %s changes", c.Path)
		}
	}
	r, err := m.Status()
	if i := slices.IndexFunc(r.Places, func(p Place) bool { return p.Pool == m.Pool }); err != nil || i < 0 || !r.Places[i].Wrapper || !r.Places[i].Prepend || r.Places[i].Note != "" {
		t.Errorf("status %+v, %v", r, err)
	}
	for n, early := range []bool{true, false} { // the first changes settings, which PHP has yet to read
		if out, err := m.Remove(true); err != nil || (out.Early != "") != early || len(out.Kept) > 0 != early {
			t.Fatalf("%d: %+v, %v", n, out, err)
		}
	}
	left := m.files()
	before["/etc/php/8.2/fpm/pool.d/shop.conf"] += "\n"
	if !maps.Equal(left, before) {
		t.Errorf("left: %q", left)
	}
}

func TestWhatCannotBeSetUpIsRefusedBeforeAnythingChanges(t *testing.T) {
	shop := func(m *machine) { m.Prepend, m.Pool = true, m.Root+"/etc/php/8.2/fpm/pool.d/shop.conf" }
	for name, c := range map[string]struct {
		change func(m *machine)
		says   string
	}{
		"nothing":            {func(m *machine) {}, "neither"},
		"no PHP":             {func(m *machine) { m.Wrapper, m.Version = true, "5.6" }, "there is no PHP in"},
		"prepend everywhere": {func(m *machine) { m.Prepend = true }, "needs --pool"},
		"old PHP": {func(m *machine) { m.Prepend, m.Pool = true, m.Root+"/etc/php/7.4/fpm/pool.d/old.conf" },
			"needs PHP 8.0 or newer"},
		"no pool":       {func(m *machine) { shop(m); m.Pool += "x" }, "no such file"},
		"several pools": {func(m *machine) { shop(m); m.Pool = m.Root + "/etc/php/8.2/fpm/pool.d/several.conf" }, "has 2 pools"},
		"pool elsewhere": {func(m *machine) {
			m.write("/srv/a/b/c.conf", "[c]\n")
			m.Prepend, m.Pool = true, m.Root+"/srv/a/b/c.conf"
		}, "name its --version"},
		"another SAPI": {func(m *machine) { shop(m); m.SAPI = "cli" }, "a pool is php-fpm's"},
		"chroot, pool": {func(m *machine) { shop(m); m.write("/etc/php/8.2/fpm/pool.d/shop.conf", poolText+"\nchroot = /srv\n") }, "has a chroot"},
		"chroot, PHP": {func(m *machine) {
			m.Wrapper = true
			m.write("/etc/php/8.2/fpm/pool.d/shop.conf", poolText+"\nchroot = /srv\n")
		}, "has a chroot"},
		"chain by search":  {func(m *machine) { shop(m); m.write("/etc/php/8.2/fpm/php.ini", "auto_prepend_file = waf.php\n") }, "write its absolute path"},
		"chain of nothing": {func(m *machine) { shop(m); m.Chain = "/nonexistent.php" }, "is not there"},
		"chain alone":      {func(m *machine) { m.Wrapper, m.Chain = true, "/srv/waf.php" }, "needs relayguard's prepend"},
		"mail forbidden":   {func(m *machine) { shop(m); m.write("/etc/php/8.2/fpm/php.ini", "disable_functions = exec, mail\n") }, "not to send mail"},
		"no way to run": {func(m *machine) {
			shop(m)
			m.write("/etc/php/8.2/fpm/php.ini", "disable_functions = exec,popen\n")
			m.write("/etc/php/8.2/fpm/pool.d/shop.conf", poolText+"\nphp_admin_value[disable_functions] = proc_open\n")
		}, "both popen and proc_open"},
		"open_basedir": {func(m *machine) {
			shop(m)
			m.write("/etc/php/8.2/fpm/pool.d/shop.conf", poolText+"\nphp_admin_value[open_basedir] = /srv:/var\n")
		}, "every page would fail"},
		"another program": {func(m *machine) {
			m.Wrapper = true
			m.write("/etc/php/8.2/cli/php.ini", "sendmail_path = /usr/bin/msmtp -t\n")
		}, "--sendmail"},
		"a command": {func(m *machine) {
			m.Wrapper = true
			m.write("/etc/php/8.2/cli/php.ini", "sendmail_path = \"env X=1 sendmail\"\n")
		}, "is not clear"},
		"odd options": {func(m *machine) {
			m.Wrapper = true
			m.write("/etc/php/8.2/cli/php.ini", "sendmail_path = '"+m.Root+"/usr/sbin/sendmail -t -F \"a\"'\n")
		}, "within quotes"},
		"no MTA":             {func(m *machine) { m.Wrapper, m.Settings.Sendmail = true, "/nonexistent" }, "the MTA's program"},
		"broken block":       {func(m *machine) { shop(m); m.write("/etc/php/8.2/fpm/pool.d/shop.conf", blockBegin+"\n") }, "take it out by hand"},
		"a file as a link":   {func(m *machine) { m.Wrapper = true; m.write("/usr/local/sbin/relayguard-sendmail", "") }, "no symbolic link"},
		"not for others":     {func(m *machine) { m.Wrapper = true; m.mode("/usr/local/sbin/relayguard", 0o750) }, "chmod a+rx " + "@/usr/local/sbin/relayguard"},
		"way to the program": {func(m *machine) { m.Wrapper = true; m.mode("/usr/local/sbin", 0o700) }, "mail() would fail: @/usr/local/sbin has mode 0700"},
		"way to the settings": {func(m *machine) {
			m.Wrapper = true
			m.write("/etc/relayguard/x", "")
			m.mode("/etc/relayguard", 0o750)
		}, "chmod a+rx @/etc/relayguard"},
		"way to the prepend": {func(m *machine) {
			shop(m)
			m.write("/usr/local/share/x", "")
			m.mode("/usr/local/share", 0o750)
		}, "every page would fail: @/usr/local/share has mode 0750"},
		"everybody's": {func(m *machine) {
			m.Wrapper = true
			if err := os.Chmod(m.Binary, 0o777); err != nil {
				m.t.Fatal(err)
			}
		}, "everybody may write"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, debian())
			c.change(m)
			before := m.files()
			plan, err := m.Plan()
			if err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), m.Root, "@"), c.says) {
				t.Errorf("got %d changes, %v, want %q", len(plan), err, c.says)
			}
			if err != nil && !errors.Is(err, ErrUsage) && !errors.Is(err, ErrUntrusted) && !strings.Contains(c.says, "link") {
				t.Errorf("%v is no error of usage", err)
			}
			if !maps.Equal(m.files(), before) {
				t.Error("something changed")
			}
		})
	}
}

func TestStatusSaysWhatIsWrong(t *testing.T) {
	m := newMachine(t, debian())
	m.Wrapper, m.SAPI, m.Version = true, "fpm", "8.2"
	m.apply()
	m.write("/etc/php/8.2/fpm/conf.d/99-zz.ini", "sendmail_path = /opt/x\n")
	m.write("/etc/php/8.2/fpm/pool.d/shop.conf", poolText+"\nphp_admin_value[sendmail_path] = /opt/y -t\n")
	if err := os.Remove(m.program()); err != nil {
		t.Fatal(err)
	}
	r, err := m.Status()
	if err != nil || len(r.Places) != 2 || r.Wrappers != 0 || !strings.Contains(r.Places[0].Note, "99-zz.ini") || r.Places[1].Note != "a program of its own" {
		t.Errorf("got %+v, %v", r, err)
	}
	if err := os.Remove(m.Root + "/etc/php/8.2/fpm/conf.d/99-zz.ini"); err != nil {
		t.Fatal(err)
	}
	if r, err := m.Status(); err != nil || !strings.Contains(r.Problem, "mail() fails") {
		t.Errorf("got %+v, %v", r, err)
	}
}

// A umask of the admin's keeps nobody from what is installed.
func TestWhatIsInstalledCanBeReadWhateverTheUmask(t *testing.T) {
	m := newMachine(t, debian())
	defer syscall.Umask(syscall.Umask(0o077))
	m.Wrapper, m.Prepend, m.Pool = true, true, m.Root+"/etc/php/8.2/fpm/pool.d/shop.conf"
	m.apply()
	for path, mode := range map[string]os.FileMode{
		m.share(): 0o755, m.share() + "/prepend.php": 0o644, filepath.Dir(m.siteMap()): 0o755, m.siteMap(): 0o644, m.settings(): 0o644,
	} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v, want mode %o", path, info, err, mode)
		}
	}
	if r, err := m.Status(); err != nil || r.Problem != "" {
		t.Errorf("got %+v, %v", r, err)
	}
}

func TestStatusSaysWhatSitesCannotRead(t *testing.T) {
	for path, says := range map[string]string{
		"/usr/local/share/relayguard/prepend.php": "every page fails: ",
		"/usr/local/share/relayguard":             "every page fails: ",
		"/etc/relayguard/sendmail.conf":           "goes by its defaults: ",
		"/etc/relayguard":                         "goes by its defaults: ",
		"/usr/local/sbin/relayguard":              "mail() fails: ",
		"/usr/local/sbin":                         "mail() fails: ",
	} {
		m := newMachine(t, debian())
		m.Wrapper, m.Prepend, m.Pool = true, true, m.Root+"/etc/php/8.2/fpm/pool.d/shop.conf"
		m.apply()
		m.mode(path, 0o700)
		r, err := m.Status()
		said := r.Problem
		for _, p := range r.Places {
			said += p.Note
		}
		if err != nil || !strings.Contains(said, says+m.Root+path) || !strings.Contains(said, "chmod") {
			t.Errorf("%s: got %+v, %v", path, r, err)
		}
		if strings.HasSuffix(path, ".php") || strings.HasSuffix(path, ".conf") { // ours: install mends it
			m.apply()
			if info, err := os.Stat(m.Root + path); err != nil || info.Mode().Perm() != 0o744 {
				t.Errorf("%s: %v, %v", path, info, err)
			}
		}
	}
}

func TestAMapThatHasSitesStays(t *testing.T) {
	m := newMachine(t, debian())
	m.Prepend, m.Pool = true, m.Root+"/etc/php/8.2/fpm/pool.d/shop.conf"
	m.apply()
	text := m.files()["/etc/relayguard/php-sites.php"]
	m.write("/etc/relayguard/php-sites.php", strings.Replace(text, "\n);", "\n\t'/srv/app' => '/etc/keys/app.php',\n);", 1))
	for range 2 {
		if _, err := m.Remove(true); err != nil {
			t.Fatal(err)
		}
	}
	if left := m.files(); left["/etc/relayguard/php-sites.php"] == "" || left["/usr/local/share/relayguard/prepend.php"] != "" {
		t.Errorf("left %q", left)
	}
}

// Workers of php-fpm that began before the settings changed still have the old
// ones. Its master stays the same process when it is reloaded.
func TestFilesStayWhileAnOldWorkerRuns(t *testing.T) {
	m := newMachine(t, debian())
	m.Wrapper = true
	m.apply()
	if _, err := m.Remove(false); err != nil {
		t.Fatal(err)
	}
	conf := m.etc() + "/8.2/fpm/conf.d"
	changed := time.Unix(1_800_000_000, 0)
	for _, path := range []string{conf, m.etc() + "/8.2/fpm/pool.d/shop.conf", m.etc() + "/8.2/fpm/pool.d/several.conf"} {
		if err := os.Chtimes(path, changed, changed); err != nil {
			t.Fatal(err)
		}
	}
	m.write("/proc/stat", "cpu 1 2 3\nbtime 1799999000\n")
	process := func(pid, parent int, name string, seconds int) {
		m.write(fmt.Sprintf("/proc/%d/stat", pid), fmt.Sprintf("%d (%s) S %d %s %d 0\n", pid, name, parent, strings.Repeat("0 ", 16)+"0", 100*seconds))
	}
	process(10, 1, "php-fpm8.2", 5)
	process(11, 10, "php-fpm8.2", 6)
	process(12, 1, "a) b (c", 6)
	out, err := m.Remove(true)
	if err != nil || !strings.Contains(out.Early, "php-fpm8.2, process 11,") || len(out.Kept) != 2 || len(out.Files) != 0 {
		t.Fatalf("got %+v, %v", out, err)
	}
	process(11, 10, "php-fpm8.2", 1001) // reloaded
	if out, err = m.Remove(true); err != nil || out.Early != "" || len(out.Files) != 2 {
		t.Fatalf("got %+v, %v", out, err)
	}
}

// What PHP itself makes of what is written.
func TestRealPHPReadsWhatIsWritten(t *testing.T) {
	php := phptest.CLI(t)
	m := newMachine(t, debian())
	m.Wrapper = true
	m.apply()
	for sapi, want := range map[string]string{"fpm": " -t -i", "cli": " -t -i -f bounce"} {
		dir := m.etc() + "/8.2/" + sapi
		if err := os.Remove(dir + "/conf.d/10-x.ini"); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), php, "-c", dir+"/php.ini", "-r", `echo ini_get("sendmail_path");`)
		cmd.Env = append(os.Environ(), "PHP_INI_SCAN_DIR="+dir+"/conf.d")
		out, err := cmd.Output()
		if err != nil || string(out) != m.program()+want {
			t.Errorf("%s: got %q, %v, want %q", sapi, out, err, m.program()+want)
		}
	}
}

// A site of the pool cannot lose its mail() by a prepend of its own, and what is
// chained runs, also if root installed it with a umask that is for root alone.
func TestRealPHPFPMRunsThePrependWhateverTheSiteSays(t *testing.T) {
	m := newMachine(t, debian())
	socket := m.Root + "/fpm.sock"
	m.write("/etc/php/8.2/fpm/pool.d/shop.conf", fmt.Sprintf("[shop]\nuser = 65534\ngroup = 65534\nlisten = %s\npm = static\npm.max_children = 1\nphp_admin_value[disable_functions] = exec\nphp_admin_value[error_log] = /dev/null\n", socket))
	m.write("/srv/waf.php", "<?php $waf = 'on';\n")
	m.write("/srv/site/own.php", "<?php $own = 'on';\n")
	m.write("/srv/site/.user.ini", "auto_prepend_file = "+m.Root+"/srv/site/own.php\n")
	m.write("/srv/site/index.php", `<?php echo json_encode([isset($waf), isset($own), (new ReflectionFunction("mail"))->isInternal(), function_exists("exec"), ini_get("sendmail_path"), ini_get("auto_prepend_file")], JSON_UNESCAPED_SLASHES);`)
	m.Wrapper, m.Prepend, m.Pool, m.Chain = true, true, m.Root+"/etc/php/8.2/fpm/pool.d/shop.conf", m.Root+"/srv/waf.php"
	umask := syscall.Umask(0o077)
	m.apply()
	syscall.Umask(umask)
	phptest.FPM(t, m.Pool, socket, "PHP_INI_SCAN_DIR="+m.etc()+"/7.4/none")
	out := phptest.Request(t, socket, m.Root+"/srv/site/index.php")
	prepends, _ := filepath.Glob(m.share() + "/prepend-*.php")
	want := fmt.Sprintf(`[true,false,false,false,"%s -t -i",%q]`, m.program(), prepends[0])
	if !strings.Contains(out, want) {
		t.Errorf("got %q, want %q", out, want)
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add("11 (php-fpm8.2) S 10 10 10 0 -1 4194624 1 0 0 0 0 0 0 0 20 0 1 0 600 0 0\n")
	f.Add("12 (a) b (c) S 1")
	f.Add(")(")
	f.Fuzz(func(t *testing.T, text string) {
		one, ok := parseStat(text)
		if ok && !strings.Contains(text, "("+one.name+")") {
			t.Fatalf("got %+v of %q", one, text)
		}
	})
}

func FuzzPool(f *testing.F) {
	f.Add(poolText)
	f.Add("[a]\nphp_admin_value[sendmail_path] = \"x\" ; y\n" + blockBegin + "\nphp_value[x]=\n" + blockEnd + "\n[b]")
	f.Add("php_admin_value[=\n[\n=\n\"\n'")
	f.Fuzz(func(t *testing.T, text string) {
		v := values{}
		v.readINI(text, "file")
		without, err := withoutBlock(text)
		if err != nil {
			return
		}
		p := &pool{text: text, without: without, settings: values{}}
		p.scan()
		p.block()
		with := p.with([]string{"php_admin_value[x] = y"})
		back, err := withoutBlock(with)
		if strings.Contains(without, blockBegin) {
			return
		}
		if err != nil || strings.TrimSuffix(back, "\n") != strings.TrimSuffix(without, "\n") {
			t.Fatalf("got %q, %v, of %q", back, err, text)
		}
	})
}
