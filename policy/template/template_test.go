package template_test

import "time"

// header is the fields of a message.
type header map[string]string

func (h header) Get(name string) (string, bool) { v, ok := h[name]; return v, ok }

// day is ten in the morning, so many days after the first.
func day(n int) time.Time { return time.Date(2026, 3, 2+n, 10, 0, 0, 0, time.UTC) }
