package wordpress_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

// attackers press a button at the same time.
const attackers = 4

// attack shares the site's post with all strangers, in rounds, while others do
// what errands has for each round; those of the first do it before the attack. It
// returns how many mails the site could not hand over.
func (s *site) attack(ctx context.Context, victims []friend, errands func(round int) []errand) (refused int, done []errand, err error) {
	for round, some := range inRounds(victims) {
		meanwhile := errands(round)
		done = append(done, meanwhile...)
		var visitors sync.WaitGroup
		var errVisitors error
		visitors.Go(func() { errVisitors = run(ctx, meanwhile) })
		if round == 0 {
			visitors.Wait()
		}
		failed, errStorm := s.storm(ctx, some)
		visitors.Wait()
		refused += failed
		if err := errors.Join(errStorm, errVisitors, s.work(ctx, round)); err != nil {
			return refused, done, err
		}
	}
	return refused, done, nil
}

func inRounds(all []friend) [][]friend {
	return slices.Collect(slices.Chunk(all, (len(all)+rounds-1)/rounds))
}

// storm shares the post with all of them, attackers at a time, and returns when
// all is answered.
func (s *site) storm(ctx context.Context, victims []friend) (refused int, err error) {
	var next, failed atomic.Int64
	errs := make([]error, attackers)
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() {
			for errs[i] == nil {
				n := int(next.Add(1)) - 1
				if n >= len(victims) {
					return
				}
				var ok bool
				if ok, errs[i] = s.share(ctx, victims[n]); !ok {
					failed.Add(1)
				}
			}
		})
	}
	all.Wait()
	return int(failed.Load()), errors.Join(errs...)
}

// work lets a site send what it queued for wp-cron: by HTTP and, as hosters'
// crontabs do, on the command line.
func (s *site) work(ctx context.Context, round int) error {
	if s.consts["SHARE_BY_MAIL_WAY"] != "cron" {
		return nil
	}
	for {
		left, err := shared.maria.ask(ctx, fmt.Sprintf(`SELECT COUNT(*) FROM %s.wp_options WHERE option_name LIKE 'share\\_by\\_mail\\_job\\_%%';`, s.database))
		if err != nil || left[0] == "0" {
			return err
		}
		if round%2 == 0 {
			err = s.cron(ctx)
		} else {
			_, err = s.run(ctx, "wp-cron.php")
		}
		if err != nil {
			return err
		}
	}
}

// addresses are those that mail goes to.
func addresses(all []friend) []string {
	var to []string
	for _, who := range all {
		to = append(to, who.to)
	}
	return to
}

// wantStopped runs an attack on a site and checks that at most so many mails of
// it leave, that the others are held and none is lost, and that the mail of all
// errands arrives.
func wantStopped(t *testing.T, s *site, atMost int, errands func(round int) []errand) fate {
	t.Helper()
	victims := strangers("victim-of-"+s.name, posts())
	refused, done, err := s.attack(t.Context(), victims, errands)
	if err != nil {
		t.Fatal(err)
	}
	f := settle(t, s.relay, addresses(victims), len(victims)-refused)
	t.Logf("%d posts: %d mails left, %d are held, %d were refused", len(victims), f.left, f.held, refused)
	if f.left > atMost {
		t.Errorf("%d of %d mails left the house, want at most %d", f.left, len(victims), atMost)
	}
	if f.left+f.held+refused != len(victims) {
		t.Errorf("of %d mails %d left, %d are held and %d were refused", len(victims), f.left, f.held, refused)
	}
	if f.left == 0 {
		t.Error("no mail left at all: a button that nobody abuses has to work")
	}
	wantErrands(t, s.relay, done)
	return f
}
