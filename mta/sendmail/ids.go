package sendmail

import (
	"fmt"
	"hash/fnv"

	"relayguard/mta/grace"
)

// The letters of queue ids; seconds and minutes, which have 60 values, and years
// are written with them, too (queue.c, assign_queueid).
const idLetters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// ValidQueueID tells whether Sendmail 8.12 or later could have given that queue id:
// a letter or digit each for the year, month, day, hour, minute and second, two of a
// sequence, and the process id in six digits or seven.
func ValidQueueID(id string) bool {
	if len(id) < 14 || len(id) > 15 {
		return false
	}
	for n := range len(id) {
		c := id[n]
		digit := c >= '0' && c <= '9'
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if !digit && (n >= 8 || !letter) {
			return false
		}
	}
	return id[1] <= 'B' && id[2] <= 'V' && id[3] <= 'N' // month, day, hour
}

// restoredID is the id of a deleted message that is put back: always the same one,
// by the microsecond when it was deleted and its old id. In place of a process id
// it has a number that Linux gives no process (the most is 4,194,304), so Sendmail
// never makes the same.
func restoredID(k grace.Kept) string {
	const notAProcess = 5_000_000
	t := k.Deleted.UTC()
	mix := fnv.New32a()
	mix.Write([]byte(k.ID))
	seq := int(mix.Sum32() % (60 * 60))
	letter := func(n int) byte { return idLetters[n] }
	return fmt.Sprintf("%s%07d", []byte{
		letter((t.Year() + 60 - 1900%60) % 60), letter(int(t.Month()) - 1), letter(t.Day()), letter(t.Hour()), letter(t.Minute()), letter(t.Second()),
		letter(seq / 60), letter(seq % 60),
	}, notAProcess+t.Nanosecond()/1000)
}
