package milter_test

import (
	"time"

	"relayguard/milter"
)

// defaultLimits are those of an empty configuration.
func defaultLimits() milter.Limits {
	return milter.Limits{
		DecisionTimeout: 5 * time.Second,
		IdleTimeout:     2 * time.Hour,
		FrameTimeout:    time.Minute,
		Connections:     2000,
		HeaderBytes:     256 << 10,
		HeaderFields:    1000,
		Recipients:      10000,
		Memory:          128 << 20,
	}
}
