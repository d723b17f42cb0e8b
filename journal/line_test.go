package journal

import (
	"encoding/json"
	"fmt"
	"hash/crc32"
	"reflect"
	"testing"
	"time"
	"unicode/utf8"

	"relayguard/policy"
)

// FuzzLine: no line harms, and what is read as a record is written so that it
// is read as the same record.
func FuzzLine(f *testing.F) {
	f.Fuzz(func(t *testing.T, text []byte) {
		_, _ = parseLine(text)
		// Few mutants have the right sum: give it to them.
		record, err := parseLine(fmt.Appendf(nil, "%08x %s", crc32.Checksum(text, castagnoli), text))
		if err != nil || record == nil {
			return
		}
		again := roundTrip(t, record)
		if third := roundTrip(t, again); !reflect.DeepEqual(again, third) {
			t.Errorf("%#v\nbecame %#v", again, third)
		}
	})
}

// roundTrip writes a record and reads it; a record that cannot be written is
// itself.
func roundTrip(t *testing.T, r Record) Record {
	t.Helper()
	line, err := appendLine(nil, r)
	if err != nil {
		return r
	}
	if line[len(line)-1] != '\n' || !utf8.Valid(line) {
		t.Fatalf("not a line of UTF-8: %q", line)
	}
	for i, c := range line[:len(line)-1] {
		if c < ' ' {
			t.Fatalf("control character at %d of %q", i, line)
		}
	}
	back, err := parseLine(line[:len(line)-1])
	if err != nil || back == nil {
		t.Fatalf("%#v\nwritten as %q\nis read as %v: %v", r, line, back, err)
	}
	return back
}

// FuzzRecord: a decision from arbitrary texts comes back from the log as it
// went, and from the database as from the log.
func FuzzRecord(f *testing.F) {
	j, err := Open(f.Context(), Options{Dir: f.TempDir(), MinFree: 1, KeepLogBytes: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { j.Close() })
	n := 0
	f.Fuzz(func(t *testing.T, a, b, c string, number int64, small int, yes bool) {
		n++
		d := Decision{
			ID: fmt.Sprintf("%013d", n), Time: moment(number), Stage: a, Verdict: policy.Verdict(small & 7), Rule: b, Reason: c, Reply: a,
			Phase: policy.Phase(small & 3), Role: policy.Role(small & 7), Listener: b, Account: c, Login: a, LoginBy: b, LocalUser: c, Network: a,
			ClientIP: b, ClientName: c, Helo: a, Confidence: b, UID: small, MailFrom: c, HeaderFrom: a, MessageID: b, QueueID: c,
			Size: number, Recipients: small, Domains: map[string]int{a: small, b: 1, c: 2},
			Findings: []policy.Finding{{Rule: a, Verdict: policy.Verdict(small & 7), Reason: b}},
			Counters: []policy.Counter{{Limit: a, Key: b, Unit: c, Kind: a, Window: time.Duration(small) * time.Microsecond, Count: number, Over: yes, FreeAt: moment(number)}},
			Repeats:  number, LastRepeat: moment(number), Waits: json.RawMessage(a),
			Site: a, SiteBy: b, Plugin: c, PluginBy: a, Node: b, Template: c, Entry: a, Script: b, WebClient: c, Pool: a, Software: b,
		}
		first := roundTrip(t, d)
		if again := roundTrip(t, first); !reflect.DeepEqual(first, again) {
			t.Fatalf("%#v\nbecame %#v", first, again)
		}
		d.Time = moment(time.Now().UnixMicro()) // within retention
		kept := roundTrip(t, d).(Decision)
		kept.Waits = nil // they are the hold's
		if err := j.Append(d); err != nil {
			t.Fatal(err)
		}
		found, err := j.Explain(t.Context(), d.ID)
		if err != nil || len(found) == 0 {
			t.Fatalf("%d found: %v", len(found), err)
		}
		if got := found[0].Decision; got.ID == d.ID && !reflect.DeepEqual(got, kept) {
			t.Errorf("log %#v\ndatabase %#v", kept, got)
		}
	})
}

func benchmarkDecision(i int) Decision {
	return Decision{
		ID: fmt.Sprintf("%013d", i), Time: time.Now(), Stage: StageMessage, Verdict: policy.Accept, Phase: policy.Enforce,
		Listener: "submission", Role: policy.Submission, Account: "login:taro@example.jp", Login: "taro@example.jp", LoginBy: "PLAIN",
		Confidence: "kernel", ClientIP: "203.0.113.7", ClientName: "p7.example.net", Helo: "pc.example.jp", UID: -1,
		MailFrom: "taro@example.jp", HeaderFrom: "taro@example.jp", MessageID: fmt.Sprintf("<%x.%d@example.jp>", i*7919, i), QueueID: fmt.Sprintf("4b%010X", i),
		Size: 2310, Recipients: 1, Domains: map[string]int{"example.net": 1},
		Counters: []policy.Counter{{Limit: "login-hour", Key: "login:taro@example.jp", Unit: "recipients", Kind: "volume", Window: time.Hour, Count: 300, Used: int64(i % 300), Amount: 1}},
	}
}

func benchmarkJournal(b *testing.B) *Journal {
	j, err := Open(b.Context(), Options{Dir: b.TempDir(), AcceptedPerSecond: 1 << 30})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { j.Close() })
	return j
}

func BenchmarkNote(b *testing.B) {
	j := benchmarkJournal(b)
	d := benchmarkDecision(1)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		j.Note(d)
		if n++; n%(acceptedCount/2) == 0 { // what is dropped costs nothing, and would be counted
			b.StopTimer()
			if err := j.file.flush(&j.queue, true); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	}
	if dropped := j.Stats().DroppedAccepted; dropped > 0 {
		b.Errorf("%d dropped", dropped)
	}
}

func BenchmarkAppend(b *testing.B) {
	j := benchmarkJournal(b)
	d := benchmarkDecision(1)
	d.Verdict = policy.Reject
	b.ReportAllocs()
	for b.Loop() {
		if err := j.Append(d); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFill counts from the line in the log to the committed row.
func BenchmarkFill(b *testing.B) {
	dir := b.TempDir()
	path := dir + "/journal.db"
	d, err := openDatabase(b.Context(), path, "")
	if err != nil {
		b.Fatal(err)
	}
	defer d.close()
	var lines [][]byte
	for i := range 1000 {
		line, err := appendLine(nil, benchmarkDecision(i))
		if err != nil {
			b.Fatal(err)
		}
		lines = append(lines, line[:len(line)-1])
	}
	n := 0
	for b.Loop() {
		batch := batch{next: position{1, int64(n)}}
		for _, line := range lines {
			record, err := parseLine(line)
			if err != nil {
				b.Fatal(err)
			}
			r := record.(Decision)
			r.ID = fmt.Sprintf("%013d", n)
			r.MessageID = fmt.Sprintf("<%x@example.jp>", uint64(n)*0x9E3779B97F4A7C15)
			r.QueueID = fmt.Sprintf("4b%010X", n)
			n++
			batch.records = append(batch.records, r)
		}
		if _, err := d.store(&batch); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/row")
}

func TestLineOfEveryRecordComesBack(t *testing.T) {
	at := time.UnixMicro(1_700_000_000_123_456).UTC()
	for _, r := range []Record{
		benchmarkRounded(at),
		Repeat{ID: "a", N: 1, Last: at},
		Held{QueueID: "Q", DecisionID: "d", Account: "a", Rule: "r", Reason: "x", MailFrom: "m", Arrival: at, HeldAt: at, Size: 1, Recipients: 2, Domains: map[string]int{"d": 1}, Site: "s", Plugin: "p", Template: "t"},
		HoldChange{QueueID: "Q", DecisionID: "d", Time: at, State: StateReleasing, By: "b", Reason: "r", NewQueueID: "N", Arrival: at, ChargeID: "release:d"},
		AdminAction{Time: at, By: "b", UID: 0, LoginUID: -1, Verb: "v", Target: "t", Reason: "r", Outcome: "o"},
		Incident{ID: "i", Origin: "o", Account: "a", Addresses: json.RawMessage(`[1]`), Cause: "c", Noticed: "n", Opened: at, Updated: at, Closed: at, Stops: 1, Recipients: 2, State: json.RawMessage(`{"a":[1]}`)},
		Delivery{QueueID: "Q", Time: at, Status: "sent", N: 3},
		Value{Name: "n", Value: "v"},
		Trouble{What: "redis", Why: "no answer", Since: at, Until: at.Add(time.Hour)},
		purge{Account: "a", Time: at},
	} {
		if got := roundTrip(t, r); !reflect.DeepEqual(got, r) {
			t.Errorf("%#v\nbecame %#v", r, got)
		}
	}
}

func benchmarkRounded(at time.Time) Decision {
	d := benchmarkDecision(3)
	d.Time, d.Verdict, d.Waits = at, policy.Hold, json.RawMessage(`{"keys":["login-hour"]}`)
	return d
}
