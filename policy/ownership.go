package policy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"relayguard/policy/address"
	"relayguard/policy/origin"
)

// Addresses says which addresses a login may use, and what follows if it uses
// another. The zero value of a verdict asks nothing.
type Addresses struct {
	Envelope   Verdict // tell, hold or reject
	HeaderFrom Verdict
	Slow       Verdict // when Map does not answer in time: tell, hold or defer

	Book          *AddressBook
	Map           OwnerMap // nil: none
	MapTimeout    time.Duration
	DefaultDomain string // a login without @ owns login@DefaultDomain
	Delimiters    string // the MTA's recipient_delimiter
}

// OwnerMap tells which logins may use addresses: user@domain, or @domain for a
// whole domain. Its answer i is for addresses[i]; logins are in lower case. Empty
// means nobody's, nil that it could not be found out. The error concerns the
// first address alone: of the others it tells what it knows. It returns by
// ctx's deadline.
type OwnerMap interface {
	Owners(ctx context.Context, addresses []string) (logins [][]string, err error)
}

// AddressBook holds what logins may use beside their own address. It is not
// changed once in use. The zero value and nil are empty.
type AddressBook struct {
	logins map[string]*rights
	owners map[string]bool // addresses that some login owns by name
}

type rights struct {
	addresses, domains map[string]bool
	all                bool
}

// Add lets a login use an address ("user@domain"), a domain ("@domain") or
// every address ("*").
func (b *AddressBook) Add(login, use string) error {
	if b.logins == nil {
		b.logins, b.owners = map[string]*rights{}, map[string]bool{}
	}
	login = strings.ToLower(login)
	r := b.logins[login]
	if r == nil {
		r = &rights{addresses: map[string]bool{}, domains: map[string]bool{}}
	}
	switch {
	case use == "*":
		r.all = true
	case strings.HasPrefix(use, "@"):
		d := address.Domain(use[1:])
		if d == "" {
			return fmt.Errorf("address of login %q: found %q, want user@domain, @domain or *", login, use)
		}
		r.domains[d] = true
	default:
		a, ok := address.Parse(use)
		if !ok {
			return fmt.Errorf("address of login %q: found %q, want user@domain, @domain or *", login, use)
		}
		r.addresses[a.Key()] = true
		b.owners[a.Key()] = true
	}
	b.logins[login] = r
	return nil
}

func (b *AddressBook) rights(login string) *rights {
	if b == nil {
		return nil
	}
	return b.logins[login]
}

// taken reports whether the address is some login's by name: given to it, or
// the login itself.
func (s *Addresses) taken(a address.Address) bool {
	b := s.Book
	if b == nil {
		return false
	}
	return b.owners[a.Key()] || b.logins[a.Key()] != nil ||
		a.Domain == address.Domain(s.DefaultDomain) && b.logins[strings.ToLower(a.Local)] != nil
}

// own is the login's own address.
func (s *Addresses) own(login string) (address.Address, bool) {
	if !strings.Contains(login, "@") {
		if s.DefaultDomain == "" {
			return address.Address{}, false
		}
		login += "@" + s.DefaultDomain
	}
	return address.Parse(login)
}

// holder says whether the login may use exactly this address, and whether the
// address is somebody's by name. logins are what the map says of it, whole what
// it says of its domain: a map answers for every address of a domain that has an
// owner as a whole.
func (s *Addresses) holder(login string, a address.Address, logins, whole []string) (may, taken bool) {
	if own, ok := s.own(login); ok && own.Key() == a.Key() {
		return true, true
	}
	if r := s.Book.rights(login); r != nil && (r.all || r.domains[a.Domain] || r.addresses[a.Key()]) {
		return true, true
	}
	if slices.Contains(logins, login) {
		return true, true
	}
	return false, s.taken(a) || len(logins) > 0 && !slices.Equal(logins, whole)
}

// Own reports whether the login may use the address, itself or in one of the
// forms that must pass. An address that has an owner by name is nobody else's,
// whatever form it could be; nor is a form of one (news-bounces+x of the list
// news-bounces is not news's). The map is asked about all of them at once; an
// error means that it did not say whose the address itself is.
func (s *Addresses) Own(ctx context.Context, login string, a address.Address) (bool, error) {
	if may, _ := s.holder(login, a, nil, nil); may {
		return true, nil
	}
	forms := address.Forms(a, s.Delimiters)
	slices.SortStableFunc(forms, func(a, b address.Address) int { return len(b.Local) - len(a.Local) })
	candidates := append([]address.Address{a}, forms...)
	logins, err := s.ask(ctx, candidates)
	if err != nil {
		return false, fmt.Errorf("look up owner of address: %w", err)
	}
	for i, c := range candidates {
		if i > 0 && s.Map != nil && logins[i] == nil {
			return false, nil // whose this form is is not known, so it settles nothing in the login's favour
		}
		if may, taken := s.holder(login, c, logins[i], logins[len(candidates)]); may || taken {
			return may, nil
		}
	}
	return address.IsSRS(a) && s.domainOf(login, a.Domain, logins[len(candidates)]), nil
}

// ask returns what the map says of each address, and last of their domain.
func (s *Addresses) ask(ctx context.Context, candidates []address.Address) ([][]string, error) {
	logins := make([][]string, len(candidates)+1)
	if s.Map == nil {
		return logins, nil
	}
	keys := make([]string, 0, len(logins))
	for _, c := range candidates {
		keys = append(keys, c.Key())
	}
	said, err := s.Map.Owners(ctx, append(keys, "@"+candidates[0].Domain))
	if err != nil {
		return nil, err
	}
	copy(logins, said)
	return logins, nil
}

// domainOf reports whether the login owns some address at the domain: what a
// forwarder rewrites into SRS is the domain's.
func (s *Addresses) domainOf(login, domain string, whole []string) bool {
	if own, ok := s.own(login); ok && own.Domain == domain || slices.Contains(whole, login) {
		return true
	}
	r := s.Book.rights(login)
	if r == nil {
		return false
	}
	if r.all || r.domains[domain] {
		return true
	}
	for key := range r.addresses {
		if strings.HasSuffix(key, "@"+domain) {
			return true
		}
	}
	return false
}

// mapTime bounds what all questions of one decision to the map may take.
func (p *Policy) mapTime(ctx context.Context) (context.Context, context.CancelFunc) {
	if p.Addresses.Map == nil || p.Addresses.MapTimeout <= 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, p.Addresses.MapTimeout)
}

// lookup is Own with an error turned into a finding; ok is true if the login
// may.
func (p *Policy) lookup(ctx context.Context, login string, a address.Address) (ok bool, slow *Finding) {
	ok, err := p.Addresses.Own(ctx, login, a)
	if err == nil {
		return ok, nil
	}
	reason := "the address map cannot be read: " + err.Error()
	if errors.Is(err, context.DeadlineExceeded) {
		reason = fmt.Sprintf("the address map did not answer within %v", p.Addresses.MapTimeout)
	}
	return false, &Finding{RuleMap, p.Addresses.Slow, reason}
}

// envelope judges MAIL FROM of authenticated mail. The null sender is nobody's
// to own: it is charged to the login like any other mail.
func (p *Policy) envelope(ctx context.Context, m *Message, o *origin.Origin) *Finding {
	if !o.Login.Known() || m.MailFrom == "" || p.Addresses.Envelope == 0 || p.autoReplyInside(m) {
		return nil
	}
	a, ok := address.Parse(m.MailFrom)
	if ok {
		owned, slow := p.lookup(ctx, o.Login.Value, a)
		if owned || slow != nil {
			return slow
		}
	}
	return &Finding{RuleEnvelope, p.Addresses.Envelope,
		fmt.Sprintf("login %q sends as %q, which is not its own", o.Login.Value, m.MailFrom)}
}

// autoReplyInside: a vacation program answers to our own people in whatever
// name they wrote to (RFC 3834 §3.1.7). What else is made by programs
// ("auto-generated") has a name of its own.
func (p *Policy) autoReplyInside(m *Message) bool {
	v, _ := m.Header.Get("Auto-Submitted")
	keyword, _, _ := strings.Cut(v, ";")
	keyword, _, _ = strings.Cut(keyword, "(") // Dovecot's Sieve writes "auto-replied (vacation)"
	return strings.EqualFold(strings.TrimSpace(keyword), "auto-replied") && p.Inside.all(m.RcptTo) && m.RcptMore == 0
}

// headerFrom judges the author of authenticated mail. Each address in From must
// be the login's own, unless somebody of its own stands for the message in
// Sender (RFC 5322 §3.6.2) or Resent-* (§3.6.6), or it is a list's post. Without
// From the MTA writes the envelope sender there.
func (p *Policy) headerFrom(ctx context.Context, m *Message, o *origin.Origin, froms []address.Address, readable bool) *Finding {
	if !o.Login.Known() || p.Addresses.HeaderFrom == 0 || p.autoReplyInside(m) {
		return nil
	}
	login := o.Login.Value
	// The sender chose these addresses: one that cannot be looked up stands for
	// nothing.
	for _, name := range []string{"Sender", "Resent-From", "Resent-Sender"} {
		if a, ok := single(&m.Header, name); ok {
			if owned, _ := p.lookup(ctx, login, a); owned {
				return nil
			}
		}
	}
	if m.Header.Count("List-Id")+m.Header.Count("List-Post") > 0 { // RFC 2919, RFC 2369
		if a, ok := address.Parse(m.MailFrom); ok {
			if owned, _ := p.lookup(ctx, login, a); owned {
				return nil
			}
		}
	}
	for _, a := range froms {
		owned, slow := p.lookup(ctx, login, a)
		if slow != nil {
			return slow
		}
		if !owned {
			return &Finding{RuleFrom, p.Addresses.HeaderFrom,
				fmt.Sprintf("login %q writes in the name of %q, which is not its own", login, a)}
		}
	}
	if !readable {
		return &Finding{RuleFrom, p.Addresses.HeaderFrom, "the From field cannot be read"}
	}
	return nil
}

// fromAddresses reads every address of every From field: RFC 5322 §3.6 allows
// one field, but receivers show whichever they like.
func fromAddresses(h *Header) (all []address.Address, readable bool) {
	readable = true
	for _, v := range h.Values("From") {
		list, ok := address.List(v)
		all = append(all, list...)
		readable = readable && ok && len(list) > 0
	}
	return all, readable
}

// single reads a field that names exactly one mailbox and stands once.
func single(h *Header, name string) (address.Address, bool) {
	values := h.Values(name)
	if len(values) != 1 {
		return address.Address{}, false
	}
	list, ok := address.List(values[0])
	if !ok || len(list) != 1 {
		return address.Address{}, false
	}
	return list[0], true
}
