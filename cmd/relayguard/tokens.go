package main

import (
	"crypto/rand"
	"sync"
	"time"
)

const (
	tokenLife = 2 * time.Minute // longer than one attempt to hand in mail
	maxTokens = 1000
)

// tokens are the one-time tokens of the guard's own mail. Safe for concurrent use.
type tokens struct {
	mu    sync.Mutex
	given map[string]time.Time // until when
}

// give makes one; "" if too many are out.
func (t *tokens) give(now time.Time) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	for token, until := range t.given {
		if !now.Before(until) {
			delete(t.given, token)
		}
	}
	if len(t.given) >= maxTokens {
		return ""
	}
	if t.given == nil {
		t.given = map[string]time.Time{}
	}
	token := rand.Text()
	t.given[token] = now.Add(tokenLife)
	return token
}

// take reports whether a token was given and neither taken nor out of date, and
// takes it.
func (t *tokens) take(now time.Time, token string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	until, given := t.given[token]
	delete(t.given, token)
	return given && now.Before(until)
}
