// Package forwardtest is what tests of forwarding rules by real deliveries share:
// the machine outside that gets the alerts, rules as the commands print them, mail
// that is sent and arrives, accounts that exist for one test.
//
// The trap: the guard looks at the whole machine. Tests count only rules that
// stand in files of their own; see Listed.In.
package forwardtest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"
)

// Alert is what the guard posts.
type Alert struct {
	Event  string `json:"event"`
	Topic  string `json:"topic"`
	Text   string `json:"text"`
	Detail struct {
		Kind     string      `json:"kind"` // "baseline", "appeared", "changed", ...
		Count    int         `json:"count"`
		Forwards []AlertRule `json:"forwards"`
	} `json:"detail"`
	Came time.Time `json:"-"`
}

// AlertRule is a rule in an alert.
type AlertRule struct {
	Rule
	Classes []string `json:"classes"`
	Writer  string   `json:"writer"`
}

// Webhook is a machine outside that gets the alerts. Safe for concurrent use.
type Webhook struct {
	*httptest.Server
	mu   sync.Mutex
	all  []Alert
	came chan struct{} // closed and made anew with each alert
}

// NewWebhook starts one; it ends with the test.
func NewWebhook(t *testing.T) *Webhook {
	w := &Webhook{came: make(chan struct{})}
	w.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var posted struct{ Alert Alert }
		if err := json.NewDecoder(r.Body).Decode(&posted); err != nil {
			t.Errorf("what the guard posts: %v", err)
			return
		}
		posted.Alert.Came = time.Now()
		w.mu.Lock()
		defer w.mu.Unlock()
		w.all = append(w.all, posted.Alert)
		close(w.came)
		w.came = make(chan struct{})
	}))
	t.Cleanup(w.Close)
	return w
}

// Mark is how many alerts there are by now.
func (w *Webhook) Mark() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.all)
}

// Since are the alerts after a mark.
func (w *Webhook) Since(mark int) []Alert {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.all[mark:])
}

// Wait returns the first alert after the mark that fits.
func (w *Webhook) Wait(ctx context.Context, mark int, fits func(*Alert) bool) (Alert, error) {
	for {
		w.mu.Lock()
		all, came := w.all[mark:], w.came
		w.mu.Unlock()
		for i := range all {
			if fits(&all[i]) {
				return all[i], nil
			}
		}
		select {
		case <-ctx.Done():
			return Alert{}, fmt.Errorf("wait for an alert; these came: %+v: %w", all, ctx.Err())
		case <-came:
		}
	}
}

// WaitBaseline waits until the guard knows what there was at first.
func (w *Webhook) WaitBaseline(t testing.TB) {
	t.Helper()
	if _, err := w.Wait(Soon(t), 0, func(a *Alert) bool { return a.Detail.Kind == "baseline" }); err != nil {
		t.Fatal(err)
	}
}

// WaitRule returns the first rule after the mark that fits, of an alert of that
// kind, and when the alert came.
func (w *Webhook) WaitRule(t testing.TB, mark int, kind string, fits func(*AlertRule) bool) (AlertRule, time.Time) {
	t.Helper()
	var found AlertRule
	alert, err := w.Wait(Soon(t), mark, func(a *Alert) bool {
		for i := range a.Detail.Forwards {
			if a.Detail.Kind == kind && fits(&a.Detail.Forwards[i]) {
				found = a.Detail.Forwards[i]
				return true
			}
		}
		return false
	})
	if err != nil {
		t.Fatalf("%s: %v", kind, err)
	}
	return found, alert.Came
}

// Told are the rules of that kind that any alert after the mark is about, once for
// each time it is told.
func (w *Webhook) Told(mark int, kind string) []AlertRule {
	var all []AlertRule
	for _, a := range w.Since(mark) {
		if a.Detail.Kind == kind {
			all = append(all, a.Detail.Forwards...)
		}
	}
	return all
}
