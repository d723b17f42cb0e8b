package history

import (
	"context"
	"database/sql"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

const (
	mostLearnt = 1000 // the newest
	mostWhere  = 300  // octets
)

// Learnt are addresses that were learnt from Received lines, and an admin's word for them.
type Learnt struct {
	Addr  string    `json:"addr"`
	Where string    `json:"where"` // "Received", with the name of who saw it; at most 300 octets
	At    time.Time `json:"at"`    // last
}

// Learn remembers one, the newest thousand of all; what is no address is an error.
func (s *Store) Learn(ctx context.Context, l Learnt) error {
	addr, err := plainAddr(l.Addr)
	if err != nil {
		return fmt.Errorf("learn an address: %w", err)
	}
	where := strings.ToValidUTF8(l.Where[:min(len(l.Where), mostWhere)], "")
	return s.write(ctx, "learn an address", func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO learnt (addr, place, at) VALUES (?, ?, ?)
			ON CONFLICT (addr) DO UPDATE SET place = excluded.place, at = excluded.at`, addr, where, micros(l.At)); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "DELETE FROM learnt WHERE addr IN (SELECT addr FROM learnt ORDER BY at DESC LIMIT -1 OFFSET ?)", mostLearnt)
		return err
	})
}

// Forget forgets one; one that is not known is no error.
func (s *Store) Forget(ctx context.Context, addr string) error {
	if plain, err := plainAddr(addr); err == nil {
		addr = plain
	}
	return s.write(ctx, "forget an address", func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "DELETE FROM learnt WHERE addr = ?", addr)
		return err
	})
}

// LearntAll are all, the newest first.
func (s *Store) LearntAll(ctx context.Context) (all []Learnt, err error) {
	err = s.query(ctx, "read learnt addresses", func(rows *sql.Rows) error {
		var l Learnt
		var at int64
		err := rows.Scan(&l.Addr, &l.Where, &at)
		l.At = timeOf(at)
		all = append(all, l)
		return err
	}, "SELECT addr, place, at FROM learnt ORDER BY at DESC, addr")
	return all, err
}

func plainAddr(text string) (string, error) {
	addr, err := netip.ParseAddr(text)
	return addr.Unmap().WithZone("").String(), err
}
