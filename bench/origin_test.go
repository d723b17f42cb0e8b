package main

import (
	"bytes"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"relayguard/policy"
	"relayguard/policy/origin/stamp"
	"relayguard/policy/template"
)

func TestSharesHaveTheirSizeAndTheirText(t *testing.T) {
	kinds, err := shares()
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, k := range kinds {
		total += k.share
		m := k.mail(123456)
		if n := len(m.smtp()) - len(".\r\n"); n > messageSize || n < messageSize-200 {
			t.Errorf("%s: %d octets, want %d less one line", k.name, n, messageSize)
		}
		if strings.Contains(m.smtp(), "{") && k.name != "iso-2022-jp" && k.name != "html" {
			t.Errorf("%s: a mark is left", k.name)
		}
		if m.header[0][0] != "X-Relayguard-Uid" {
			t.Errorf("%s: the first field is %s", k.name, m.header[0][0])
		}
		// What is measured is a text of which much is recognised, and the same of all.
		text, other := textOf(k.mail(1)), textOf(k.mail(2))
		if text.Skeleton == 0 || len(text.Lines) < 10 || len(text.Links)+len(text.Shape) < 8 {
			t.Errorf("%s: %d lines, %d links, shape of %d", k.name, len(text.Lines), len(text.Links), len(text.Shape))
		}
		if text.Skeleton != other.Skeleton || !slices.ContainsFunc(text.Links, func(l uint64) bool { return slices.Contains(other.Links, l) }) {
			t.Errorf("%s: two of a kind differ in what they have in common", k.name)
		}
	}
	if total != 100 {
		t.Errorf("a mix of %d hundredths", total)
	}
}

func textOf(m mail) template.Text {
	var h policy.Header
	for _, f := range m.header {
		h.Add([]byte(f[0]), []byte(f[1]))
	}
	return template.New(template.Options{Parts: 16}).Read(&h, []byte(m.body))
}

func TestStreamIsOfStampsThatAreBelieved(t *testing.T) {
	kinds, err := shares()
	if err != nil {
		t.Fatal(err)
	}
	site := newSite()
	book, err := stamp.NewBook([]stamp.Site{site}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var next atomic.Int64
	s := newStream(&next, &site, kinds...)
	seen := map[string]int{}
	for range 100 {
		m := s.mail()
		last := m.header[len(m.header)-1]
		for _, k := range kinds {
			if !strings.Contains(m.smtp(), "Subject: "+k.raw+"\r\n") {
				continue
			}
			signed := &stamp.Mail{UID: siteUID, RcptTo: []string{m.to}, Subject: k.subject}
			if _, err := book.Verify(time.Now(), []string{last[1]}, signed); err != nil {
				t.Errorf("%s: %v", k.name, err)
			}
			seen[k.name]++
		}
	}
	for _, k := range kinds {
		if seen[k.name] != k.share {
			t.Errorf("%s: %d of 100, want %d", k.name, seen[k.name], k.share)
		}
	}
}

func TestLocalDialogueHasNoClient(t *testing.T) {
	kinds, err := shares()
	if err != nil {
		t.Fatal(err)
	}
	d := newDialogue(agreement{version: 6}, []mail{kinds[0].mail(1)})
	out := string(d.open[0].out)
	if !strings.Contains(out, "{daemon_name}\x00LOCAL-PICKUP\x00") || !strings.HasSuffix(out, "Clocalhost\x004\x00\x00127.0.0.1\x00") {
		t.Errorf("opening %q", out)
	}
	if out := string(d.messages[0][0].out); strings.Contains(out, "auth_") {
		t.Errorf("MAIL with a login: %q", out)
	}
}

func TestBoutIsTheMedianOfDifferences(t *testing.T) {
	f := bout{name: "stamped", with: []float64{100, 190, 110}, without: []float64{80, 160, 100}, goal: &goal{mostAdded, false, false}}
	r := f.result()
	if r.Name != "origin/4k/stamped/cpu_us_added" || r.Value != 20 || r.Unit != "us" || r.Reference != without || r.Ratio != 1.1 {
		t.Errorf("result %+v", r)
	}
	var out bytes.Buffer
	f.name = "unlabelled/iso-2022-jp"
	printBouts(&out, []bout{f})
	for line := range strings.Lines(out.String()) {
		if len(line) > 80 {
			t.Errorf("line of %d columns: %s", len(line)-1, line)
		}
	}
	if fields := strings.Fields(strings.Split(out.String(), "\n")[3]); strings.Join(fields, " ") != "unlabelled/iso-2022-jp 110 100 20 1.100 <=40 yes" {
		t.Errorf("row %q", fields)
	}
}
