package postfix

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"relayguard/mta/backup"
	"relayguard/policy"
)

// localProbe is a message that proves that mail from sendmail(1) comes to the
// guard. Nobody gets it, wherever it fails: while it is on its way, a line in
// the table of setup's own header checks has Postfix put it on hold, by a token
// that is good once; it has no sender to bounce to; and its recipient is in
// .invalid (RFC 2606).
//
// The proof is in the queue file. cleanup(8) makes the uid header, by checks that
// are looked at before; only the guard takes it off. So a message on hold without
// that header was seen by the guard.
type localProbe struct {
	setup           Setup
	instance        *Instance
	pickup, cleanup *Service
	table           string // file of the header checks
	token           string
}

const (
	probeHeader  = "X-Relayguard-Probe"
	probeDomain  = "relayguard-probe.invalid"
	probeHeld    = 4 * time.Second // local mail takes milliseconds
	probeTries   = 3               // a process with the old settings may take one
	probeCleanup = 30 * time.Second
)

// newLocalProbe returns nil where there is no local mail to guard.
func (s Setup) newLocalProbe(i *Instance) (*localProbe, error) {
	pickup := i.Service("pickup", "unix")
	if _, has := byRole(s.Listeners, policy.Local); !has || pickup == nil {
		return nil, nil
	}
	cleanup := i.Service(i.Effective(pickup, "cleanup_service_name"), "unix")
	if cleanup == nil {
		return nil, fmt.Errorf("service %s hands mail to a service that is not in master.cf", pickup.ID())
	}
	var token [16]byte
	_, _ = rand.Read(token[:]) // never fails
	return &localProbe{s, i, pickup, cleanup, filepath.Join(s.ConfigDir, uidChecksFile), hex.EncodeToString(token[:])}, nil
}

// during runs f while Postfix holds the probe.
func (p *localProbe) during(f func() error) error {
	text, err := os.ReadFile(p.table)
	if err != nil {
		return fmt.Errorf("read header checks: %w", err)
	}
	rule := "/^" + probeHeader + ": " + p.token + "$/ HOLD\n"
	if err := backup.Replace(p.table, append(slices.Clone(text), rule...), 0o644, -1, -1); err != nil {
		return fmt.Errorf("add the probe to header checks: %w", err)
	}
	err = f()
	if restoreErr := backup.Replace(p.table, text, 0o644, -1, -1); restoreErr != nil {
		err = errors.Join(err, fmt.Errorf("take the probe out of header checks: %w", restoreErr))
	}
	return err
}

// send hands the probe in and looks what became of it, again while a reload may
// not have come to every process yet.
func (p *localProbe) send(ctx context.Context) error {
	r := &report{Inspection: Inspection{Instance: p.instance, LocalMail: p.setup.LocalMail}}
	if why := r.uidUnseen(ctx, p.pickup, p.cleanup); why != "" {
		return fmt.Errorf("the uid behind local mail would not be seen: %s", why)
	}
	before, err := p.held()
	if err != nil {
		return err
	}
	for submits, tries, end := 1, 0, time.Now().Add(verifyFor); ; submits++ {
		if err = p.submit(ctx); err != nil {
			break
		}
		if err = p.await(ctx, before); err == nil && submits == 1 {
			return nil
		}
		if err == nil { // those before may still come through
			break
		}
		if errors.Is(err, errNotShown) {
			tries++
		}
		if tries == probeTries || ctx.Err() != nil || time.Now().After(end) {
			break
		}
	}
	return errors.Join(err, p.clear(context.WithoutCancel(ctx)))
}

var (
	errNotShown = errors.New("a probe message from sendmail(1) was not shown to the guard")
	errNotSeen  = errors.New("a probe message from sendmail(1) did not come through: Postfix does not find the guard for local mail; does it run with these listeners?")
)

func (p *localProbe) submit(ctx context.Context) error {
	to := p.token + "@" + probeDomain
	message := "From: relayguard setup <" + to + ">\nTo: " + to + "\nSubject: relayguard setup looks whether local mail is guarded\n" + probeHeader + ": " + p.token + "\n\nNobody should ever see this.\n"
	sendmail := p.instance.Setting("sendmail_path")
	if _, err := p.setup.Tools.run(ctx, []byte(message), maxToolOutput, sendmail, "-C", p.setup.ConfigDir, "-i", "-f", "", "--", to); err != nil {
		return fmt.Errorf("hand in a probe message: %w", err)
	}
	return nil
}

// await looks for the probe among what was not held before, and deletes it.
func (p *localProbe) await(ctx context.Context, before map[string]bool) error {
	for end := time.Now().Add(probeHeld); ; time.Sleep(20 * time.Millisecond) {
		now, err := p.held()
		if err != nil {
			return err
		}
		for id := range now {
			if before[id] {
				continue
			}
			fields, err := p.header(ctx, id)
			if err != nil {
				continue // not whole yet, or gone already
			}
			before[id] = true
			if !slices.Contains(fields, strings.ToLower(probeHeader+": "+p.token)) {
				continue // somebody else's
			}
			if err := p.remove(context.WithoutCancel(ctx), id, "hold"); err != nil {
				return err
			}
			if slices.ContainsFunc(fields, p.isUID) {
				return errNotShown
			}
			return nil
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return errNotSeen
		}
	}
}

func (p *localProbe) isUID(field string) bool {
	return strings.HasPrefix(field, strings.ToLower(p.setup.LocalMail.UIDHeader)+":")
}

// held lists the queue ids on hold. A long queue takes postqueue(1) many seconds,
// this takes none.
func (p *localProbe) held() (map[string]bool, error) {
	ids := map[string]bool{}
	err := filepath.WalkDir(filepath.Join(p.instance.QueueDir, "hold"), func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // released meanwhile
			return nil
		case err == nil && !d.IsDir():
			ids[d.Name()] = true
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list what is on hold: %w", err)
	}
	return ids, nil
}

// header reads a queued message's fields, in lower case.
func (p *localProbe) header(ctx context.Context, id string) ([]string, error) {
	s, err := p.setup.Tools.run(ctx, nil, maxToolOutput, "postcat", p.setup.Tools.inDir(p.setup.ConfigDir, "-hq", id)...)
	return strings.Split(strings.ToLower(string(s.stdout)), "\n"), err
}

func (p *localProbe) remove(ctx context.Context, id, queue string) error {
	_, err := p.setup.Tools.run(ctx, nil, maxToolOutput, "postsuper", p.setup.Tools.inDir(p.setup.ConfigDir, "-d", id, queue)...)
	if err != nil {
		return fmt.Errorf("delete the probe message: %w", err)
	}
	return nil
}

// clear deletes what is left of the probe anywhere in the queue.
func (p *localProbe) clear(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeCleanup)
	defer cancel()
	s, err := p.setup.Tools.run(ctx, nil, maxListing, "postqueue", p.setup.Tools.inDir(p.setup.ConfigDir, "-j")...)
	if err != nil {
		return fmt.Errorf("look for what is left of the probe message: %w", err)
	}
	var errs []error
	for entries := json.NewDecoder(bytes.NewReader(s.stdout)); entries.More(); {
		var e struct {
			QueueName  string `json:"queue_name"`
			QueueID    string `json:"queue_id"`
			Recipients []struct {
				Address string `json:"address"`
			} `json:"recipients"`
		}
		if err := entries.Decode(&e); err != nil {
			return errors.Join(append(errs, fmt.Errorf("read the queue: %w", err))...)
		}
		if len(e.Recipients) == 1 && e.Recipients[0].Address == p.token+"@"+probeDomain {
			errs = append(errs, p.remove(ctx, e.QueueID, e.QueueName))
		}
	}
	return errors.Join(errs...)
}
