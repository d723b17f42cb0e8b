package tables

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	mta "relayguard/mta/postfix"
)

// queryTime bounds one run of "postmap -q -".
const queryTime = 30 * time.Second

// query asks a table for many keys at once, through Postfix.
func (r *Reader) query(ctx context.Context, t mta.Table, keys []string) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTime)
	defer cancel()
	var stdin bytes.Buffer
	for _, key := range keys {
		if key != "" && !strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			stdin.WriteString(key + "\n")
		}
	}
	printed, err := r.Host.Run(ctx, stdin.Bytes(), "postmap", r.inDir("-q", "-", t.String())...)
	answers := make(map[string]string)
	for line := range strings.Lines(string(printed)) {
		if key, value, found := strings.Cut(strings.TrimSuffix(line, "\n"), "\t"); found {
			answers[key] = value
		}
	}
	if err != nil && !nothingFound(err, len(answers)) {
		return answers, fmt.Errorf("ask %s with postmap -q: %w", t, err)
	}
	return answers, nil
}

// nothingFound: postmap ends with 1 if it found no key, and after an error, too;
// only the latter says something on stderr, which Run has in its error.
func nothingFound(err error, answers int) bool {
	var exit interface{ ExitCode() int }
	return answers == 0 && errors.As(err, &exit) && exit.ExitCode() == 1 && !strings.Contains(err.Error(), "postmap:")
}

// known are the addresses to try, at most so many.
func (r *Reader) known(most int, out *table, t mta.Table) []string {
	if r.Known == nil {
		return nil
	}
	keys := r.Known()
	if len(keys) > most {
		out.gap(t.String(), fmt.Sprintf("tried with %d of %d known addresses", most, len(keys)))
		keys = keys[:most]
	}
	return keys
}

// asked is a table that only a server, a program or an environment answers.
func (r *Reader) asked(ctx context.Context, t mta.Table, out *table) {
	out.Opaque, out.Poll = true, true
	if t.Type == "memcache" || t.Type == "mongodb" || t.Type == "nisplus" {
		if data, _, err := r.read(ctx, r.path(t.Name), out); err == nil {
			out.Digest = digest(data)
		}
	}
	r.probe(ctx, t, out)
}

// probe asks for the known addresses, one by one.
func (r *Reader) probe(ctx context.Context, t mta.Table, out *table) {
	if !r.Host.Live() {
		return
	}
	keys := r.known(maxAsked, out, t)
	if len(keys) == 0 {
		return
	}
	answers, err := r.query(ctx, t, keys)
	if err != nil {
		out.gap(t.String(), err.Error())
	}
	for key, value := range answers {
		out.Entries = append(out.Entries, Entry{Key: key, Value: value, Source: t.String()})
	}
	sortEntries(out.Entries)
}

func sortEntries(entries []Entry) {
	slices.SortStableFunc(entries, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Key, b.Key))
	})
}
