package wordpress

import (
	_ "embed"
	"regexp"
	"sort"
	"strings"
)

//go:embed stamp.php
var stampPHP string

//go:embed relayguard.php
var mustUsePHP string

//go:embed prepend.php
var prependPHP string

// DefaultSiteMap is where the prepend looks for the keys of sites.
const DefaultSiteMap = "/etc/relayguard/php-sites.php"

// MustUse is the must-use plugin, one file.
func MustUse() []byte { return []byte(whole(mustUsePHP)) }

// Prepend is the file for auto_prepend_file, one that chains no other. It is
// meant for PHP 8.0 and newer with mail and mb_send_mail in disable_functions;
// older ones it leaves alone.
func Prepend() []byte { return PrependWith("", DefaultSiteMap) }

// PrependWith is a prepend that runs another after itself, the one that was
// configured before (absolute path; empty: none), and that finds keys by the map
// in a file that SiteMap wrote.
func PrependWith(chain, siteMap string) []byte {
	text := withLine(whole(prependPHP), "// relayguard:sites", "\t\tconst SITES = "+phpString(siteMap)+"; // relayguard:sites")
	return []byte(strings.ReplaceAll(withLine(text, "// relayguard:chain",
		"if ("+phpString(chain)+" !== '' && is_file("+phpString(chain)+")) { // relayguard:chain"),
		"\trequire '';", "\trequire "+phpString(chain)+";"))
}

// IsPrepend reports whether a file is a prepend of relayguard's, of any version.
func IsPrepend(text []byte) bool { return ours(text, "relayguard:prepend") }

// SiteMap is the file that tells the prepend where the keys of sites are that are
// not in wp-content: the directory of a site, absolute and without links, to its
// key file. It has no secrets. Relayguard writes an empty one; what an admin adds
// stays.
func SiteMap(keyFiles map[string]string) []byte {
	roots := make([]string, 0, len(keyFiles))
	for root := range keyFiles {
		roots = append(roots, root)
	}
	sort.Strings(roots)
	var b strings.Builder
	b.WriteString("<?php\n// relayguard:sites. The prepend looks here for keys that are not below a site's\n// wp-content/mu-plugins: 'directory of the site' => 'its key file'. Relayguard\n// wrote it once; what you add stays, and then the file does, too.\nreturn array(\n")
	for _, root := range roots {
		b.WriteString("\t" + phpString(root) + " => " + phpString(keyFiles[root]) + ",\n")
	}
	b.WriteString(");\n")
	return []byte(b.String())
}

// IsEmptySiteMap reports whether a file is a SiteMap of relayguard's, of any
// version, to which nobody added a site.
func IsEmptySiteMap(text []byte) bool {
	return ours(text, "relayguard:sites") && emptyMap.Match(text)
}

var emptyMap = regexp.MustCompile(`\nreturn array\(\s*\);\s*$`)

// whole puts the common part in.
func whole(text string) string {
	return withLine(text, "// relayguard:include", strings.TrimSpace(strings.TrimPrefix(stampPHP, "<?php")))
}

// withLine replaces the one line that ends so.
func withLine(text, ends, by string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasSuffix(line, ends) {
			lines[i] = by
		}
	}
	return strings.Join(lines, "\n")
}

var phpEscape = strings.NewReplacer(`\`, `\\`, `'`, `\'`)

// phpString is text as PHP's single-quoted strings have it.
func phpString(text string) string { return "'" + phpEscape.Replace(text) + "'" }

// ours reports whether a file has the mark that what relayguard writes begins
// with.
func ours(text []byte, mark string) bool {
	return strings.Contains(string(text[:min(len(text), 1024)]), "// "+mark+".")
}
