package policy_test

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"testing"

	"relayguard/policy"
)

// While mail goes on, no name is missing from the file.
func TestSitesAreSavedWhileMailGoesOn(t *testing.T) {
	const still, plugins = 700, 3
	s := policy.NewSites(0, 0)
	for i := range still {
		for j := range plugins {
			s.Admit(now, fmt.Sprint("still", i), fmt.Sprint(j))
		}
	}
	var first, second bytes.Buffer
	if err := s.Save(&first); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var mail sync.WaitGroup
	mail.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
				s.Admit(now, fmt.Sprint("new", i%1000), fmt.Sprint(i%30))
			}
		}
	})
	for range 5 {
		var file bytes.Buffer
		if err := s.Save(&file); err != nil {
			t.Fatal(err)
		}
		again := policy.NewSites(0, 0)
		if err := again.Load(&file); err != nil {
			t.Fatal(err)
		}
		for i := range still {
			if names := again.Names(fmt.Sprint("still", i)); !slices.Equal(names, []string{"0", "1", "2"}) {
				t.Fatalf("site %d has %q", i, names)
			}
		}
	}
	close(done)
	mail.Wait()
	again := policy.NewSites(0, 0)
	saved := bytes.Clone(first.Bytes())
	if err := again.Load(&first); err != nil {
		t.Fatal(err)
	}
	if err := again.Save(&second); err != nil || !bytes.Equal(second.Bytes(), saved) {
		t.Errorf("the same is saved another way, %v", err)
	}
}

func TestNoSitesAreSaved(t *testing.T) {
	var file bytes.Buffer
	s := policy.NewSites(0, 0)
	if err := s.Save(&file); err != nil {
		t.Fatal(err)
	}
	if err := s.Load(&file); err != nil || len(s.All()) != 0 {
		t.Errorf("%v, %v", s.All(), err)
	}
}
