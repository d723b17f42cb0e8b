package stamp_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"relayguard/policy/origin/stamp"
)

func TestTallyCountsByReason(t *testing.T) {
	var all stamp.Tally
	for _, err := range []error{nil, nil, stamp.ErrForm, fmt.Errorf("%w: site shop.example.jp", stamp.ErrReplay), stamp.ErrReplay, errors.New("of another kind")} {
		all.Note(err)
	}
	refused := all.Refused()
	if all.Believed() != 2 || refused["form"] != 1 || refused["replay"] != 2 || refused["key"] != 0 {
		t.Errorf("%d believed, refused %v", all.Believed(), refused)
	}
	want := stamp.Reasons()
	slices.Sort(want)
	if got := slices.Sorted(maps.Keys(refused)); !slices.Equal(got, want) {
		t.Errorf("reasons %q, want each of %q", got, want)
	}
	var none *stamp.Tally
	none.Note(nil)
	if none.Believed() != 0 || none.Refused()["form"] != 0 {
		t.Error("nothing has counted something")
	}
}
