package postfix

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"relayguard/mta"
)

// webNode looks at a Postfix whose mail a relay is to judge, by what this guard
// signs: at what takes the mail elsewhere, takes the signature off, or adds
// recipients that were not signed.
func (r *report) webNode(ctx context.Context) {
	if r.NodeHeader == "" {
		return
	}
	r.relayhost()
	tables := map[string][]string{} // by place
	for _, name := range []string{"smtp_header_checks", "milter_header_checks"} {
		if value := r.Instance.Setting(name); value != "" {
			tables[value] = append(tables[value], name)
		}
	}
	for n := range r.Instance.Services {
		s := &r.Instance.Services[n]
		if value, own := s.Overrides["smtp_header_checks"]; own && value != "" && s.Command == "smtp" {
			value = r.effective(s, "smtp_header_checks")
			tables[value] = append(tables[value], s.ID()+": smtp_header_checks")
		}
	}
	for value, places := range tables {
		if why := r.nodeHeaderLost(ctx, value); why != "" {
			slices.Sort(places)
			r.add(mta.Finding{ID: "node-header-lost", Severity: mta.Warning, Where: strings.Join(places, ", "), What: why,
				Why:    "the relay does not hear which site a mail is from: it judges all of this node's mail by its text alone",
				Remedy: "relayguard setup postfix --apply, if the table is relayguard's; else an exception for " + r.NodeHeader})
		}
	}
	for _, a := range []struct{ name, does string }{
		{"always_bcc", "adds a recipient to every message"},
		{"sender_bcc_maps", "adds recipients"},
		{"recipient_bcc_maps", "adds recipients"},
		{"virtual_alias_maps", "changes recipients"},
		{"smtp_generic_maps", "changes recipients"},
	} {
		if value := r.Instance.Setting(a.name); value != "" {
			r.add(mta.Finding{ID: "node-recipients", Severity: mta.Warning, Where: "main.cf", What: fmt.Sprintf("%s = %s %s after the guard has signed them", a.name, value, a.does),
				Why:    "the relay does not believe the signature on mail to recipients that were not signed: it counts as unattributed, and is judged by its text alone",
				Remedy: "let the relay do it: move the setting there"})
		}
	}
}

// relayhost wants one way for all mail: to the relay.
func (r *report) relayhost() {
	i := r.Instance
	transport, nexthop, _ := strings.Cut(i.Setting("default_transport"), ":")
	if i.Setting("relayhost") != "" || nexthop != "" || transport != "smtp" {
		return
	}
	f := mta.Finding{ID: "node-relayhost", Severity: mta.Critical, Where: "main.cf", What: "relayhost is empty: this web node delivers mail itself",
		Why: "the relay, which alone decides by the limits, never sees it", Remedy: "relayhost = [RELAY]:PORT, whose guard has this node in a section [[node]]"}
	for _, name := range []string{"transport_maps", "sender_dependent_relayhost_maps", "sender_dependent_default_transport_maps"} {
		if value := i.Setting(name); value != "" {
			f.Severity = mta.Warning
			f.What += fmt.Sprintf(", unless %s = %s has it go to the relay", name, value)
		}
	}
	r.add(f)
}

// nodeHeaderLost says what header checks make of the guard's field; empty: nothing.
func (r *report) nodeHeaderLost(ctx context.Context, checks string) string {
	tables, err := ParseTables(checks)
	if err != nil {
		return err.Error()
	}
	args := r.Instance.tools.inDir(r.Instance.ConfigDir, "-q", r.NodeHeader+": v1 n=web1")
	for _, t := range tables {
		args = append(args, t.String())
	}
	s, err := r.Instance.tools.run(ctx, nil, maxToolOutput, "postmap", args...)
	if err != nil && !nothingFound(err, s) {
		return fmt.Sprintf("it cannot be told what becomes of the field %s: %v", r.NodeHeader, err)
	}
	does, _, _ := strings.Cut(strings.TrimSpace(string(s.stdout)), " ")
	switch strings.ToUpper(does) {
	case "", "DUNNO", "OK", "INFO", "WARN", "PREPEND", "PASS", "FILTER":
		return ""
	}
	return fmt.Sprintf("does %q with the field %s", does, r.NodeHeader)
}
