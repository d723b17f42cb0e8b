package wordpress_test

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"relayguard/wordpress"
)

// siteCase is a WordPress in testdata/sites, and what the stamp must be.
type siteCase struct {
	Run       string // the page that is asked for; default index.php
	Method    string // default GET
	Links     map[string]string
	Key       string // "missing", "damaged", "unreadable"; default a good one
	Unstamped bool
	Keeps     []string // other header fields that must be left

	Blog          int
	Plugin, Entry string
	Script        string
	ScriptEnds    string `json:"script_ends"`
	Recipients    []string
	Subject       string
}

func readCase(t *testing.T, dir string) siteCase {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "want.json"))
	if err != nil {
		t.Fatal(err)
	}
	c := siteCase{Run: "index.php", Method: "GET"}
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		t.Fatalf("%s: %v", dir, err)
	}
	return c
}

// build makes the site below root.
func (c *siteCase) build(t *testing.T, from, root string, key wordpress.Key) {
	t.Helper()
	copyTree(t, from, root)
	for source, file := range map[string]string{"wp-load.php": "wp-load.php", "fake-wordpress.php": "wp-includes/fake-wordpress.php"} {
		text, err := os.ReadFile(filepath.Join("testdata", source))
		if err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(root, file), text, 0o644)
	}
	content := filepath.Join(root, "wp-content")
	put(t, filepath.Join(content, wordpress.MustUsePath), wordpress.MustUse(), 0o444)
	text, mode := wordpress.KeyFile("shop.example.jp", key), os.FileMode(0o400)
	switch c.Key {
	case "damaged":
		text = text[:len(text)/2]
	case "unreadable":
		mode = 0
	}
	if c.Key != "missing" {
		put(t, filepath.Join(content, wordpress.KeyPath), text, mode)
	}
	for link, to := range c.Links {
		path := filepath.Join(root, link)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(root, to), path); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMustUsePluginSignsWhereMailComesFrom(t *testing.T) {
	dirs, err := filepath.Glob("testdata/sites/*")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no sites: %v", err)
	}
	php(t)
	top, key := openDir(t), wordpress.NewKey()
	cases := map[string]siteCase{}
	for _, dir := range dirs {
		c := readCase(t, dir)
		c.build(t, dir, filepath.Join(top, filepath.Base(dir)), key)
		cases[filepath.Base(dir)] = c
	}
	given(t, top)
	w := serve(t, top)
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		t.Run(name, func(t *testing.T) {
			c := cases[name]
			c.verify(t, key, "127.0.0.1", w.do(c.Method, "/"+name+"/"+c.Run))
		})
	}
}

// verify compares what a page said of the one mail that it sent.
func (c *siteCase) verify(t *testing.T, key wordpress.Key, client, page string) {
	t.Helper()
	var mail struct{ Headers [][2]string }
	if err := json.Unmarshal([]byte(page), &mail); err != nil {
		t.Fatalf("the page says %q", page)
	}
	var stamps []string
	for _, h := range mail.Headers {
		switch {
		case h[0] == "X-Relayguard-Origin":
			stamps = append(stamps, h[1])
		case !slices.Contains(c.Keeps, h[0]):
			t.Errorf("the mail has a field %q", h)
		}
	}
	if len(mail.Headers) != len(stamps)+len(c.Keeps) {
		t.Errorf("the mail has the fields %q, want %q too", mail.Headers, c.Keeps)
	}
	if c.Unstamped {
		if len(stamps) != 0 {
			t.Errorf("stamps %q, want none", stamps)
		}
		return
	}
	if len(stamps) != 1 {
		t.Fatalf("stamps %q, want one", stamps)
	}
	got := readClaim(t, key, stamps[0])
	want := claim{Key: key.ID, Time: got.Time, Blog: strconv.Itoa(c.Blog), Plugin: c.Plugin, Entry: c.Entry, Script: c.Script, Client: client,
		RecipientsDigest: digestOf(c.Recipients...), SubjectDigest: digest(c.Subject)}
	if c.ScriptEnds != "" && strings.HasSuffix(got.Script, c.ScriptEnds) && len(got.Script) <= 200 {
		want.Script = got.Script
	}
	if got != want {
		t.Errorf("stamp\n%+v, want\n%+v", got, want)
	}
}

func TestMustUsePluginNamesTheCommandLine(t *testing.T) {
	root, key := filepath.Join(t.TempDir(), "shop"), wordpress.NewKey()
	const from = "testdata/sites/single-file"
	c := readCase(t, from)
	c.build(t, from, root, key)
	c.Entry = "cli"
	out, err := exec.CommandContext(t.Context(), php(t), filepath.Join(root, "index.php")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	c.verify(t, key, "-", string(out))
}

func TestNothingOfOursAnswersARequest(t *testing.T) {
	root, key := openDir(t), wordpress.NewKey()
	c := siteCase{}
	c.build(t, "testdata/sites/single-file", root, key)
	given(t, root)
	w := serve(t, root)
	for _, path := range []string{wordpress.MustUsePath, wordpress.KeyPath} {
		if text := w.do("GET", "/wp-content/"+path); text != "" {
			t.Errorf("%s answers %q", path, text)
		}
	}
}

// The Go side makes the vectors and reads what they say.
func TestStampsAreThoseOfTheGoSide(t *testing.T) {
	text, err := os.ReadFile("../policy/origin/stamp/testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		Name  string
		Value string
	}
	if err := json.Unmarshal(text, &vectors); err != nil || len(vectors) == 0 {
		t.Fatalf("%d vectors, %v", len(vectors), err)
	}
	file := filepath.Join(t.TempDir(), "vectors.json")
	put(t, file, text, 0o644)
	out, err := exec.CommandContext(t.Context(), php(t), "testdata/vectors.php", file).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var got []string
	if err := json.Unmarshal(out, &got); err != nil || len(got) != len(vectors) {
		t.Fatalf("%d of %d vectors, %v: %s", len(got), len(vectors), err, out)
	}
	for i, v := range vectors {
		if got[i] != v.Value {
			t.Errorf("%s:\n%s, want\n%s", v.Name, got[i], v.Value)
		}
	}
}
