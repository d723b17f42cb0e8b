package incident_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"relayguard/incident"
	"relayguard/policy"
)

func counter(name string, used, count int64) policy.Counter {
	return policy.Counter{Limit: name, Key: "login:x recipient_domain:customer.example.net", Used: used - 1, Amount: 1, Count: count, Window: time.Hour}
}

func TestNearIsOneNoticeAnHour(t *testing.T) {
	var log bytes.Buffer
	b, d := newBook(incident.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	b.Near(start, "login:a", counter("login-hour", 240, 300))
	b.Tick(start)
	if !strings.Contains(log.String(), "account=login:a limit=login-hour used=240 count=300") {
		t.Errorf("the log is not told at once: %s", &log)
	}
	for i := range 20 {
		b.Near(start.Add(time.Duration(i)*time.Second), fmt.Sprintf("login:b%02d", i), counter("login-hour", 250+int64(i), 300))
	}
	b.Near(start, "login:a", counter("login-hour", 290, 300))
	b.Near(start, "login:a", counter("login-hour", 241, 300)) // of another window, or out of turn
	now := start
	for range 3 * 3600 {
		now = now.Add(time.Second)
		b.Tick(now)
	}
	wantEvents(t, d, incident.Notice)
	if at := d.alerts[0].Time; !at.Equal(start.Add(time.Minute)) {
		t.Errorf("told at %v, want it a minute after the first, with those that followed", at)
	}
	const want = "near their limits: login:a login-hour 290 of 300, login:b19 login-hour 269 of 300,"
	if text := d.alerts[0].Text; !strings.HasPrefix(text, want) || !strings.Contains(text, " and 15 others; relayguard limits list") || strings.Contains(text, "example.net") {
		t.Errorf("notice %q, want the fullest first and nobody's recipients", text)
	}
	if n := strings.Count(log.String(), "\n"); n != 21 {
		t.Errorf("%d lines in the log, want one for each account", n)
	}
	for range 1000 { // each second a message near the limit
		now = now.Add(10 * time.Second)
		b.Near(now, "login:a", counter("login-hour", 290, 300))
		b.Tick(now)
	}
	if n := len(d.alerts); n > 1+4 {
		t.Errorf("%d notices in less than three hours more", n-1)
	}
}

func TestNearIsBounded(t *testing.T) {
	var log bytes.Buffer
	b, d := newBook(incident.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	for i := range 100_000 {
		b.Near(start, fmt.Sprintf("login:%s%d\n", strings.Repeat("long", 100), i), counter("login-hour", 299, 300))
	}
	b.Tick(start.Add(time.Minute))
	wantEvents(t, d, incident.Notice)
	if text := d.alerts[0].Text; len(text) > 700 || strings.Contains(text, "\n") || !strings.Contains(text, "and more than 94 others") {
		t.Errorf("notice of %d octets: %q", len(text), text)
	}
	if n := strings.Count(log.String(), "\n"); n != 100 {
		t.Errorf("%d lines in the log, want 100", n)
	}
}

func TestNoticesOfOneTopicAreJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan error, 10)
		f := &fake{do: func(context.Context, incident.Alert) error { return <-free }}
		c := incident.NewChannels(incident.ChannelsOptions{}, f)
		c.Send(alert("first", incident.Opened))
		synctest.Wait() // it is being delivered
		for i := range 3 {
			c.Send(incident.NewNotice(start, "held", fmt.Sprint("held ", i)))
			c.Send(incident.NewNotice(start, "near", fmt.Sprint("near ", i, "\x1b")))
		}
		c.Send(alert("", incident.Opened)) // about another thing, though it has no id
		free <- nil
		free <- errors.New("away")
		synctest.Wait()
		c.Send(incident.NewNotice(start, "held", "held 3")) // the one that failed waits
		close(free)
		time.Sleep(time.Minute)
		synctest.Wait()
		var got []string
		for _, a := range f.got {
			got = append(got, fmt.Sprint(a.Event, " ", a.Topic, " ", a.Text))
		}
		want := []string{"opened  t", "notice held held 2", "notice held held 3", `notice near near 2\x1b`, "opened  t"}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("delivered %q, want %q", got, want)
		}
		c.Close()
	})
}

func TestAbused(t *testing.T) {
	b, _ := newBook(incident.Options{Abuses: func() []string { return []string{"plugin-first-time", "template-first-time"} }})
	b.Observe(start, stop("login:a", "login-hour"))
	b.Observe(start, stop("local_user:www-data", "template-first-time"))
	for account, want := range map[string]bool{"login:a": false, "local_user:www-data": true, "local_user:www": false, "": false} {
		if got := b.Abused(account); got != want {
			t.Errorf("%q: %t, want %t", account, got, want)
		}
	}
	b.Tick(start.Add(time.Hour))
	if b.Abused("local_user:www-data") {
		t.Error("it is closed, and still counts")
	}
	b.Observe(start.Add(2*time.Hour), stop("local_user:www-data", "template-first-time"))
	if !b.Abused("local_user:www-data") {
		t.Error("it came back, and does not count")
	}
}

func TestShutBuckets(t *testing.T) {
	b, _ := newBook(incident.Options{Abuses: func() []string { return []string{"plugin-first-time", "template-first-time"} }})
	see := func(origin, cause string, buckets ...string) {
		s := stop(origin, cause)
		s.Buckets = buckets
		b.Observe(start, s)
	}
	see("local_user:www-data", "site-volume", "site:a.example")
	see("local_user:www-data", "plugin-first-time", "plugin:share@b.example")
	see("local_user:www-data", "plugin-first-time", "plugin:share@a.example")
	see("local_user:www-data", "template-first-time", "template:t1", "plugin:share@a.example")
	see("login:a", "plugin-first-time", "plugin:share@c.example")
	if got, want := b.ShutBuckets("local_user:www-data"), []string{"plugin:share@a.example", "plugin:share@b.example", "template:t1"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want those of open incidents of abuse, %q", got, want)
	}
	b.Tick(start.Add(time.Hour))
	if got := b.ShutBuckets("local_user:www-data"); len(got) != 0 {
		t.Errorf("closed: %q", got)
	}
	none, _ := newBook(incident.Options{})
	if got := none.ShutBuckets("local_user:www-data"); got != nil {
		t.Errorf("without causes of abuse: %q", got)
	}
}
