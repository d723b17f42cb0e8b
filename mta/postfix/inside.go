package postfix

import (
	"context"
	"regexp"
	"slices"
	"strings"

	"relayguard/mta"

	"golang.org/x/net/idna"
)

// inside tells recipients of ours from all others, as far as Postfix's settings
// can be listed.
type inside struct {
	domains []string // lower case, sorted; ".example.jp" stands for all names below
	unread  []mta.Unread
}

// inside lists our domains. Names below a relay domain are Postfix's own too,
// where parent_domain_matches_subdomains says so.
func (r RedSwitch) inside(ctx context.Context) (inside, error) {
	domains, unread, err := r.Instance.InsideDomains(ctx)
	if err != nil {
		return inside{}, err
	}
	items, err := splitList(r.Instance.Setting("parent_domain_matches_subdomains"))
	if err == nil && slices.Contains(items, "relay_domains") {
		relayed, _, err := r.Instance.domainsOf(ctx, "relay_domains") // what is unread is known already
		if err != nil {
			return inside{}, err
		}
		for _, d := range relayed {
			domains = append(domains, "."+strings.TrimPrefix(d, "."))
		}
	}
	for _, d := range append(domains, r.Inside...) {
		d = strings.ToLower(strings.TrimSuffix(d, "."))
		domains = append(domains, d)
		if ascii, err := idna.ToASCII(d); err == nil {
			domains = append(domains, ascii)
		}
		if unicode, err := idna.ToUnicode(d); err == nil {
			domains = append(domains, unicode)
		}
	}
	slices.Sort(domains)
	domains = slices.DeleteFunc(slices.Compact(domains), func(d string) bool { return d == "" || d == "." })
	return inside{domains, unread}, nil
}

// has reports whether an address is ours. One without a domain is.
func (in inside) has(address string) bool {
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return true
	}
	domain := strings.ToLower(strings.TrimSuffix(address[at+1:], "."))
	if _, found := slices.BinarySearch(in.domains, domain); found {
		return true
	}
	for n := range len(domain) {
		if domain[n] == '.' && n > 0 {
			if _, found := slices.BinarySearch(in.domains, domain[n:]); found {
				return true
			}
		}
	}
	return false
}

// onlyOutside reports whether nobody inside is among the recipients listed. Where domains
// of ours could not be listed, Postfix must have said so itself.
func (in inside) onlyOutside(q mta.QueueFile) bool {
	if len(q.Recipients) == 0 || slices.ContainsFunc(q.Recipients, in.has) {
		return false
	}
	return len(in.unread) == 0 || strings.Contains(q.Reason, mta.StopText)
}

// tableChunk is how many domains one expression of the table names.
const tableChunk = 50

// stopTable is a regexp_table(5) for transport_maps that sends every address of
// a domain that is not ours, and no address literal, to stopTransport.
func stopTable(domains []string) string {
	var out strings.Builder
	out.WriteString("# Made by relayguard stop, taken away by relayguard start.\n")
	conditions := 1
	out.WriteString(`if !/\]$/` + "\n")
	for chunk := range slices.Chunk(domains, tableChunk) {
		var names []string
		for _, d := range chunk {
			if below, found := strings.CutPrefix(d, "."); found {
				names = append(names, `[^@]+\.`+regexp.QuoteMeta(below))
			} else {
				names = append(names, regexp.QuoteMeta(d))
			}
		}
		out.WriteString("if !/@(" + strings.ReplaceAll(strings.Join(names, "|"), "/", `\/`) + ")$/\n")
		conditions++
	}
	out.WriteString("/@/ " + stopTransport + "\n")
	out.WriteString(strings.Repeat("endif\n", conditions))
	return out.String()
}
