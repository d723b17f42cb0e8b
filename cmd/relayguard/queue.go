package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/desk"
	"relayguard/journal"
)

func newQueue() *cobra.Command {
	return group("queue", "look at and act on all mail in the MTA's queues", `
The MTA's queues, joined with the journal: of each message what the MTA knows (how
old, how large, for which domains, why it is stuck) and what relayguard knows (which
account, site and plugin sent it, which rule decided). No command prints a
recipient's address or a line of content.

Queues have the same names on every MTA: incoming (new), active (being delivered),
deferred (to be tried again), hold (waits for somebody), maildrop (handed in on this
machine, not yet taken over).

While the daemon is dead root does all of this without it.`,
		newQueueList(), newQueueSummary(), newQueueShow(),
		newQueueAct("hold", `
Puts mail on its way on hold: it is not delivered until somebody releases it, and does
not grow old. Of mail that is being delivered just now Postfix goes on with the
recipients in hand; on Sendmail it is left alone, and told as failed.`),
		newQueueAct("release", `
Lets mail on hold go its way, past every limit: what relayguard holds, and what queue
hold put there; what others hold only with --foreign. What is near the end of the MTA's
patience is queued anew; on Postfix it gets another queue id, which is told.`),
		newQueueAct("delete", `
Deletes mail from any queue but maildrop. A copy of each stays in a folder of root's alone, for as
long as hold.grace says; relayguard held undelete brings it back, on hold. Without
room for copies nothing is deleted but with --no-copy: that is for good. Nobody is
told: senders do not get it back.`),
		newQueueAct("requeue", `
Queues deferred mail and mail on hold anew: its lifetime begins again, and it is routed
by the MTA's settings of today. On Postfix it gets another queue id, which is told. What
was on hold goes its way; what is being delivered just now is left alone, and told as
failed.`))
}

// queues are the names of queues.
var queues = []string{"hold", "deferred", "active", "incoming", "maildrop"}

// holders are who may hold a message.
var holders = []string{"relayguard", "admin", byOther}

// queueFlags choose among all queued mail.
type queueFlags struct {
	queue, account, login, localUser, site, plugin, template, rule string
	from, domain, why, heldBy, instance                            string
	olderThan, newerThan                                           span
	larger, smaller                                                octets
	all                                                            bool
	limit                                                          int
}

func (f *queueFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.queue, "queue", "", "in this `queue`: "+strings.Join(queues, ", "))
	flags.StringVar(&f.account, "account", "", "of this `account`: login:NAME, local_user:NAME, network:NAME or unknown; or of site:NAME, plugin:NAME@SITE, plugin:NAME, template:NAME")
	flags.StringVar(&f.login, "login", "", "of this SASL `login`")
	flags.StringVar(&f.localUser, "local-user", "", "of this Unix `account`")
	flags.StringVar(&f.site, "site", "", "of this web `site`")
	flags.StringVar(&f.plugin, "plugin", "", "of this plugin: `NAME or NAME@SITE`")
	flags.StringVar(&f.template, "template", "", "that looks like this `text`, as incidents name it")
	flags.StringVar(&f.rule, "rule", "", "decided by this `rule`")
	flags.StringVar(&f.from, "from", "", "with this envelope sender's `address`; '<>' is the null sender")
	flags.StringVar(&f.domain, "to-domain", "", "with a recipient in this `domain`")
	flags.StringVar(&f.why, "error", "", "stuck for a reason that has this `text` in it")
	flags.StringVar(&f.heldBy, "held-by", "", "held by `whom`: "+strings.Join(holders, ", "))
	flags.Var(&f.olderThan, "older-than", "in the queue for longer than this `time`: 90m, 2h, 3d")
	flags.Var(&f.newerThan, "newer-than", "in the queue for less than this `time`")
	flags.Var(&f.larger, "larger-than", "larger than this `size`: 500k, 1M, 2G")
	flags.Var(&f.smaller, "smaller-than", "smaller than this `size`")
	flags.StringVar(&f.instance, "instance", "", "of this `instance` of the MTA, where there are several")
	flags.IntVar(&f.limit, "limit", 0, "at most so many")
}

// filter is what was chosen; ids are arguments.
func (f *queueFlags) filter(cmd *cobra.Command, ids []string) (desk.QueueFilter, error) {
	if err := f.check(cmd, ids); err != nil {
		return desk.QueueFilter{}, err
	}
	site, plugin, err := siteAndPlugin(cmd, f.site, f.plugin)
	if err != nil {
		return desk.QueueFilter{}, err
	}
	out := desk.QueueFilter{IDs: ids, Instance: f.instance, Queue: f.queue, Account: accountOf(f.account), Login: strings.ToLower(f.login), LocalUser: f.localUser, Site: site, Plugin: plugin,
		Template: strings.TrimPrefix(f.template, "template:"), Rule: f.rule, MailFrom: f.from, Domain: strings.ToLower(f.domain), Error: f.why, HeldBy: f.heldBy,
		OlderThan: time.Duration(f.olderThan), NewerThan: time.Duration(f.newerThan), All: f.all, Limit: f.limit}
	if f.larger > 0 {
		out.MinSize = int64(f.larger) + 1
	}
	if f.smaller > 0 {
		out.MaxSize = int64(f.smaller) - 1
	}
	return out, nil
}

// check says what makes no sense.
func (f *queueFlags) check(cmd *cobra.Command, ids []string) error {
	changed := cmd.Flags().Changed
	switch {
	case changed("queue") && !slices.Contains(queues, f.queue):
		return usage(cmd, "--queue: found %q, want one of %s", f.queue, strings.Join(queues, ", "))
	case changed("held-by") && !slices.Contains(holders, f.heldBy):
		return usage(cmd, "--held-by: found %q, want one of %s", f.heldBy, strings.Join(holders, ", "))
	case f.heldBy != "" && f.queue != "" && f.queue != "hold":
		return usage(cmd, "--held-by goes with the queue hold, not with %s", f.queue)
	case changed("limit") && (f.limit < 1 || f.limit > journal.MaxLimit):
		return usage(cmd, "--limit: got %d, want 1 to %d", f.limit, journal.MaxLimit)
	case f.olderThan != 0 && f.newerThan != 0 && f.newerThan <= f.olderThan:
		return usage(cmd, "--newer-than %v leaves nothing of --older-than %v", f.newerThan.String(), f.olderThan.String())
	case f.smaller == 1 || f.larger != 0 && f.smaller != 0 && f.smaller <= f.larger+1:
		return usage(cmd, "--smaller-than %v leaves nothing", f.smaller.String())
	case slices.Contains(ids, ""):
		return usage(cmd, "an ID is empty")
	}
	for _, name := range []string{"account", "login", "local-user", "site", "plugin", "template", "rule", "from", "to-domain", "error", "instance"} {
		if changed(name) && cmd.Flag(name).Value.String() == "" {
			return usage(cmd, "--%s is empty%s", name, map[string]string{"from": "; the null sender is --from '<>'"}[name])
		}
	}
	return nil
}

// choosesQueued reports whether the filter names what is meant: a queue or an
// instance alone does not, nor a number.
func choosesQueued(f desk.QueueFilter) bool {
	f.Queue, f.Instance, f.Limit, f.All = "", "", 0, false
	return len(f.IDs) > 0 || narrowsQueued(f)
}

// narrowsQueued reports whether anything but ids chooses.
func narrowsQueued(f desk.QueueFilter) bool {
	return f.Queue+f.Instance+f.Account+f.Login+f.LocalUser+f.Site+f.Plugin+f.Template+f.Rule+f.MailFrom+f.Domain+f.Error+f.HeldBy != "" ||
		f.OlderThan != 0 || f.NewerThan != 0 || f.MinSize != 0 || f.MaxSize != 0
}

// octets is a flag for a size; zero if it is not given. A k is 1,000, as in what
// is shown.
type octets int64

func (o *octets) Set(text string) error {
	digits := strings.TrimSuffix(strings.TrimSuffix(text, "B"), "b")
	unit := int64(1)
	if n := len(digits) - 1; n > 0 {
		if i := strings.IndexByte("KMGT", digits[n]&^0x20); i >= 0 && digits[n] >= 'A' {
			digits = digits[:n]
			for range i + 1 {
				unit *= 1000
			}
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	const most = 1 << 60
	if err != nil || n < 1 || n > most/unit {
		return errors.New(`want a size such as "800", "500k" or "1M"`)
	}
	*o = octets(n * unit)
	return nil
}

func (o *octets) String() string {
	if *o == 0 {
		return ""
	}
	return strconv.FormatInt(int64(*o), 10)
}

// Type is what help calls the value.
func (o *octets) Type() string { return "size" }

// unread reports that nobody reads any more what was to be printed: head has
// enough.
func unread(err error) bool { return errors.Is(err, syscall.EPIPE) }

// wroteAll is the error of a command that only prints, after err came of it.
func wroteAll(err error) error {
	if err == nil || unread(err) {
		return nil
	}
	return &exitError{exitCannotTell, fmt.Errorf("write the answer: %w", err)}
}
