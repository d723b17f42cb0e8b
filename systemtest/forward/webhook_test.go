package forward_test

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

// alert is what the guard posts.
type alert struct {
	Event  string `json:"event"`
	Topic  string `json:"topic"`
	Text   string `json:"text"`
	Detail struct {
		Kind     string      `json:"kind"`
		Count    int         `json:"count"`
		Forwards []alertRule `json:"forwards"`

		Records int64  `json:"records"`
		Hash    string `json:"hash"`
		Method  string `json:"method"`
	} `json:"detail"`
}

// alertRule is a rule in an alert.
type alertRule struct {
	ID, Owner, Target, Mechanism, Verdict, Mode, Source, Writer, By, Reason string

	Classes []string
	Until   time.Time
}

// webhook is a machine outside that gets the alerts.
type webhook struct {
	*httptest.Server
	mu   sync.Mutex
	all  []alert
	came chan struct{} // closed and made anew with each alert
}

func newWebhook(t *testing.T) *webhook {
	w := &webhook{came: make(chan struct{})}
	w.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var posted struct{ Alert alert }
		if err := json.NewDecoder(r.Body).Decode(&posted); err != nil {
			t.Errorf("what the guard posts: %v", err)
			return
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.all = append(w.all, posted.Alert)
		close(w.came)
		w.came = make(chan struct{})
	}))
	t.Cleanup(w.Close)
	return w
}

// mark is how many alerts there are by now.
func (w *webhook) mark() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.all)
}

// since are the alerts after a mark.
func (w *webhook) since(mark int) []alert {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.all[mark:])
}

// wait returns the first alert after the mark that fits.
func (w *webhook) wait(ctx context.Context, mark int, fits func(*alert) bool) (alert, error) {
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
			return alert{}, fmt.Errorf("wait for an alert; these came: %+v: %w", all, ctx.Err())
		case <-came:
		}
	}
}

// waitRule returns the first alert after the mark of that kind about a rule with
// that target, and the rule.
func (w *webhook) waitRule(t *testing.T, mark int, kind, target string) alertRule {
	t.Helper()
	var found alertRule
	_, err := w.wait(soon(t), mark, func(a *alert) bool {
		i := slices.IndexFunc(a.Detail.Forwards, func(r alertRule) bool { return a.Detail.Kind == kind && r.Target == target })
		if i >= 0 {
			found = a.Detail.Forwards[i]
		}
		return i >= 0
	})
	if err != nil {
		t.Fatalf("%s %s: %v", kind, target, err)
	}
	return found
}
