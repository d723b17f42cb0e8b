package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"relayguard/cmd/internal/config"
	"relayguard/milter"
	"relayguard/mta/local"
	"relayguard/mta/postfix"
	"relayguard/policy"
	"relayguard/policy/address"
	"relayguard/policy/origin"
)

// rules are a policy and what it asks.
type rules struct {
	policy     *policy.Policy
	limitNames []string
	abuses     []string      // those of kind abuse
	shared     map[int]bool  // uids of local.shared_users
	queueDir   string        // the MTA's, "" if it could not be asked
	copies     int           // recipients that the MTA adds to each message
	maps       *postfix.Maps // nil: none configured
	unread     []error       // what could not be read, and is lived with at start
}

// incomplete says what could not be read.
func (r *rules) incomplete() error { return errors.Join(r.unread...) }

func (r *rules) close() {
	if r.maps != nil {
		r.maps.Close()
	}
}

// readTimeout bounds what is read of the MTA at start and reload.
const readTimeout = 30 * time.Second

// newRules makes a policy of a configuration, the files that it names, and the
// MTA's own settings. Every problem is reported.
func newRules(ctx context.Context, c *config.Config, s *state, users *local.Users, log *slog.Logger) (*rules, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	p, errs := newPolicy(c, c.Phase, users.Name, s.parts())
	p.Switches, p.Room, p.OwnUID = s.board, s.room, ownUID()
	p.Tokens = func(token string) bool { return s.tokens.take(time.Now(), token) }
	p.Forwarding = s.forwarding.rule(c)
	r := &rules{policy: p, limitNames: limitNames(c), abuses: abuseLimits(c), shared: map[int]bool{}}
	for _, name := range c.Local.SharedUsers {
		if uid, err := userID(name); err == nil {
			r.shared[uid] = true
		}
	}
	code := exitCannotTell // the MTA's fault may pass, the configuration's does not
	if len(errs) > 0 {
		code = exitUsage
	}
	if err := r.askMTA(ctx, c, log); err != nil {
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		r.close()
		return nil, &exitError{code, errors.Join(errs...)}
	}
	return r, nil
}

// newPolicy makes a policy of a configuration and the files that it names alone.
// It is incomplete where there are errors.
func newPolicy(c *config.Config, phase policy.Phase, userName func(uid int) string, on parts) (*policy.Policy, []error) {
	networks, errs := origin.NewNetworks(c.Networks)
	customers, more := customersOf(c)
	errs = append(errs, more...)
	book, more := readAddressBook(c)
	errs = append(errs, more...)
	on.customer = func(o *origin.Origin) origin.Key { // a bucket knows a Unix account by its uid alone
		if name := userName(o.UID); o.UID != origin.NoUID && name != "" {
			o.LocalUser.Value = name
		}
		return customers.Find(o)
	}
	on.userName = userName
	limits, more := policyLimits(c, phase, on)
	errs = append(errs, more...)
	daemonName := c.Local.DaemonName
	if c.MTA.Kind == config.KindSendmail { // which tells no uid in a header field: what is there is forged
		daemonName = ""
	}
	p := &policy.Policy{
		Phase:       phase,
		Finder:      origin.Finder{Networks: networks, Certificates: c.Certificates, Customers: customers, UserName: userName},
		Inside:      policy.Inside{},
		LocalDaemon: daemonName,
		UIDHeader:   milter.UIDHeader,
		OwnUID:      origin.NoUID,
		Addresses: policy.Addresses{
			Envelope:      c.Address.Envelope,
			HeaderFrom:    c.Address.HeaderFrom,
			Slow:          c.Address.MapSlow,
			Book:          book,
			MapTimeout:    c.Address.MapTimeout,
			DefaultDomain: c.Address.DefaultDomain,
			Delimiters:    c.Address.RecipientDelimiter,
		},
		Limits: limits,
	}
	if on.learnt != nil {
		p.Attribution, more = on.learnt.attribution(c, on.uid)
		errs = append(errs, more...)
	}
	for _, d := range c.Inside.Domains {
		p.Inside[d] = true
	}
	return p, errs
}

// ownUID is the daemon's account, whose mail is the guard's own. Root's mail is
// everybody's: cron's, the system's, an intruder's.
func ownUID() int {
	if uid := os.Getuid(); uid != 0 {
		return uid
	}
	return origin.NoUID
}

// askMTA completes the inside domains and the default domain, and opens the
// address maps. An MTA that cannot be asked is told and lived with, unless
// the configuration cannot be followed without it.
func (r *rules) askMTA(ctx context.Context, c *config.Config, log *slog.Logger) error {
	i, err := loadMailServer(ctx, c)
	if err != nil && !c.Inside.FromMTA && len(c.Address.PostfixMaps) == 0 {
		log.Warn("the MTA cannot be asked where its queue is; hold.min_free is not watched", "error", err)
		return nil
	}
	if err != nil {
		if len(c.Address.PostfixMaps) > 0 {
			return fmt.Errorf("address.postfix_maps: %w", err)
		}
		r.unread = append(r.unread, fmt.Errorf("inside.from_mta: %w", err))
		log.Error("inside.from_mta: the MTA cannot be asked, only inside.domains count; set mta.config_directory, or from_mta = false", "error", err)
		return nil
	}
	r.queueDir, r.copies = i.QueueDirectory(), i.Copies()
	if c.Inside.FromMTA {
		r.addInside(ctx, i, log)
		if r.policy.Addresses.DefaultDomain == "" {
			origin, err := i.Origin()
			if err != nil {
				log.Error("address.default_domain: logins without @ own no address of their own", "error", err)
			}
			r.policy.Addresses.DefaultDomain = address.Domain(origin)
		}
	}
	if len(c.Address.PostfixMaps) == 0 {
		return nil
	}
	p, ok := i.(*postfix.Instance)
	if !ok {
		return errors.New("address.postfix_maps: only Postfix has such maps; name address.files in their place")
	}
	r.maps, err = p.OpenMaps(ctx, strings.Join(c.Address.PostfixMaps, ", "), postfix.MapsConfig{Log: log})
	if err != nil {
		return fmt.Errorf("address.postfix_maps: %w", err)
	}
	r.policy.Addresses.Map = r.maps
	r.tryMaps(ctx)
	for _, t := range r.maps.Tables() {
		if t.Err != nil {
			r.unread = append(r.unread, fmt.Errorf("address.postfix_maps: %w", t.Err))
			log.Error("address.postfix_maps: table cannot be read now, it is tried again", "table", t.Table, "error", t.Err)
		}
	}
	return nil
}

// tryTimeout bounds a first question to the maps.
const tryTimeout = 3 * time.Second

// tryMaps asks the maps for nobody's address, so that a table which cannot be
// read says so now and not at the first message. What is asked is example.com's.
func (r *rules) tryMaps(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	if _, err := r.maps.Owners(ctx, []string{"relayguard-probe@example.com"}); err != nil {
		r.unread = append(r.unread, fmt.Errorf("address.postfix_maps: %w", err))
	}
}

func (r *rules) addInside(ctx context.Context, i mailServer, log *slog.Logger) {
	domains, unread, err := i.InsideDomains(ctx)
	if err != nil {
		r.unread = append(r.unread, fmt.Errorf("inside.from_mta: %w", err))
		log.Error("inside.from_mta: only inside.domains count", "error", err)
	}
	for _, u := range unread {
		log.Warn("inside.from_mta: not readable; add its domains to inside.domains", "error", u)
	}
	for _, d := range domains {
		if d = address.Domain(d); d != "" {
			r.policy.Inside[d] = true
		}
	}
}

// readAddressBook joins address.logins with the files of address.files.
func readAddressBook(c *config.Config) (*policy.AddressBook, []error) {
	book := &policy.AddressBook{}
	var errs []error
	for login, uses := range c.Address.Logins {
		for _, use := range uses {
			if err := book.Add(login, use); err != nil {
				errs = append(errs, err)
			}
		}
	}
	for _, path := range c.Address.Files {
		errs = append(errs, addFile(book, path)...)
	}
	return book, errs
}

func addFile(book *policy.AddressBook, path string) []error {
	f, err := os.Open(path)
	if err != nil {
		return []error{fmt.Errorf("address.files: %w", err)}
	}
	defer f.Close()
	return addLines(book, path, f)
}

// addLines reads lines of LOGIN ADDRESS[, ADDRESS...]; # begins a comment.
func addLines(book *policy.AddressBook, path string, r io.Reader) []error {
	var errs []error
	lines := bufio.NewScanner(r)
	n := 0
	for lines.Scan() {
		n++
		text, _, _ := strings.Cut(lines.Text(), "#")
		fields := strings.FieldsFunc(text, func(c rune) bool { return c == ' ' || c == '\t' || c == ',' })
		switch len(fields) {
		case 0:
			continue
		case 1:
			errs = append(errs, fmt.Errorf("%s:%d: found only %q, want a login and its addresses", path, n, fields[0]))
		}
		for _, use := range fields[1:] {
			if err := book.Add(fields[0], use); err != nil {
				errs = append(errs, fmt.Errorf("%s:%d: %w", path, n, err))
			}
		}
	}
	if err := lines.Err(); err != nil {
		errs = append(errs, fmt.Errorf("read %s: %w", path, err))
	}
	return errs
}
