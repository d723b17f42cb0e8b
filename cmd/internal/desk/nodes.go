package desk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"relayguard/cmd/internal/switches"
	"relayguard/policy"
	"relayguard/policy/limit"
)

// Nodes knows the Unix accounts of web nodes that have sent mail. It must not
// wait, and is safe for concurrent use.
type Nodes interface {
	// ID is an account by its name: "1001@web3" of "site12@web3".
	ID(name string) (id string, ok bool)
	// Name is the name of an account, "" if it is not known.
	Name(id string) string
}

// LocalID is a Unix account as switches name it, of this machine ("33") or of a web
// node ("1001@web3"), by its name or uid, with or without "uid:" before it.
func (d *Desk) LocalID(name string) (string, error) {
	name = strings.TrimPrefix(name, "uid:")
	uid, err := d.UID(name)
	if err == nil {
		return strconv.Itoa(uid), nil
	}
	account, node, on := strings.Cut(name, "@")
	if !on || node == "" {
		return "", err
	}
	if uid, err := strconv.ParseUint(account, 10, 32); err == nil {
		return strconv.FormatUint(uid, 10) + "@" + node, nil
	}
	if id := d.nodeID(name); id != "" {
		return id, nil
	}
	return "", fmt.Errorf("%w, and no such account of a web node has sent mail; one that has not is named by its uid, 1001@%s", err, node)
}

// nodeID is an account of a web node by its name or, as the journal may have it,
// "uid:1001@web3"; "" if there is none.
func (d *Desk) nodeID(name string) string {
	if id, ok := strings.CutPrefix(name, "uid:"); ok && strings.Contains(id, "@") {
		return id
	}
	if d.Nodes == nil {
		return ""
	}
	if id, ok := d.Nodes.ID(name); ok {
		return id
	}
	return ""
}

// localName is a Unix account as the journal has it.
func (d *Desk) localName(id string) string {
	name := ""
	if uid, here := d.here(id); here {
		if name = d.UserName(uid); name == "" {
			id = strconv.Itoa(uid)
		}
	} else if d.Nodes != nil {
		name = d.Nodes.Name(id)
	}
	if name == "" {
		return "local_user:uid:" + id
	}
	return "local_user:" + name
}

// ownNode is this guard's name as a web node, "" if it is none.
func (d *Desk) ownNode() string {
	if d.Node == nil {
		return ""
	}
	return d.Node()
}

// here is the uid on this machine of an account that a switch names, if it is one
// of this machine.
func (d *Desk) here(id string) (uid int, ok bool) { return accountHere(id, d.ownNode()) }

func accountHere(id, node string) (uid int, ok bool) {
	if node != "" {
		id = strings.TrimSuffix(id, "@"+node)
	}
	uid, err := strconv.Atoi(id)
	return uid, err == nil
}

// onlyHere is what an admin has to know who resumes something on a web node.
const onlyHere = "this is a web node: what the relay holds or has shut it goes on to hold until it is resumed there"

// toShut is an order for web nodes that is to be given.
type toShut struct {
	reason string
	since  time.Time
}

const (
	// maxToShut bounds the orders that wait to be given; what is left out is noted
	// again by the next message.
	maxToShut = 1000
	// maxShut bounds the orders in force: beyond, the relay alone stops the mail.
	maxShut = 5000
	// shutPause is how long it rests between orders, so that many at once do not
	// keep the disk busy.
	shutPause = 20 * time.Millisecond
	// openEvery is how often it is looked whether what nodes hold is still shut.
	openEvery = time.Minute
)

// NoteShut notes that buckets are shut, so that web nodes are told. Of one that
// they know already nothing is written. It does not wait.
func (d *Desk) NoteShut(now time.Time, decision *policy.Decision) {
	if d.ForNodes == nil {
		return
	}
	for i := range decision.Counters {
		c := &decision.Counters[i]
		key := limit.Key{Limit: c.Limit, Value: c.Key}
		if !c.Latched || d.Switches.Find(now, whatShut(key)) != nil || !d.ForNodes(key) {
			continue
		}
		d.mu.Lock()
		if d.toShut == nil {
			d.toShut = map[limit.Key]toShut{}
		}
		if _, known := d.toShut[key]; !known && len(d.toShut) < maxToShut {
			d.toShut[key] = toShut{reasonOf(decision, c.Limit), now}
		}
		wake := d.wakeLocked()
		d.mu.Unlock()
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}

// reasonOf is what a rule found.
func reasonOf(d *policy.Decision, rule string) string {
	for i := range d.Findings {
		if d.Findings[i].Rule == rule {
			return d.Findings[i].Reason
		}
	}
	return d.Reason
}

func (d *Desk) wakeLocked() chan struct{} {
	if d.wakeShut == nil {
		d.wakeShut = make(chan struct{}, 1)
	}
	return d.wakeShut
}

func whatShut(key limit.Key) switches.What {
	return switches.What{Kind: policy.Shut, Subject: policy.SubjectKey, Value: key.Value, Rule: key.Limit}
}

// RunNodes tells web nodes what is shut and what is open again, until ctx ends.
func (d *Desk) RunNodes(ctx context.Context) {
	tick := time.NewTicker(openEvery)
	defer tick.Stop()
	d.mu.Lock()
	wake := d.wakeLocked()
	d.mu.Unlock()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			d.OpenAgain(ctx, now)
		case <-wake:
			d.ShutForNodes(ctx)
		}
	}
}

// ShutForNodes gives the orders that NoteShut noted. A bucket that was opened
// meanwhile is left out.
func (d *Desk) ShutForNodes(ctx context.Context) {
	for ctx.Err() == nil {
		key, order, ok := d.nextShut()
		if !ok {
			return
		}
		d.shutForNodes(ctx, key, order)
		select {
		case <-ctx.Done():
		case <-time.After(shutPause):
		}
	}
}

func (d *Desk) nextShut() (limit.Key, toShut, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for key, order := range d.toShut {
		delete(d.toShut, key)
		return key, order, true
	}
	return limit.Key{}, toShut{}, false
}

func (d *Desk) shutForNodes(ctx context.Context, key limit.Key, order toShut) {
	const topic = "shut for nodes"
	what := whatShut(key)
	if d.Switches.Find(order.since, what) != nil { // noted again while the order was being given
		return
	}
	if latched, err := d.Latched(ctx, order.since, key); err != nil || !latched {
		if err != nil { // the next message notes it again
			d.tellOnce(topic, "web nodes are not told what is shut", "error", err)
		}
		return
	}
	if n := len(d.shutOrders(order.since)); n >= maxShut {
		d.tellOnce(topic, "web nodes are told no more of what is shut; it is stopped here", "orders", n)
		return
	}
	s := policy.Switch{Kind: what.Kind, Subject: what.Subject, Value: what.Value, Rule: what.Rule, Reason: order.reason, By: guardItself.Name, Since: order.since}
	if err := s.Check(); err != nil {
		d.tellOnce(topic, "web nodes are not told what is shut", "error", err)
		return
	}
	d.append(d.audit(order.since, guardItself, "shut on web nodes", key.Value, order.reason, key.Limit))
	if _, err := d.Switches.Set(s); err != nil {
		d.tellOnce(topic, "web nodes may not be told what is shut", "error", err)
		return
	}
	d.mended(topic)
	d.Log.Info("web nodes are told to hold", "limit", key.Limit, "bucket", key.Value)
}

func (d *Desk) shutOrders(now time.Time) []policy.Switch {
	return slices.DeleteFunc(d.Switches.All(now), func(s policy.Switch) bool { return s.Kind != policy.Shut })
}

// OpenAgain takes back orders to web nodes about buckets that are not shut any
// more, whoever opened them.
func (d *Desk) OpenAgain(ctx context.Context, now time.Time) {
	if d.ForNodes == nil {
		return
	}
	open := map[limit.Key]bool{}
	for _, s := range d.shutOrders(now) {
		key := limit.Key{Limit: s.Rule, Value: s.Value}
		if !d.ForNodes(key) { // another relay's order, or this is a node
			continue
		}
		latched, err := d.Latched(ctx, now, key)
		if err != nil {
			d.tellOnce("open for nodes", "it is not known whether what web nodes hold is still shut", "error", err)
			return
		}
		open[key] = !latched
	}
	d.mended("open for nodes")
	if _, err := d.openForNodes(func(key limit.Key) bool { return open[key] }); err != nil {
		d.Log.Error("switches", "error", err)
	}
}

// OpenForNodes takes back the orders to web nodes about these buckets, which were
// opened.
func (d *Desk) OpenForNodes(keys []limit.Key) error {
	_, err := d.openForNodes(func(key limit.Key) bool { return slices.Contains(keys, key) })
	return err
}

func (d *Desk) openForNodes(of func(limit.Key) bool) ([]policy.Switch, error) {
	gone, err := d.Switches.Remove(func(s policy.Switch) bool {
		return s.Kind == policy.Shut && of(limit.Key{Limit: s.Rule, Value: s.Value})
	})
	if err != nil {
		err = errors.Join(errors.New("take back what web nodes hold"), err)
	}
	return gone, err
}
