package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"relayguard/cmd/internal/control"
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
