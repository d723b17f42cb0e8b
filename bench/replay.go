package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

const replayed = 50_000 // messages

// replay measures how many recorded messages a second a configuration is tried
// on, from start to end of the command.
func (b *bench) replay(ctx context.Context) error {
	trace, config := filepath.Join(b.dir, "trace.jsonl"), filepath.Join(b.dir, "replay.toml")
	if err := os.WriteFile(config, []byte(daemonConfig(socketIn(b.dir, "replay"), "root")), 0o644); err != nil {
		return err
	}
	if err := writeTrace(trace); err != nil {
		return err
	}
	var rates []float64
	for round := range oftenEnough {
		b.progress("replay, round %d of %d", round+1, oftenEnough)
		began := time.Now()
		cmd := exec.CommandContext(ctx, b.guard, "replay", "--config", config, "--learning", "none", "--json", trace)
		cmd.Stdout = io.Discard
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("replay: %w", err)
		}
		rates = append(rates, replayed/time.Since(began).Seconds())
	}
	b.single("replay/messages_per_s", "1/s", nil, rates...)
	return nil
}

// writeTrace records mail of all logins, one message a second.
func writeTrace(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	out := bufio.NewWriter(f)
	lines, at := json.NewEncoder(out), time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	for i := range replayed {
		m := newMail(i)
		e := map[string]any{
			"time": at.Add(time.Duration(i) * time.Second), "event": "message", "id": m.queueID, "label": "legit", "client_ip": "192.0.2.7",
			"login": m.login, "mail_from": m.from, "header_from": m.from, "rcpt_to": m.to, "size": messageSize, "message_id": fmt.Sprintf("<%d@%s>", i, insideDomain),
		}
		if err := lines.Encode(e); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
	}
	return out.Flush()
}
