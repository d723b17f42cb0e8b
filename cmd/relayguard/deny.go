package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/render"
	"relayguard/policy"
)

func newDeny() *cobra.Command {
	return group("deny", "refuse mail by client, network, HELO, sender or target", `
Refuses mail whoever sends it: by the SMTP client's address or network, its HELO,
the envelope sender, or the recipient's domain. Unlike limits it acts in every
phase, and on mail of exempt senders. relayguard allow lifts a part of it.`,
		newSwitchAdd(policy.Deny), newSwitchList(policy.Deny), newSwitchRemove(policy.Deny))
}

func newAllow() *cobra.Command {
	return group("allow", "lift a denial, or one rule for one account", `
Lifts what relayguard deny refuses, for a part of it: one client of a network, one
address of a domain. Of a login, a Unix account or a trusted network it lifts one
rule, named by --rule: a limit, or an address rule. AUTH is never lifted so. For one
announced mailing there is allow bulk.`,
		newSwitchAdd(policy.Allow), newAllowBulk(), newSwitchList(policy.Allow), newSwitchRemove(policy.Allow))
}

// Words for people, and the subjects of switches that they stand for.
var subjectWords = []struct {
	word    string
	subject policy.Subject
	value   string // what its value is
}{
	{"client", policy.SubjectClient, "IP address of an SMTP client"},
	{"network", policy.SubjectNetwork, "SMTP clients as ADDRESS/BITS"},
	{"helo", policy.SubjectHelo, "name in HELO; .DOMAIN: and all below it"},
	{"mail-from", policy.SubjectMailFrom, "envelope sender; @DOMAIN: all of it"},
	{"target-domain", policy.SubjectTarget, "domain of recipients"},
	{"login", policy.SubjectLogin, "SASL login"},
	{"local-user", policy.SubjectLocalUser, "Unix account, by name or uid"},
	{"trusted-network", policy.SubjectTrusted, "name of a [[network]] of the configuration"},
	{"site", policy.SubjectSite, "web site"},
	{"plugin", policy.SubjectPlugin, "plugin, on every site"},
	{"domain", policy.SubjectDomain, "domain of logins"},
	{"customer", policy.SubjectCustomer, "name of a [[customer]] of the configuration"},
	{"key", policy.SubjectKey, "budget, as limits list names it"},
}

// wordOf is how people write a subject.
func wordOf(s policy.Subject) string {
	for _, w := range subjectWords {
		if w.subject == s {
			return w.word
		}
	}
	return string(s)
}

// subjectsOf names what a kind of switch can be about.
func subjectsOf(kind policy.SwitchKind) (words []string, help string) {
	var b strings.Builder
	for _, w := range subjectWords {
		if slices.Contains(policy.Subjects(kind), w.subject) {
			words = append(words, w.word)
			fmt.Fprintf(&b, "    %-16s %s\n", w.word, w.value)
		}
	}
	return words, strings.TrimRight(b.String(), "\n")
}

// ofAccount reports whether the subject is an account, of which a rule is
// allowed.
func ofAccount(s policy.Subject) bool {
	return s == policy.SubjectLogin || s == policy.SubjectLocalUser || s == policy.SubjectTrusted
}

func newSwitchAdd(kind policy.SwitchKind) *cobra.Command {
	words, help := subjectsOf(kind)
	var term span
	var reason, rule string
	var asJSON bool
	cmd := &cobra.Command{
		Use:       "add SUBJECT VALUE",
		Short:     map[policy.SwitchKind]string{policy.Deny: "refuse mail from now on", policy.Allow: "lift a denial or a rule from now on"}[kind],
		ValidArgs: words,
		Long: strings.TrimSpace(`
SUBJECT says what VALUE is:

` + help + `

One about the same that is there already is replaced.

Exit status: 0; 2 usage; 3 cannot tell, or not allowed.`),
		Example: map[policy.SwitchKind]string{
			policy.Deny:  "  relayguard deny add client 203.0.113.7 --for 2h --reason 'dictionary attack'\n  relayguard deny add mail-from @example.org --reason 'lottery'",
			policy.Allow: "  relayguard allow add client 203.0.113.9 --reason 'our customer in that network'\n  relayguard allow add login taro@example.jp --rule login-volume --for 3d --reason 'new year cards'",
		}[kind],
		Args: exactly("SUBJECT", "VALUE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s := policy.Switch{Kind: kind, Value: args[1], Rule: rule, Reason: reason}
			if i := slices.Index(words, args[0]); i < 0 {
				return usage(cmd, "SUBJECT: got %q, want one of %s", args[0], strings.Join(words, ", "))
			}
			s.Subject = subjectOf(args[0])
			if err := checkSwitch(cmd, s); err != nil {
				return err
			}
			if err := needed(cmd, "reason", reason, "say why, for who finds it later"); err != nil {
				return err
			}
			if term != 0 {
				s.Until = time.Now().Add(time.Duration(term))
			}
			return order(cmd, kind, "/v1/switches/set", s, asJSON)
		},
	}
	cmd.Flags().Var(&term, "for", "for this `time`: 90m, 2h, 3d; else until it is removed")
	cmd.Flags().StringVar(&reason, "reason", "", "why: `text` for the journal")
	if kind == policy.Allow {
		cmd.Flags().StringVar(&rule, "rule", "", "with login, local-user or trusted-network: the `rule` that is lifted")
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func subjectOf(word string) policy.Subject {
	for _, w := range subjectWords {
		if w.word == word {
			return w.subject
		}
	}
	return ""
}

// checkSwitch says what is wrong with a command line, as far as it can be seen
// from here: which rules and Unix accounts there are the daemon knows.
func checkSwitch(cmd *cobra.Command, s policy.Switch) error {
	switch {
	case ofAccount(s.Subject) && s.Rule == "":
		return usage(cmd, "--rule is missing: name the one rule that %s %q is free of", wordOf(s.Subject), s.Value)
	case !ofAccount(s.Subject) && s.Rule != "":
		return usage(cmd, "--rule goes with login, local-user and trusted-network; %s lifts what deny stops", wordOf(s.Subject))
	case strings.TrimSpace(s.Value) == "":
		return usage(cmd, "VALUE is empty")
	}
	if s.Subject == policy.SubjectLocalUser { // by name
		return nil
	}
	if err := s.Check(); err != nil {
		return usage(cmd, "%v", err)
	}
	return nil
}

// switchesOf are those of some kinds, as the daemon has them.
func switchesOf(cmd *cobra.Command, kinds ...policy.SwitchKind) ([]policy.Switch, error) {
	all, err := get[[]policy.Switch](cmd, "/v1/switches", nil)
	return slices.DeleteFunc(all, func(s policy.Switch) bool { return !slices.Contains(kinds, s.Kind) }), err
}

// kindsUnder are the kinds of orders that a command is for: what is allowed in
// bulk is allowed, too.
func kindsUnder(kind policy.SwitchKind) []policy.SwitchKind {
	if kind == policy.Allow {
		return []policy.SwitchKind{policy.Allow, policy.Bulk}
	}
	return []policy.SwitchKind{kind}
}

// showKinds has a table for each kind of which there are any.
func showKinds(cmd *cobra.Command, kinds []policy.SwitchKind, all []policy.Switch) error {
	first := true
	for _, kind := range kinds {
		some := slices.DeleteFunc(slices.Clone(all), func(s policy.Switch) bool { return s.Kind != kind })
		if len(some) == 0 {
			continue
		}
		if !first {
			fmt.Fprintln(cmd.OutOrStdout())
		}
		first = false
		if err := showSwitches(cmd, kind, some); err != nil {
			return err
		}
	}
	return nil
}

func newSwitchList(kind policy.SwitchKind) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list",
		Short:   map[policy.SwitchKind]string{policy.Deny: "list what is denied", policy.Allow: "list what is allowed"}[kind],
		Long:    "Lists what is in force, the oldest first.\n\nExit status: 0; 2 usage; 3 cannot tell.",
		Example: fmt.Sprintf("  relayguard %s list", kind),
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := switchesOf(cmd, kindsUnder(kind)...)
			switch {
			case err != nil:
				return err
			case asJSON:
				return shown(render.JSON(cmd.OutOrStdout(), append([]policy.Switch{}, all...)))
			case len(all) == 0:
				remark(cmd, "there is none")
				return nil
			}
			return showKinds(cmd, kindsUnder(kind), all)
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

// aboutOf is what a switch is about, as commands take it back.
func aboutOf(s *policy.Switch) string {
	value := s.Value
	if s.Subject == policy.SubjectLocalUser {
		if uid, err := strconv.Atoi(s.Value); err == nil { // else of a web node
			if name := userName(uid); name != "" {
				value = name
			}
		}
	}
	return wordOf(s.Subject) + ":" + value
}

func switchTable(page render.Page, now time.Time, kind policy.SwitchKind, all []policy.Switch) *render.Table {
	t := &render.Table{Columns: []render.Column{{Title: "ID", Whole: true}, {Title: "ABOUT", Weight: 3, Min: 16}}}
	if kind == policy.Allow || kind == policy.Set {
		t.Columns = append(t.Columns, render.Column{Title: "RULE", Weight: 2, Min: 8})
	}
	if kind == policy.Set || kind == policy.Bulk {
		t.Columns = append(t.Columns, render.Column{Title: "ALLOWS", Whole: true})
	}
	t.Columns = append(t.Columns, render.Column{Title: "ENDS", Whole: true}, render.Column{Title: "BY"}, wrapped("REASON"))
	for _, s := range all {
		ends := "never"
		switch {
		case !s.Until.IsZero() && page.Cut:
			ends = render.Ago(now, s.Until)
		case !s.Until.IsZero():
			ends = when(page, s.Until)
		}
		row := []string{s.ID, aboutOf(&s)}
		if kind == policy.Allow || kind == policy.Set {
			row = append(row, s.Rule)
		}
		if kind == policy.Set || kind == policy.Bulk {
			row = append(row, allows(&s))
		}
		t.Rows = append(t.Rows, append(row, ends, s.By, s.Reason))
	}
	return t
}

// allows is how much an order gives.
func allows(s *policy.Switch) string {
	if s.Kind == policy.Bulk {
		return number(s.Count)
	}
	all := make([]string, len(s.Windows))
	for i, w := range s.Windows {
		all[i] = config.Window{Count: w.Count, Length: w.Length}.String()
	}
	return strings.Join(all, ",")
}

func newSwitchRemove(kind policy.SwitchKind) *cobra.Command {
	var reason string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "remove ID|SUBJECT:VALUE",
		Short: map[policy.SwitchKind]string{policy.Deny: "deny no longer", policy.Allow: "allow no longer"}[kind],
		Long: strings.TrimSpace(fmt.Sprintf(`
Takes back what relayguard %[1]s add ordered, by its id or by what it is about:
both are in relayguard %[1]s list. What was taken back is listed.

Exit status: 0; 1 there is none such; 2 usage; 3 cannot tell, or not allowed.`, kind)),
		Example: map[policy.SwitchKind]string{
			policy.Deny:  "  relayguard deny remove client:203.0.113.7",
			policy.Allow: "  relayguard allow remove login:taro@example.jp --reason 'the cards are out'",
		}[kind],
		Args: exactly("ID|SUBJECT:VALUE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := switchesOf(cmd, kindsUnder(kind)...)
			if err != nil {
				return err
			}
			which := slices.DeleteFunc(all, func(s policy.Switch) bool { return !means(args[0], &s) })
			if len(which) == 0 {
				return &exitError{exitFinding, &escapedError{fmt.Errorf("there is no %s %s; see: relayguard %s list", kind, args[0], kind)}}
			}
			for _, kind := range kindsUnder(kind) {
				var gone []given
				for _, s := range which {
					if s.Kind != kind {
						continue
					}
					removed, err := post[[]given](cmd, "/v1/switches/remove", liftOrder{Kind: kind, Which: s.ID, Reason: reason})
					if err != nil {
						return err
					}
					gone = append(gone, removed...)
				}
				if len(gone) == 0 {
					continue
				}
				if err := showGiven(cmd, kind, gone, asJSON); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why: `text` for the journal")
	jsonFlag(cmd, &asJSON)
	return cmd
}

// means reports whether people mean this switch by what they wrote: its id, or
// what it is about in any of its forms.
func means(text string, s *policy.Switch) bool {
	if text == s.ID || text == s.About() || text == aboutOf(s) {
		return true
	}
	word, value, found := strings.Cut(text, ":")
	if !found || subjectOf(word) != s.Subject {
		return false
	}
	other := *s
	other.Value = value
	return other.Check() == nil && other.Value == s.Value
}
