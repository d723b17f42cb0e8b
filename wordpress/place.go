package wordpress

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// configFile is what a WordPress is known by.
const configFile = "wp-config.php"

// Place is a WordPress on this machine. Close it.
type Place struct {
	Root    string // its directory, absolute, without links
	Content string // its wp-content, the same
	UID     int    // of the account that it runs as
	GID     int    // its first group
	Account string // its name; "uid:N" if it has none
	By      string // how it was found out: "owner of wp-config.php" or "--user"

	content *tree
}

// Close gives the open directory back.
func (p *Place) Close() { p.content.close() }

// Find looks at a document root. Content is the directory wp-content if it is
// not in its usual place, account the site's if it is not the owner of
// wp-config.php; both may be empty. The paths may have links, for the admin names
// them, but the root itself is no link of a site's; what lies below it may have none.
func Find(root, content, account string) (*Place, error) {
	p := &Place{}
	err := ownLink(root)
	if err != nil {
		return nil, err
	}
	if p.Root, err = real(root); err != nil {
		return nil, fmt.Errorf("document root %s: %w", root, err)
	}
	if p.Root == "/" {
		return nil, errors.New("document root: / is none")
	}
	top, err := openPath(p.Root)
	if err != nil {
		return nil, err
	}
	defer top.close()
	config, err := configOf(top, p.Root)
	if err != nil && (account == "" || content == "") {
		return nil, fmt.Errorf("%w; is %s a WordPress? If its configuration is elsewhere, say --user and --content", err, p.Root)
	}
	if err := p.findContent(top, content, config); err != nil {
		return nil, err
	}
	if err := p.findAccount(account, config); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// ownLink refuses a document root that is a symbolic link of somebody else's than
// root's or our own: a site that makes one in place of its directory would have us
// work on another site.
func ownLink(name string) error {
	abs, err := filepath.Abs(name)
	if err != nil {
		return err
	}
	var stat unix.Stat_t
	if err := unix.Lstat(abs, &stat); err != nil || stat.Mode&unix.S_IFMT != unix.S_IFLNK || stat.Uid == 0 || int(stat.Uid) == os.Geteuid() {
		return nil // what is not there is found out next
	}
	to, _ := os.Readlink(abs)
	return fmt.Errorf("document root %s is a symbolic link of uid %d's, to %q, which may lead to another's site; name the directory itself, or give the link to root (chown -h root)", abs, stat.Uid, to)
}

// real is an absolute path without links.
func real(name string) (string, error) {
	abs, err := filepath.Abs(name)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(abs)
}

// openPath opens a directory by a path that has no links; one that came since
// is an error.
func openPath(name string) (*tree, error) {
	file, err := os.Open("/")
	if err != nil {
		return nil, err
	}
	t := &tree{file, ""}
	parts := strings.Split(strings.Trim(name, "/"), "/")
	for i, part := range parts {
		mode := unix.O_PATH // what may be passed may not be read: /home with mode 0711
		if i == len(parts)-1 {
			mode = unix.O_RDONLY
		}
		next, err := t.open(part, mode)
		t.close()
		if err != nil {
			return nil, err
		}
		t = next
	}
	t.name = name
	return t, nil
}

// configOf reads wp-config.php, in the root or, as WordPress has it, in the
// directory above.
func configOf(top *tree, root string) (*entry, error) {
	config, err := top.plain(configFile)
	if !errors.Is(err, fs.ErrNotExist) || path.Dir(root) == "/" {
		return config, err
	}
	if _, settings := top.plain("wp-settings.php"); settings != nil {
		return nil, err
	}
	above, openErr := openPath(path.Dir(root))
	if openErr != nil {
		return nil, err
	}
	defer above.close()
	if _, settings := above.plain("wp-settings.php"); settings == nil {
		return nil, err // that is another WordPress's
	}
	if config, aboveErr := above.plain(configFile); aboveErr == nil {
		return config, nil
	}
	return nil, err
}

// plain is read for root's eyes: what is no plain file is not even opened.
func (t *tree) plain(name string) (*entry, error) {
	var stat unix.Stat_t
	if err := unix.Fstatat(t.fd(), name, &stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, &fs.PathError{Op: "look at", Path: t.path(name), Err: err}
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("%s is no plain file", t.path(name))
	}
	return t.read(name)
}

// The constant that moves wp-content, where it is simply written.
var (
	contentConstant = regexp.MustCompile(`(?m)^[ \t]*define\s*\(\s*['"]WP_CONTENT_DIR['"]\s*,\s*([^;\n]*?)\s*\)\s*;`)
	contentValue    = regexp.MustCompile(`^(?:(__DIR__|dirname\s*\(\s*__FILE__\s*\)|ABSPATH)\s*\.\s*)?(?:'([^'\\]*)'|"([^"\\$]*)")$`)
)

func (p *Place) findContent(top *tree, asked string, config *entry) (err error) {
	if asked == "" && config != nil {
		if asked, err = moved(p.Root, config.text); err != nil {
			return err
		}
	}
	if asked == "" {
		p.Content = p.Root + "/wp-content"
		if p.content, err = top.sub("wp-content"); err != nil {
			return fmt.Errorf("%w; if it is elsewhere, say --content DIR", err)
		}
		return nil
	}
	if p.Content, err = real(asked); err != nil {
		return fmt.Errorf("content directory: %w", err)
	}
	if p.Content == "/" {
		return errors.New("content directory: / is none")
	}
	p.content, err = openPath(p.Content)
	return err
}

// moved is where wp-config.php has wp-content, empty if in its usual place.
func moved(root string, config []byte) (string, error) {
	constant := contentConstant.FindSubmatch(config)
	if constant == nil {
		return "", nil
	}
	value := contentValue.FindSubmatch(bytes.TrimSpace(constant[1]))
	if value == nil {
		return "", fmt.Errorf("wp-config.php sets WP_CONTENT_DIR in a way that cannot be read here; say --content DIR")
	}
	dir := string(value[2]) + string(value[3])
	if len(value[1]) > 0 {
		dir = root + "/" + dir
	}
	if !path.IsAbs(dir) {
		return "", fmt.Errorf("wp-config.php sets WP_CONTENT_DIR to no absolute path; say --content DIR")
	}
	return path.Clean(dir), nil
}

// findAccount says as whom the site runs. Never root, and nobody who did not
// make the directory that is written into.
func (p *Place) findAccount(asked string, config *entry) error {
	if asked != "" {
		return p.byName(asked)
	}
	var content unix.Stat_t
	if err := unix.Fstat(p.content.fd(), &content); err != nil {
		return err
	}
	p.UID, p.GID, p.By = int(config.stat.Uid), int(config.stat.Gid), "owner of "+configFile
	switch {
	case p.UID == 0:
		return fmt.Errorf("%s/%s belongs to root, and root runs no site; say --user ACCOUNT", p.Root, configFile)
	case content.Uid != config.stat.Uid:
		return fmt.Errorf("%s belongs to uid %d, wp-content to uid %d; say --user ACCOUNT, the one that PHP runs as", configFile, p.UID, content.Uid)
	}
	p.Account = "uid:" + strconv.Itoa(p.UID)
	if u, err := user.LookupId(strconv.Itoa(p.UID)); err == nil {
		p.Account = u.Username
		p.GID, _ = strconv.Atoi(u.Gid)
	}
	if p.GID == 0 {
		return fmt.Errorf("%s is of the group root; say --user ACCOUNT", configFile)
	}
	return nil
}

func (p *Place) byName(name string) error {
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			return fmt.Errorf("--user %s: there is no such account", name)
		}
	}
	uid, uidErr := strconv.Atoi(u.Uid)
	gid, gidErr := strconv.Atoi(u.Gid)
	if err := errors.Join(uidErr, gidErr); err != nil {
		return err
	}
	if uid == 0 || gid == 0 {
		return fmt.Errorf("--user %s: root runs no site", name)
	}
	p.UID, p.GID, p.Account, p.By = uid, gid, u.Username, "--user"
	return nil
}

// Name is what a site is called by its directory: the directory's own name, or
// that of the one above where it is one of those that every site has.
func (p *Place) Name() string {
	at := p.Root
	for common[strings.ToLower(path.Base(at))] && path.Dir(at) != "/" {
		at = path.Dir(at)
	}
	return strings.ToLower(path.Base(at))
}

var common = map[string]bool{"public_html": true, "htdocs": true, "httpdocs": true, "html": true, "www": true, "web": true, "public": true, "wordpress": true, "wp": true, "docroot": true, "current": true}
