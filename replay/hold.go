package replay

import (
	"container/heap"
	"slices"
	"time"

	"relayguard/policy"
	"relayguard/policy/origin"
)

// held is a message in the hold queue.
type held struct {
	whose
	id         string
	room       string // whose it takes
	at         time.Time
	recipients int
	size       int64
	names      []string // whom it is of, as orders name them
	sent       *sent
	waits      *policy.Waits // nil: it waits for an admin
	alarm      uint64        // the one that counts
	gone       bool
}

// keptFor is how long held mail that nothing releases takes room: by then an
// admin, who gets a notice each day, has seen to it.
const keptFor = 7 * 24 * time.Hour

// holds is the hold queue.
type holds struct {
	all     []*held                     // that take room, the oldest first; some are gone
	n       int                         // of those, that are not
	aging   []*held                     // that wait for budget, the oldest first; some do no more
	waiting map[string]*held            // of those, by id
	of      map[string]map[string]*held // by name and id
}

// manyGone is how many that are gone may be kept beside as many that are not.
const manyGone = 1000

// tidy forgets what is gone, once that is the most.
func (h *holds) tidy() {
	if len(h.all) > 2*h.n+manyGone {
		h.all = slices.DeleteFunc(h.all, func(one *held) bool { return one.gone })
	}
	if len(h.aging) > 2*len(h.waiting)+manyGone {
		h.aging = slices.DeleteFunc(h.aging, func(one *held) bool { return h.waiting[one.id] == nil })
	}
}

func newHolds() holds {
	return holds{waiting: map[string]*held{}, of: map[string]map[string]*held{}}
}

// hold puts a message into the hold queue, and in line if it waits for budget.
func (r *run) hold(m *policy.Message, d *policy.Decision, who whose, s *sent, waits bool) {
	h := &held{whose: who, id: d.ID, room: r.policy().Limits.RoomOf(&d.Origin), at: r.now, recipients: len(m.RcptTo) + m.RcptMore, size: m.Size, names: namesOf(&d.Origin), sent: s}
	r.held.tidy()
	r.held.all = append(r.held.all, h)
	r.held.n++
	for _, name := range h.names {
		if r.held.of[name] == nil {
			r.held.of[name] = map[string]*held{}
		}
		r.held.of[name][h.id] = h
	}
	if !waits {
		return
	}
	if !r.Lines.Add(policy.Waiting{ID: h.id, QueueID: h.id, HeldAt: h.at, Size: h.size, Recipients: h.recipients, Waits: d.Waits}) {
		r.judge.add(who.label, policy.Hold, 1, h.recipients) // no more room in the lines
		return
	}
	h.waits = d.Waits
	r.held.waiting[h.id] = h
	r.held.aging = append(r.held.aging, h)
	r.set(h, r.now.Add(coming))
}

// namesOf are the names by which orders may mean an origin.
func namesOf(o *origin.Origin) []string {
	all := []string{o.Stable()}
	if o.Site.Proven() {
		all = append(all, "site:"+o.Site.Value)
		if o.Plugin.Proven() {
			all = append(all, "plugin:"+o.Plugin.Value)
		}
	}
	return all
}

// leave takes a message out of its lines. It is scored as held or as accepted.
func (r *run) leave(h *held, as policy.Verdict) {
	r.judge.add(h.label, as, 1, h.recipients)
	r.Lines.Remove(h.id, h.id)
	delete(r.held.waiting, h.id)
}

// free takes a message out of the hold queue.
func (r *run) free(h *held) {
	if h.gone {
		return
	}
	h.gone = true
	r.held.n--
	for _, name := range h.names {
		if delete(r.held.of[name], h.id); len(r.held.of[name]) == 0 {
			delete(r.held.of, name)
		}
	}
	if room := r.Enforce.Room; room != nil {
		room.Give(h.room, h.size)
	}
}

// freeOld makes room of what an admin has seen to by now, and forgets what is gone.
func (r *run) freeOld() {
	all := r.held.all
	for len(all) > 0 && (all[0].gone || r.held.waiting[all[0].id] == nil && r.now.Sub(all[0].at) >= keptFor) {
		r.free(all[0])
		all[0] = nil
		all = all[1:]
	}
	r.held.all = all
}

// oldest is the message that waits for budget longest, nil if none does.
func (h *holds) oldest() *held {
	for len(h.aging) > 0 && h.waiting[h.aging[0].id] == nil {
		h.aging[0] = nil
		h.aging = h.aging[1:]
	}
	if len(h.aging) == 0 {
		return nil
	}
	return h.aging[0]
}

// alarm is when a message in line is looked at.
type alarm struct {
	at   time.Time
	turn uint64 // the order in which they were set
	held *held
}

// alarms are those to come, the earliest first; of one moment that which was set
// first, so that budget which accounts share goes round.
type alarms []alarm

func (a alarms) Len() int { return len(a) }
func (a alarms) Less(i, j int) bool {
	return a[i].at.Before(a[j].at) || a[i].at.Equal(a[j].at) && a[i].turn < a[j].turn
}
func (a alarms) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *alarms) Push(x any)   { *a = append(*a, x.(alarm)) }
func (a *alarms) Pop() any {
	last := len(*a) - 1
	x := (*a)[last]
	(*a)[last] = alarm{}
	*a = (*a)[:last]
	return x
}

// set has a message looked at.
func (r *run) set(h *held, at time.Time) {
	r.turns++
	h.alarm = r.turns
	heap.Push(&r.alarms, alarm{at, r.turns, h})
}

// later has a message that is the head of its lines wait.
func (r *run) later(h *held, until time.Time) {
	r.Lines.Later(h.id, h.id, until)
	r.set(h, until)
}

// heads has the heads of some lines looked at now.
func (r *run) heads(lines []policy.LineKey) {
	for _, w := range r.Lines.HeadsOf(r.now, lines) {
		if h := r.held.waiting[w.ID]; h != nil {
			r.set(h, r.now)
		}
	}
}

// first is the earliest alarm that still counts.
func (r *run) first() (alarm, bool) {
	for len(r.alarms) > 0 {
		if a := r.alarms[0]; r.held.waiting[a.held.id] != nil && a.held.alarm == a.turn {
			return a, true
		}
		heap.Pop(&r.alarms)
	}
	return alarm{}, false
}
