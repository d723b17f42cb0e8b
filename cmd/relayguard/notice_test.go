package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/control"
	"relayguard/incident"
	"relayguard/policy"
)

func TestNoticeIsALetterToForward(t *testing.T) {
	d := originsOf(t, "shop.example.jp")
	for line, want := range map[string]string{
		"notice shop.example.jp":                                 "Subject: Mail of your web site shop.example.jp has been stopped",
		"notice shop.example.jp --stage update --sign Hoster":    "Hoster",
		"notice i-0d5kqw3m8x --stage analysis --cause it.was.so": "We found: it.was.so",
		"notice shop.example.jp --lang ja":                       "お客様各位",
	} {
		code, stdout, stderr := d.run(strings.Fields(line)...)
		if code != exitFine || !strings.Contains(stdout, want) || !strings.HasPrefix(stdout, "Subject: ") || !strings.Contains(stderr, "i-other") {
			t.Errorf("%s: exit %d, %s\n%s", line, code, stdout, stderr)
		}
		if strings.Contains(stdout, "198.51.100.7") {
			t.Errorf("%s names a web client:\n%s", line, stdout)
		}
	}
}

func TestNoticeOfAClosedIncidentSaysThatItIsOver(t *testing.T) {
	d := newFakeDaemon(t)
	facts := noticeFacts{Incident: siteIncident("shop.example.jp")}
	facts.Incident.Closed = noon
	d.always("GET /v1/notice", facts)
	if code, stdout, _ := d.run("notice", "shop.example.jp"); code != exitFine || !strings.Contains(stdout, "flows again") {
		t.Errorf("exit %d: %s", code, stdout)
	}
}

func TestNoticeWithoutALetter(t *testing.T) {
	d := newFakeDaemon(t)
	facts := noticeFacts{Incident: someIncident("login:taro@example.jp")}
	d.on("GET /v1/notice", func(json.RawMessage) (any, error) {
		if facts.Incident.ID == "" {
			return nil, control.Errorf(http.StatusNotFound, "no incident is known")
		}
		return facts, nil
	})
	if code, stdout, stderr := d.run("notice", "i-0d5kqw3m8x"); code != exitFinding || stdout != "" || !strings.Contains(stderr, "not about a web site") {
		t.Errorf("of a login: exit %d, %q, %q", code, stdout, stderr)
	}
	facts.Incident = someIncident("template:ab12")
	if code, stdout, stderr := d.run("notice", "i-0d5kqw3m8x"); code != exitFinding || stdout != "" || !strings.Contains(stderr, "--site") {
		t.Errorf("of a text: exit %d, %q, %q", code, stdout, stderr)
	}
	if code, stdout, _ := d.run("notice", "i-0d5kqw3m8x", "--site", "Blog.example.jp"); code != exitFine || !strings.Contains(stdout, "blog.example.jp") {
		t.Errorf("of a text, and its site: exit %d, %q", code, stdout)
	}
	facts.Incident.ID = ""
	if code, stdout, stderr := d.run("notice", "x"); code != exitFinding || stdout != "" || !strings.Contains(stderr, "no incident is known") {
		t.Errorf("of none: exit %d, %q, %q", code, stdout, stderr)
	}
}

func TestNoticeWritesOverNoFile(t *testing.T) {
	d := originsOf(t, "shop.example.jp")
	file := filepath.Join(t.TempDir(), "letter.txt")
	if code, stdout, stderr := d.run("notice", "shop.example.jp", "--out", file); code != exitFine || stdout != "" {
		t.Fatalf("exit %d, %q, %q", code, stdout, stderr)
	}
	text, err := os.ReadFile(file)
	if err != nil || !strings.HasPrefix(string(text), "Subject: ") {
		t.Errorf("%q, %v", text, err)
	}
	if code, _, stderr := d.run("notice", "shop.example.jp", "--out", file, "--lang", "ja"); code != exitCannotTell || !strings.Contains(stderr, file) {
		t.Errorf("again: exit %d, %q", code, stderr)
	}
	if again, _ := os.ReadFile(file); string(again) != string(text) {
		t.Error("the file was written over")
	}
}

func TestNoticeTakesNoCauseThatIsCut(t *testing.T) {
	d := originsOf(t, "shop.example.jp")
	long := strings.Repeat("因", incident.MaxCause)
	code, stdout, stderr := d.run("notice", "shop.example.jp", "--stage", "analysis", "--cause", long)
	if code != exitFine || !strings.Contains(strings.Join(strings.Fields(stdout), ""), long) {
		t.Errorf("the longest: exit %d, %s", code, stderr)
	}
	for flag, text := range map[string]string{"--cause": long + "x", "--sign": strings.Repeat("x", incident.MaxFrom+1)} {
		d.asked = nil
		if code, stdout, stderr := d.run("notice", "shop.example.jp", "--stage", "analysis", flag, text); code != exitUsage || stdout != "" || !strings.Contains(stderr, flag) || d.asked != nil {
			t.Errorf("%s: exit %d, %s", flag, code, stderr)
		}
	}
}

// Issue 5, review finding H6: what a letter says goes by the limit and by what an
// admin ordered.
func TestNoticeKnowsTheMeasure(t *testing.T) {
	s := aState(t, stateConfig(t))
	t.Cleanup(func() { s.close(nil) })
	c := *config.Default()
	s.config.Store(&c)
	i := siteIncident("shop.example.jp")
	order := func(kind policy.SwitchKind, subject policy.Subject, value string, term time.Duration) {
		sw := policy.Switch{Kind: kind, Subject: subject, Value: value, Reason: "r", By: "root", Since: time.Now()}
		if term > 0 {
			sw.Until = time.Now().Add(term)
		}
		if _, err := s.switches.Set(sw); err != nil {
			t.Fatal(err)
		}
	}
	facts := func(cause, origin string) noticeFacts {
		f := noticeFacts{Incident: i}
		f.Incident.Cause, f.Incident.Origin = cause, origin
		known := s.knownOf(time.Now())
		f.ordered(&known)
		return f
	}
	if f := facts("plugin-first-time", i.Origin); f.Kind != "abuse" || !f.Strangers || f.Suspended != "" || !f.Probation.IsZero() {
		t.Errorf("a limit that stays shut: %+v", f)
	}
	if f := facts("site-volume", "site:shop.example.jp"); f.Kind != "volume" || f.Strangers {
		t.Errorf("one that has room again: %+v", f)
	}
	order(policy.Probation, policy.SubjectSite, "shop.example.jp", time.Hour)
	order(policy.Suspend, policy.SubjectSite, "shop.example.jp", 0)
	if f := facts("suspended", "local_user:root"); f.Kind != "" || f.Suspended != "site:shop.example.jp" || f.Probation.IsZero() {
		t.Errorf("a site that is suspended: %+v", f)
	}
	order(policy.Suspend, policy.SubjectPlugin, "share-by-mail", 0)
	order(policy.Suspend, policy.SubjectSite, "blog.example.jp", 0)
	if f := facts("suspended", "local_user:root"); f.Suspended != "plugin:share-by-mail" {
		t.Errorf("a plugin that is suspended: %+v", f)
	}
}

func TestNoticeSaysWhatWorksWithoutTheDaemon(t *testing.T) {
	s := aState(t, stateConfig(t))
	t.Cleanup(func() { s.close(nil) })
	_, err := noticeOf(t.Context(), s.journal, noticeKnown{}, "nobody")
	if err == nil || strings.Contains(err.Error(), "incident list") || !strings.Contains(err.Error(), "origins show") {
		t.Errorf("got %v", err)
	}
}

func TestOriginsOfNobodyAreAnEmptyList(t *testing.T) {
	d := newFakeDaemon(t)
	d.always("GET /v1/origins", []originRank{})
	d.always("GET /v1/origins/with-plugin", []originRank(nil))
	for _, line := range []string{"origins list --json", "origins with-plugin x --json"} {
		if _, stdout, _ := d.run(strings.Fields(line)...); strings.TrimSpace(stdout) != "[]" {
			t.Errorf("%s: %q", line, stdout)
		}
	}
}
