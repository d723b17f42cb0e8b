package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	phpcall "relayguard/cmd/internal/call"
	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/nodes"
	"relayguard/cmd/internal/sites"
	"relayguard/mta/sendmail"
	"relayguard/policy"
	"relayguard/policy/limit"
	"relayguard/policy/origin"
	"relayguard/policy/origin/fingerprint"
	"relayguard/policy/origin/stamp"
	"relayguard/policy/template"
)

// recognition is what is known and remembered of where mail is from, beside what
// the MTA and the kernel tell. It outlives a reload.
type recognition struct {
	registry  *sites.File
	replays   *stamp.Replays // of sites' stamps
	relayed   *stamp.Replays // of nodes'
	calls     *phpcall.Calls
	plugins   *policy.Sites
	templates *template.Memory
	peaks     *limit.Peaks
	heard     *nodes.Heard
	signed    stamp.Tally                    // of sites
	relays    stamp.Tally                    // of nodes
	wrapper   atomic.Pointer[phpcall.Server] // nil: nobody listens
	dir       string
	log       *slog.Logger

	usual *learntFile   // of the peaks
	files []*learntFile // that and the others
	soon  chan struct{} // the peaks are to be written
}

// What one stamp, call or bucket takes is below 200 octets.
const (
	maxReplays = 200_000
	maxCalls   = 50_000
	maxPeaks   = 100_000
)

// freshRecognition remembers nothing, and is kept nowhere. The key is of the hashes
// of texts.
func freshRecognition(c *config.Config, key [16]byte) *recognition {
	return &recognition{
		replays: stamp.NewReplays(maxReplays), relayed: stamp.NewReplays(maxReplays), calls: phpcall.NewCalls(maxCalls, time.Now),
		plugins: policy.NewSites(c.Origin.MaxPlugins, 0), peaks: limit.NewPeaks(maxPeaks), heard: nodes.New(),
		templates: template.New(template.Options{Key: key, Parts: c.Origin.TemplateParts, Days: c.Origin.BoilerplateDays}),
	}
}

// openRecognition reads what an earlier run kept. What cannot be read begins
// empty, and is told.
func openRecognition(c *config.Config, key []byte, log *slog.Logger) *recognition {
	sum := sha256.Sum256(append([]byte("relayguard templates\n"), key...))
	r := freshRecognition(c, [16]byte(sum[:16]))
	r.dir, r.log = filepath.Dir(c.Journal.Directory), log
	var err error
	if r.registry, err = sites.Open(filepath.Join(r.dir, "sites.json")); err != nil {
		log.Error("what web sites sign is not believed until they are registered again", "error", err)
	}
	r.usual = r.file("peaks.bin", r.peaks)
	r.files = []*learntFile{r.usual, r.file("templates.bin", r.templates), r.file("plugins.txt", r.plugins), r.file("nodes.txt", r.heard)}
	r.soon = make(chan struct{}, 1)
	for _, file := range r.files {
		if err := file.read(); err != nil {
			log.Error("what was learnt about mail begins anew", "error", err)
		}
	}
	if _, ok := r.peaks.Met(policy.Everybody); !ok { // it begins to learn: the shops here did not begin today
		r.grant(time.Now(), policy.Everybody)
	}
	return r
}

// file is where something is kept while no daemon runs.
func (r *recognition) file(name string, what interface {
	Load(io.Reader) error
	Save(io.Writer) error
}) *learntFile {
	return &learntFile{path: filepath.Join(r.dir, name), load: what.Load, save: what.Save}
}

// keep writes what is learnt every so often, and sooner what an admin has begun
// anew, until ctx ends.
func (r *recognition) keep(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			r.save()
		case <-r.soon:
			r.saveFile(r.usual)
		}
	}
}

// grant begins anew with somebody, and has that written at once. It waits for no
// disk.
func (r *recognition) grant(now time.Time, who string) {
	r.peaks.Grant(now, who)
	select {
	case r.soon <- struct{}{}:
	default: // it is about to be written
	}
}

// save writes what is learnt. It must not run beside keep.
func (r *recognition) save() {
	for _, file := range r.files {
		r.saveFile(file)
	}
}

func (r *recognition) saveFile(file *learntFile) {
	if err := file.write(); err != nil {
		r.log.Error("what was learnt about mail is lost by a restart", "error", err)
	}
}

// sites are those that are registered.
func (r *recognition) sites() []stamp.Site {
	if r.registry == nil {
		return nil
	}
	return r.registry.All()
}

// attribution makes ready what a policy asks. It reads the files that the
// configuration names.
func (r *recognition) attribution(c *config.Config, userID func(string) (int, error)) (*policy.Attribution, []error) {
	var errs []error
	a := &policy.Attribution{Templates: r.templates, Calls: r.calls, Sites: r.plugins, SubmitUID: origin.NoUID, SiteStamps: &r.signed, NodeStamps: &r.relays, UserID: func(name string) (int, bool) {
		uid, err := userID(name)
		return uid, err == nil
	}}
	if c.MTA.Kind == config.KindSendmail {
		a.SubmitUID = r.submitUID(c, userID)
	}
	var err error
	if a.Fingerprints, err = fingerprints(c); err != nil {
		errs = append(errs, err)
	}
	if err := r.register(a); err != nil {
		errs = append(errs, err)
	}
	if a.Nodes, err = r.nodes(c); err != nil {
		errs = append(errs, err)
	}
	if c.Sign.Node != "" {
		key, err := keyIn("sign.key_file", c.Sign.KeyFile)
		if err != nil {
			errs = append(errs, err)
		}
		a.Signer = &policy.Signer{Node: c.Sign.Node, Key: key}
	}
	return a, errs
}

// submitUID is the account of Sendmail's submission program; origin.NoUID if none is to
// be believed.
func (r *recognition) submitUID(c *config.Config, userID func(string) (int, error)) int {
	name, err := sendmail.SubmitUser(c.MTA.ConfigDirectory)
	if err != nil && r.log != nil && !errors.Is(err, fs.ErrNotExist) {
		r.log.Warn("the submission program's account is taken to be the usual one", "account", name, "error", err)
	}
	uid, err := believedSubmitter(c, name, userID)
	if err != nil && r.log != nil {
		r.log.Warn("mail that waited in Sendmail's client queue is charged to the account that hands it on, not to whose it is", "account", name, "error", err,
			"remedy", "in submit.mc give confRUN_AS_USER an account of its own, such as smmsp")
	}
	return uid
}

// believedSubmitter is the account of the submission program, or why its word is not
// taken for who wrote what it hands on. Others send by root and by shared accounts, too,
// by programs whose first line is no word of Sendmail's.
func believedSubmitter(c *config.Config, name string, userID func(string) (int, error)) (int, error) {
	uid, err := userID(name)
	if err != nil {
		return origin.NoUID, fmt.Errorf("RunAsUser of submit.cf: %w", err)
	}
	shared := uid == 0 || slices.ContainsFunc(c.Local.SharedUsers, func(other string) bool {
		at, err := userID(other)
		return err == nil && at == uid
	})
	if shared {
		return origin.NoUID, fmt.Errorf("RunAsUser of submit.cf: many send as %s (root, or local.shared_users)", name)
	}
	return uid, nil
}

// register has a know the sites that are registered now.
func (r *recognition) register(a *policy.Attribution) error {
	all := r.sites()
	book, err := stamp.NewBook(all, r.replays)
	if err != nil {
		return err
	}
	owner := map[int]string{} // of each account its only site, or ""
	for _, s := range all {
		if _, another := owner[s.UID]; another {
			owner[s.UID] = ""
		} else {
			owner[s.UID] = s.Name
		}
	}
	a.Stamps, a.RootOf = book, book.RootOf
	a.SiteOf = func(uid int) (string, bool) {
		name := owner[uid]
		return name, name != ""
	}
	return nil
}

func (r *recognition) nodes(c *config.Config) (*stamp.Nodes, error) {
	if len(c.Nodes) == 0 {
		return nil, nil
	}
	var errs []error
	all := make([]stamp.Node, len(c.Nodes))
	for i, n := range c.Nodes {
		key, err := keyIn("node "+n.Name+": key_file", n.KeyFile)
		if err != nil {
			errs = append(errs, err)
		}
		all[i] = stamp.Node{Name: n.Name, Key: key, Addresses: n.Prefixes}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return stamp.NewNodes(all, r.relayed)
}

// keyIn reads a key of 32 octets, as hexadecimal digits.
func keyIn(what, path string) (stamp.Key, error) {
	text, err := secretIn(what, path)
	if err != nil {
		return nil, err
	}
	key, err := hex.DecodeString(strings.TrimSpace(text))
	if err != nil || len(key) != 32 {
		return nil, fmt.Errorf("%s: %s does not begin with a line of 64 hexadecimal digits; openssl rand -hex 32 writes them", what, path)
	}
	return key, nil
}

// fingerprints are ours and those of the admin's file.
func fingerprints(c *config.Config) (*fingerprint.Set, error) {
	set := fingerprint.Default()
	if c.Origin.Fingerprints == "" {
		return set, nil
	}
	data, err := os.ReadFile(c.Origin.Fingerprints)
	if err == nil {
		set, err = set.Parse(data)
	}
	if err != nil {
		return nil, fmt.Errorf("origin.fingerprints: %s: %w", c.Origin.Fingerprints, err)
	}
	return set, nil
}
