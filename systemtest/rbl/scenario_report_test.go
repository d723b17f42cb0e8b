package rbl_test

import (
	"time"

	"relayguard/rbl"
)

// dailyReport is of "relayguard report --json" what these tests look at. The names
// are a promise to who reads it.
type dailyReport struct {
	Phase    string    `json:"phase"`
	Made     time.Time `json:"made"`
	Changes  []change  `json:"changes"`
	Steps    []step    `json:"steps"`
	Listings []listing `json:"listings"`
	Ended    []listing `json:"ended"`
	Zones    struct {
		Trouble []zoneTrouble `json:"trouble"`
	} `json:"zones"`
	Senders   []sending   `json:"senders"`
	Plugins   []sending   `json:"plugins"`
	Suspended []suspended `json:"suspended"`
}

type zoneTrouble struct {
	Zone  string    `json:"zone"`
	State rbl.State `json:"state"`
}

type change struct {
	Level int    `json:"level"`
	Kind  string `json:"kind"`
	What  string `json:"what"`
	By    string `json:"by"`
	Text  string `json:"text"`
	Count int64  `json:"count"`
}

// act is the level of what is to be done now.
const act = 3

type step struct {
	Kind    string `json:"kind"`
	What    string `json:"what"`
	By      string `json:"by"`
	Text    string `json:"text"`
	Command string `json:"command"`
	URL     string `json:"url"`
}

type listing struct {
	Subject   string      `json:"subject"`
	Zone      string      `json:"zone"`
	Means     string      `json:"means"`
	Scope     rbl.Scope   `json:"scope"`
	Confirmed bool        `json:"confirmed"`
	Reasons   []string    `json:"reasons"`
	Removal   rbl.Removal `json:"removal"`
	Unasked   time.Time   `json:"unasked"`
	Suspects  []suspect   `json:"suspects"`
}

type suspect struct {
	Kind       string  `json:"kind"`
	Name       string  `json:"name"`
	Recipients int64   `json:"recipients"`
	Usual      int64   `json:"usual"`
	Bounced    int64   `json:"bounced"`
	FirstTime  int64   `json:"first_time"`
	Share      float64 `json:"share"`
	Command    string  `json:"command"`
	Tightened  string  `json:"tightened"`
}

type sending struct {
	Name       string `json:"name"`
	Recipients int64  `json:"recipients"`
	Bounced    int64  `json:"bounced"`
}

type suspended struct {
	Name string `json:"name"`
}
