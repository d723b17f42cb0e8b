package mailfiles

import (
	"context"
	"path"
	"strings"

	"relayguard/forward"
)

// qmailDir is where qmail is; Plesk keeps it for mailboxes under Postfix, too.
const qmailDir = "/var/qmail"

// Instruction is one line of a .qmail file (dot-qmail(5)).
type Instruction struct {
	Kind   forward.Kind
	Target string
	Line   int  // from 1
	List   bool // after "+list": an address of a mailing list
}

// ParseQmail reads a .qmail file: "&addr" or a bare address forwards, "|command"
// runs, "./Maildir/" and "/file" deliver. A line that begins with white space
// or "#" is nothing, and so is white space at its end.
func ParseQmail(data []byte) []Instruction {
	var found []Instruction
	number, list := 0, false
	for line := range strings.Lines(string(data)) {
		number++
		line = strings.TrimRight(line, " \t\r\n\x00")
		if line == "" || line[0] == '#' || line[0] == ' ' || line[0] == '\t' {
			continue
		}
		i := Instruction{Line: number, List: list}
		switch line[0] {
		case '|':
			i.Kind, i.Target = forward.Program, line[1:]
		case '/', '.':
			i.Kind, i.Target = forward.File, line
		case '+':
			list = list || line == "+list"
			continue
		case '&':
			i.Target = strings.TrimLeft(line[1:], " \t")
		default:
			i.Target = line
		}
		if i.Target = strings.TrimSpace(i.Target); i.Target != "" {
			found = append(found, i)
		}
	}
	return found
}

// qmailFile makes rules of one .qmail; home is where "./" leads.
func (r *reader) qmailFile(ctx context.Context, base forward.Rule, as *forward.Account) {
	data, ok := r.read(ctx, &base, as)
	if !ok {
		return
	}
	instructions := ParseQmail(data)
	base.Mode = forward.Redirect
	for _, i := range instructions {
		if i.Kind == forward.File || i.Kind == forward.Program && strings.Contains(i.Target, "deliverquota") {
			base.Mode = forward.Copy // a mailbox gets it, too
		}
	}
	for _, i := range instructions {
		rule := base
		rule.Kind, rule.Target, rule.Line = i.Kind, i.Target, i.Line
		switch {
		case i.Kind == forward.Program:
			r.program(ctx, rule, as)
		default:
			if rule.Mode == forward.Copy && i.Kind == forward.File {
				rule.Note = "mailbox"
			}
			r.add(rule)
		}
	}
}

// planQmail: the homes' .qmail and .qmail-ext, and /var/qmail/alias. Plesk
// brings the directory but no such deliveries: its marks are its own.
func planQmail(ctx context.Context, h *forward.Host, plan *forward.Plan) {
	if !there(ctx, h, plan, qmailDir+"/control") || !there(ctx, h, plan, qmailDir+"/alias") {
		return
	}
	alias := path.Join(qmailDir, "alias")
	plan.Units = append(plan.Units, forward.Unit{ID: "qmail alias", Paths: []string{alias + "/"}, Writer: 0, Server: true,
		Read: func(ctx context.Context) forward.Reading {
			r := &reader{host: h}
			r.qmailDir(ctx, alias, "", true, nil)
			return r.reading
		}})
	for _, account := range accounts(h) {
		as := bare(account)
		plan.Units = append(plan.Units, forward.Unit{ID: "qmail " + account.Name, Writer: account.UID, Owner: account.Name,
			Paths: []string{account.Home + "/.qmail", account.Home + "/.qmail-*"},
			Read: func(ctx context.Context) forward.Reading {
				r := &reader{host: h}
				r.qmailDir(ctx, account.Home, account.Name, false, as)
				return r.reading
			}})
	}
}

// qmailDir reads all .qmail files of a directory. ".qmail-a:b" is for "a.b".
func (r *reader) qmailDir(ctx context.Context, dir, owner string, server bool, as *forward.Account) {
	for _, info := range r.list(ctx, dir, as) {
		extension, ok := strings.CutPrefix(info.Name, ".qmail")
		if !ok || extension != "" && extension[0] != '-' {
			continue
		}
		extension = strings.ReplaceAll(extension, ":", ".")
		base := forward.Rule{Owner: owner + extension, Mechanism: forward.Qmail, Source: path.Join(dir, info.Name), Server: server, UID: info.UID}
		if owner == "" {
			base.Owner = strings.TrimPrefix(extension, "-")
		}
		if rest, all := strings.CutSuffix(extension, "default"); all && strings.HasSuffix(rest, "-") {
			base.Owner = strings.TrimSuffix(owner+rest, "-")
			if base.Note = "whatever has no .qmail of its own"; owner == "" {
				base.Owner = forward.Everybody
			}
		}
		r.qmailFile(ctx, base, as)
	}
}

// pleskDir has a directory for each domain with one for each mailbox.
const pleskDir = qmailDir + "/mailnames"

// planPlesk: a unit for each domain.
func planPlesk(ctx context.Context, h *forward.Host, plan *forward.Plan) {
	if !there(ctx, h, plan, pleskDir) {
		return
	}
	r := &reader{host: h}
	for _, domain := range r.list(ctx, pleskDir, nil) {
		if !domain.Mode.IsDir() {
			continue
		}
		dir := path.Join(pleskDir, domain.Name)
		paths := []string{dir}
		for _, mailbox := range r.list(ctx, dir, nil) {
			paths = append(paths, path.Join(dir, mailbox.Name, ".qmail"))
		}
		plan.Units = append(plan.Units, forward.Unit{ID: "plesk mailnames " + domain.Name, Writer: domain.UID, Server: false,
			Paths: paths,
			Read: func(ctx context.Context) forward.Reading {
				r := &reader{host: h}
				r.pleskDomain(ctx, dir, strings.ToLower(path.Base(dir)))
				return r.reading
			}})
	}
	plan.Gaps = append(plan.Gaps, r.reading.Gaps...)
}

func (r *reader) pleskDomain(ctx context.Context, dir, domain string) {
	for _, mailbox := range r.list(ctx, dir, nil) {
		if !mailbox.Mode.IsDir() {
			continue
		}
		owner := strings.ToLower(mailbox.Name) + "@" + domain
		base := forward.Rule{Owner: owner, Mechanism: forward.Qmail, Source: path.Join(dir, mailbox.Name, ".qmail"), UID: mailbox.UID}
		r.qmailFile(ctx, base, nil)
	}
}
