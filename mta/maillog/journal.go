package maillog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// entry is an entry of the systemd journal: what "journalctl -o json" writes
// on one line.
type entry struct {
	cursor string
	uid    int // -1: not known
	line   Line
}

// journalFields are those asked for, beside the cursor and times that always
// come.
const journalFields = "MESSAGE,SYSLOG_IDENTIFIER,SYSLOG_PID,_PID,_UID,_HOSTNAME"

// parseEntry reads one line of "journalctl -o json": an object whose values
// are strings, arrays of octets where they are no UTF-8, arrays of those where
// a field occurs more than once (the first counts), or null where too long.
func parseEntry(data []byte) (entry, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return entry{}, fmt.Errorf("read journal entry: %w", err)
	}
	field := func(name string) string { return fieldText(fields[name], true) }
	e := entry{cursor: field("__CURSOR"), uid: -1}
	if e.cursor == "" || len(e.cursor) > maxCheckpoint/2 || strings.ContainsAny(e.cursor, " \t\r\n") {
		return entry{}, fmt.Errorf("read journal entry: cursor %.40q is none", e.cursor)
	}
	micros, ok := number(field("__REALTIME_TIMESTAMP"))
	if !ok {
		return entry{}, fmt.Errorf("read journal entry %s: no time", e.cursor)
	}
	if uid, ok := number(field("_UID")); ok && uid < 1<<32 {
		e.uid = int(uid)
	}
	e.line = Line{
		Time: time.UnixMicro(micros).UTC(), Host: field("_HOSTNAME"), Tag: field("SYSLOG_IDENTIFIER"),
		Text: field("MESSAGE"), Count: 1,
	}
	if e.line.Tag == "" {
		e.line.Tag = noValue // an empty one is syslog's own voice in a file
	}
	if len(e.line.Text) > MaxLine {
		e.line.Text = ""
	}
	for _, name := range []string{"SYSLOG_PID", "_PID"} {
		if pid, ok := number(field(name)); ok && pid < 1<<31 {
			e.line.PID = int(pid)
			break
		}
	}
	return e, nil
}

// fieldText reads a value of a field, UTF-8 without line feeds.
func fieldText(raw json.RawMessage, outer bool) string {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 {
		return ""
	}
	var text string
	switch raw[0] {
	case '"':
		if json.Unmarshal(raw, &text) != nil {
			return ""
		}
	case '[':
		var values []json.RawMessage
		if json.Unmarshal(raw, &values) != nil || len(values) == 0 {
			return ""
		}
		if first := values[0]; outer && len(first) > 0 && (first[0] == '"' || first[0] == '[') {
			return fieldText(first, false)
		}
		octets := make([]byte, len(values))
		for i, value := range values {
			n, err := strconv.ParseUint(string(value), 10, 8)
			if err != nil {
				return ""
			}
			octets[i] = byte(n)
		}
		text = string(octets)
	}
	if !utf8.ValidString(text) {
		text = strings.ToValidUTF8(text, "?")
	}
	if strings.ContainsAny(text, "\r\n") {
		text = strings.NewReplacer("\r", "?", "\n", "?").Replace(text)
	}
	return text
}
