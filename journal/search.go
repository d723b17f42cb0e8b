package journal

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// The searches of a Journal first let the database take in, for at most a
// second, what was appended before; then they answer with what it has. While
// the database takes no rows (see Health) they lack the newest ones.

// errNoDatabase: there is nothing to search in.
var errNoDatabase = errors.New("journal database is not open")

// search runs one on the pool of the moment.
func search[T any](ctx context.Context, j *Journal, query func(store) (T, error)) (T, error) {
	j.settle(ctx)
	return searchNow(j, query)
}

// searchNow is search without what was appended just before.
func searchNow[T any](j *Journal, query func(store) (T, error)) (T, error) {
	var none T
	pool := j.filler.pool()
	if pool == nil {
		return none, errors.Join(errNoDatabase, j.databaseError())
	}
	answer, err := query(store{db: pool})
	if err != nil && isBroken(err) {
		j.filler.suspect.Store(true)
		j.filler.kick()
	}
	return answer, err
}

// Explain gives all that is known under a decision id or a queue id, newest
// first: a queue id can have been used more than once. It is empty if nothing is
// known.
func (j *Journal) Explain(ctx context.Context, id string) ([]Explanation, error) {
	return search(ctx, j, func(s store) ([]Explanation, error) {
		found, err := s.explain(ctx, id)
		if err != nil || id == "" {
			return nil, err
		}
		holds, err := s.holdsOf(ctx, id, found)
		if err != nil {
			return nil, err
		}
		return addHolds(found, holds), nil
	})
}

// Decisions searches, newest first.
func (j *Journal) Decisions(ctx context.Context, q Query) ([]Decision, error) {
	return search(ctx, j, func(s store) ([]Decision, error) {
		before := place{id: q.Before}
		if q.Before != "" {
			var err error
			if before.time, err = s.timeOf(ctx, q.Before); err != nil {
				return nil, fmt.Errorf("search decisions: %w", err)
			}
		}
		return s.decisions(ctx, q, before)
	})
}

// Holds searches, newest first. Without States in q it gives the open ones, so
// HoldQuery{} is all that should be in the queue.
func (j *Journal) Holds(ctx context.Context, q HoldQuery) ([]Hold, error) {
	return search(ctx, j, func(s store) ([]Hold, error) { return s.holds(ctx, q) })
}

// AdminActions gives the newest.
func (j *Journal) AdminActions(ctx context.Context, limit int) ([]AdminAction, error) {
	return search(ctx, j, func(s store) ([]AdminAction, error) { return s.actions(ctx, limit) })
}

// Incidents gives the open ones first, then the others, each newest first.
func (j *Journal) Incidents(ctx context.Context, openOnly bool) ([]Incident, error) {
	return search(ctx, j, func(s store) ([]Incident, error) { return s.incidents(ctx, openOnly) })
}

// Value gives what a Value record of that name last said.
func (j *Journal) Value(ctx context.Context, name string) (value string, found bool, err error) {
	value, err = search(ctx, j, func(s store) (v string, err error) {
		v, found, err = s.value(ctx, name)
		return v, err
	})
	return value, found, err
}

// Totals gives counts by day, newest first; an empty account is all of them,
// zero times have no bound. Both days are included.
func (j *Journal) Totals(ctx context.Context, account string, since, until time.Time) ([]Total, error) {
	return search(ctx, j, func(s store) ([]Total, error) { return s.totals(ctx, account, since, until) })
}

// Ranks counts what accounts, sites, plugins or templates sent, who sent most
// first.
func (j *Journal) Ranks(ctx context.Context, q RankQuery) ([]Rank, error) {
	return search(ctx, j, func(s store) ([]Rank, error) {
		found, err := s.ranks(ctx, q)
		return ranked(found, q), err
	})
}
