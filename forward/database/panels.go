package database

import (
	"strings"

	"relayguard/forward"
)

// panels are the places of each panel. Tables and columns are those of their
// released schemas; testdata/panels has the parts that matter.
var panels = map[string][]*place{
	"postfixadmin": {
		{table: "alias", columns: []string{"address", "goto", "active"}, always: true, rules: aliasRow("address", "goto", "active")},
		aliasDomainPlace,
		{table: "domain", columns: []string{"domain", "transport", "?active"}, rules: transportRow("domain", "transport", true)},
	},
	"iredmail": {
		{table: "forwardings", columns: []string{"address", "forwarding", "active"}, always: true, rules: aliasRow("address", "forwarding", "active")},
		aliasDomainPlace,
		bccPlace("sender_bcc_user", "username", true, false), bccPlace("recipient_bcc_user", "username", false, false),
		bccPlace("sender_bcc_domain", "domain", true, true), bccPlace("recipient_bcc_domain", "domain", false, true),
		{table: "domain", columns: []string{"domain", "transport", "?active"}, rules: transportRow("domain", "transport", true)},
		{table: "mailbox", columns: []string{"username", "transport", "?active"}, rules: transportRow("username", "transport", false)},
		{table: "sender_relayhost", columns: []string{"account", "relayhost"}, rules: relayhostRow},
	},
	"mailcow": {
		{table: "alias", columns: []string{"address", "goto", "active"}, always: true, rules: mailcowAlias},
		aliasDomainPlace,
		{table: "bcc_maps", columns: []string{"local_dest", "bcc_dest", "type", "active"}, rules: mailcowBCC},
		{table: "recipient_maps", columns: []string{"old_dest", "new_dest", "active"}, rules: mailcowRecipient},
		{table: "sieve_filters", columns: []string{"username", "script_name", "script_data"}, always: true, rules: mailcowSieve},
		{table: "spamalias", columns: []string{"address", "goto"}, rules: aliasRow("address", "goto", "")},
		{table: "transports", columns: []string{"destination", "nexthop", "active"}, rules: mailcowTransport},
		{table: "relayhosts", columns: []string{"hostname", "active", "domain.domain"}, join: " JOIN domain ON domain.relayhost = relayhosts.id", rules: mailcowRelayhost},
	},
	"ispconfig": {
		{table: "mail_forwarding", columns: []string{"source", "destination", "active", "?type"}, always: true, rules: aliasRow("source", "destination", "active")},
		{table: "mail_user", columns: []string{"email", "cc", "?sender_cc", "?custom_mailfilter", "?forward_in_lda"}, rules: ispconfigUser},
		{table: "mail_transport", columns: []string{"domain", "transport", "active"}, rules: transportRow("domain", "transport", true)},
		{table: "mail_domain", columns: []string{"domain", "relay_host", "active"}, rules: ispconfigRelay},
		{table: "mail_access", columns: []string{"source", "access", "active", "?type"}, rules: ispconfigAccess},
		{table: "mail_content_filter", columns: []string{"type", "pattern", "action", "data", "active"}, rules: ispconfigFilter},
	},
	"plesk": {
		{table: "mail_redir", columns: []string{"address", "mail.mail_name", "mail.postbox", "mail.mail_group", "domains.name"}, always: true,
			join: " JOIN mail ON mail.id = mail_redir.mn_id JOIN domains ON domains.id = mail.dom_id", rules: pleskGroup},
		{table: "mail", columns: []string{"mail_name", "redirect", "redir_addr", "postbox", "domains.name"},
			join: " JOIN domains ON domains.id = mail.dom_id", rules: pleskRedirect},
		{table: "mail_aliases", columns: []string{"alias", "mail.mail_name", "domains.name"},
			join: " JOIN mail ON mail.id = mail_aliases.mn_id JOIN domains ON domains.id = mail.dom_id", rules: pleskAlias},
		{table: "Parameters", columns: []string{"parameter", "value", "DomainServices.type", "domains.name"},
			join: " JOIN DomainServices ON DomainServices.parameters_id = Parameters.id JOIN domains ON domains.id = DomainServices.dom_id", rules: pleskCatchAll},
		{table: "domain_aliases", columns: []string{"name", "?mail", "domains.name"},
			join: " JOIN domains ON domains.id = domain_aliases.dom_id", rules: pleskDomainAlias},
	},
}

type rowRules = func(*panelRow) ([]forward.Rule, []forward.Gap)

// aliasRow is a table like virtual(5).
func aliasRow(owner, targets, active string) rowRules {
	return func(r *panelRow) ([]forward.Rule, []forward.Gap) {
		dormant := ""
		if active != "" {
			dormant = r.dormant(active, "2") // mailcow's 2: in force, not shown to the user
		}
		rules := r.list(forward.SQL, r.get(owner), r.get(targets), dormant)
		for i := range rules {
			rules[i].Server = strings.HasPrefix(rules[i].Owner, "@")
		}
		return rules, nil
	}
}

// aliasDomainPlace: a whole domain is another one; users keep their names.
var aliasDomainPlace = &place{table: "alias_domain", columns: []string{"alias_domain", "target_domain", "active"},
	rules: func(r *panelRow) ([]forward.Rule, []forward.Gap) {
		rule := r.rule(forward.SQL, "@"+r.get("alias_domain"), "@"+r.get("target_domain"))
		rule.Dormant, rule.Server = r.dormant("active"), true
		return []forward.Rule{rule}, nil
	}}

func bccPlace(table, owner string, sender, domain bool) *place {
	return &place{table: table, columns: []string{owner, "bcc_address", "active"},
		rules: func(r *panelRow) ([]forward.Rule, []forward.Gap) {
			name := r.get(owner)
			if domain {
				name = "@" + name
			}
			return r.bcc(name, r.get("bcc_address"), r.dormant("active"), sender), nil
		}}
}

func (r *panelRow) bcc(owner, target, dormant string, sender bool) []forward.Rule {
	rules := r.list(forward.BCC, owner, target, dormant)
	for i := range rules {
		rules[i].Mode, rules[i].Sender, rules[i].Server = forward.Copy, sender, strings.HasPrefix(owner, "@")
	}
	return rules
}

func transportRow(owner, transport string, domain bool) rowRules {
	return func(r *panelRow) ([]forward.Rule, []forward.Gap) {
		name := r.get(owner)
		if domain && !strings.Contains(name, "@") {
			name = "@" + name
		}
		return r.nextHop(name, r.get(transport), r.dormant("active", "")), nil
	}
}

// relayhostRow is of outgoing mail: what somebody sends takes another way.
func relayhostRow(r *panelRow) ([]forward.Rule, []forward.Gap) {
	return r.senderHop(r.get("account"), r.get("relayhost"), ""), nil
}

func (r *panelRow) senderHop(owner, host, dormant string) []forward.Rule {
	if host == "" {
		return nil
	}
	rule := r.rule(forward.Transport, owner, "smtp:"+strings.TrimPrefix(host, "smtp:"))
	rule.Kind, rule.Sender, rule.Server, rule.Dormant = forward.NextHop, true, true, dormant
	return []forward.Rule{rule}
}

// mailcowAlias: some targets at localhost are its own names for "throw it away"
// and "learn from it".
func mailcowAlias(r *panelRow) ([]forward.Rule, []forward.Gap) {
	rules, gaps := aliasRow("address", "goto", "active")(r)
	for i := range rules {
		switch strings.ToLower(rules[i].Target) {
		case "null@localhost", "spam@localhost", "ham@localhost":
			rules[i].Kind, rules[i].Note = forward.File, "thrown away, or learned from, by mailcow itself"
		}
	}
	return rules, gaps
}

func mailcowBCC(r *panelRow) ([]forward.Rule, []forward.Gap) {
	owner := r.get("local_dest")
	if !strings.Contains(owner, "@") {
		owner = "@" + owner
	}
	return r.bcc(owner, r.get("bcc_dest"), r.dormant("active"), r.get("type") == "sender"), nil
}

func mailcowRecipient(r *panelRow) ([]forward.Rule, []forward.Gap) {
	owner := r.get("old_dest")
	if !strings.Contains(owner, "@") {
		owner = "@" + owner
	}
	target := r.get("new_dest")
	if !strings.Contains(target, "@") {
		target = "@" + target
	}
	rule := r.rule(forward.Canonical, owner, target)
	rule.Dormant, rule.Server = r.dormant("active"), true
	return []forward.Rule{rule}, nil
}

func mailcowSieve(r *panelRow) ([]forward.Rule, []forward.Gap) {
	return r.script(r.get("username"), r.get("script_data"), r.dormant("script_name", "active"))
}

func mailcowTransport(r *panelRow) ([]forward.Rule, []forward.Gap) {
	owner := r.get("destination")
	switch {
	case owner == "*":
		owner = forward.Everybody
	case !strings.Contains(owner, "@"):
		owner = "@" + strings.TrimPrefix(owner, ".")
	}
	return r.nextHop(owner, "smtp:"+strings.TrimPrefix(r.get("nexthop"), "smtp:"), r.dormant("active")), nil
}

func mailcowRelayhost(r *panelRow) ([]forward.Rule, []forward.Gap) {
	return r.senderHop("@"+r.get("domain.domain"), r.get("hostname"), r.dormant("active")), nil
}

// ispconfigUser: copies of a mailbox, and its own filter.
func ispconfigUser(r *panelRow) ([]forward.Rule, []forward.Gap) {
	owner := r.get("email")
	rules := r.list(forward.SQL, owner, r.get("cc"), "")
	for i := range rules {
		rules[i].Mode = forward.Copy
	}
	rules = append(rules, r.bcc(owner, r.get("sender_cc"), "", true)...)
	text := r.get("custom_mailfilter")
	if text == "" {
		return rules, nil
	}
	scripted, gaps := r.script(owner, text, "")
	return append(rules, scripted...), gaps
}

func ispconfigRelay(r *panelRow) ([]forward.Rule, []forward.Gap) {
	return r.senderHop("@"+r.get("domain"), r.get("relay_host"), r.dormant("active")), nil
}

// ispconfigAccess is access(5).
func ispconfigAccess(r *panelRow) ([]forward.Rule, []forward.Gap) {
	return r.action(forward.Access, r.get("source"), r.get("access"), r.get("type") == "sender"), nil
}

// ispconfigFilter is header_checks(5): pattern, action and its argument.
func ispconfigFilter(r *panelRow) ([]forward.Rule, []forward.Gap) {
	rules := r.action(forward.Checks, forward.Everybody, r.get("action")+" "+r.get("data"), false)
	for i := range rules {
		rules[i].Note = "where " + r.get("type") + " matches " + r.get("pattern")
	}
	return rules, nil
}

// action makes a rule of REDIRECT, BCC and FILTER.
func (r *panelRow) action(m forward.Mechanism, owner, action string, sender bool) []forward.Rule {
	verb, argument, _ := strings.Cut(strings.TrimSpace(action), " ")
	argument = strings.TrimSpace(argument)
	if argument == "" {
		return nil
	}
	rule := r.rule(m, owner, argument)
	rule.Server, rule.Sender, rule.Dormant = true, sender, r.dormant("active")
	switch strings.ToUpper(verb) {
	case "REDIRECT":
	case "BCC":
		rule.Mode = forward.Copy
	case "FILTER":
		rule.Kind = forward.NextHop
	default:
		return nil
	}
	return []forward.Rule{rule}
}

// pleskGroup: targets of a mail group, which is what Plesk calls forwarding. With
// a mailbox its owner gets the mail, too.
func pleskGroup(r *panelRow) ([]forward.Rule, []forward.Gap) {
	dormant := r.dormant("mail.mail_group")
	return r.plesk(r.get("mail.mail_name"), r.get("address"), r.get("mail.postbox"), dormant), nil
}

// pleskRedirect is forwarding as older Plesk had it.
func pleskRedirect(r *panelRow) ([]forward.Rule, []forward.Gap) {
	return r.plesk(r.get("mail_name"), r.get("redir_addr"), r.get("postbox"), r.dormant("redirect")), nil
}

func (r *panelRow) plesk(user, targets, postbox, dormant string) []forward.Rule {
	rules := r.list(forward.SQL, user+"@"+r.get("domains.name"), targets, dormant)
	for i := range rules {
		if strings.EqualFold(postbox, "true") {
			rules[i].Mode = forward.Copy
		}
	}
	return rules
}

func pleskAlias(r *panelRow) ([]forward.Rule, []forward.Gap) {
	domain := "@" + r.get("domains.name")
	return []forward.Rule{r.rule(forward.SQL, r.get("alias")+domain, r.get("mail.mail_name")+domain)}, nil
}

// pleskCatchAll: mail to users that are not there.
func pleskCatchAll(r *panelRow) ([]forward.Rule, []forward.Gap) {
	if r.get("DomainServices.type") != "mail" || r.get("parameter") != "catch_addr" {
		return nil, nil
	}
	rules := r.list(forward.SQL, "@"+r.get("domains.name"), r.get("value"), "")
	for i := range rules {
		rules[i].Server = true
	}
	return rules, nil
}

func pleskDomainAlias(r *panelRow) ([]forward.Rule, []forward.Gap) {
	rule := r.rule(forward.SQL, "@"+r.get("name"), "@"+r.get("domains.name"))
	rule.Dormant, rule.Server = r.dormant("mail", ""), true
	return []forward.Rule{rule}, nil
}
