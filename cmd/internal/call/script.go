package call

import (
	"bytes"
	"strings"
)

// maxScript bounds a script's name.
const maxScript = 200

// scriptField is PHP's, with mail.add_x_header: "UID:FILE", FILE being the name
// of the file that called mail().
const scriptField = "X-PHP-Originating-Script:"

// scriptOf is the file that PHP says called mail(); "" if it says nothing.
func scriptOf(header []byte) string {
	for line := range bytes.Lines(header) {
		if len(line) < len(scriptField) || !strings.EqualFold(string(line[:len(scriptField)]), scriptField) {
			continue
		}
		value := strings.TrimSpace(string(line[len(scriptField):]))
		if uid, file, found := strings.Cut(value, ":"); found && strings.Trim(uid, "0123456789") == "" {
			value = file
		}
		return clean(value, maxScript)
	}
	return ""
}
