package template

import "strings"

// Classes of ASCII octets in folded text.
const (
	letter      = 1 << iota
	digit       // also a word by itself, masked
	hexadecimal // 0-9 a-f
	joiner      // inside of words, addresses and numbers
	stop        // ends a clause
	blank
	inURL
	wordy = letter | digit
)

var classes = func() (k [256]uint8) {
	for c := 'a'; c <= 'z'; c++ {
		k[c] = letter
	}
	for c := 'A'; c <= 'Z'; c++ { // folded text has none
		k[c] = letter
	}
	for c := '0'; c <= '9'; c++ {
		k[c] = digit | hexadecimal
	}
	for c := 'a'; c <= 'f'; c++ {
		k[c] |= hexadecimal
	}
	for _, c := range "'-_.@/+=#&%~:*$" {
		k[c] = joiner
	}
	for _, c := range ",;!?|\"" {
		k[c] = stop
	}
	for _, c := range " \t\r\n\v\f" {
		k[c] = blank
	}
	for c := '!'; c < 0x7f; c++ {
		if !strings.ContainsRune("<>\"\\^`{|}", c) {
			k[c] |= inURL
		}
	}
	return k
}()
