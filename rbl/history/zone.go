package history

import (
	"context"
	"database/sql"
	"time"

	"relayguard/rbl"
)

// keepGone is how long a list may be gone before its listings are dropped.
const keepGone = 14 * 24 * time.Hour

// noMore reports whether a state says that the list is gone.
func noMore(s rbl.State) bool { return s == rbl.Dead || s == rbl.Emptied || s == rbl.Parked }

func bad(s rbl.State) bool { return s == rbl.Wild || s == rbl.Parked }

// badKinds are the kinds for which each zone is told of as bad.
func (t *taking) badKinds() (map[string]map[rbl.Kind]bool, error) {
	all := map[string]map[rbl.Kind]bool{}
	err := each(t.ctx, t.tx, func(rows *sql.Rows) error {
		var zone string
		var kind rbl.Kind
		if err := rows.Scan(&zone, &kind); err != nil {
			return err
		}
		if all[zone] == nil {
			all[zone] = map[rbl.Kind]bool{}
		}
		all[zone][kind] = true
		return nil
	}, "SELECT zone, kind FROM bad_zone")
	return all, err
}

// forgetBad forgets what is no longer checked.
func (t *taking) forgetBad(zones map[string]bool, kinds map[rbl.Kind]bool) error {
	all, err := t.badKinds()
	if err != nil {
		return err
	}
	for zone, of := range all {
		for kind := range of {
			if zones[zone] && kinds[kind] {
				continue
			}
			if _, err := t.tx.ExecContext(t.ctx, "DELETE FROM bad_zone WHERE zone = ? AND kind = ?", zone, kind); err != nil {
				return err
			}
		}
	}
	return nil
}

// takeHealth says which zones can be believed, and tells of those that have gone
// bad, or are well again: one event a zone, however many kinds it is asked about.
func (t *taking) takeHealth(all []rbl.Health) error {
	was, err := t.badKinds()
	if err != nil {
		return err
	}
	var order []string
	first := map[string]rbl.Health{} // that says why, of each zone with a change
	for _, h := range all {
		if h.At.IsZero() {
			h.At = t.at
		}
		t.health[kindOf{h.Zone, h.Kind}] = h
		known := was[h.Zone][h.Kind]
		text := ""
		switch {
		case bad(h.State) && !known:
			text = "INSERT OR IGNORE INTO bad_zone (zone, kind) VALUES (?, ?)"
		case h.State == rbl.Healthy && known:
			text = "DELETE FROM bad_zone WHERE zone = ? AND kind = ?"
		default:
			continue
		}
		if _, err := t.tx.ExecContext(t.ctx, text, h.Zone, h.Kind); err != nil {
			return err
		}
		if seen, ok := first[h.Zone]; !ok {
			order = append(order, h.Zone)
			first[h.Zone] = h
		} else if bad(h.State) && !bad(seen.State) {
			first[h.Zone] = h
		}
	}
	now, err := t.badKinds()
	if err != nil {
		return err
	}
	for _, zone := range order {
		h := first[zone]
		e := Event{At: h.At, Health: &h}
		switch {
		case len(was[zone]) == 0 && len(now[zone]) > 0:
			e.Kind = ZoneBad
		case len(was[zone]) > 0 && len(now[zone]) == 0:
			e.Kind = ZoneWell
		default:
			continue
		}
		if err := t.tell(e); err != nil {
			return err
		}
	}
	return nil
}

// keepHealth has the zones' states be those of a round.
func (t *taking) keepHealth(all []rbl.Health) error {
	if _, err := t.tx.ExecContext(t.ctx, `CREATE TEMP TABLE IF NOT EXISTS present (zone TEXT, kind INTEGER, PRIMARY KEY (zone, kind)); DELETE FROM present`); err != nil {
		return err
	}
	for _, h := range all {
		if err := t.putHealth(h); err != nil {
			return err
		}
		if _, err := t.tx.ExecContext(t.ctx, "INSERT OR IGNORE INTO present VALUES (?, ?)", h.Zone, h.Kind); err != nil {
			return err
		}
	}
	_, err := t.tx.ExecContext(t.ctx, "DELETE FROM zone_state WHERE (zone, kind) NOT IN (SELECT zone, kind FROM present)")
	return err
}

func (t *taking) putHealth(h rbl.Health) error {
	at, since := t.at, int64(0)
	if !h.At.IsZero() {
		at = h.At
	}
	if noMore(h.State) {
		since = micros(later(at, t.floor)) // a clock set back once makes it no older
	}
	_, err := t.tx.ExecContext(t.ctx, `INSERT INTO zone_state (zone, kind, state, why, at, since, gone) VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6)
		ON CONFLICT (zone, kind) DO UPDATE SET since = CASE WHEN state = excluded.state THEN min(since, excluded.since) ELSE excluded.since END,
			gone = CASE WHEN gone = 0 THEN excluded.gone ELSE min(gone, excluded.gone) END,
			state = excluded.state, why = excluded.why, at = excluded.at`, h.Zone, h.Kind, h.State, h.Why, micros(at), since)
	return err
}

// dropGone drops what lists said that have been gone for long. In an odd round
// nothing has been so for long.
func (t *taking) dropGone() error {
	if t.odd {
		return nil
	}
	over := map[kindOf]bool{}
	err := each(t.ctx, t.tx, func(rows *sql.Rows) error {
		var k kindOf
		err := rows.Scan(&k.zone, &k.kind)
		over[k] = true
		return err
	}, "SELECT zone, kind FROM zone_state WHERE gone <> 0 AND gone <= ?", micros(t.at.Add(-keepGone)))
	if err != nil {
		return err
	}
	for _, l := range t.order {
		if l.Ended.IsZero() && over[kindOf{l.Zone, l.Subject.Kind()}] {
			l.drop(t.at)
		}
	}
	return nil
}

// ZoneState is how a zone is for a kind, and since when.
type ZoneState struct {
	rbl.Health
	Since time.Time `json:"since"`
}

// Zones are those of the last round, as they are since then or a second look, by
// zone and kind.
func (s *Store) Zones(ctx context.Context) (all []ZoneState, err error) {
	err = s.query(ctx, "read how blocklists are", func(rows *sql.Rows) error {
		var z ZoneState
		var at, since int64
		if err := rows.Scan(&z.Zone, &z.Kind, &z.State, &z.Why, &at, &since); err != nil {
			return err
		}
		z.At, z.Since = timeOf(at), timeOf(since)
		all = append(all, z)
		return nil
	}, "SELECT zone, kind, state, why, at, since FROM zone_state ORDER BY zone, kind")
	return all, err
}
