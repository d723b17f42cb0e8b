package config

import (
	"fmt"
	"strings"
)

// Customer is who has several logins, domains or sites.
type Customer struct {
	Name       string
	Logins     []string // lower case
	Domains    []string // of logins and sites; lower case, A-labels
	LocalUsers []string // Unix accounts
	Sites      []string // lower case
	Networks   []string // names of sections [[network]]
}

var customers = section[Customer]{"customer", `Who has several logins, domains or web sites; one section for each. A limit per "customer" counts what is theirs together; an [[override]] for one is for all of it. What is named here belongs to one customer only.`, zero[Customer], sampleCustomers, []field[Customer]{
	required(key("name", label("customer"), func(c *Customer) *string { return &c.Name },
		`Names it in limits, overrides and alerts.`)),
	key("logins", list(login(), true), func(c *Customer) *[]string { return &c.Logins },
		`Single logins. One named here is this customer's even if its domain is another's.`),
	key("domains", list(domain(), true), func(c *Customer) *[]string { return &c.Domains },
		`Domains: all logins and web sites in them; subdomains are not included.`),
	key("local_users", list(account("account"), true), func(c *Customer) *[]string { return &c.LocalUsers },
		`Unix accounts of this machine that send by sendmail(1).`),
	key("sites", list(site(), true), func(c *Customer) *[]string { return &c.Sites },
		`Single web sites.`),
	key("networks", list(label("network"), true), func(c *Customer) *[]string { return &c.Networks },
		`Trusted networks, by the names of their sections [[network]].`),
}}

func sampleCustomers() []Customer {
	return []Customer{{
		Name:     "example-shop",
		Logins:   []string{"taro@example.jp"},
		Domains:  []string{"shop.example.jp"},
		Networks: []string{"web-1"},
	}}
}

// site is the name of a web site.
func site() kind[string] {
	k := kind[string]{name: "web site", wanted: `a web site such as "shop.example.jp"`, show: showString}
	return one(k, aString, func(s string) (string, string, bool) {
		switch {
		case strings.Contains(s, "://"):
			return "", "leave out what is before the name, and the ://", false
		case s == "" || len(s) > 255 || unprintable(s) || strings.ContainsAny(s, " \t*"):
			return "", "write its name as its mail shows it, without spaces", false
		}
		return strings.ToLower(s), fine, true
	})
}

// checkCustomers: a customer has something, and nothing that another has.
func (r *report) checkCustomers(all []Customer, names named, tables []*table) {
	r.distinct(tables, "name", func(i int) string { return all[i].Name })
	first := map[string]*table{}
	for i, t := range tables {
		c := &all[i]
		empty := true
		for _, what := range []struct {
			key  string
			have []string
		}{{"logins", c.Logins}, {"domains", c.Domains}, {"local_users", c.LocalUsers}, {"sites", c.Sites}, {"networks", c.Networks}} {
			empty = empty && len(what.have) == 0 && t.sure(what.key)
			if !t.sure(what.key) {
				continue
			}
			for j, s := range what.have {
				if other := first[what.key+":"+s]; other != nil {
					r.add(t.elem(what.key, j), "customer."+what.key, quote(s)+" a second time", "each with one customer", fmt.Sprintf("the customer of line %d has it too: delete it there or here", r.line(other.at)))
					continue
				}
				first[what.key+":"+s] = t
			}
		}
		if empty {
			r.add(t.at, "customer", "nothing that is theirs", "at least one login, domain, account, site or network", "add logins, domains, local_users, sites or networks, or delete the section")
		}
		for j, n := range c.Networks {
			if t.sure("networks") {
				r.checkName(names, t.elem("networks", j), "customer.networks", n, "network", n)
			}
		}
	}
}
