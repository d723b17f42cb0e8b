package share

import (
	"context"
	"errors"
	"fmt"
	"strings"

	goredis "github.com/redis/go-redis/v9"
)

// look returns Redis's time in seconds and microseconds, and the version token.
//
//	KEYS: token
var look = goredis.NewScript(`
local t = redis.call('TIME')
return {tonumber(t[1]), tonumber(t[2]), redis.call('GET', KEYS[1]) or ''}`)

// page returns a part of the hash: the next cursor, then names and values. One
// that is too long comes cut off: it cannot be valid.
//
//	KEYS: hash; ARGV: cursor, longest value
var page = goredis.NewScript(`
local r = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', 100)
local all, most = r[2], tonumber(ARGV[2])
for i = 1, #all do
  if #all[i] > most then all[i] = string.sub(all[i], 1, 100) end
end
return {r[1], all}`)

// put writes entries that are newer than those there, or in place of what was seen
// there and is no entry. If one was written, the hash has the new token, and all
// relays are told. It returns how many were written, and the token that was there
// before.
//
//	KEYS: hash, token
//	ARGV: new token, channel, and for each: name, entry, how that begins which is
//	      no entry ('' if it is one)
var put = goredis.NewScript(`
local n = 0
for i = 3, #ARGV, 3 do
  local is, broken = redis.call('HGET', KEYS[1], ARGV[i]), ARGV[i+2]
  if not is or is < ARGV[i+1] or #broken > 0 and string.sub(is, 1, #broken) == broken then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i+1])
    n = n + 1
  end
end
local was = redis.call('GET', KEYS[2]) or ''
if n > 0 then
  redis.call('SET', KEYS[2], ARGV[1])
  redis.call('PUBLISH', ARGV[2], ARGV[1])
end
return {n, was}`)

// drop removes entries that are still what was seen.
//
//	KEYS: hash; ARGV: name, entry, ...
var drop = goredis.NewScript(`
for i = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i+1] then redis.call('HDEL', KEYS[1], ARGV[i]) end
end
return 0`)

// run runs a script that writes nothing. Of a web node Redis may know that it only
// reads; before 7.0 it cannot tell.
func (s *Share) run(ctx context.Context, script *goredis.Script, keys []string, args ...any) *goredis.Cmd {
	if s.o.Node {
		done := script.RunRO(ctx, s.o.Client, keys, args...)
		if err := done.Err(); err == nil || !strings.Contains(err.Error(), "unknown command") {
			return done
		}
	}
	return script.Run(ctx, s.o.Client, keys, args...)
}

var errAnswer = errors.New("Redis gave an answer of another form")

// answer is what a script returned.
type answer []any

func answerOf(v any, err error) (answer, error) {
	if err != nil {
		return nil, err
	}
	a, ok := v.([]any)
	if !ok {
		return nil, fmt.Errorf("%w: %T", errAnswer, v)
	}
	return a, nil
}

func (a answer) text(i int) string {
	if i < len(a) {
		s, _ := a[i].(string)
		return s
	}
	return ""
}

func (a answer) number(i int) int64 {
	if i < len(a) {
		n, _ := a[i].(int64)
		return n
	}
	return 0
}

func (a answer) list(i int) answer {
	if i < len(a) {
		l, _ := a[i].([]any)
		return l
	}
	return nil
}
