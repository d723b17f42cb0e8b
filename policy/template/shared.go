package template

import (
	"strconv"
	"strings"
	"time"
)

// Shared is who the sender is where many sites share an account: the site that the
// text is of. From is the domain of the message's author, in lower case, or empty.
// The recipients are those that Find is told of next.
//
//   - If the text links to from, to a domain below it or above it, and the account
//     sent mail of that one on Options.Days earlier days, it is that: a link that
//     somebody writes into a form does not hide whose form it is. Without those days
//     it is not believed: some forms have their visitor's address in From.
//   - Else, of all hosts that it links to, it is that which most recipients of the
//     account's mail were to get. Whoever writes others' hosts into a form gets the
//     budgets of those only that have more than the form's own, and what is refused
//     counts for that.
//   - If it links to more hosts than are looked at, it is the account itself.
//   - If it has no links it is from: domains that are new, for newcomers recipients
//     a day together; above that it is the account.
func (m *Memory) Shared(now time.Time, account, from string, t *Text, rcpts []uint64) string {
	at, s := timeOf(now), m.of(account)
	var to recipients
	for _, r := range rcpts {
		to.put(r)
	}
	t.account, t.host, t.newcomers = uint32(s), 0, 0
	site, noted := "", from
	if len(t.Hosts) > 0 {
		site, noted = m.linked(at, s, from, t, &to)
	} else if from != "" {
		site = m.linkless(at, s, from, t, &to)
	}
	if noted != "" {
		t.host = m.hostKey(s, noted)
	}
	if site == "" {
		return account
	}
	return account + " host:" + strconv.FormatUint(m.hostHash(site), 16)
}

// linked is the site of a text with links, empty if that cannot be told, and the
// host of which Sent is to note that it had mail.
func (m *Memory) linked(at moment, account uint64, from string, t *Text, to *recipients) (site, noted string) {
	var own, best struct {
		host  string
		hash  uint64
		count int
	}
	exact, known := false, false
	for _, host := range t.Hosts[:min(len(t.Hosts), maxHosts)] {
		hash := m.hostHash(host)
		v := m.see(at, m.key(account, aHost, hash), uint32(account), aHost, to)
		if best.host == "" || v.count > best.count || v.count == best.count && hash < best.hash {
			best.host, best.hash, best.count = host, hash, v.count
		}
		if exact || !related(host, from) {
			continue
		}
		if exact = host == from; own.host == "" || exact || v.count > own.count {
			own.host, own.count, known = host, v.count, v.known
		}
	}
	switch {
	case own.host != "" && known:
		return own.host, own.host
	case own.host != "":
		noted = own.host
	default:
		noted = best.host
	}
	if t.More {
		return "", noted
	}
	return best.host, noted
}

// related reports whether one domain is the other, or below it.
func related(host, from string) bool {
	if len(host) < len(from) {
		host, from = from, host
	}
	return from != "" && strings.HasSuffix(host, from) && (len(host) == len(from) || host[len(host)-len(from)-1] == '.')
}

// linkless is from, if mail without links is believed to be of that domain.
func (m *Memory) linkless(at moment, account uint64, from string, t *Text, to *recipients) string {
	if m.see(at, m.hostKey(account, from), uint32(account), aHost, to).known {
		return from
	}
	t.newcomers = m.key(account, aHost, 0)
	if m.see(at, t.newcomers, uint32(account), aHost, to).sent >= newcomers {
		return ""
	}
	return from
}

func (m *Memory) hostHash(host string) uint64 {
	var room [64]byte
	return nonzero(sip(m.keys.domain[domainFront], append(room[:0], host...)))
}

func (m *Memory) hostKey(account uint64, host string) uint64 {
	return m.key(account, aHost, m.hostHash(host))
}
