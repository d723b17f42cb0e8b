package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"relayguard/policy/origin/fingerprint"
)

// without is the guard that looks for no origin: it knows no site, no fingerprint
// and no limit per template.
const without = "without"

// mostAdded is how much more CPU time it may take to find out where a message of
// 4 kB is from, in microseconds.
const mostAdded = 40

// bout compares the CPU time of one guard with that of another.
type bout struct {
	name         string
	ours, theirs *running
	mails        *stream // which ours gets
	plain        *stream // and theirs: the same kinds, without a stamp
	proof        string  // what the last verdicts of ours are to have in them
	goal         *goal

	with, without []float64 // us a message, by round
}

// origin measures what it costs to find out where mail of a web server is from.
func (b *bench) origin(ctx context.Context) error {
	kinds, err := shares()
	if err != nil {
		return err
	}
	guards := map[string]*running{}
	for _, name := range []string{without, "recognition", "node", "node-without"} {
		r, err := b.originGuard(name)
		if err != nil {
			return err
		}
		defer r.stop()
		guards[name] = r
	}
	bouts := newBouts(kinds, guards)
	for round := range b.rounds {
		for i := range bouts {
			b.progress("origin, round %d of %d: %s", round+1, b.rounds, bouts[i].name)
			if err := b.fight(ctx, &bouts[i], round%2 == 0); err != nil {
				return fmt.Errorf("%s: %w", bouts[i].name, err)
			}
		}
	}
	b.bouts = bouts
	return nil
}

// newBouts are what is compared.
func newBouts(kinds []share, guards map[string]*running) []bout {
	var next atomic.Int64
	site, most := newSite(), &goal{mostAdded, false, false}
	plain := newStream(&next, nil, kinds...)
	seen := guards["recognition"]
	all := []bout{{name: "unlabelled", ours: seen, theirs: guards[without], mails: plain, plain: plain, proof: "template=", goal: most}}
	for _, k := range kinds {
		one := newStream(&next, nil, k)
		all = append(all, bout{name: "unlabelled/" + k.name, ours: seen, theirs: guards[without], mails: one, plain: one, proof: "template=", goal: most})
	}
	signed := newStream(&next, &site, kinds...)
	return append(all,
		bout{name: "stamped", ours: seen, theirs: guards[without], mails: signed, plain: plain, proof: "plugin=share-by-mail", goal: most},
		bout{name: "node", ours: guards["node"], theirs: guards["node-without"], mails: signed, plain: plain, proof: "plugin=share-by-mail", goal: most})
}

// fight is one round.
func (b *bench) fight(ctx context.Context, f *bout, oursFirst bool) error {
	ours := func() error {
		t, err := closedLoopOf(ctx, f.ours, f.mails, b.window)
		if err == nil {
			f.with = append(f.with, 100*t.cpu) // seconds per 10,000 messages
			b.foreign = append(b.foreign, t.foreign)
			err = f.ours.wrote(f.proof)
		}
		return err
	}
	theirs := func() error {
		t, err := closedLoopOf(ctx, f.theirs, f.plain, b.window)
		if err == nil {
			f.without = append(f.without, 100*t.cpu)
			b.foreign = append(b.foreign, t.foreign)
		}
		return err
	}
	if oursFirst {
		return errors.Join(ours(), theirs())
	}
	return errors.Join(theirs(), ours())
}

// wrote reports an error unless the end of what a process wrote has a text in it:
// that nothing is found must not pass for a guard that finds quickly.
func (r *running) wrote(text string) error {
	f, err := os.Open(r.output)
	if err != nil {
		return err
	}
	defer f.Close()
	end := make([]byte, 16<<10)
	info, err := f.Stat()
	if err != nil {
		return err
	}
	n, err := f.ReadAt(end, max(0, info.Size()-int64(len(end))))
	if err != nil && err != io.EOF {
		return err
	}
	if !bytes.Contains(end[:n], []byte(text)) {
		return fmt.Errorf("%s says nothing of %q: %.300q", r.name, text, end[max(0, n-300):n])
	}
	r.forget()
	return nil
}

// originGuard starts a guard of a web server.
func (b *bench) originGuard(name string) (*running, error) {
	socket := socketIn(b.dir, "origin-"+name)
	state := socket + ".state"
	if err := os.Mkdir(state, 0o700); err != nil {
		return nil, fmt.Errorf("make a guard's directory: %w", err)
	}
	files := map[string][]byte{"none.txt": nothingKnown(), "node.key": []byte(hex.EncodeToString(bytes.Repeat([]byte("n"), 32)) + "\n"), "guard.toml": []byte(originConfig(name, socket, state))}
	if name == "recognition" || name == "node" {
		files["sites.json"] = registeredSites()
	}
	for file, content := range files {
		if err := os.WriteFile(filepath.Join(state, file), content, 0o600); err != nil {
			return nil, fmt.Errorf("make a guard's directory: %w", err)
		}
	}
	m := milter{name, func(string) *exec.Cmd {
		return exec.Command(b.guard, "serve", "--config", filepath.Join(state, "guard.toml"))
	}}
	return startMilter(m, b.dir, socket)
}

// nothingKnown takes away all fingerprints.
func nothingKnown() []byte {
	var b bytes.Buffer
	for _, name := range fingerprint.Default().Names() {
		b.WriteString(name + " never\n")
	}
	return b.Bytes()
}

func registeredSites() []byte {
	s := newSite()
	text, _ := json.Marshal(map[string]any{"sites": []any{ // strings and numbers
		map[string]any{"name": s.Name, "uid": s.UID, "key_id": s.KeyID, "key": []byte(s.Key), "root": s.Root},
	}})
	return text
}

// originConfig is what a web server has: the limits of a fresh install, too high
// to stop anything.
func originConfig(name, socket, state string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `phase = "enforce"

[mta]
log = "none"
queue_helper = "%[1]s/queue.sock"

[journal]
directory = "%[1]s/journal"

[forward]
watch = false
[rbl]
watch = false
[report]
at = ""

[control]
socket = "%[1]s/control.sock"

[alert]
syslog = false
command = "/bin/true"

[inside]
domains = [%[2]q]
from_mta = false

[[listener]]
name = "local"
role = "local"
address = "unix:%[3]s"
group = "root"
peers = ["root"]

[origin]
call_socket = "%[1]s/call.sock"
`, state, insideDomain, socket)
	if name == without || name == "node-without" {
		fmt.Fprintf(&b, "fingerprints = %q\n", filepath.Join(state, "none.txt"))
	}
	if name == "node" {
		fmt.Fprintf(&b, "\n[sign]\nnode = \"web1\"\nkey_file = %q\n", filepath.Join(state, "node.key"))
	}
	if name == "node" || name == "node-without" { // a node asks no limits: one that is for nobody
		b.WriteString("\n[[limit]]\nname = \"login-volume\"\nper = \"login\"\nwindows = [\"500000000/1h\"]\n")
		return b.String()
	}
	for _, l := range []string{"local-user-volume local_user", "shared-user-volume shared_user", "site-volume site", "machine-volume machine"} {
		limit, per, _ := strings.Cut(l, " ")
		fmt.Fprintf(&b, "\n[[limit]]\nname = %q\nper = %q\nwindows = [\"500000000/1h\", \"900000000/24h\"]\nburst = \"300000000/10m\"\nthen = \"hold\"\n", limit, per)
	}
	for _, per := range []string{"plugin", "template"} {
		if per == "template" && name == without {
			break
		}
		fmt.Fprintf(&b, "\n[[limit]]\nname = \"%s-first-time\"\nper = %q\ncounts = \"first_time\"\nkind = \"abuse\"\nwindows = [\"900000000/24h\"]\nburst = \"300000000/10m\"\nadapt = \"3/21d\"\n", per, per)
		if per == "template" {
			b.WriteString("recipients = \"outside\"\nwhen = { origins = [\"local_user:*\", \"node:*\"] }\n")
		}
	}
	return b.String()
}

// added is how much more CPU time a message takes, in microseconds: the median of
// the rounds.
func (f *bout) added() float64 {
	var all []float64
	for i := range min(len(f.with), len(f.without)) {
		all = append(all, f.with[i]-f.without[i])
	}
	return median(all)
}

// result is the line of bench.json. Its ratio is that of all the CPU time with to
// that without.
func (f *bout) result() result {
	return result{Name: "origin/4k/" + f.name + "/cpu_us_added", Value: round(f.added()), Unit: "us",
		Reference: without, Ratio: round(median(f.with) / median(f.without)), of: theGuard, goal: f.goal}
}

// printBouts writes one row for each, in less than 80 columns.
func printBouts(w io.Writer, all []bout) {
	if len(all) == 0 {
		return
	}
	const row = "%-24s %8s %8s %8s %7s %6s %4s\n"
	fmt.Fprintln(w, "\nOrigin, us of CPU a message of 4 kB, and without looking for it.")
	fmt.Fprintf(w, row, "", "with", "without", "added", "ratio", "goal", "met")
	for i := range all {
		f := &all[i]
		r := f.result()
		met := "no"
		if f.goal.met(r) {
			met = "yes"
		}
		fmt.Fprintf(w, row, f.name, number(median(f.with)), number(median(f.without)), number(r.Value), strconv.FormatFloat(r.Ratio, 'f', 3, 64), f.goal.String(), met)
	}
}
