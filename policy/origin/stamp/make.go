package stamp

import (
	"strconv"
	"strings"
	"time"
)

// Make is the value of the field that the site's own code puts on a message, for
// tests and for what plays a site. nonce is 16 characters of base64url. Of s it
// takes all but Site and Time; names that are too long are cut.
func Make(now time.Time, site *Site, s *Stamp, rcpts []string, subject, nonce string) string {
	value := strings.Join([]string{
		version,
		"k=" + site.KeyID,
		"t=" + strconv.FormatInt(now.Unix(), 10),
		"n=" + nonce,
		"b=" + strconv.Itoa(s.Blog),
		"p=" + encodeName(strings.ToLower(cleaned(s.Plugin)), longestPlugin),
		"e=" + entry(s.Entry),
		"f=" + encodeName(s.Script, longestScript),
		"c=" + clientToken(s.WebClient),
		"r=" + recipientsDigest(rcpts),
		"s=" + subjectDigest(subject),
	}, " ")
	return value + " m=" + b64.EncodeToString(mac(site.Key, siteContext, value))
}
