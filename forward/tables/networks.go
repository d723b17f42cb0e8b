package tables

import (
	"context"
	"net/netip"
	"strings"

	mta "relayguard/mta/postfix"
)

// networks lists a cidr_table(5): keys are addresses of clients and hosts.
func (r *Reader) networks(ctx context.Context, t mta.Table, out *table) {
	if text, source, ok := r.rulesText(ctx, t, out); ok {
		out.Entries = parseNetworks(text, source)
	}
}

func parseNetworks(data, path string) []Entry {
	var entries []Entry
	var conditions []string
	for _, l := range logicalLines(data) {
		text := strings.TrimRight(l.text, spaces)
		switch {
		case keyword(text, "if"):
			network := strings.TrimLeft(text[2:], "!"+spaces)
			if network == "" || !isNetwork(network) {
				continue
			}
			conditions = append(conditions, "if "+strings.TrimLeft(text[2:], spaces))
			continue
		case keyword(text, "endif"):
			if len(conditions) > 0 && len(text) == len("endif") {
				conditions = conditions[:len(conditions)-1]
			}
			continue
		}
		rest := strings.TrimLeft(text, "!"+spaces)
		negation := text[:len(text)-len(rest)]
		end := strings.IndexAny(rest, spaces)
		if end < 0 {
			continue // no result: Postfix skips the rule
		}
		network, value := rest[:end], strings.Trim(rest[end:], spaces)
		entry := Entry{
			Key:   strings.Join(append(conditions[:len(conditions):len(conditions)], strings.TrimSpace(negation)+network), " "),
			Value: value, Source: path, Line: l.number, Pattern: true,
		}
		if !isNetwork(network) {
			entry.Dormant = "no network: Postfix skips the rule"
		}
		entries = append(entries, entry)
	}
	return entries
}

// isNetwork: Postfix refuses a network with bits set in its host part.
func isNetwork(s string) bool {
	s = strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")
	if prefix, err := netip.ParsePrefix(strings.Replace(s, "]", "", 1)); err == nil {
		return prefix == prefix.Masked()
	}
	_, err := netip.ParseAddr(s)
	return err == nil
}
