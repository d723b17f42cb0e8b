package report

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"relayguard/rbl"
)

var places = regexp.MustCompile(`\{([a-z_]*)[^}]*\}`)

func TestLanguagesSayTheSame(t *testing.T) {
	all, err := catalogues()
	if err != nil {
		t.Fatal(err)
	}
	if len(all["en"]) < 100 {
		t.Fatalf("%d phrases in English: were they read?", len(all["en"]))
	}
	filled := func(phrase string) (names []string) {
		for _, m := range places.FindAllStringSubmatch(phrase, -1) {
			names = append(names, m[1])
		}
		slices.Sort(names)
		return slices.Compact(names)
	}
	for _, lang := range Languages {
		for key, phrase := range all[lang] {
			en, ok := all["en"][key]
			if !ok {
				t.Errorf("%s: %s is not in English", lang, key)
			}
			if got, want := filled(phrase), filled(en); !slices.Equal(got, want) {
				t.Errorf("%s: %s is filled with %v, in English with %v", lang, key, got, want)
			}
			if strings.Contains(places.ReplaceAllString(phrase, ""), "{") {
				t.Errorf("%s: %s has an open place", lang, key)
			}
		}
		for key := range all["en"] {
			if _, ok := all[lang][key]; !ok {
				t.Errorf("%s: %s is missing", lang, key)
			}
		}
	}
}

func TestEveryWordOfAClosedSetHasAPhrase(t *testing.T) {
	var keys []string
	add := func(set string, words ...string) {
		for _, w := range words {
			keys = append(keys, set+"_"+w)
		}
	}
	for _, s := range rbl.States() {
		add("state", s.String())
		add("state_means", s.String())
	}
	for s := rbl.Info; s <= rbl.Critical; s++ {
		add("severity", s.String())
	}
	for s := rbl.ScopeAddress; s <= rbl.ScopeDomain; s++ {
		add("scope", s.String())
	}
	add("change", ChangeListed, ChangeSuspected, ChangeUnlisted, ChangeDropped, ChangeZone, ChangeZoneWell, ChangeSender, ChangeSenderWell, ChangeIncident, ChangeClosed,
		ChangeSuspended, ChangeResumed, ChangeForward, ChangeForwardGone, ChangeHeld, ChangeDegraded, ChangeVolume, ChangeStopped, ChangeStarted)
	add("step", StepSuspend, StepProve, StepRemoval, StepHeld, StepForwards, StepSender, StepZone, StepResolver, StepDegraded, StepIncident)
	add("section", SectionBlocklists, SectionAddresses, SectionLists, SectionHistory, SectionNeighbours, SectionSender, SectionMail, SectionDeliveries, SectionUsual, SectionCause, SectionHeld,
		SectionIncidents, SectionSuspensions, SectionForwards, SectionGuard, SectionGaps, SectionChanges)
	for _, how := range []string{"expires", "form", "email", "isp", "register", "fix", "none"} {
		add("way", how)
		add("step_removal", how)
	}
	for _, t := range []Tone{ToneAct, ToneLook, ToneNote, ToneGood, ToneUnknown} {
		add("label", string(t))
		add("tile", string(t))
		if t != ToneNote {
			add("standing", string(t))
		}
	}
	for _, lang := range Languages {
		w, err := wordsOf(lang)
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range keys {
			if !w.has(key) {
				t.Errorf("%s: no phrase %s", lang, key)
			}
		}
	}
}
