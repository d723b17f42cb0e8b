package judge

// CleanDomain is cleanDomain, for the comparison with a real Postfix.
func CleanDomain(s string) string { return cleanDomain(s) }

// CountAddresses is how many addresses there are in s.
func CountAddresses(s string) int {
	for _, t := range scan(s) {
		if t.kind == comment || t.kind == '<' || t.kind == '>' || t.kind == ',' || t.kind == ';' {
			return 0
		}
	}
	return len(split(scan(s)))
}

// CleanAddress brings the domain of an address in inner form into its form.
func CleanAddress(s string) string { return finish(s) }
