package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// yearReport measures the daily report of a server that has run for a year, as its
// commands make it: by the daemon, and, where this program is root, from what a dead
// one left. The time is that of the whole command.
func (b *bench) yearReport(ctx context.Context, dir string, l *lists, server *nameServer) error {
	y := &yearPlan{yearSizes: wholeYear, dir: filepath.Join(dir, "year"), now: time.Now().Truncate(time.Second), lists: l}
	b.progress("report: a year of %d mails a day and %d rounds over blocklists", y.mails, y.days*y.rounds)
	if err := os.Mkdir(y.dir, 0o711); err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	if err := errors.Join(y.plantJournal(ctx), y.plantHistory(ctx)); err != nil {
		return err
	}
	daemon, err := b.yearDaemon(y, server)
	if err != nil {
		return err
	}
	defer daemon.stop()
	made := y.command(b.guard)
	took, size := samples{}, samples{}
	measure := func(who string, forms ...string) error {
		for _, form := range forms {
			b.progress("report, %s, as %s", who, form)
			began := time.Now()
			text, err := made(ctx, "report", "--format", form)
			seconds := time.Since(began).Seconds()
			if err == nil {
				err = y.complete(form, text)
			}
			if err != nil {
				return fmt.Errorf("report, %s, as %s: %w", who, form, err)
			}
			took.add(who+form, seconds)
			size.add(form, float64(len(text))/1e3)
		}
		return nil
	}
	rounds := min(b.rounds, 3)
	for range rounds {
		if err := measure("daemon/", "html", "txt", "json"); err != nil {
			return fmt.Errorf("%w; the daemon said: %s", err, daemon.said())
		}
		began := time.Now()
		if _, err := made(ctx, "limits", "defaults"); err != nil { // asks nobody: what a command costs at least
			return err
		}
		took.add("nothing", time.Since(began).Seconds())
	}
	within := &goal{mostReportSeconds, false, false}
	b.single("report/365d/s", "s", within, took["daemon/html"]...)
	b.single("report/365d/txt/s", "s", within, took["daemon/txt"]...)
	b.single("report/365d/json/s", "s", within, took["daemon/json"]...)
	b.single("report/365d/command_s", "s", nil, took["nothing"]...)
	b.single("report/365d/html/size", "kB", &goal{mostReportKB, false, false}, size["html"]...)
	b.single("report/365d/txt/size", "kB", nil, size["txt"]...)
	b.single("report/365d/json/size", "kB", nil, size["json"]...)
	daemon.stop()
	if os.Geteuid() != 0 {
		b.skipped = append(b.skipped, "report/365d/dead: only root may read what a daemon left")
		return nil
	}
	for range rounds {
		if err := measure("dead/", "html"); err != nil {
			return err
		}
	}
	b.single("report/365d/dead/s", "s", within, took["dead/html"]...)
	return nil
}

// yearDaemon starts the daemon on the plan's state. It can ask our own lists only.
func (b *bench) yearDaemon(y *yearPlan, server *nameServer) (*running, error) {
	socket := filepath.Join(y.dir, "milter.sock")
	for file, text := range map[string]string{y.configFile(): y.config(socket, server.address), y.zonesFile(): y.zonesText()} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return nil, fmt.Errorf("configure the daemon: %w", err)
		}
	}
	return startMilter(milter{theGuard, func(string) *exec.Cmd {
		return exec.Command(b.guard, "serve", "--config", y.configFile())
	}}, b.dir, socket)
}

func (y *yearPlan) configFile() string { return filepath.Join(y.dir, "relayguard.toml") }
func (y *yearPlan) zonesFile() string  { return filepath.Join(y.dir, "zones.toml") }

func (y *yearPlan) config(socket, resolver string) string {
	var addresses []string
	for _, s := range y.subjects {
		addresses = append(addresses, fmt.Sprintf("%q", s))
	}
	return fmt.Sprintf(`phase = "enforce"

[mta]
log = "none"
queue_helper = "%[1]s/queue.sock"

[journal]
directory = %[2]q

[forward]
watch = false

[rbl]
resolvers = [%[3]q]
addresses = [%[4]s]
from_mta = false
zones_file = %[5]q

[report]
at = ""

[control]
socket = "%[1]s/control.sock"

[alert]
syslog = false
command = "/bin/true"

[inside]
domains = [%[6]q]
from_mta = false

[[listener]]
name = "submission"
role = "submission"
address = "unix:%[7]s"
group = "root"
peers = ["root"]
`, y.dir, y.journalDir(), resolver, strings.Join(addresses, ", "), y.zonesFile(), insideDomain, socket)
}

// zonesText has our lists in place of those that are built in.
func (y *yearPlan) zonesText() string {
	var b strings.Builder
	b.WriteString("replace = true\n")
	for _, z := range y.zones {
		fmt.Fprintf(&b, "\n[[zone]]\nname = %q\noperator = \"bench\"\nkinds = [\"ip4\", \"ip6\"]\nseverity = \"high\"\nscope = \"ip\"\nmeans = %q\ndefault = \"on\"\nranges = true\nremoval = { url = \"https://lists.example/\", how = [\"form\", \"expires\"] }\nstatus = \"own\"\nclass = \"spam\"\n", z.Name, z.Means)
	}
	return b.String()
}

// command runs a program's subcommands. That something is listed is no error.
func (y *yearPlan) command(program string) func(ctx context.Context, args ...string) ([]byte, error) {
	return func(ctx context.Context, args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, program, append(args, "--config", y.configFile())...)
		var out, said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &said
		err := cmd.Run()
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == 1 && out.Len() > 0 {
			err = nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(said.Bytes()))
		}
		return out.Bytes(), nil
	}
}

// complete reports an error unless a report has all that was planted: one of nothing
// must not pass for a quick one.
func (y *yearPlan) complete(form string, text []byte) error {
	if form != "json" {
		for _, want := range []string{abuser + "@" + abusedSite, y.zones[0].Name, y.subjects[0].String()} {
			if !bytes.Contains(text, []byte(want)) {
				return fmt.Errorf("%q is not in it: %.300q", want, text)
			}
		}
		return nil
	}
	var r struct {
		Missing   []struct{ Section, Why string }
		Listings  []struct{ Suspects []struct{ Name string } }
		Addresses []struct{ Days struct{ States string } }
		Senders   []struct{ Usual int64 }
		Sender    []struct{}
		Mail      struct {
			Total struct{ Accepted, Held int64 }
			Days  []struct{ Accepted int64 }
		}
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return err
	}
	for _, m := range r.Missing {
		switch m.Section {
		case "mail", "blocklists", "history", "usual", "cause", "neighbours", "sender":
			return fmt.Errorf("it has no %s: %s", m.Section, m.Why)
		}
	}
	if len(r.Listings) != openListings {
		return fmt.Errorf("%d listings go on, want %d", len(r.Listings), openListings)
	}
	searched := 0 // a report looks for the cause of the worst listings only
	for i, l := range r.Listings {
		if len(l.Suspects) == 0 {
			continue
		}
		searched++
		if l.Suspects[0].Name != abuser+"@"+abusedSite {
			return fmt.Errorf("the cause of listing %d is %+v", i, l.Suspects)
		}
	}
	if least := min(3, openListings); searched < least {
		return fmt.Errorf("the cause of %d listings was looked for, want %d", searched, least)
	}
	if len(r.Addresses) != len(y.subjects) || len(r.Addresses[0].Days.States) < y.days-1 || len(r.Mail.Days) < y.days-1 || len(r.Senders) < 10 || len(r.Sender) == 0 {
		return fmt.Errorf("%d addresses, %d days of mail, %d senders, %d facts", len(r.Addresses), len(r.Mail.Days), len(r.Senders), len(r.Sender))
	}
	if total := r.Mail.Total.Accepted + r.Mail.Total.Held; total < int64(y.mails)*9/10 || total > int64(y.mails)*11/10 {
		return fmt.Errorf("%d recipients in a day, want about %d", total, y.mails)
	}
	return nil
}
