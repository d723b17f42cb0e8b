package database

import (
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"
	"strings"

	"relayguard/forward"
	"relayguard/forward/aliases"
	"relayguard/forward/sieve"
)

// place is one table of a panel that may send mail elsewhere. Names are this
// program's own, never a configuration's.
type place struct {
	table string
	// columns are of table, or of a joined one ("domains.name"); one that begins
	// with "?" may be missing, and is then empty.
	columns []string
	join    string // " JOIN mail ON mail.id = mail_redir.mn_id"
	always  bool   // a panel without it is not that panel
	rules   func(*panelRow) ([]forward.Rule, []forward.Gap)
}

func (p *place) qualified(column string) (table, name string) {
	if t, n, found := strings.Cut(column, "."); found {
		return t, n
	}
	return p.table, column
}

// missing names a table or column that the database has not; empty: all is there.
func (p *place) missing(have schema) string {
	for _, c := range p.columns {
		if c[0] == '?' {
			continue
		}
		table, name := p.qualified(c)
		if have[strings.ToLower(table)] == nil {
			return "table " + table
		}
		if _, is := have[strings.ToLower(table)][name]; !is {
			return "column " + table + "." + name
		}
	}
	return ""
}

// statement reads all rows.
func (p *place) statement(have schema, kind string) string {
	var columns []string
	for _, c := range p.columns {
		table, name := p.qualified(strings.TrimPrefix(c, "?"))
		as := have[strings.ToLower(table)]
		if as[name] == "" {
			columns = append(columns, "''")
			continue
		}
		columns = append(columns, quoteName(kind, as[schemaTable])+"."+quoteName(kind, as[name]))
	}
	return "SELECT " + strings.Join(columns, ", ") + " FROM " + quoteName(kind, have[strings.ToLower(p.table)][schemaTable]) + p.join
}

func quoteName(kind, name string) string {
	if kind == "mysql" {
		return "`" + name + "`"
	}
	return `"` + name + `"`
}

// panelRow is one row, with what is needed to make rules of it.
type panelRow struct {
	place  *place
	values []sql.NullString
	source string
	sieve  func([]byte) sieve.Result
}

// get is the value of a column, "" if it is NULL or not there.
func (r *panelRow) get(column string) string {
	for i, c := range r.place.columns {
		if strings.TrimPrefix(c, "?") == column && i < len(r.values) {
			return strings.TrimSpace(r.values[i].String)
		}
	}
	return ""
}

// dormant says why a row is not in force, by a column that says so.
func (r *panelRow) dormant(column string, inForce ...string) string {
	value := r.get(column)
	for _, v := range append(inForce, "1", "y", "t", "yes", "true") {
		if strings.EqualFold(value, v) {
			return ""
		}
	}
	return fmt.Sprintf("%s is %.20q", column, value)
}

func (r *panelRow) rule(m forward.Mechanism, owner, target string) forward.Rule {
	rule := forward.Rule{Owner: owner, Mechanism: m, Target: target, Mode: forward.Redirect, Source: r.source, UID: forward.NoUID}
	if len(target) > forward.MaxTarget {
		rule.Target, rule.Broken = target[:forward.MaxTarget], "the target is too long"
	}
	return rule
}

// list makes rules of a right side with several targets, which is read as that of
// virtual(5). The owner keeps his mail if he is one of them.
func (r *panelRow) list(m forward.Mechanism, owner, targets, dormant string) []forward.Rule {
	var rules []forward.Rule
	for _, target := range aliases.ParseTargets(targets) {
		rule := r.rule(m, owner, target.Text)
		rule.Kind, rule.Dormant = target.Kind, dormant
		if target.Include {
			rule.Kind, rule.Note = forward.Asked, "a list in a file (:include:)"
		}
		rules = append(rules, rule)
	}
	return rules
}

// keepCopies sets the mode of all rules of an owner who is one of his own targets,
// in whatever row.
func keepCopies(rules []forward.Rule) {
	keeps := map[string]bool{}
	for i := range rules {
		if rules[i].Dormant == "" && rules[i].Kind == forward.Address && strings.EqualFold(rules[i].Owner, rules[i].Target) {
			keeps[strings.ToLower(rules[i].Owner)] = true
		}
	}
	for i := range rules {
		if rules[i].Mechanism == forward.SQL && keeps[strings.ToLower(rules[i].Owner)] {
			rules[i].Mode = forward.Copy
		}
	}
}

// nextHop makes a rule of a transport, if it names a host that mail goes to.
func (r *panelRow) nextHop(owner, transport, dormant string) []forward.Rule {
	name, host, found := strings.Cut(transport, ":")
	if !found || host == "" || strings.HasPrefix(host, "unix:") || strings.HasPrefix(host, "/") {
		return nil
	}
	switch strings.ToLower(name) {
	case "virtual", "local", "discard", "error", "maildrop", "dovecot", "procmail", "autoreply", "vacation", "mlmmj":
		return nil
	}
	rule := r.rule(forward.Transport, owner, transport)
	rule.Kind, rule.Dormant, rule.Server = forward.NextHop, dormant, true
	return []forward.Rule{rule}
}

// script makes rules of a Sieve script. One that cannot be read may do anything:
// it is known by its hash.
func (r *panelRow) script(owner, text, dormant string) ([]forward.Rule, []forward.Gap) {
	result := r.sieve([]byte(text))
	var rules []forward.Rule
	for _, t := range result.Targets {
		rule := r.rule(forward.Sieve, owner, t.Target)
		rule.Kind, rule.Mode, rule.Line, rule.Dynamic, rule.Dormant, rule.Broken = t.Kind, t.Mode, t.Line, t.Dynamic, dormant, result.Broken
		rules = append(rules, rule)
	}
	if result.Broken == "" {
		return rules, nil
	}
	sum := sha256.Sum256([]byte(text))
	rule := r.rule(forward.Sieve, owner, "a script that cannot be read")
	rule.Kind, rule.Digest, rule.Dormant, rule.Note = forward.Asked, hex.EncodeToString(sum[:]), dormant, result.Broken
	return append(rules, rule), []forward.Gap{{Source: r.source, Why: fmt.Sprintf("script of %.100q: %s", owner, result.Broken)}}
}
