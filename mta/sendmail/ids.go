package sendmail

import (
	"fmt"
	"math/rand/v2"
	"os"
	"time"
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

// newID makes a queue id as this process would make it were it Sendmail: no other
// process makes the same in this second.
func newID(now time.Time) string {
	t := now.UTC()
	seq := rand.IntN(60 * 60)
	letter := func(n int) byte { return idLetters[n] }
	return fmt.Sprintf("%s%06d", []byte{
		letter((t.Year() - 1900) % 60), letter(int(t.Month()) - 1), letter(t.Day()), letter(t.Hour()), letter(t.Minute()), letter(t.Second()),
		letter(seq / 60), letter(seq % 60),
	}, os.Getpid())
}
