package journal

import (
	"errors"
	"strings"
)

// Health says what does not work. An empty text is fine.
type Health struct {
	Log      string // why the log cannot be written
	Database string // why the database does not take rows
	Reset    string // what became of an earlier database that was broken
}

// OK reports whether all that was appended is, or soon will be, in the log and
// in the database.
func (h Health) OK() bool { return h.Log == "" && h.Database == "" }

func (h Health) String() string {
	var parts []string
	if h.Log != "" {
		parts = append(parts, "log: "+h.Log)
	}
	if h.Database != "" {
		parts = append(parts, "database: "+h.Database)
	}
	if h.Reset != "" {
		parts = append(parts, h.Reset)
	}
	if len(parts) == 0 {
		return "fine"
	}
	return strings.Join(parts, "; ")
}

// Health says how the journal is now.
func (j *Journal) Health() Health {
	j.healthMu.Lock()
	defer j.healthMu.Unlock()
	return j.health
}

// setLogHealth remembers how writing the log went, and tells when it begins to
// fail and when it is over, not each time that the cause is worded another way.
func (j *Journal) setLogHealth(err error) {
	j.healthMu.Lock()
	defer j.healthMu.Unlock()
	j.failing.Store(err != nil)
	was := j.health.Log
	j.health.Log = oneLine(err)
	switch {
	case was == "" && err != nil:
		j.log.Error("journal log cannot be written: stops, holds and admin actions wait in memory", "error", j.health.Log)
	case was != "" && err == nil:
		j.log.Info("journal log is written again")
	}
}

// setDatabaseHealth is setLogHealth for the database.
func (j *Journal) setDatabaseHealth(err error) {
	j.healthMu.Lock()
	defer j.healthMu.Unlock()
	was := j.health.Database
	j.health.Database = oneLine(err)
	switch {
	case was == "" && err != nil:
		j.log.Error("journal database takes no rows: they wait in the log", "error", j.health.Database)
	case was != "" && err == nil:
		j.log.Info("journal database takes rows again")
	}
}

// oneLine is an error's text, empty without one; several that were joined stand
// behind each other.
func oneLine(err error) string {
	if err == nil {
		return ""
	}
	return strings.ReplaceAll(err.Error(), "\n", "; ")
}

func (j *Journal) tellReset(text string, cause error) {
	j.healthMu.Lock()
	j.health.Reset = text
	j.healthMu.Unlock()
	j.log.Error("journal database was broken", "error", cause.Error(), "done", text)
}

func (j *Journal) databaseError() error {
	if text := j.Health().Database; text != "" {
		return errors.New(text)
	}
	return nil
}

// Stats are counts since Open, but for Backlog, BacklogBytes, Log and Lag, which
// are now.
type Stats struct {
	Appended        int64 // records given to Append that were taken
	Noted           int64 // records given to Note that were taken
	DroppedAccepted int64 // rows about accepted mail not written
	Dropped         int64 // repeats, deliveries, values, incidents not written
	Lost            int64 // stops, holds, admin actions for which there was no room, and records that cannot be stored
	Damaged         int64 // lines of the log that could not be read
	Filled          int64 // lines of the log that are in the database
	PurgedEarly     int64 // rows about accepted mail that went before their time, for want of room
	Backlog         int   // records in memory only
	BacklogBytes    int64
	Log             int64 // octets of all log segments
	Lag             int64 // octets of log that are not in the database
}

// Stats counts what the journal did.
func (j *Journal) Stats() Stats {
	s := Stats{
		Appended:        j.appended.Load(),
		Noted:           j.noted.Load(),
		DroppedAccepted: j.droppedAccepted.Load() + j.file.dropped.Load(),
		Dropped:         j.dropped.Load(),
		Lost:            j.lost.Load(),
		Damaged:         j.filler.damaged.Load(),
		Filled:          j.filler.filled.Load(),
		PurgedEarly:     j.filler.purgedEarly.Load(),
		Log:             j.file.bytes.Load(),
		Lag:             j.filler.lag.Load(),
	}
	s.Backlog, s.BacklogBytes = j.queue.length()
	return s
}
