package grace

import (
	"strconv"
	"strings"
	"time"

	"relayguard/mta"
)

const (
	halfSuffix = "~half" // a copy that is being made
	openSuffix = "~open" // a whole copy, of a message that is being deleted
	backSuffix = "~back" // of a message that is being put back
	noteSuffix = "~to"   // a symbolic link to the id under which it is, or will be, back
	maxName    = 256     // octets
)

// ValidName tells whether a message in the folder can have that name: the day, the
// queue id, the second of arrival, the microsecond of deletion and, of several
// instances, the instance ("2026-11-23/12A5D98404C.1795336393.1795400000000000"); or
// id and second alone, as older versions named a file.
func ValidName(name string) bool {
	_, ok := parseName(name)
	return ok
}

// nameOf is the name of a message that is deleted now.
func nameOf(q mta.QueueFile, now time.Time) (day, base string) {
	base = q.ID + "." + strconv.FormatInt(q.Arrival.Unix(), 10) + "." + strconv.FormatInt(now.UnixMicro(), 10)
	if q.Instance != "" {
		base += "." + q.Instance
	}
	return now.UTC().Format(time.DateOnly), base
}

// parseName is false for what is no message's name. Of the flat names of older
// versions Deleted is zero.
func parseName(name string) (Kept, bool) {
	if len(name) > maxName {
		return Kept{}, false
	}
	k := Kept{Name: name}
	day, base, dated := strings.Cut(name, "/")
	most := 4
	if !dated {
		base, most = name, 2
	} else if !isDay(day) {
		return Kept{}, false
	}
	parts := strings.SplitN(base, ".", most)
	if len(parts) < 2 || dated && len(parts) < 3 || !mta.ValidQueueID(parts[0]) {
		return Kept{}, false
	}
	k.ID = parts[0]
	seconds, ok := number(parts[1])
	k.Arrival = time.Unix(seconds, 0).UTC()
	if dated && ok {
		var micros int64
		micros, ok = number(parts[2])
		k.Deleted = time.UnixMicro(micros).UTC()
	}
	if len(parts) == 4 {
		k.Instance = parts[3]
		ok = ok && validInstance(k.Instance)
	}
	return k, ok
}

// number reads digits as nameOf writes them.
func number(s string) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n >= 0 && strconv.FormatInt(n, 10) == s
}

func isDay(s string) bool {
	_, err := time.Parse(time.DateOnly, s)
	return err == nil
}

// validInstance takes the names of postmulti(1), and what else cannot be a path.
func validInstance(s string) bool {
	for n := range len(s) {
		c := s[n] | 0x20
		if (c < 'a' || c > 'z') && (s[n] < '0' || s[n] > '9') && s[n] != '-' && s[n] != '_' && s[n] != '.' {
			return false
		}
	}
	return s != "" && len(s) <= 64
}
