package limit_test

import (
	"strings"
	"testing"
	"time"

	"relayguard/policy/limit"
)

// The table of the manual, in recipients.
func TestDefaultsAreTheShippedTable(t *testing.T) {
	const hour, day = time.Hour, 24 * time.Hour
	want := map[limit.Per][3]int64{ // burst, hour, day
		limit.Login: {150, 300, 1500}, limit.LocalUser: {150, 300, 2000}, limit.SharedUser: {1500, 3000, 20000}, limit.Site: {150, 300, 2000}, limit.Machine: {250, 500}, limit.Plugin: {25, 0, 40}, limit.Template: {25, 0, 40},
	}
	names := map[string]bool{}
	for _, l := range limit.Defaults() {
		if err := l.Check(); err != nil {
			t.Error(err)
		}
		row, ok := want[l.Per[0]]
		counts, kind := limit.Recipients, limit.Volume
		adapts := l.Per[0] == limit.Plugin || l.Per[0] == limit.Template
		if adapts {
			counts, kind = limit.FirstTime, limit.Abuse
		}
		if adapts != (l.Adapt == limit.Adapt{Times: 3, Days: 21}) {
			t.Errorf("%s adapts by %+v", l.Name, l.Adapt)
		}
		if !ok || len(l.Per) != 1 || l.Counts != counts || l.Kind != kind || names[l.Name] {
			t.Errorf("%+v is not in the table", l)
		}
		names[l.Name] = true
		var got [3]int64
		for _, w := range l.Windows {
			switch {
			case w.Soft:
				t.Errorf("%s: soft", l.Name)
			case w.Length == 10*time.Minute && w.Burst:
				got[0] = w.Count
			case w.Length == hour && !w.Burst:
				got[1] = w.Count
			case w.Length == day && !w.Burst:
				got[2] = w.Count
			default:
				t.Errorf("%s: %+v", l.Name, w)
			}
		}
		if got != row {
			t.Errorf("%s: %d, want %d", l.Name, got, row)
		}
		delete(want, l.Per[0])
	}
	if len(want) > 0 {
		t.Errorf("no defaults for %v", want)
	}
}

func TestCheckNamesEveryFault(t *testing.T) {
	good := limit.Defaults()[0].Limit
	for _, c := range []struct {
		spoil func(*limit.Limit)
		want  []string
	}{
		{func(*limit.Limit) {}, nil},
		{func(l *limit.Limit) { *l = limit.Limit{} }, []string{"limit.name: got none", "limit.per: got none, want one or several of", "limit.counts: got unit(0)", "limit.kind: got kind(0)", "limit.windows: got 0, want 1 to 6; delete the limit to lift it"}},
		{func(l *limit.Limit) { l.Per, l.Counts, l.Kind = []limit.Per{99}, 99, 99 }, []string{"login-volume.per: got per(99)", "login-volume.counts: got unit(99)", "login-volume.kind: got kind(99)"}},
		{func(l *limit.Limit) { l.Per = []limit.Per{limit.Login, limit.Client, limit.Login} }, []string{`login-volume.per: got "login" a second time; name it once`}},
		{func(l *limit.Limit) { l.Per, l.Counts = []limit.Per{limit.Login, limit.RecipientDomain}, limit.Bounces }, nil},
		{func(l *limit.Limit) { l.Windows[1].Count = 0 }, []string{"login-volume.windows[1].count: got 0, want at least 1; delete the limit to lift it"}},
		{func(l *limit.Limit) { l.Windows[1].Count = limit.MaxCount + 1 }, []string{"login-volume.windows[1].count: got 9007199254740993, want at most 9007199254740992"}},
		{func(l *limit.Limit) { l.Windows[0].Length = 0 }, []string{"login-volume.windows[0].length: got 0s, want 1s to 400 days"}},
		{func(l *limit.Limit) { l.Windows[2].Length = limit.MaxLength + time.Second }, []string{"login-volume.windows[2].length: got 9600h0m1s, want 1s to 400 days"}},
		{func(l *limit.Limit) { l.Windows[2].Length += time.Millisecond }, []string{"login-volume.windows[2].length: got 24h0m0.001s, want whole seconds"}},
		{func(l *limit.Limit) { l.Windows[2].Length = time.Hour }, []string{"login-volume.windows[2].length: got 1h0m0s a second time; keep the smaller count"}},
		{func(l *limit.Limit) { l.Windows[1].Burst = true }, []string{"login-volume.windows[1].length: got 1h0m0s for the burst, want the shortest"}},
		{func(l *limit.Limit) {
			for i := range 5 {
				l.Windows = append(l.Windows, limit.Window{Count: 1, Length: time.Duration(i+1) * time.Second})
			}
			l.Windows[0].Burst = false
		}, []string{"login-volume.windows: got 8, want 1 to 6"}},
	} {
		l := good
		l.Windows = append([]limit.Window{}, good.Windows...)
		c.spoil(&l)
		var got []string
		if err := l.Check(); err != nil {
			got = strings.Split(err.Error(), "\n")
		}
		if len(got) != len(c.want) {
			t.Errorf("%q, want %q", got, c.want)
			continue
		}
		for i := range got {
			if !strings.HasPrefix(got[i], c.want[i]) {
				t.Errorf("%q, want %q", got[i], c.want[i])
			}
		}
	}
}

func TestWhileLearningOnlyBurstsAndAbuseAct(t *testing.T) {
	for _, l := range limit.Defaults() {
		for i, w := range l.Softened().Windows {
			if w.Soft == (w.Burst || l.Kind == limit.Abuse) || l.Windows[i].Soft {
				t.Errorf("%s: %+v of %+v", l.Name, w, l.Windows[i])
			}
		}
		l.Kind = limit.Abuse
		for _, w := range l.Softened().Windows {
			if w.Soft {
				t.Errorf("abuse: %+v", w)
			}
		}
	}
}

func TestProbationHalves(t *testing.T) {
	l := limit.Defaults()[0].Limit
	l.Windows[0].Count, l.Windows[1].Count = 1, 301
	h := l.Halved()
	if h.Windows[0].Count != 1 || h.Windows[1].Count != 150 || h.Windows[2].Count != 750 || !h.Windows[0].Burst || h.Name != l.Name {
		t.Errorf("%+v", h)
	}
	if l.Windows[1].Count != 301 {
		t.Error("the limit itself was halved")
	}
	if err := h.Check(); err != nil {
		t.Error(err)
	}
}

func TestChargeIsOfItsLimit(t *testing.T) {
	l, items := limit.Defaults()[0].Limit, []limit.Item{1, 2}
	l.Counts = limit.Distinct
	if c := l.Charge("login:taro@example.jp", 7, items); c.Amount != 7 || len(c.Items) != 2 || c.Counts != limit.Distinct || c.Key != (limit.Key{Limit: "login-volume", Value: "login:taro@example.jp"}) || c.Kind != limit.Volume || len(c.Windows) != 3 {
		t.Errorf("%+v", c)
	}
}

func TestNames(t *testing.T) {
	for _, name := range limit.Units() {
		if u, err := limit.ParseUnit(name); err != nil || u.String() != name {
			t.Errorf("%q reads as %v, %v", name, u, err)
		}
	}
	for _, name := range limit.Kinds() {
		if k, err := limit.ParseKind(name); err != nil || k.String() != name {
			t.Errorf("%q reads as %v, %v", name, k, err)
		}
	}
	for _, name := range limit.Pers() {
		if p, err := limit.ParsePer(name); err != nil || p.String() != name {
			t.Errorf("%q reads as %v, %v", name, p, err)
		}
	}
	if len(limit.Units()) != 6 || len(limit.Kinds()) != 2 || len(limit.Pers()) != 17 {
		t.Error(limit.Units(), limit.Kinds(), limit.Pers())
	}
	for _, bad := range []string{"", "Volume", "login ", "unit(0)"} {
		_, u := limit.ParseUnit(bad)
		_, k := limit.ParseKind(bad)
		_, p := limit.ParsePer(bad)
		if u == nil || k == nil || p == nil {
			t.Errorf("%q is a name", bad)
		}
	}
}

func TestNewWindow(t *testing.T) {
	if w, err := limit.NewWindow(5, time.Hour, true); err != nil || w != (limit.Window{Count: 5, Length: time.Hour, Soft: true}) {
		t.Error(w, err)
	}
	if w, err := limit.NewWindow(0, time.Millisecond, false); err == nil || w != (limit.Window{}) || !strings.Contains(err.Error(), "window.count: got 0") || !strings.Contains(err.Error(), "window.length: got 1ms") {
		t.Error(w, err)
	}
}
