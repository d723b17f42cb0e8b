package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/textproto"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"relayguard/cmd/internal/report"
	"relayguard/incident"
)

// reportPauses are those before further attempts to hand in a daily report; after the
// last of them it is tried every reportAgain until the next one is made. By the first
// ones a mail server that is started anew is there.
var reportPauses = []time.Duration{10 * time.Second, time.Minute, 5 * time.Minute}

const (
	reportAgain = 15 * time.Minute
	giveUpAfter = 24 * time.Hour // if none is made any more
)

// unmailed are who did not get a report, and why.
type unmailed map[string]error

// Error has a line for each, in order.
func (u unmailed) Error() string {
	var lines []string
	for to, err := range u {
		lines = append(lines, fmt.Sprintf("to %s: %v", to, err))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// lasting reports whether the mail server said to any that it will not help to try
// again.
func (u unmailed) lasting() bool {
	for _, err := range u {
		var refused *textproto.Error
		if errors.As(err, &refused) && refused.Code >= 500 {
			return true
		}
	}
	return false
}

// mailReport writes to each of them, once and at the same time: nobody waits for
// another whose letter is refused.
func (s *state) mailReport(ctx context.Context, r *report.Report, lang string, to []string) (has []string, not unmailed) {
	host, _ := os.Hostname()
	from := s.config.Load().Report.From
	if from == "" {
		from = "postmaster@" + s.ownDomain(host)
	}
	errs := make([]error, len(to))
	var work sync.WaitGroup
	for i, one := range to {
		work.Go(func() {
			text, err := report.Letter(r, lang, from, []string{one}, messageID(host, r, one))
			if err == nil {
				err = s.handIn(ctx, host, one, text)
			}
			errs[i] = err
		})
	}
	work.Wait()
	not = unmailed{}
	for i, one := range to {
		if errs[i] == nil {
			has = append(has, one)
		} else {
			not[one] = errs[i]
		}
	}
	return has, not
}

// mailAgain mails the last daily report to who does not have it yet, if it is time to,
// and says when to try next; zero: all have it.
func (d *daemon) mailAgain(ctx context.Context, now time.Time) (next time.Time) {
	b := &d.reports
	b.mailing.Lock()
	defer b.mailing.Unlock()
	if now.Before(b.next) {
		return b.next
	}
	d.mailLast(ctx, now)
	return b.next
}

// mailLast mails the last daily report to who does not have it yet. The caller holds
// mailing.
func (d *daemon) mailLast(ctx context.Context, now time.Time) (has []string, not unmailed) {
	b, c := &d.reports, d.state.config.Load()
	b.next = time.Time{}
	last := d.lastReport(ctx)
	to := last.waits(c)
	if len(to) == 0 || now.Sub(last.Until) > giveUpAfter {
		return nil, nil
	}
	b.mu.Lock()
	r := b.kept
	b.mu.Unlock()
	var err error
	if r == nil || !r.Until.Equal(last.Until) {
		if r, err = reportOfDay(c, last.Day); err != nil {
			r = nil
		}
	}
	if r == nil { // nobody can mail it
		if !errors.Is(err, fs.ErrNotExist) {
			d.log.Error("mail the daily report", "error", err)
		}
		d.noteReport(ctx, func(l *lastReport) { l.To = l.Has })
		return nil, nil
	}
	has, not = d.state.mailReport(ctx, r, c.Report.Language, to)
	tried := maps.Clone(last.Unanswered)
	if tried == nil {
		tried = map[string]int{}
	}
	for _, one := range not.unanswered() {
		if tried[one]++; tried[one] < mostUnanswered {
			continue
		}
		d.log.Error("mail the daily report: not tried again, for it may have been taken", "to", one, "error", not[one])
		has = append(has, one)
		delete(not, one)
	}
	if len(has) > 0 || len(tried) > 0 {
		d.noteReport(ctx, func(l *lastReport) { l.Has, l.Unanswered = append(l.Has, has...), tried })
	}
	if len(not) == 0 || ctx.Err() != nil {
		return has, not
	}
	pause := reportAgain
	if b.tries < len(reportPauses) {
		pause = reportPauses[b.tries]
	}
	b.tries++
	b.next = now.Add(pause)
	if !b.told && (not.lasting() || b.tries > len(reportPauses)) {
		b.told = true
		d.log.Error("mail the daily report", "error", not)
		d.state.channels.Send(incident.NewNotice(now, "report", fmt.Sprintf("the daily report cannot be mailed: %v; it is tried again until the next one; it is in %s; see it with: relayguard report --day %s; by hand: relayguard report --mail --day %s",
			not, c.ReportDirectory(), last.Day, last.Day)))
	}
	return has, not
}

// mostUnanswered is how often a report is handed in to who may have it: the answer to
// the end of a message can be late although the message was taken.
const mostUnanswered = 2

// unanswered are those of whom nobody knows whether they have it.
func (u unmailed) unanswered() (all []string) {
	for one, err := range u {
		if errors.Is(err, errUnanswered) {
			all = append(all, one)
		}
	}
	slices.Sort(all)
	return all
}

// hasReport notes who got the report of a day by another way.
func (d *daemon) hasReport(ctx context.Context, day string, has []string) {
	last := d.lastReport(ctx)
	if last.Day != day || !slices.ContainsFunc(last.To, func(one string) bool { return slices.Contains(has, one) && !slices.Contains(last.Has, one) }) {
		return
	}
	d.noteReport(ctx, func(l *lastReport) {
		for _, one := range has {
			if slices.Contains(l.To, one) && !slices.Contains(l.Has, one) {
				l.Has = append(l.Has, one)
			}
		}
	})
}

// ownDomain is the MTA's own, or the host's name.
func (s *state) ownDomain(host string) string {
	if r := s.rules.Load(); r != nil && r.policy.Addresses.DefaultDomain != "" {
		return r.policy.Addresses.DefaultDomain
	}
	return host
}

// messageID is one report's for one recipient, however often it is tried: who gets two
// can tell that they are one (RFC 5322 §3.6.4).
func messageID(host string, r *report.Report, to string) string {
	if host == "" {
		host = "localhost"
	}
	sum := sha256.Sum256([]byte(r.Host + "\x00" + r.Made.UTC().Format(time.RFC3339Nano) + "\x00" + to))
	return hex.EncodeToString(sum[:16]) + "@" + host
}
