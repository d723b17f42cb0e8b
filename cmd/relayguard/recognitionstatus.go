package main

// originStatus counts what tells where mail is from, since the daemon's start.
type originStatus struct {
	Sites      int         `json:"sites"`       // registered
	SiteStamps stampStatus `json:"site_stamps"` // of mail that had one
	NodeStamps stampStatus `json:"node_stamps"`
	Signed     int64       `json:"node_messages_signed"` // mail of web nodes, with a stamp that was believed
	Unsigned   int64       `json:"node_messages_unsigned"`
	Calls      callStatus  `json:"wrapper_calls"`
	Texts      int         `json:"text_parts"` // remembered
}

// stampStatus is what became of stamps.
type stampStatus struct {
	Believed int64            `json:"believed"`
	Refused  map[string]int64 `json:"refused"` // by reason
}

// callStatus is what became of calls of the sendmail wrapper.
type callStatus struct {
	Accepted int64 `json:"accepted"`
	Refused  int64 `json:"refused"`
	Turned   int64 `json:"turned_away"` // an account over its bounds
	Broken   int64 `json:"broken"`      // no question of the right form in time
}

func (r *recognition) status() originStatus {
	s := originStatus{Sites: len(r.sites()), SiteStamps: stampStatus{r.signed.Believed(), r.signed.Refused()}, NodeStamps: stampStatus{r.relays.Believed(), r.relays.Refused()}, Texts: r.templates.Len()}
	s.Signed, s.Unsigned = r.heard.Messages()
	if w := r.wrapper.Load(); w != nil {
		refused := w.Counts.Refused.Load() // before those that it is of
		s.Calls = callStatus{w.Counts.Asked.Load() - refused, refused, w.Counts.Turned.Load(), w.Counts.Broken.Load()}
	}
	return s
}
