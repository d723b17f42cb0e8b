package smtptest

import (
	"bufio"
	"fmt"
	"strconv"
	"strings"
)

// Reply is one answer of an SMTP server. A refusal is a Reply, not an error.
type Reply struct {
	Code  int
	Lines []string // the text of each line, without the code
}

// Positive tells whether the server agreed: 2xx or 3xx.
func (r Reply) Positive() bool { return r.Code >= 200 && r.Code < 400 }

// Text is the text of all lines, joined by line feeds.
func (r Reply) Text() string { return strings.Join(r.Lines, "\n") }

// Enhanced is the enhanced status code (RFC 3463) such as "5.7.1", or "".
func (r Reply) Enhanced() string {
	if len(r.Lines) == 0 {
		return ""
	}
	word, _, _ := strings.Cut(r.Lines[0], " ")
	parts := strings.Split(word, ".")
	if len(parts) != 3 {
		return ""
	}
	for _, part := range parts {
		if _, err := strconv.Atoi(part); err != nil {
			return ""
		}
	}
	return word
}

// String is the reply as one line.
func (r Reply) String() string {
	return fmt.Sprintf("%d %s", r.Code, strings.Join(r.Lines, " / "))
}

// readReply reads the lines of one reply (RFC 5321 §4.2.1).
func readReply(r *bufio.Reader) (Reply, error) {
	var reply Reply
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return reply, fmt.Errorf("read SMTP reply: %w", err)
		}
		line = strings.TrimRight(line, "\r\n")
		if len(line) < 3 {
			return reply, fmt.Errorf("read SMTP reply: got %q, want a code of three digits", line)
		}
		code, err := strconv.Atoi(line[:3])
		if err != nil {
			return reply, fmt.Errorf("read SMTP reply: got %q, want a code of three digits", line)
		}
		reply.Code = code
		if len(line) == 3 {
			reply.Lines = append(reply.Lines, "")
			return reply, nil
		}
		reply.Lines = append(reply.Lines, line[4:])
		if line[3] != '-' {
			return reply, nil
		}
	}
}
