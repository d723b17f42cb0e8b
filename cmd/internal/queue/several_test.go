package queue

import (
	"context"
	"errors"
	"reflect"
	"testing"

	"relayguard/mta"
)

// branch is an instance whose queue is a map from ids to senders.
type branch struct {
	unreadable
	mail map[string]string
	done []string
	fail error
}

func (b *branch) Scan(_ context.Context, fn func(mta.QueueFile) error) error {
	if b.fail != nil {
		return b.fail
	}
	for id, sender := range b.mail {
		if err := fn(mta.QueueFile{Queue: "hold", ID: id, Sender: sender}); err != nil {
			return err
		}
	}
	return nil
}

func (b *branch) Release(_ context.Context, targets []mta.Target) ([]mta.Result, error) {
	if b.fail != nil {
		return nil, b.fail
	}
	results := make([]mta.Result, len(targets))
	for n, t := range targets {
		results[n].ID = t.ID
		if t.Instance != "" {
			results[n].Err = errors.New("an instance is not asked for another's mail")
			continue
		}
		switch sender, there := b.mail[t.ID]; {
		case !there:
			results[n].Fate = mta.Gone
		case sender != t.Sender:
			results[n].Fate = mta.Changed
		default:
			results[n].Fate = mta.Done
			b.done = append(b.done, t.ID)
		}
	}
	return results, nil
}

func (b *branch) Stopped(context.Context) (mta.StopStatus, error) {
	return mta.StopStatus{Stopped: b.mail["stopped"] != ""}, nil
}

func (b *branch) Forbidden(context.Context) ([]string, error) { return []string{"games"}, nil }

func TestActGoesToTheInstanceThatHasTheMessage(t *testing.T) {
	first, second := &branch{mail: map[string]string{"A1A1A1": "a", "B2B2B2": "x"}}, &branch{mail: map[string]string{"B2B2B2": "b", "C3C3C3": "c"}}
	s := several{{"-", first, nil}, {"postfix-out", second, nil}}
	targets := []mta.Target{
		{ID: "A1A1A1", Sender: "a"}, {ID: "B2B2B2", Sender: "b"}, {ID: "C3C3C3", Sender: "c", Instance: "-"},
		{ID: "C3C3C3", Sender: "c", Instance: "postfix-out"}, {ID: "D4D4D4"}, {ID: "B2B2B2", Sender: "y"}, {ID: "A1A1A1", Sender: "a", Instance: "elsewhere"},
	}
	results, err := s.act(targets, func(i instance, some []mta.Target) ([]mta.Result, error) { return i.server.Release(t.Context(), some) })
	if err != nil {
		t.Fatal(err)
	}
	want := []mta.Fate{mta.Done, mta.Done, mta.Gone, mta.Done, mta.Gone, mta.Changed, mta.Failed}
	for n, r := range results {
		if r.ID != targets[n].ID || r.Fate != want[n] || (r.Err != nil) != (r.Fate == mta.Failed) {
			t.Errorf("%+v: got %s, want %s", targets[n], r.Fate, want[n])
		}
	}
	if !reflect.DeepEqual(first.done, []string{"A1A1A1"}) || !reflect.DeepEqual(second.done, []string{"B2B2B2", "C3C3C3"}) {
		t.Errorf("acted on %q and %q", first.done, second.done)
	}
}

func TestNothingIsGoneWhileAnInstanceCannotBeRead(t *testing.T) {
	broken := errors.New("no main.cf")
	first := &branch{mail: map[string]string{"A1A1A1": "a"}}
	s := several{{"-", first, nil}, {unreadableName, unreadable{broken}, nil}}
	targets := []mta.Target{{ID: "A1A1A1", Sender: "a"}, {ID: "B2B2B2", Sender: "b"}, {ID: "C3C3C3", Instance: "postfix-out"}, {ID: "D4D4D4", Instance: "-"}}
	results, err := s.act(targets, func(i instance, some []mta.Target) ([]mta.Result, error) {
		return i.server.Release(t.Context(), some)
	})
	if !errors.Is(err, broken) || len(results) != len(targets) || results[0].Fate != mta.Done || results[3].Fate != mta.Gone {
		t.Fatalf("got %+v, %v", results, err)
	}
	for _, r := range results[1:3] {
		if r.Fate != mta.Failed || !errors.Is(r.Err, broken) {
			t.Errorf("got %+v", r)
		}
	}
	for _, target := range targets[1:3] {
		if _, err := s.text(target, func(i instance, _ mta.Target) ([]byte, error) {
			if i.name == "-" {
				return nil, mta.ErrGone
			}
			return i.server.Content(t.Context(), target)
		}); !errors.Is(err, broken) {
			t.Errorf("text of %+v: %v", target, err)
		}
	}
	if all, err := s.restore(t.Context(), []string{"A1A1A1.1795336393"}); !errors.Is(err, broken) || len(all) != 1 || all[0].Fate != mta.Failed {
		t.Errorf("restore: %+v, %v", all, err)
	}
	seen := 0
	if err := s.list(t.Context(), func(f mta.QueueFile) error {
		seen++
		if f.Instance != "-" {
			t.Errorf("got %+v", f)
		}
		return nil
	}); !errors.Is(err, broken) || seen != 1 {
		t.Errorf("list: %d messages, %v", seen, err)
	}
}

// A client may have listed the queue when there were more instances.
func TestMailOfAnInstanceThatIsNoMoreIsNotGone(t *testing.T) {
	only := &branch{mail: map[string]string{"A1A1A1": "a", "B2B2B2": "b", "C3C3C3": "c"}}
	s := several{{"", only, nil}}
	targets := []mta.Target{{ID: "A1A1A1", Sender: "a"}, {ID: "B2B2B2", Sender: "b", Instance: "-"}, {ID: "C3C3C3", Sender: "c", Instance: "postfix-out"}}
	results, err := s.act(targets, func(i instance, some []mta.Target) ([]mta.Result, error) { return i.server.Release(t.Context(), some) })
	if err != nil || len(results) != 3 || results[0].Fate != mta.Done || results[1].Fate != mta.Done || results[2].Fate != mta.Failed || results[2].Err == nil {
		t.Errorf("got %+v, %v", results, err)
	}
	if !reflect.DeepEqual(only.done, []string{"A1A1A1", "B2B2B2"}) {
		t.Errorf("acted on %q", only.done)
	}
	text, err := s.text(targets[2], func(instance, mta.Target) ([]byte, error) { return []byte("another's"), nil })
	if err == nil || errors.Is(err, mta.ErrGone) || text != nil {
		t.Errorf("text: got %q, %v", text, err)
	}
}

func TestStoppedInPartIsToldAsMissing(t *testing.T) {
	s := several{{"-", &branch{mail: map[string]string{"stopped": "yes"}}, nil}, {"postfix-out", &branch{}, nil}}
	status, err := s.status(t.Context())
	if err != nil || !status.Stop.Stopped || !reflect.DeepEqual(status.Stop.Missing, []string{"all of instance postfix-out"}) || !reflect.DeepEqual(status.Forbidden, []string{"games"}) {
		t.Errorf("got %+v, %v", status, err)
	}
}
