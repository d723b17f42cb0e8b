package blocklists

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"relayguard/rbl"
	"relayguard/rbl/sender"
)

// Seen is what the first server outside saw of us.
type Seen struct {
	Addr    netip.Addr // from which we came; one that others can see
	Helo    string     // as we called ourselves
	By      string     // who says so: his own name for himself
	QueueID string     // ours, of that mail
}

// Bounds of a message's header.
const (
	maxHeader   = 512 << 10
	maxField    = 8 << 10 // of one Received field
	maxReceived = 200
)

// Received reads a message as somebody outside received it, and finds from which
// address we came there: in the Received line directly above the topmost of our own.
// Those above it were written by others about others; those below could be anybody's,
// our own name in them as well. So there is one at most, and none where that line does
// not tell.
// helos are our names, in HELO and in our own Received lines. ours reports whether a
// queue id and Message-ID are of our mail; nil: not asked.
//
// All of it can be forged, by whoever hands the message in: what comes by itself
// counts only if Confirmed. Nothing found is no error.
func Received(r io.Reader, helos []string, ours func(queueID, messageID string) bool) ([]Seen, error) {
	traces, messageID, err := readTraces(r)
	if err != nil {
		return nil, fmt.Errorf("read the header of a message: %w", err)
	}
	last := slices.IndexFunc(traces, func(t trace) bool { return isOne(t.by, helos) })
	if last < 1 { // it never was here, or came back: then the lines below were handed in
		return nil, nil
	}
	own, above := traces[last], traces[last-1]
	if own.id == "" || !isOne(above.helo, helos) || !rbl.Public(above.addr) || ours != nil && !ours(own.id, messageID) {
		return nil, nil
	}
	return []Seen{{Addr: above.addr, Helo: above.helo, By: above.by, QueueID: own.id}}, nil
}

// Confirmed reports whether DNS of the name by which we introduce ourselves has that
// address. Of what was learnt from mail that came by itself, only that counts. The error
// says that DNS did not tell.
func Confirmed(ctx context.Context, r rbl.Resolver, addr netip.Addr, helo string) (bool, error) {
	return sender.Confirmed(ctx, r, helo, addr)
}

func isOne(name string, names []string) bool {
	return name != "" && slices.ContainsFunc(names, func(n string) bool {
		return strings.EqualFold(strings.TrimSuffix(n, "."), name)
	})
}

// readTraces reads the Received fields, the newest first, and the Message-ID.
func readTraces(r io.Reader) (traces []trace, messageID string, err error) {
	lines := bufio.NewReader(io.LimitReader(r, maxHeader))
	var field strings.Builder
	take := func() {
		name, value, found := strings.Cut(field.String(), ":")
		switch name = strings.TrimSpace(name); {
		case !found:
		case strings.EqualFold(name, "Received") && len(traces) < maxReceived:
			traces = append(traces, parseTrace(value))
		case strings.EqualFold(name, "Message-ID") && messageID == "":
			messageID = strings.TrimSpace(value)
		}
		field.Reset()
	}
	for {
		line, err := lines.ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, "", err
		}
		text := strings.TrimRight(line, "\r\n")
		switch {
		case text == "" && line != "": // the header's end
			take()
			return traces, messageID, nil
		case text != "" && (text[0] == ' ' || text[0] == '\t'):
		default:
			take()
		}
		if field.Len()+len(text) <= maxField {
			field.WriteString(text)
		}
		if err != nil {
			take()
			return traces, messageID, nil
		}
	}
}
