package wordpress_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"relayguard/systemtest/relay"
)

// wwwData is the account of all sites on many servers.
const wwwData = 33

// siteOptions describe a site. Only the name is required.
type siteOptions struct {
	name    string         // "shop.example.jp"
	title   string         // of its one post; "": it has the name in it
	uid     int            // 0: an account of its own
	plugins []string       // directories below wp-content/plugins; nil: share-by-mail, contact-form
	linked  bool           // the plugins are links to directories outside
	consts  map[string]any // further constants of wp-config.php
	ini     []string       // further settings of PHP: "name=value"
	prepend bool           // its PHP has relayguard's mail()
	network bool           // it has a network (multisite)
	blog    string         // the second site of the network, which is asked
}

// site is a running WordPress. Its mail goes to the Postfix of a relay.
type site struct {
	siteOptions
	root     string // of its documents
	database string
	relay    *relay.Relay
	addr     string
	server   *process
	asked    string // the Host that is asked
}

// sites counts those of this run, to tell their databases and accounts apart.
var sites atomic.Int64

// firstUID is the account of the first site. It has no name, which the sites of
// many hosters' containers have not either.
const firstUID = 61000

// startSite sets a site up and serves it until the test ends.
func startSite(t *testing.T, r *relay.Relay, o siteOptions) *site {
	t.Helper()
	s, err := newSite(soon(t), r, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if end := s.server.logEnd(); t.Failed() && end != "" {
			t.Logf("log of %s ends:\n%s", s.name, end)
		}
		if err := s.server.stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func newSite(ctx context.Context, r *relay.Relay, o siteOptions) (*site, error) {
	number := int(sites.Add(1))
	if o.uid == 0 {
		o.uid = firstUID + number
	}
	if o.title == "" {
		o.title = "News from " + o.name
	}
	if o.plugins == nil {
		o.plugins = []string{"share-by-mail", "contact-form"}
	}
	s := &site{siteOptions: o, relay: r, database: fmt.Sprintf("site_%d", number), asked: o.name}
	s.root = filepath.Join(shared.dir, s.database, "root")
	err := s.copyFiles()
	if err == nil {
		err = s.copyDatabase(ctx)
	}
	if err == nil {
		err = writeSettings(s.root, s.database, s.consts)
	}
	if err == nil && o.network {
		err = s.makeNetwork(ctx)
	}
	if err == nil {
		err = s.own()
	}
	if err == nil && o.prepend {
		err = s.installPrepend(ctx)
	}
	if err == nil {
		err = s.serve(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("site %s: %w", o.name, err)
	}
	return s, nil
}

// copyFiles links to the template's files: what a site changes is not among
// them.
func (s *site) copyFiles() error {
	if err := os.Mkdir(filepath.Dir(s.root), 0o755); err != nil {
		return err
	}
	if out, err := exec.Command("cp", "-al", "--", templateDir(), s.root).CombinedOutput(); err != nil {
		return fmt.Errorf("copy WordPress: %w\n%s", err, out)
	}
	if !s.linked {
		return nil
	}
	for _, plugin := range s.plugins {
		inside, outside := filepath.Join(s.pluginDir(), plugin), filepath.Join(filepath.Dir(s.root), plugin+"-1.0")
		if err := os.Rename(inside, outside); err != nil {
			return err
		}
		if err := os.Symlink(outside, inside); err != nil {
			return err
		}
	}
	return nil
}

func (s *site) pluginDir() string { return filepath.Join(s.root, "wp-content", "plugins") }

// own gives the site's account what a site's account has: the directories that
// WordPress writes to, and its settings.
func (s *site) own() error {
	for _, name := range []string{"", "wp-config.php", "wp-content", "wp-content/plugins"} {
		if err := os.Chown(filepath.Join(s.root, name), s.uid, s.uid); err != nil {
			return err
		}
	}
	return nil
}

// copyDatabase makes the site's from the template's.
func (s *site) copyDatabase(ctx context.Context) error {
	tables, err := shared.maria.ask(ctx, "SELECT table_name FROM information_schema.tables WHERE table_schema = "+quote(templateName)+";")
	if err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "CREATE DATABASE %s CHARACTER SET utf8mb4;\nUSE %[1]s;\n", s.database)
	for _, table := range tables {
		fmt.Fprintf(&b, "CREATE TABLE %s LIKE %s.%[1]s;\nINSERT INTO %[1]s SELECT * FROM %[2]s.%[1]s;\n", table, templateName)
	}
	options := map[string]string{
		"siteurl": "http://" + s.name, "home": "http://" + s.name, "blogname": s.name,
		"admin_email": s.owner(), "active_plugins": serialized(s.plugins),
	}
	for name, value := range options {
		fmt.Fprintf(&b, "UPDATE wp_options SET option_value = %s WHERE option_name = %s;\n", quote(value), quote(name))
	}
	fmt.Fprintf(&b, "UPDATE wp_posts SET post_title = %s WHERE ID = 1;\n", quote(s.title))
	fmt.Fprintf(&b, "UPDATE wp_users SET user_email = CONCAT(user_login, %s);\n", quote("@customers-of-"+s.name))
	return shared.maria.run(ctx, b.String())
}

// owner is who gets what the contact form mails.
func (s *site) owner() string { return "owner@mail-of-" + s.asked }

// serialized is the list of plugins' main files as PHP keeps it.
func serialized(plugins []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "a:%d:{", len(plugins))
	for i, plugin := range plugins {
		file := plugin + "/" + plugin + ".php"
		fmt.Fprintf(&b, "i:%d;s:%d:%q;", i, len(file), file)
	}
	return b.String() + "}"
}

// makeNetwork makes a network of the site (multisite) with one more site, which
// is asked from then on.
func (s *site) makeNetwork(ctx context.Context) error {
	if err := runPHP(ctx, "network.php", s.root, s.name); err != nil {
		return err
	}
	settings := map[string]any{"MULTISITE": true, "SUBDOMAIN_INSTALL": true, "DOMAIN_CURRENT_SITE": s.name, "PATH_CURRENT_SITE": "/", "SITE_ID_CURRENT_SITE": 1, "BLOG_ID_CURRENT_SITE": 1}
	for name, value := range s.consts {
		settings[name] = value
	}
	if err := writeSettings(s.root, s.database, settings); err != nil {
		return err
	}
	s.asked = s.blog
	if err := runPHP(ctx, "blog.php", s.root, s.name, s.blog, s.title, s.owner()); err != nil {
		return err
	}
	return shared.maria.run(ctx, fmt.Sprintf("UPDATE %s.wp_2_options SET option_value = %s WHERE option_name = 'active_plugins';", s.database, quote(serialized(s.plugins))))
}

// settings are PHP's for this site. -t: recipients are those of the header. An
// account without a name cannot be the envelope sender, so that is given, as
// many hosters do.
func (s *site) settings() []string {
	path := "/usr/sbin/sendmail -t -i"
	if _, err := user.LookupId(strconv.Itoa(s.uid)); err != nil {
		path += " -f wordpress@" + s.name
	}
	args := []string{"-d", "sendmail_path=" + path, "-d", "max_execution_time=0", "-d", "opcache.revalidate_freq=0", "-d", "log_errors=1", "-d", "display_errors=0"}
	for _, setting := range s.ini {
		args = append(args, "-d", setting)
	}
	return args
}

// environment makes sendmail(1) hand in at the private Postfix.
func (s *site) environment() []string {
	return append(os.Environ(), "MAIL_CONFIG="+s.relay.ConfigDir, "PHP_CLI_SERVER_WORKERS=4")
}

func (s *site) serve(ctx context.Context) error {
	for try := 1; ; try++ {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		s.addr = listener.Addr().String()
		listener.Close()
		cmd := exec.Command(php, append(s.settings(), "-S", s.addr, "-t", s.root)...)
		cmd.Dir, cmd.Env = s.root, s.environment()
		if s.server, err = startProcess(cmd, filepath.Join(filepath.Dir(s.root), "log"), s.uid, postdrop()); err != nil {
			return err
		}
		err = s.server.waitUntil(ctx, func() bool {
			conn, err := net.Dial("tcp", s.addr)
			if err == nil {
				conn.Close()
			}
			return err == nil
		})
		if err == nil || try == 5 || !strings.Contains(s.server.logEnd(), "in use") {
			return err
		}
	}
}

// run runs a PHP script on the command line, as the site's account would.
func (s *site) run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, php, append(s.settings(), args...)...)
	cmd.Dir, cmd.Env, cmd.SysProcAttr = s.root, s.environment(), credential(s.uid)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s: php %s: %w: %s", s.name, strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// credential is that of an account. Its group is that of sendmail(1)'s helper
// postdrop: only from that it takes a foreign configuration directory.
func credential(uid int) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(postdrop())}}
}

func postdrop() int {
	group, err := user.LookupGroup("postdrop")
	if err != nil {
		return 0
	}
	gid, _ := strconv.Atoi(group.Gid)
	return gid
}

// soon bounds a wait for what should happen at once, on a slow machine too.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}
