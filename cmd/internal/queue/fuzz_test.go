package queue

import (
	"bytes"
	"encoding/json"
	"slices"
	"testing"

	"relayguard/mta"
	"relayguard/mta/grace"
)

// Whatever the daemon sends: what comes through has the form that Postfix's
// tools may be given.
func FuzzRequest(f *testing.F) {
	for _, seed := range []string{
		`{"verb":"list"}`,
		`{"verb":"start","keep":true}`,
		`{"verb":"hold","targets":[{"id":"4F3A29C0","sender":"a@example.jp","arrival":1772438400000000,"exact":true}]}`,
		`{"verb":"content","targets":[{"id":"3Z1zKz5fVTz2Sx","sender":"","arrival":0}]}`,
		`{"verb":"suspend-local","user":"www-data"}`, `{"verb":"restore","names":["4F3A29C0.1772438400"]}`, `{"verb":"forget","names":["../../etc/passwd.1"]}`,
		`{"verb":"delete","targets":[{"id":"ALL","sender":"\n","arrival":-1}]}`,
		`{"verb":"status"}`, `{"verb":"list"} {"verb":"list"}`, `{"Verb":"LIST"}`, `null`, `{`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := decodeRequest(line)
		if err != nil {
			return
		}
		rule, known := verbs[r.Verb]
		if !known || len(r.Targets) > rule.targets || r.User != "" && !mta.ValidUser(r.User) || r.Keep && !rule.keep || len(r.Names) > rule.names || slices.ContainsFunc(r.Names, func(name string) bool { return !grace.ValidName(name) }) {
			t.Fatalf("got %+v", r)
		}
		for _, w := range r.Targets {
			p := w.fromWire()
			if !mta.ValidQueueID(p.ID) || toWire(p) != w {
				t.Fatalf("got %+v", w)
			}
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeRequest(again); err != nil {
			t.Fatalf("%s: %v", again, err)
		}
	})
}

// Whatever the helper sends: an answer ends with its end or with an error.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{
		`{"file":{"Queue":"hold","ID":"4F3A29C0","Arrival":"2026-03-02T08:00:00Z","Size":1,"Sender":"a@example.jp","Recipients":["b@example.net"],"More":0,"Reason":""}}` + "\n" + `{"end":{}}` + "\n",
		`{"result":{"id":"4F3A29C0","fate":"failed","error":"no"}}` + "\n" + `{"end":{"code":"skipped","skipped":3,"error":"odd"}}` + "\n",
		`{"data":"aGVsbG8="}` + "\n" + `{"end":{"code":"cut","error":"only the beginning"}}` + "\n",
		`{"stopped":{"Since":"2026-03-02T08:00:00Z"}}` + "\n" + `{"target":{"id":"4F3A29C0","sender":"","arrival":1}}` + "\n" + `{"started":{}}` + "\n" + `{"status":{}}` + "\n" + `{"end":null}` + "\n",
		"\n", `{"kept":{"Name":"4F3A29C0.1772438400","ID":"4F3A29C0"}}` + "\n" + `{"end":{}}` + "\n", "{}\n", `{"end":{}`, "null\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		ended, err := readAnswer(bytes.NewReader(answer), func(r response) error {
			if r.Result != nil {
				if p, err := r.Result.fromWire(); err == nil && (p.Err != nil) != (p.Fate == mta.Failed) {
					t.Fatalf("got %+v", p)
				}
			}
			if r.Target != nil {
				r.Target.fromWire()
			}
			return nil
		})
		if (ended == nil) == (err == nil) {
			t.Fatalf("got %+v, %v", ended, err)
		}
		if ended != nil {
			ended.err()
		}
	})
}
