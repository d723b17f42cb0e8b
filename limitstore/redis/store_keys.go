package redis

import (
	"strconv"
	"strings"

	"relayguard/policy/limit"
)

// What a key begins with after the prefix says what it is:
//
//	{relayguard}:b:12:login-volumelogin:taro@example.jp  a bucket, see state.go
//	{relayguard}:i:12:login-volumelogin:taro@example.jp  its items, if it counts them: by last event
//	{relayguard}:l:login:taro@example.jp                 whom an account knows: by last event
//	{relayguard}:f:login:taro@example.jp                 the same by first event
//	{relayguard}:t:ID                                    what a step that was taken was told, for a minute
//	{relayguard}:secret                                  what Secret keeps
//
// Of a bucket's or an account's that is this relay's own, the letter is a
// capital and the relay's name comes first, with its length: B:4:web112:login...
const (
	aBucket   = 'b'
	itsItems  = 'i'
	lastSeen  = 'l'
	firstSeen = 'f'
	aStep     = 't'
)

// own: what the value says is something else on each relay. An account of a web
// node, "local_user:1001@web3", is the same on all.
func (s *Store) own(value string) bool {
	if s.options.Own == "" {
		return false
	}
	for part := range strings.SplitSeq(value, " ") {
		if strings.HasPrefix(part, "local_user:") && !strings.Contains(part, "@") || strings.HasPrefix(part, "shared_user:") || strings.HasPrefix(part, "machine:") {
			return true
		}
	}
	return false
}

// begin appends the prefix, the letter and whose it is.
func (s *Store) begin(to []byte, letter byte, own bool) []byte {
	to = append(to, s.prefix...)
	if !own {
		return append(to, letter, ':')
	}
	return appendSized(append(to, letter-'a'+'A', ':'), s.options.Own)
}

// appendSized appends a string so that its end is known.
func appendSized(to []byte, text string) []byte {
	return append(append(strconv.AppendInt(to, int64(len(text)), 10), ':'), text...)
}

func (s *Store) bucketKey(to []byte, k limit.Key) []byte { return s.limitKey(to, aBucket, k) }

func (s *Store) itemsKey(to []byte, k limit.Key) []byte { return s.limitKey(to, itsItems, k) }

func (s *Store) limitKey(to []byte, letter byte, k limit.Key) []byte {
	return append(appendSized(s.begin(to, letter, s.own(k.Value)), k.Limit), k.Value...)
}

func (s *Store) accountKey(to []byte, letter byte, account string) []byte {
	return append(s.begin(to, letter, s.own(account)), account...)
}

func (s *Store) idKey(to []byte, id string) []byte {
	return append(s.begin(to, aStep, false), id...)
}

// parseSized cuts what appendSized has put in front of the rest.
func parseSized(text string) (first, rest string, ok bool) {
	size, rest, ok := strings.Cut(text, ":")
	n, err := strconv.Atoi(size)
	if !ok || err != nil || n < 0 || n > len(rest) {
		return "", "", false
	}
	return rest[:n], rest[n:], true
}

// named is what a key names, if it is one of letter.
func (s *Store) named(key string, letter byte) (rest string, mine, ok bool) {
	rest, ok = strings.CutPrefix(key, s.prefix)
	if !ok || len(rest) < 2 || rest[1] != ':' {
		return "", false, false
	}
	if rest[0] == letter {
		return rest[2:], false, true
	}
	whose, rest, ok := parseSized(rest[2:])
	return rest, true, ok && key[len(s.prefix)] == letter-'a'+'A' && whose == s.options.Own
}

// parseBucketKey is the bucket whose key it is, if it is one of ours.
func (s *Store) parseBucketKey(key string) (limit.Key, bool) {
	rest, mine, ok := s.named(key, aBucket)
	if !ok {
		return limit.Key{}, false
	}
	name, value, ok := parseSized(rest)
	return limit.Key{Limit: name, Value: value}, ok && name != "" && value != "" && mine == s.own(value)
}

// parseAccountKey is the account whose recipients are under the key.
func (s *Store) parseAccountKey(key string) (account string, ok bool) {
	account, mine, ok := s.named(key, lastSeen)
	return account, ok && account != "" && mine == s.own(account)
}
