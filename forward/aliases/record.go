package aliases

import "bytes"

// LineLimit is Postfix's line_length_limit: octets of one record.
const LineLimit = 2048

// Record is what local(8) reads of a .forward or :include: file in one go.
type Record struct {
	Line int // from 1
	Text string
}

// ParseForward cuts a .forward or :include: file into records. A line of more
// than limit octets (0: LineLimit) is several, and each is a comment by its
// own first octet; nothing continues a line; a NUL ends what is seen of one.
// Comments and empty records are left out.
func ParseForward(data []byte, limit int) []Record {
	if limit <= 0 {
		limit = LineLimit
	}
	var records []Record
	for line := 1; len(data) > 0; {
		end := min(limit, len(data))
		nextLine := line
		if newline := bytes.IndexByte(data[:end], '\n'); newline >= 0 {
			end = newline + 1
			nextLine++
		}
		text := data[:end]
		if nul := bytes.IndexByte(text, 0); nul >= 0 {
			text = text[:nul]
		}
		if len(bytes.TrimSpace(text)) > 0 && text[0] != '#' {
			records = append(records, Record{line, string(text)})
		}
		data, line = data[end:], nextLine
	}
	return records
}
