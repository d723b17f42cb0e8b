package cause

import (
	"cmp"
	"math"
	"slices"
	"strings"
)

// What the parts of a score are worth: how much each alone makes somebody a suspect.
const (
	worthVolume    = 0.70
	worthStops     = 0.60
	worthBounces   = 0.60
	worthFirstTime = 0.50
	worthReleased  = 0.30

	// Of a size that counts for half. A listing takes more than a few messages.
	halfVolume    = 20 // recipients
	halfStops     = 20
	halfBounces   = 10
	halfFirstTime = 25
	halfReleased  = 10

	worstBounces = 0.15 // of deliveries: as bad as it gets
	sentBefore   = 0.30 // what a volume above usual is worth if as much was sent on one day before

	// usualSender is what first-time recipients and would-be stops are worth of one
	// that sends no more than usual: a shop's orders all go to new customers, and a
	// newsletter is over the same limit every week.
	usualSender = 0.20

	// leastShare is what is left of a score without any part in the excess.
	leastShare = 0.50

	standsOut = 0.15 // a score

	// explains: a part of what one did is nearly all of it.
	explains = 0.80
)

// Rank puts them in order, likeliest first, and leaves out those that do not stand
// out and those from whom nothing went out. Where one explains nearly all of what a
// larger one did (a plugin of its site), the larger stands behind it.
//
// The order depends on nothing but the numbers and names: the same in another order
// ranks the same.
func Rank(all []Activity) []Suspect {
	r := ranking{named: map[name]*Suspect{}}
	for _, a := range all {
		if a.Recipients > 0 || a.Released > 0 || a.Sent+a.Bounced > 0 { // no strangers at the door, nobody of whom all was stopped
			r.all = append(r.all, &Suspect{Activity: a})
		}
	}
	slices.SortStableFunc(r.all, func(a, b *Suspect) int { // sums of fractions depend on their order
		return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.Name, b.Name), cmp.Compare(a.Recipients, b.Recipients))
	})
	for _, s := range r.all {
		r.named[name{s.Kind, s.Name}] = s
		if s.Kind == Account || s.Kind == Forward {
			r.recipients += float64(s.Recipients)
			r.excess += excess(&s.Activity)
		}
	}
	for _, s := range r.all {
		s.Score = r.score(&s.Activity)
		if r.recipients > 0 {
			s.Share = min(1, float64(s.Recipients)/r.recipients)
		}
	}
	r.narrow()
	var found []Suspect
	for _, s := range r.all {
		if s.Score >= standsOut {
			found = append(found, *s)
		}
	}
	slices.SortStableFunc(found, func(a, b Suspect) int {
		return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(narrowness(a.Kind), narrowness(b.Kind)),
			cmp.Compare(b.Recipients, a.Recipients), strings.Compare(a.Name, b.Name))
	})
	return found
}

type name struct{ kind, name string }

// ranking is what is known of all of them. A message counts for an account, and
// perhaps for its site, plugin and template: sums are of accounts, and of forwarded
// mail, which is nobody's.
type ranking struct {
	all        []*Suspect
	named      map[name]*Suspect
	recipients float64
	excess     float64
}

// volume is what went out. What was held and let go did, too: each to one at least.
func volume(a *Activity) float64 { return float64(a.Recipients + a.Released) }

// excess is what went out beyond what is usual; all of it if that is not known.
func excess(a *Activity) float64 { return max(0, volume(a)-max(0, a.Usual)) }

// score says how much one stands out.
func (r *ranking) score(a *Activity) float64 {
	odd := max(usualSender, aboveUsual(a, float64(a.Stopped)))
	parts := []float64{
		worthVolume * r.byVolume(a),
		worthStops * odd * half(float64(a.Told+a.Stopped), halfStops) * share(a.Told+a.Stopped, a.Recipients+a.Stopped),
		worthBounces * half(float64(a.Bounced)-max(0, a.UsualBounced), halfBounces) * min(1, share(a.Bounced, a.Sent+a.Bounced)/worstBounces),
		worthFirstTime * odd * half(float64(a.FirstTime), halfFirstTime) * share(a.FirstTime, a.Recipients),
		worthReleased * odd * half(float64(a.Released), halfReleased),
	}
	rest := 1.0
	for _, p := range parts {
		rest *= 1 - p
	}
	return (1 - rest) * (leastShare + (1-leastShare)*math.Sqrt(r.partOfExcess(a)))
}

// byVolume is 0 for as much as is usual, near 1 for many times that. Of one of whom
// nothing is known before, only its part in all mail tells something.
func (r *ranking) byVolume(a *Activity) float64 {
	if a.Usual < 0 {
		if r.recipients == 0 {
			return 0
		}
		return min(1, volume(a)/max(volume(a), r.recipients)) * half(volume(a), halfVolume) / 2
	}
	return aboveUsual(a, 0)
}

// aboveUsual is 0 for as much as is usual, a half for three times that, near 1 for
// many times; little for a few recipients, and for as much as there was on one day
// before. Not known: a half.
func aboveUsual(a *Activity, stopped float64) float64 {
	if a.Usual < 0 {
		return 0.5
	}
	n := volume(a) + stopped
	over := n - a.Usual
	if over <= 0 {
		return 0
	}
	above := over / (over + 2*a.Usual + halfVolume)
	if a.UsualMost <= 0 {
		return above
	}
	again := min(1, max(0, n/a.UsualMost-1)) // from as much to twice as much it counts again
	return above * (sentBefore + (1-sentBefore)*again)
}

// partOfExcess is one's part in what all sent beyond what is usual.
func (r *ranking) partOfExcess(a *Activity) float64 {
	if r.excess <= 0 {
		return 0
	}
	return min(1, excess(a)/r.excess)
}

// half is 0 for nothing, a half for n = middle, near 1 for many.
func half(n, middle float64) float64 {
	if n <= 0 {
		return 0
	}
	return n / (n + middle)
}

// share is n of all, 0 to 1.
func share(n, all int64) float64 {
	if n <= 0 || all <= 0 {
		return 0
	}
	return min(1, float64(n)/float64(all))
}

// narrowness orders what an admin would rather suspend: the smallest first.
// Templates come last, for they have no switch.
func narrowness(kind string) int {
	return slices.Index([]string{Plugin, Site, Account, Forward, Template}, kind)
}

const (
	behind   = 0.99 // by how much one stands behind what explains it
	noSwitch = 0.95 // what a score is worth where nothing can be suspended
)

// narrow has the larger stand behind the smaller that explains it: first sites, then
// accounts, so that an account stands behind a site that stands behind its plugin.
// A template, which nobody can suspend, stands behind the account that nearly all of
// it is from, unless that account (a shared one) hardly stands out itself.
func (r *ranking) narrow() {
	for _, s := range r.all {
		switch {
		case s.Kind != Plugin:
		case s.Site != "":
			r.putBehind(name{Site, s.Site}, s)
		default: // nobody proved of which site
			r.putBehind(name{Account, s.Account}, s)
		}
	}
	for _, s := range r.all {
		if s.Kind == Site {
			r.putBehind(name{Account, s.Account}, s)
		}
	}
	for _, s := range r.all {
		if s.Kind != Template {
			continue
		}
		s.Score *= noSwitch
		owner := r.named[name{Account, s.Account}]
		if owner != nil && owner.Score >= s.Score/2 && excess(&owner.Activity) >= explains*excess(&s.Activity) {
			s.Score = min(s.Score, owner.Score*behind)
		}
	}
}

// putBehind puts the larger behind its part, if that explains it.
func (r *ranking) putBehind(larger name, part *Suspect) {
	whole := r.named[larger]
	if whole == nil || part.Score < standsOut || excess(&whole.Activity) == 0 || excess(&part.Activity) < explains*excess(&whole.Activity) {
		return
	}
	whole.Score = min(whole.Score, part.Score*behind)
}
