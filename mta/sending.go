package mta

import (
	"fmt"
	"net/netip"
)

// Sending is how mail leaves an instance for other servers: by which SMTP clients,
// to which relay hosts, from which addresses, under which names.
type Sending struct {
	Hostname string       // myhostname
	Ways     []Way        // by setting, service and next hop, each once
	Proxies  []netip.Addr // proxy_interfaces: addresses outside that a NAT or proxy leads here

	// Stopped: the red switch is pulled. What routed mail before is not to be seen
	// then; every SMTP client of master.cf is among the Ways.
	Stopped bool

	// Unread is what could not be looked into, and what is no SMTP client: mail may
	// leave in other ways. The SMTP clients that nothing else names are among the
	// Ways then.
	Unread []Unread
}

// Way is one SMTP client with one next hop.
type Way struct {
	Service string // of master.cf: "smtp"
	Setting string // what leads there: "default_transport", "relayhost", "transport_maps"; "": nothing that could be read
	Key     string // of a table, the first of several: "example.net"; "" if it is for all mail
	NextHop string // "[relay.example.net]:587"; "": the recipient's own servers
	More    int    // further next hops of that table and service, which are left out

	Bind4, Bind6 Bind
	Enforced     bool // smtp_bind_address_enforce: from another address nothing is sent
	IP4, IP6     bool // inet_protocols
	Prefer       string
	Fallback     string // smtp_fallback_relay, where others than NextHop may see us
	Helo         string
}

// Bind is the source address of a Way's connections. The zero value: the kernel chooses.
type Bind struct {
	Addr    netip.Addr
	Setting string // "smtp_bind_address", "inet_interfaces"
}

// Every reports whether all mail goes this way that no other setting sends elsewhere.
func (w Way) Every() bool { return w.Key == "" && w.Setting != "relay_transport" && w.Setting != "" }

// Unread is a part of a setting whose contents could not be listed.
type Unread struct {
	Setting string // "virtual_mailbox_domains"
	Item    string // "mysql:/etc/postfix/domains.cf"
	Err     error
}

func (u Unread) Error() string { return fmt.Sprintf("%s: %s: %v", u.Setting, u.Item, u.Err) }
