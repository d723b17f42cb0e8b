package mta

import (
	"errors"
	"time"
)

// StopText is the reason that stopped mail shows in the queue and in the log.
const StopText = "all outgoing mail is stopped; relayguard start lets it go"

// Stopped is what StopOutgoing did or found.
type Stopped struct {
	Since   time.Time
	Already bool        // it was stopped before this call
	Running bool        // the instance ran and was told to reload
	Ended   int         // deliveries to the outside that were under way and did not end by themselves
	Held    []QueueFile // put on hold by this call, as they were in the queue before
	Failed  []Result    // could not be held; they are deferred all the same
	Caveats []string    // what may still leave, or what of the inside is stopped too
}

// Started is what StartOutgoing did.
type Started struct {
	Since    time.Time // when it had been stopped
	Running  bool
	Released []Result // of the messages that the switch held
	Kept     []Target // still on hold, as asked
	Retried  int      // deferred by the switch and tried again at once
	Caveats  []string // settings that somebody else changed meanwhile
}

// StopStatus says whether outgoing mail is stopped.
type StopStatus struct {
	Stopped bool
	Since   time.Time
	Held    int      // messages on hold by the switch
	Missing []string // settings that should stop it but were changed since: call StopOutgoing again
}

// ErrNotStopped says that there is nothing to start.
var ErrNotStopped = errors.New("outgoing mail is not stopped")
