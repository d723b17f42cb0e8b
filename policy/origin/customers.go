package origin

import (
	"fmt"
	"strconv"
	"strings"
)

// Customer is somebody who has several accounts, domains or sites, and answers
// for all of them together.
type Customer struct {
	Name       string
	Logins     []string
	Domains    []string // of logins and sites; none below
	LocalUsers []string // by name or uid, on a web node with "@NODE"
	Sites      []string
	Networks   []string // names of trusted networks
}

// Customers finds whose an origin is. The zero value knows nobody.
type Customers struct {
	names map[belonging]string
	uids  bool // some belong by uid
}

// belonging is one thing that a customer has.
type belonging struct {
	kind  Kind
	value string
}

// Kinds of belongings beside those of accounts.
const (
	kindDomain Kind = "domain"
	kindSite   Kind = "site"
)

// NewCustomers checks the entries: each with a name of its own and at least one
// belonging, each belonging with one customer. It returns every error found.
func NewCustomers(entries []Customer) (Customers, []error) {
	var errs []error
	c := Customers{names: map[belonging]string{}}
	seen := map[string]bool{}
	for i, e := range entries {
		at := fmt.Sprintf("customer[%d]", i)
		if e.Name != "" {
			at = fmt.Sprintf("customer %q", e.Name)
		}
		switch {
		case e.Name == "":
			errs = append(errs, fmt.Errorf("%s: no name; limits and overrides name customers", at))
		case label(e.Name, Kernel).Value != e.Name:
			errs = append(errs, fmt.Errorf("%s: a name with blanks or control characters, or longer than %d octets; write it as acme-corp", at, longestLabel))
		case seen[e.Name]:
			errs = append(errs, fmt.Errorf("%s: name used twice; join the two entries", at))
		}
		seen[e.Name] = true
		all := e.belongings()
		if len(all) == 0 {
			errs = append(errs, fmt.Errorf("%s: nothing belongs to it; add logins, domains, local_users, sites or networks, or delete the entry", at))
		}
		for _, b := range all {
			switch other, dup := c.names[b]; {
			case b.value == "":
				errs = append(errs, fmt.Errorf("%s: an empty %s; delete it", at, b.kind))
			case dup && other == e.Name:
				errs = append(errs, fmt.Errorf("%s: %s %q is named twice; delete one", at, b.kind, b.value))
			case dup:
				errs = append(errs, fmt.Errorf("%s: %s %q is also with customer %q; everything has one customer", at, b.kind, b.value, other))
			}
			c.names[b] = e.Name
			c.uids = c.uids || strings.HasPrefix(b.value, "uid:")
		}
	}
	if len(errs) > 0 {
		return Customers{}, errs
	}
	return c, nil
}

// belongings are what the customer has, in the form in which origins have it.
func (c *Customer) belongings() []belonging {
	var all []belonging
	for _, list := range []struct {
		kind   Kind
		values []string
		form   func(string) string
	}{
		{KindLogin, c.Logins, strings.ToLower},
		{kindDomain, c.Domains, host},
		{KindLocalUser, c.LocalUsers, localUser},
		{kindSite, c.Sites, host},
		{KindNetwork, c.Networks, func(s string) string { return s }},
	} {
		for _, v := range list.values {
			all = append(all, belonging{list.kind, list.form(strings.TrimSpace(v))})
		}
	}
	return all
}

func host(s string) string { return strings.ToLower(strings.TrimSuffix(s, ".")) }

// localUser is a Unix account by its name or its uid, of this machine or of a web
// node: "acme", "uid:6001", "acme@web3", "uid:6001@web3".
func localUser(s string) string {
	account, node, on := strings.Cut(s, "@")
	if uid, err := strconv.ParseUint(strings.TrimPrefix(account, "uid:"), 10, 32); err == nil {
		account = "uid:" + strconv.FormatUint(uid, 10)
	}
	if on {
		return account + "@" + node
	}
	return account
}

// Find is the customer of the account, else of the proven site, with the
// confidence of what told. The zero Key: none.
func (c *Customers) Find(o *Origin) Key {
	if len(c.names) == 0 {
		return Key{}
	}
	kind, account := o.Account()
	name := c.names[belonging{kind, account.Value}]
	switch {
	case name == "" && kind == KindLogin:
		name = c.names[belonging{kindDomain, o.Domain()}]
	case name == "" && kind == KindLocalUser && c.uids:
		name = c.names[belonging{kind, "uid:" + o.LocalID()}]
	}
	if name != "" {
		return Key{name, account.Confidence}
	}
	if !o.Site.Proven() {
		return Key{}
	}
	name = c.names[belonging{kindSite, o.Site.Value}]
	if name == "" && kind != KindLogin {
		name = c.names[belonging{kindDomain, o.Domain()}]
	}
	if name == "" {
		return Key{}
	}
	return Key{name, o.Site.Confidence}
}
