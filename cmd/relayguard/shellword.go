package main

import (
	"strings"

	"relayguard/cmd/internal/render"
)

// plainWord are the characters that a shell leaves alone.
const plainWord = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./_-"

// shellWord is s as a shell takes it for one word, for commands that people copy:
// what a sender chose is in some of them. What cannot be shown cannot be copied:
// then it is fallback.
func shellWord(s, fallback string) string {
	switch {
	case s == "" || render.Escape(s) != s || strings.HasPrefix(s, "-"):
		return fallback
	case strings.Trim(s, plainWord) == "":
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
