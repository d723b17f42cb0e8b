package sendmail_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"relayguard/mta"
)

func TestLifetimeIsThatOfTheMessagesKind(t *testing.T) {
	const day = 24 * time.Hour
	for name, c := range map[string]struct {
		change   [2]string
		settings string
		lifetime time.Duration
	}{
		"normal":         {settings: "O Timeout.queuereturn=5d\nO Timeout.queuereturn.urgent=2d\n", lifetime: 5 * day},
		"of its kind":    {settings: "O Timeout.queuereturn=5d\nO Timeout.queuereturn.normal=4d\n", lifetime: 4 * day},
		"default":        {lifetime: 5 * day},
		"old option":     {settings: "OT3d/4h\n", lifetime: 3 * day},
		"urgent":         {[2]string{"H??Subject", "H??Priority: urgent\nH??Subject"}, "O Timeout.queuereturn.urgent=2d\n", 2 * day},
		"precedence":     {[2]string{"H??Subject", "H??Precedence: Bulk\nH??Subject"}, "Pbulk=-60\nO Timeout.queuereturn.non-urgent=7d\n", 7 * day},
		"a notification": {[2]string{"Fs", "Frs"}, "O Timeout.queuereturn.dsn=3d\n", 3 * day},
		"a report":       {[2]string{"H??Subject", "H??Content-Type: multipart/report;\n\treport-type=delivery-status\nH??Subject"}, "O Timeout.queuereturn.dsn=3d\n", 3 * day},
	} {
		t.Run(name, func(t *testing.T) {
			i, queue := tree(t)
			cf := filepath.Join(i.ConfigDir, "sendmail.cf")
			write(t, cf, append(readFile(t, cf), c.settings...))
			i = loadWith(t, i.ConfigDir, "exit 0\n")
			created := time.Unix(1795396105, 0)
			for _, at := range []struct {
				now   time.Time
				renew bool
			}{{created.Add(c.lifetime - day - time.Minute), false}, {created.Add(c.lifetime - day + time.Minute), true}} {
				plant(t, queue, idA, "why")
				hf := filepath.Join(queue, "hf"+idA)
				write(t, hf, []byte(strings.Replace(string(readFile(t, hf)), c.change[0], c.change[1], 1)))
				results, err := i.ReleaseMail(t.Context(), []mta.Target{target(idA)}, mta.Release{Now: at.now})
				all(t, "release", mta.Done, results, err)
				text := string(readFile(t, filepath.Join(queue, "qf"+idA)))
				if renewed := strings.Contains(text, fmt.Sprintf("\nT%d\n", at.now.Unix())); renewed != at.renew {
					t.Errorf("at %v renewed: %v\n%s", at.now.Sub(created), renewed, text)
				}
				os.Remove(filepath.Join(queue, "qf"+idA))
			}
		})
	}
}

func TestRequeueBeginsAnew(t *testing.T) {
	i, queue := tree(t)
	plant(t, queue, idA, "why")
	hf, qf := filepath.Join(queue, "hf"+idA), filepath.Join(queue, "qf"+idA)
	edit(t, hf, map[byte]string{'K': "K1795396200", 'N': "N7", 'F': "Fws"})
	tried := readFile(t, hf)
	results, err := i.RequeueMail(t.Context(), []mta.Target{target(idA)})
	all(t, "requeue", mta.Done, results, err)
	if results[0].NewID != "" {
		t.Errorf("%+v", results)
	}
	text := string(readFile(t, qf))
	for _, want := range []string{"\nK0\n", "\nN0\n", "\nFs\n", "\nS<sender@example.jp>\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("without %q:\n%s", want, text)
		}
	}
	found, err := scanAll(t.Context(), i)
	if err != nil || found[idA].Queue != "incoming" || time.Since(found[idA].Arrival) > time.Minute {
		t.Errorf("%+v, %v", found, err)
	}
	results, err = i.RequeueQueued(t.Context(), []mta.Target{found[idA].Target()})
	all(t, "requeue of what is not held", mta.Done, results, err)
	// Where Sendmail passes over what was tried lately, a release is no such try.
	cf := filepath.Join(i.ConfigDir, "sendmail.cf")
	write(t, cf, append(readFile(t, cf), "O MinQueueAge=30m\n"...))
	i = loadWith(t, i.ConfigDir, "exit 0\n")
	os.Remove(qf)
	write(t, hf, tried)
	results, err = i.ReleaseMail(t.Context(), []mta.Target{target(idA)}, mta.Release{Now: time.Unix(1795396205, 0)})
	all(t, "release", mta.Done, results, err)
	if text := string(readFile(t, qf)); !strings.Contains(text, "\nK0\nN7\n") {
		t.Errorf("released as\n%s", text)
	}
}
