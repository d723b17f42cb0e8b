package nodes_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/nodes"
)

var now = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

func TestAccountsAreKnownByTheirMail(t *testing.T) {
	h := nodes.New()
	h.Note(now, "web1", true, 33, "www-data@web1")
	h.Note(now, "web2", true, 33, "www-data@web2")
	h.Note(now, "web1", true, 1001, "old@web1")
	h.Note(now, "web1", true, 1001, "site12@web1")
	h.Note(now, "web1", true, 1002, "uid:1002@web1") // has no name there
	h.Note(now, "web1", true, 1003, "site13@web2")   // of another node
	h.Note(now, "web1", false, 1004, "site14@web1")
	h.Note(now, "web1", true, -1, "mail@web1")

	var kept bytes.Buffer
	if err := h.Save(&kept); err != nil {
		t.Fatal(err)
	}
	again := nodes.New()
	if err := again.Load(&kept); err != nil {
		t.Fatal(err)
	}
	for what, h := range map[string]*nodes.Heard{"heard": h, "kept": again} {
		for id, name := range map[string]string{"33@web1": "www-data@web1", "33@web2": "www-data@web2", "1001@web1": "site12@web1", "1002@web1": "", "1003@web1": "", "1004@web1": "", "-1@web1": ""} {
			if got := h.Name(id); got != name {
				t.Errorf("%s: %s is %q, want %q", what, id, got, name)
			}
		}
		if id, ok := h.ID("www-data@web2"); !ok || id != "33@web2" {
			t.Errorf("%s: www-data@web2 is %q, %v", what, id, ok)
		}
		if id, ok := h.ID("old@web1"); ok {
			t.Errorf("%s: a name that has gone is %q", what, id)
		}
	}
}

func TestAnAccountThatWasMadeAnewHasAnotherUID(t *testing.T) {
	h := nodes.New()
	h.Note(now, "web1", true, 1001, "shop@web1")
	h.Note(now, "web1", true, 1002, "shop@web1")
	h.Note(now, "web1", true, 1001, "other@web1")
	if id, _ := h.ID("shop@web1"); id != "1002@web1" || h.Name("1001@web1") != "other@web1" {
		t.Errorf("shop is %q, 1001 is %q", id, h.Name("1001@web1"))
	}
}

func TestWhenANodeWasHeard(t *testing.T) {
	h := nodes.New()
	later := now.Add(time.Minute)
	h.Note(now, "web1", true, -1, "")
	h.Note(later, "web1", false, -1, "")
	all := h.All([]string{"web2", "web1"})
	if len(all) != 2 || all[0] != (nodes.Node{Name: "web1", Signed: now, Unsigned: later, Unknown: 1, Known: 1}) || all[1] != (nodes.Node{Name: "web2"}) {
		t.Errorf("heard %+v", all)
	}
	h.Note(later, "web2", false, -1, "")
	if signed, unsigned := h.Messages(); signed != 1 || unsigned != 2 {
		t.Errorf("%d signed, %d unsigned", signed, unsigned)
	}
}

func TestABrokenFileIsToldByLine(t *testing.T) {
	for _, text := range []string{"x", "1001@web1", "1001@web1\tshop@web2", "a@web1\tshop@web1", "1001\tshop", "1001@\tshop@"} {
		err := nodes.New().Load(strings.NewReader("33@web1\twww-data@web1\n" + text + "\n"))
		if err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
