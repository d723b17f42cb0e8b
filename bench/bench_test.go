package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{
		{[]float64{3}, 3},
		{[]float64{9, 1, 5}, 5},
		{[]float64{4, 1, 3, 2}, 2.5},
	} {
		if got := median(c.values); got != c.want {
			t.Errorf("median(%v) = %v, want %v", c.values, got, c.want)
		}
	}
	if got := median(nil); got == got {
		t.Errorf("median of nothing = %v, want NaN", got)
	}
}

func TestPercentileIsNearestRank(t *testing.T) {
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(i+1))
	}
	for _, c := range []struct {
		sorted []time.Duration
		q      float64
		want   time.Duration
	}{
		{hundred, 0.5, 50},
		{hundred, 0.99, 99},
		{hundred, 0.991, 100},
		{hundred, 1, 100},
		{hundred[:1], 0.5, 1},
		{hundred[:3], 0.99, 3},
		{nil, 0.5, 0},
	} {
		if got := percentile(c.sorted, c.q); got != c.want {
			t.Errorf("percentile(%d values, %v) = %d, want %d", len(c.sorted), c.q, got, c.want)
		}
	}
}

func TestFrameThereAndBack(t *testing.T) {
	b := appendFrame(nil, cmdHelo, "client", "\x00")
	if want := "\x00\x00\x00\x08Hclient\x00"; string(b) != want {
		t.Fatalf("frame %q, want %q", b, want)
	}
	b = appendFrame(b, cmdEOM)
	for cut := range frameHeader + 8 {
		if _, _, size, err := cutFrame(b[:cut]); size != 0 || err != nil {
			t.Fatalf("%d octets of a frame: size %d, error %v, want an incomplete one", cut, size, err)
		}
	}
	cmd, payload, size, err := cutFrame(b)
	if cmd != cmdHelo || string(payload) != "client\x00" || err != nil {
		t.Fatalf("first frame %q %q, %v", cmd, payload, err)
	}
	if cmd, payload, size, err = cutFrame(b[size:]); cmd != cmdEOM || len(payload) != 0 || size != 5 || err != nil {
		t.Fatalf("second frame %q %q of %d octets, %v", cmd, payload, size, err)
	}
}

func TestFrameOfNoLengthOrTooMuch(t *testing.T) {
	for _, b := range []string{"\x00\x00\x00\x00c", "\xff\xff\xff\xffc"} {
		if _, _, _, err := cutFrame([]byte(b)); err == nil {
			t.Errorf("frame %q: no error", b)
		}
	}
}

func TestParseAgreement(t *testing.T) {
	a, err := parseAgreement([]byte(words(6, 1, nrMail, 2) + "i {auth_authen}\x00" + words(5) + "\x00"))
	if err != nil {
		t.Fatal(err)
	}
	if a.version != 6 || !a.has(nrMail) || a.has(nrRcpt) || a.symLists[2] != "i {auth_authen}" || len(a.symLists) != 2 {
		t.Errorf("agreement %+v", a)
	}
	for _, bad := range []string{"", words(6, 0), words(6, 0, 0) + "xx", words(6, 0, 0, 2) + "i"} {
		if _, err := parseAgreement([]byte(bad)); err == nil {
			t.Errorf("agreement %q: no error", bad)
		}
	}
}

// afters are the commands that a dialogue waits at.
func afters(steps []step) string {
	var b strings.Builder
	for _, s := range steps {
		b.WriteByte(s.after)
	}
	return b.String()
}

// commands are those of the frames of some steps, macros as m.
func commands(t *testing.T, b []byte) string {
	t.Helper()
	var out strings.Builder
	for len(b) > 0 {
		cmd, _, size, err := cutFrame(b)
		if err != nil || size == 0 {
			t.Fatalf("rest %.20q of a step is no frame: %v", b, err)
		}
		if cmd == cmdMacro {
			cmd = 'm'
		}
		out.WriteByte(cmd)
		b = b[size:]
	}
	return out.String()
}

func TestDialogueWaitsWhereTheMilterAnswers(t *testing.T) {
	mails := []mail{newMail(0)}
	headers := strings.Repeat("mL", len(mails[0].header))
	for _, c := range []struct {
		name              string
		agreement         agreement
		open, first       string
		message, firstOut string
	}{
		{"libmilter", agreement{version: 6}, "CH", "",
			"MRT" + strings.Repeat("L", len(mails[0].header)) + "NBE", "AmM"},
		{"version 2 has no DATA", agreement{version: 2}, "CH", "",
			"MR" + strings.Repeat("L", len(mails[0].header)) + "NBE", "AmM"},
		{"RCPT and end of message only", agreement{version: 6, protocol: noData | nrConnect | nrHelo | nrMail | nrHeader | nrEOH | nrBody},
			"", "mCmH", "RE", "AmMmR"},
		{"no body", agreement{version: 6, protocol: noBody | noData | nrHeader | nrEOH}, "CH", "", "MRE", "AmM"},
	} {
		d := newDialogue(c.agreement, mails)
		if got := afters(d.open); got != c.open {
			t.Errorf("%s: opening waits at %q, want %q", c.name, got, c.open)
		}
		if got := commands(t, d.first); got != c.first {
			t.Errorf("%s: before the first message %q, want %q", c.name, got, c.first)
		}
		if got := afters(d.messages[0]); got != c.message {
			t.Errorf("%s: message waits at %q, want %q", c.name, got, c.message)
		}
		if got := commands(t, d.messages[0][0].out); got != c.firstOut {
			t.Errorf("%s: first write %q, want %q", c.name, got, c.firstOut)
		}
	}
	d := newDialogue(agreement{version: 6, protocol: noData | nrHeader | nrEOH | nrBody}, mails)
	last := d.messages[0][len(d.messages[0])-1]
	if got, want := commands(t, last.out), "m"+headers+"mNmBmE"; got != want {
		t.Errorf("last write %q, want %q", got, want)
	}
}

func TestMacrosAsAskedFor(t *testing.T) {
	m := newMail(7)
	e := encoder{agreement: agreement{symLists: map[uint32]string{2: "i {auth_authen} {verify}", 5: "i"}}, mail: &m}
	if got, want := e.macros(cmdMail), "{auth_authen}\x00"+m.login+"\x00"; got != want {
		t.Errorf("macros of MAIL %q, want %q", got, want)
	}
	if got, want := e.macros(cmdEOM), "i\x00"+m.queueID+"\x00"; got != want {
		t.Errorf("macros of EOM %q, want %q", got, want)
	}
	if got := e.macros(cmdRcpt); got != "" {
		t.Errorf("macros of RCPT, for which no list came: %q", got)
	}
}

func TestMailHasItsSize(t *testing.T) {
	for _, i := range []int{0, 7, 511} {
		m := newMail(i)
		if got := len(m.smtp()) - len(".\r\n"); got != messageSize {
			t.Errorf("message %d: %d octets, want %d", i, got, messageSize)
		}
		if len(m.header) < 12 {
			t.Errorf("message %d: %d fields, want 12", i, len(m.header))
		}
	}
}

func TestParseProc(t *testing.T) {
	cpu, err := parseCPU("42 (a) b) S 1 42 42 0 -1 4194560 1 2 3 4 150 50 7 8 20 0")
	if cpu != 2 || err != nil {
		t.Errorf("CPU %v s, %v, want 2 s", cpu, err)
	}
	mb, err := parseMemory("Name:\tx\nVmHWM:\t    2000 kB\nVmRSS:\t    1000 kB\n", "VmRSS")
	if mb != 1.024 || err != nil {
		t.Errorf("memory %v MB, %v, want 1.024", mb, err)
	}
	if busy := parseMachineCPU("cpu  100 0 200 900 50 0 100 300 0 0\ncpu0 1"); busy != 4 {
		t.Errorf("machine busy for %v s, want 4", busy)
	}
}

func TestTableFitsAndFileHasTheAgreedFields(t *testing.T) {
	values := map[string]float64{theGuard: 23456.7, cMilter: 4012.3}
	all := compare("wire/64x4k/messages_per_s", "1/s", cMilter, &goal{5, true, true}, values, wireOrder)
	all = append(all, compare("wire/64x4k/generator_cpu", "s/10k", cMilter, &goal{1.0 / 6, false, true}, map[string]float64{theGuard: 0.51234, cMilter: 3.2}, wireOrder)...)
	var out bytes.Buffer
	printTable(&out, all)
	for line := range strings.Lines(out.String()) {
		if len(line) > 80 {
			t.Errorf("line of %d columns: %s", len(line)-1, line)
		}
	}
	if fields := strings.Fields(strings.Split(out.String(), "\n")[1]); strings.Join(fields, " ") != "wire/64x4k/messages_per_s 23460 1/s libmilter-noop 5.846 >=5x yes" {
		t.Errorf("row %q", fields)
	}

	path := filepath.Join(t.TempDir(), "bench.json")
	if err := writeJSON(path, all); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var read []map[string]any
	if err := json.Unmarshal(b, &read); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"name": "wire/64x4k/messages_per_s", "value": 23460.0, "unit": "1/s", "reference": "libmilter-noop", "ratio": 5.846}
	for k, v := range want {
		if read[0][k] != v {
			t.Errorf("%s: %v, want %v", k, read[0][k], v)
		}
	}
	if goal, _ := read[0]["goal"].(map[string]any); len(goal) != 1 || goal["ratio_at_least"] != 5.0 {
		t.Errorf("goal %v, want ratio_at_least 5", read[0]["goal"])
	}
	if len(read) != 4 || len(read[0]) != len(want)+1 || len(read[1]) != len(want) || read[1]["name"] != "wire/64x4k/messages_per_s/libmilter-noop" {
		t.Errorf("results %v", read)
	}
}

// The raw milter and the generator agree with each other over a real socket.
func TestLoopOverRawMilter(t *testing.T) {
	socket := socketIn(t.TempDir(), "m")
	go serveRaw(socket) // until the test binary ends
	mails := []mail{newMail(0), newMail(1)}
	var l *load
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		var err error
		if l, err = newLoad(socket, mails); err != nil {
			t.Fatal(err)
		}
		l.ready = func(c *conn) error { return c.send(time.Now()) }
		if err = l.connect(3); err == nil {
			break
		}
		l.close()
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	defer l.close()
	for deadline := time.Now().Add(5 * time.Second); l.messages.Load() < 5*perConnection; {
		if _, err := l.poll(100 * time.Millisecond); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d messages after 5 s", l.messages.Load())
		}
	}
}
