package journal

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"relayguard/policy"
)

// Known is what the journal knows of one message in a queue, by an id of it: of a
// decision about it, or of a hold.
type Known struct {
	QueueID    string // under which the message is to be looked for now; "" if the MTA had told none
	DecisionID string
	Time       time.Time // of the decision; of the hold, if State is set
	Account    string
	Site       string
	Plugin     string
	Template   string
	Verdict    policy.Verdict // of a decision
	Rule       string
	MailFrom   string

	// These are of a hold only.
	State   State     // "" is a decision
	Arrival time.Time // in the queue; zero: nobody has looked yet
	Moved   bool      // it has QueueID since it was queued anew
}

// Known gives what is known under queue ids and ids of decisions, of each the
// newest first, holds before decisions. An id that was used again brings several.
// It does not wait for what was appended a moment ago: a caller that needs it calls
// Sync before. Ids should be some hundred at a time.
func (j *Journal) Known(ctx context.Context, ids []string) ([]Known, error) {
	return searchNow(j, func(s store) ([]Known, error) { return s.known(ctx, ids) })
}

// Known is Journal.Known.
func (r *Reader) Known(ctx context.Context, ids []string) ([]Known, error) {
	found, err := r.memory.known(ctx, ids)
	if err != nil || r.file == nil {
		return found, err
	}
	older, err := r.inFile().known(ctx, ids)
	if err != nil {
		return nil, err
	}
	for _, k := range older {
		if k.State == "" { // of holds memory has them all
			found = append(found, k)
		}
	}
	return found, nil
}

// Known is Journal.Known.
func (o *Offline) Known(ctx context.Context, ids []string) ([]Known, error) {
	return fromReader(o, func(r *Reader) ([]Known, error) { return r.Known(ctx, ids) })
}

// maxKnown bounds one answer: an id has few messages.
const maxKnown = 20_000

func (s store) known(ctx context.Context, ids []string) ([]Known, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	list, err := json.Marshal(ids)
	if err != nil {
		return nil, err
	}
	labels := "d.site, d.plugin, d.template"
	if s.lacks(4) {
		labels = "'', '', ''"
	}
	var found []Known
	// The order of the joins is fixed: few ids, each looked up.
	err = s.each(ctx, `SELECT * FROM (
		SELECT 1 AS held, iif(h.new_queue_id <> '', h.new_queue_id, h.queue_id), h.decision_id, h.held_at AS at, h.account, h.site, h.plugin, h.template, 'hold', h.rule, h.mail_from, h.state, h.arrival, h.new_queue_id <> ''
			FROM hold AS h WHERE h.n IN (SELECT a.n FROM json_each(?1) CROSS JOIN hold AS a ON a.queue_id = json_each.value
				UNION SELECT a.n FROM json_each(?1) CROSS JOIN hold AS a ON a.decision_id = json_each.value AND a.decision_id <> ''
				UNION SELECT a.n FROM json_each(?1) CROSS JOIN hold AS a ON a.new_queue_id = json_each.value AND a.new_queue_id <> '')
		UNION ALL
		SELECT 0, d.queue_id, d.id, d.time, d.account, `+labels+`, d.verdict, d.rule, d.mail_from, '', 0, 0
			FROM decision AS d WHERE d.stage = 'message' AND d.n IN (SELECT a.n FROM json_each(?1) CROSS JOIN decision AS a ON a.queue_id = json_each.value AND a.queue_id <> ''
				UNION SELECT a.n FROM json_each(?1) CROSS JOIN decision AS a ON a.id = json_each.value)
		) ORDER BY held DESC, at DESC LIMIT ?2`, []any{string(list), maxKnown}, func(rows *sql.Rows) error {
		k, err := scanKnown(rows)
		found = append(found, k)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("search by queue ids: %w", err)
	}
	return found, nil
}

func scanKnown(rows *sql.Rows) (k Known, err error) {
	var held bool
	var at, arrival int64
	var verdict string
	err = rows.Scan(&held, &k.QueueID, &k.DecisionID, &at, &k.Account, &k.Site, &k.Plugin, &k.Template, &verdict, &k.Rule, &k.MailFrom, &k.State, &arrival, &k.Moved)
	k.Time, k.Arrival = moment(at), moment(arrival)
	k.Verdict, _ = policy.ParseVerdict(verdict)
	return k, err
}
