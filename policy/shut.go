package policy

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"relayguard/policy/limit"
	"relayguard/policy/origin"
)

// addShut makes an order found that shuts a bucket: by the part of its value that
// says the most.
func (s *Switches) addShut(sw *Switch) {
	if s.shut == nil {
		s.shut = map[string][]*Switch{}
	}
	part := slices.MinFunc(strings.Split(sw.Value, " "), func(a, b string) int { return shutRank(a) - shutRank(b) })
	s.shut[part] = append(s.shut[part], sw)
	slices.SortFunc(s.shut[part], func(a, b *Switch) int { return strings.Compare(a.Rule, b.Rule) })
}

// shutRank is less for what is about less.
func shutRank(part string) int {
	kind, _, _ := strings.Cut(part, ":")
	return slices.Index([]string{"server", "domain", "site", "local_user", "plugin"}, kind) * -1
}

// Shut is the order that shuts a bucket of mail of this web node, nil if there is
// none. The values are those that the relay gives its buckets.
func (s *Switches) Shut(now time.Time, o *origin.Origin, node string) *Switch {
	if !s.has(Shut) {
		return nil
	}
	parts := nodeParts(o, node)
	for _, part := range parts {
		for _, sw := range s.shut[part] {
			if !sw.Over(now) && allIn(strings.Split(sw.Value, " "), parts) {
				return sw
			}
		}
	}
	return nil
}

func allIn(all, in []string) bool {
	return !slices.ContainsFunc(all, func(one string) bool { return !slices.Contains(in, one) })
}

// nodeParts are the parts of buckets that the relay has for mail of this node, as
// far as the node can tell.
func nodeParts(o *origin.Origin, node string) []string {
	var parts []string
	add := func(part string) { parts = append(parts, strings.ReplaceAll(part, " ", "%20")) }
	if o.Site.Proven() {
		plugin := Unlabelled
		if o.Plugin.Proven() {
			plugin = o.Plugin.Value
		}
		add("plugin:" + plugin + "@" + o.Site.Value)
		add("site:" + o.Site.Value)
	}
	if o.UID != origin.NoUID {
		add("local_user:" + strconv.Itoa(o.UID) + "@" + node)
	}
	if d := o.Domain(); d != "" {
		add("domain:" + d)
	}
	return parts
}

// shut is what an order of the relay finds that shuts a bucket of this node's mail.
func (p *Policy) shut(s *Switches, now time.Time, m *Message, o *origin.Origin) *Finding {
	signer := p.signer()
	if signer == nil || p.own(m) || m.Role == Inbound || m.Role == Egress {
		return nil
	}
	if sw := s.Shut(now, o, signer.Node); sw != nil && p.leaves(m) { // the limit may not count what is for our own people: the relay knows
		return &Finding{sw.Rule, Hold, "the relay has shut " + sw.Value + ": " + sw.Reason}
	}
	return nil
}

// ForNodes reports whether web nodes are to hold the mail of a bucket that is shut:
// whether a node can tell that mail is of it, and all of that is stopped here. A
// limit on first-time recipients lets mail to others pass. Of an extension, that is
// not waited for; of a site's own software, which sends the password resets, or of
// the whole site, the relay alone decides.
func (l *Limits) ForNodes(limitName, value string) bool {
	if l == nil || l.names[limitName] == nil {
		return false
	}
	r := l.names[limitName]
	whose := originOf(value, len(r.Per))
	if r.tells || r.whole.Kind != limit.Abuse || r.Scope == InsideOnly || r.when.timed || r.when.atEnd || !r.when.from(&whose) {
		return false
	}
	extension := false
	for part := range strings.SplitSeq(value, " ") {
		kind, v, _ := strings.Cut(part, ":")
		switch kind {
		case "site", "domain":
		case "plugin":
			name, _, _ := strings.Cut(v, "@")
			extension = extension || name != origin.OwnSoftware && name != Unlabelled
		case "local_user":
			if !strings.Contains(v, "@") { // of this machine
				return false
			}
		default:
			return false
		}
	}
	return extension || r.Counts != limit.FirstTime
}

// Latched reports whether a bucket is shut. A limit that is not configured any more
// has none.
func (l *Limits) Latched(ctx context.Context, now time.Time, name, value string) (bool, error) {
	if l == nil || l.names[name] == nil {
		return false, nil
	}
	charge := l.names[name].whole.Charge(value, 0, nil)
	var out limit.Outcome
	step := limit.Step{Charges: []limit.Charge{charge}, Known: limit.Known{Account: value}}
	if err := l.opt.Store.Peek(ctx, now, &step, &out); err != nil {
		return false, fmt.Errorf("ask whether %s of %s is shut: %w", name, value, err)
	}
	return out.Latched[0], nil
}
