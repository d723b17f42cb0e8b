package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/render"
	"relayguard/cmd/internal/sites"
	"relayguard/wordpress"
)

// siteHand is how this program starts itself to work on a site's files.
var siteHand = wordpress.Hand{"/proc/self/exe", "wordpress", siteFilesCommand}

const siteFilesCommand = "site-files"

func newWordPress() *cobra.Command {
	return group("wordpress", "make WordPress sites sign which plugin a mail is from", `
Puts a must-use plugin into WordPress sites that signs, into each mail, which plugin
or theme wrote it, through which entry (ajax, cron, REST, page), from which file and
line, and for which web client. With that one abused form can be stopped while the
site's other mail goes on. Mail that is not signed is not refused for it: it counts
as unattributed.

All that is written into a document root is written as the site's own account, never
through symbolic links, and never over anybody else's file.`,
		newWordPressInstall(), newWordPressStatus(), newWordPressRemove(), newSiteFiles())
}

// place are the flags that say where a site is.
type place struct{ account, content string }

func (p *place) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.account, "user", "", "`account` that the site's PHP runs as, if it is not the owner of wp-config.php")
	cmd.Flags().StringVar(&p.content, "content", "", "`directory` wp-content, if it is not in PATH")
}

// find looks at a site, as it is registered where the command line says nothing
// else.
func (p *place) find(cmd *cobra.Command, known *register, path string) (*wordpress.Place, error) {
	found, err := p.look(known, path)
	switch {
	case errors.Is(err, os.ErrPermission):
		return nil, &exitError{exitCannotTell, &escapedError{err}}
	case err != nil:
		return nil, usage(cmd, "%s", render.Escape(err.Error()))
	}
	return found, nil
}

// look is find without words for people. A site is registered with a content
// directory if it was installed with --content or --user: then its account, too, is
// the one that is registered, as long as there is such a one.
func (p *place) look(known *register, path string) (*wordpress.Place, error) {
	site, registered := known.at(rootOf(path))
	if !registered || site.Content == "" {
		return wordpress.Find(path, p.content, p.account)
	}
	content := cmp.Or(p.content, site.Content)
	if p.account != "" {
		return wordpress.Find(path, content, p.account)
	}
	found, err := wordpress.Find(path, content, strconv.Itoa(site.UID))
	if err == nil {
		found.By = "as it is registered"
		return found, nil
	}
	if owned, ownedErr := wordpress.Find(path, content, ""); ownedErr == nil {
		return owned, nil
	}
	return nil, err
}

// rootOf is what a directory is registered as: absolute, without links. What is
// gone has none left.
func rootOf(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		return real
	}
	if above, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
		return filepath.Join(above, filepath.Base(abs))
	}
	return abs
}

// register is what the daemon knows of sites. It may be away: then err says so,
// and files can be seen to nevertheless.
type register struct {
	all []sites.Info
	err error
}

func askRegister(cmd *cobra.Command) register {
	all, err := get[[]sites.Info](cmd, "/v1/sites", nil)
	return register{all, err}
}

// at is the site of a document root.
func (r *register) at(root string) (sites.Info, bool) {
	for _, s := range r.all {
		if s.Root == root {
			return s, true
		}
	}
	return sites.Info{}, false
}

// named is the site that is called so.
func (r *register) named(name string) (sites.Info, bool) {
	for _, s := range r.all {
		if s.Name == name {
			return s, true
		}
	}
	return sites.Info{}, false
}

// name decides what the site is called: as it is registered, as it was asked, or
// by its directory.
func (r *register) name(cmd *cobra.Command, p *wordpress.Place, asked string) (name, by string, err error) {
	known, registered := r.at(p.Root)
	name, by = p.Name(), "by its directory; --site NAME says otherwise"
	if registered {
		name, by = known.Name, "as it is registered"
	}
	if asked != "" {
		name, by = asked, "--site"
	}
	if err := sites.CheckName(name); err != nil {
		return "", "", usage(cmd, "%v; say --site NAME", err)
	}
	if registered && known.Name != name {
		return "", "", usage(cmd, "%s is registered as %s; first: relayguard wordpress remove %s", render.Escape(p.Root), render.Escape(known.Name), shellWord(p.Root, "PATH"))
	}
	if s, taken := r.named(name); taken && s.Root != p.Root {
		return "", "", usage(cmd, "site %s is registered with %s; say --site with another name, or first: relayguard wordpress remove %s", name, render.Escape(where(s)), name)
	}
	return name, by, nil
}

func where(s sites.Info) string {
	if s.Root == "" {
		return "no directory"
	}
	return s.Root
}

// neighbours are the other sites that the same account runs.
func (r *register) neighbours(name string, uid int) []string {
	var all []string
	for _, s := range r.all {
		if s.UID == uid && s.Name != name {
			all = append(all, s.Name)
		}
	}
	return all
}

func newWordPressInstall() *cobra.Command {
	var at place
	var site string
	var renew bool
	cmd := &cobra.Command{
		Use:   "install PATH",
		Short: "put the must-use plugin and a key into a site, and register it",
		Long: strings.TrimSpace(`
Puts the must-use plugin and a key of its own into the WordPress at PATH, its
document root, and registers the site with the daemon. Run again it brings both up
to date; a key that is there stays, unless --new-key.

The files are wp-content/mu-plugins/relayguard.php and, readable by the site's
account only, wp-content/mu-plugins/relayguard/key.php.

The account is the owner of wp-config.php; PHP must run as it. Where all sites run as
one account each can read the other's key: then say --user with that account, and
do not rely on what is signed.

A copy of a site has the key of the original, which cannot be the key of both: for the
copy say --new-key.

What --content and --user said is registered, and need not be said again.

If the daemon does not run the files are put in place and nothing is registered:
mail goes, unattributed. Run the same again when it does.

Exit status: 0; 2 usage, or PATH is no WordPress; 3 something could not be done, or
is not allowed.`),
		Example: "  relayguard wordpress install /srv/www/shop.example.jp\n  relayguard wordpress install /home/taro/public_html --site shop.example.jp --user taro",
		Args:    exactly("PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			known := askRegister(cmd)
			p, err := at.find(cmd, &known, args[0])
			if err != nil {
				return err
			}
			defer p.Close()
			i := installation{Place: p, known: &known}
			if s, _ := known.at(p.Root); at != (place{}) || s.Content != "" {
				i.content = p.Content
			}
			if i.name, i.by, err = known.name(cmd, p, site); err != nil {
				return err
			}
			if i.keys, err = i.whichKey(cmd, renew); err != nil {
				return err
			}
			return i.run(cmd)
		},
	}
	cmd.Flags().StringVar(&site, "site", "", "what the site is called: its host `name`")
	cmd.Flags().BoolVar(&renew, "new-key", false, "make a new key; mail under way with the old one counts as unattributed")
	at.flags(cmd)
	return cmd
}

// installation is what install does.
type installation struct {
	*wordpress.Place
	known    *register
	name, by string
	content  string // to be registered
	keys     wordpress.Keys
}

// whichKey finds out whether the key that is there is another site's: then nothing
// is written. While the daemon cannot be asked, its file stays as it is.
func (i *installation) whichKey(cmd *cobra.Command, renew bool) (wordpress.Keys, error) {
	switch {
	case renew:
		return wordpress.AnotherKey, nil
	case i.known.err != nil:
		return wordpress.SameFile, nil
	}
	now, err := i.Status(cmd.Context(), siteHand)
	if err != nil {
		return wordpress.SameKey, nil // install says what is wrong
	}
	for _, s := range i.known.all {
		if s.KeyID == now.KeyID && s.Name != i.name {
			return 0, usage(cmd, "the key in %s is that of site %s (%s), of which this seems to be a copy; --new-key makes one for %s", render.Escape(i.Content), render.Escape(s.Name), render.Escape(where(s)), i.name)
		}
	}
	return wordpress.SameKey, nil
}

func (i *installation) run(cmd *cobra.Command) error {
	done, err := i.Install(cmd.Context(), siteHand, i.name, i.keys)
	if err != nil {
		return &exitError{exitCannotTell, &escapedError{fmt.Errorf("install into %s as %s: %w", i.Root, i.Account, err)}}
	}
	err = i.known.err
	if err == nil {
		_, err = post[sites.Info](cmd, "/v1/sites", sites.Registration{Name: i.name, UID: i.UID, KeyID: done.Key.ID, Key: done.Key.Secret, Root: i.Root, Content: i.content})
	}
	l := pairList{}
	l.add("site", "%s (%s)", i.name, i.by)
	l.add("account", "%s (%s)", i.Account, i.By)
	l.add("root", "%s", i.Root)
	if i.content != "" {
		l.add("content", "%s", i.content)
	}
	l.add("files", "%s", changed(done.Changed, "written", "as they were"))
	registered := "yes, key " + done.Key.ID
	if err != nil {
		registered = "no"
	}
	l.add("registered", "%s", registered)
	if pageErr := render.PageOf(cmd.OutOrStdout()).Pairs(cmd.OutOrStdout(), l); pageErr != nil {
		return &exitError{exitCannotTell, pageErr}
	}
	if others := i.known.neighbours(i.name, i.UID); len(others) > 0 {
		remark(cmd, "account %s also runs %s: these sites can read each other's keys", i.Account, some(others))
	}
	if err != nil {
		why := "the daemon did not take its key"
		if i.known.err != nil {
			why = "the daemon does not know its key"
		}
		remark(cmd, "the site signs its mail, but %s: the mail counts as unattributed until this command was run again", why)
		return &exitError{exitCannotTell, err}
	}
	return nil
}

// some are at most five names.
func some(names []string) string {
	const most = 5
	if len(names) > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}

func changed(files []string, done, none string) string {
	if len(files) == 0 {
		return none
	}
	return done + ": " + strings.Join(files, ", ")
}

func newWordPressRemove() *cobra.Command {
	var at place
	cmd := &cobra.Command{
		Use:   "remove PATH|SITE",
		Short: "take the must-use plugin and the key out of a site, and forget it",
		Long: strings.TrimSpace(`
Takes out what install put into the WordPress at PATH and nothing else, then makes
the daemon forget the site's key. What is no file of relayguard's stays, and is
named. If PATH is gone the site is only forgotten. In place of PATH the name can be
said under which a site is registered.

Exit status: 0; 1 something of another's stayed; 2 usage; 3 something could not be
done, or is not allowed.`),
		Example: "  relayguard wordpress remove /srv/www/shop.example.jp",
		Args:    exactly("PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			known := askRegister(cmd)
			root, site, gone := known.meant(args[0])
			done := wordpress.Removed{}
			if !gone {
				p, err := at.find(cmd, &known, root)
				if err != nil {
					return err
				}
				defer p.Close()
				root = p.Root
				site, _ = known.at(root)
				if done, err = p.Remove(cmd.Context(), siteHand); err != nil {
					return &exitError{exitCannotTell, &escapedError{fmt.Errorf("remove from %s as %s: %w", p.Root, p.Account, err)}}
				}
			}
			if gone && known.err == nil && site.Name == "" {
				return usage(cmd, "%s is no directory, and no site is registered there or called so", render.Escape(root))
			}
			return forget(cmd, &known, root, site, done)
		},
	}
	at.flags(cmd)
	return cmd
}

// meant is the directory, and the site that is registered with it, that somebody
// names by PATH or by SITE; gone if there is no such directory any more.
func (r *register) meant(arg string) (root string, site sites.Info, gone bool) {
	if _, err := os.Lstat(filepath.Clean(arg)); !errors.Is(err, os.ErrNotExist) {
		return arg, sites.Info{}, false
	}
	root = rootOf(arg)
	if site, registered := r.at(root); registered {
		return root, site, true
	}
	if site, registered := r.named(arg); registered {
		_, err := os.Lstat(site.Root)
		return site.Root, site, errors.Is(err, os.ErrNotExist)
	}
	return root, sites.Info{}, true
}

// forget has the daemon forget a site, if it is registered.
func forget(cmd *cobra.Command, known *register, root string, site sites.Info, done wordpress.Removed) error {
	err := known.err
	registered := site.Name != ""
	if registered {
		_, err = forgetSite(cmd, site.Name)
	}
	l := pairList{}
	l.add("root", "%s", cmp.Or(root, "no directory"))
	l.add("files", "%s", changed(done.Changed, "removed", "none of relayguard's found"))
	switch {
	case err != nil:
		l.add("registered", "not known")
	case registered:
		l.add("registered", "%s is forgotten", site.Name)
	default:
		l.add("registered", "it was not")
	}
	pageErr := render.PageOf(cmd.OutOrStdout()).Pairs(cmd.OutOrStdout(), l)
	remarks(cmd, done.Remarks)
	switch {
	case err != nil:
		remark(cmd, "the daemon may still have the site's key, which does no harm; to have it forgotten run this again when it runs")
		return &exitError{exitCannotTell, err}
	case pageErr != nil:
		return &exitError{exitCannotTell, pageErr}
	case len(done.Remarks) > 0:
		return &exitError{code: exitFinding}
	}
	return nil
}

func forgetSite(cmd *cobra.Command, name string) (out sites.Removed, err error) {
	client, _, err := asker(cmd)
	if err == nil {
		err = answerOf(client.Delete(cmd.Context(), "/v1/sites/"+url.PathEscape(name), &out))
	}
	return out, err
}

func newSiteFiles() *cobra.Command {
	return &cobra.Command{
		Use:    siteFilesCommand,
		Short:  "work on a site's files, as the site's account; other commands start it",
		Hidden: true,
		Args:   noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := wordpress.Child(os.Stdin, os.Stdout); err != nil {
				return &exitError{exitCannotTell, err}
			}
			return nil
		},
	}
}

// siteState is how one site is: for status.
type siteState struct {
	Site       string          `json:"site,omitempty"`
	Root       string          `json:"root"`
	UID        int             `json:"uid"`
	Plugin     wordpress.State `json:"plugin,omitempty"`
	Key        wordpress.State `json:"key,omitempty"`
	KeyID      string          `json:"key_id,omitempty"`
	Registered string          `json:"registered"` // "yes", "no", "other key", "other account", "not known"
	Remarks    []string        `json:"remarks,omitempty"`

	unsure bool // something could not be looked at
}

// good reports whether the site's mail is attributed.
func (s *siteState) good() bool {
	return s.Plugin == wordpress.Current && s.Key == wordpress.Current && s.Registered == "yes" && len(s.Remarks) == 0
}

// look fills in what the files say.
func (s *siteState) look(ctx context.Context, p *wordpress.Place) {
	files, err := p.Status(ctx, siteHand)
	s.Plugin, s.Key, s.KeyID, s.Remarks = files.Plugin, files.Key, files.KeyID, files.Remarks
	if err != nil {
		s.unsure = true
		s.Remarks = append(s.Remarks, err.Error())
	}
}

// compare says whether the daemon knows it so.
func (s *siteState) compare(known *register) {
	site, registered := known.at(s.Root)
	switch {
	case known.err != nil:
		s.Registered, s.unsure = "not known", true
	case !registered:
		s.Registered = "no"
	case s.KeyID != "" && site.KeyID != s.KeyID:
		s.Registered = "other key"
	case site.UID != s.UID:
		s.Registered = "other account"
	default:
		s.Registered = "yes"
	}
	if s.Site = site.Name; s.Registered != "yes" && s.Registered != "not known" && s.Plugin != wordpress.Missing {
		s.Remarks = append(s.Remarks, "what it signs is not believed: run relayguard wordpress install "+shellWord(s.Root, "PATH"))
	}
}
