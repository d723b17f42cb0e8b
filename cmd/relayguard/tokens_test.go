package main

import (
	"testing"
	"time"
)

func TestATokenCountsOnce(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	var all tokens
	a, b := all.give(now), all.give(now)
	if a == "" || a == b {
		t.Fatalf("gave %q and %q", a, b)
	}
	if all.take(now, "") || all.take(now, "guessed") {
		t.Error("took what it never gave")
	}
	if !all.take(now, a) {
		t.Error("did not take what it gave")
	}
	if all.take(now, a) {
		t.Error("took one twice")
	}
	if all.take(now.Add(tokenLife), b) {
		t.Error("took one that is out of date")
	}
}

func TestTokensAreBounded(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	var all tokens
	for range maxTokens {
		all.give(now)
	}
	if all.give(now) != "" {
		t.Error("gave more than its bound")
	}
	if all.give(now.Add(tokenLife)) == "" {
		t.Error("those out of date are still in the way")
	}
}
