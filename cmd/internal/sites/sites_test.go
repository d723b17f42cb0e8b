package sites_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"relayguard/cmd/internal/sites"
	"relayguard/policy/origin/stamp"
)

// site is one that is right; n makes it unlike others.
func site(n byte) stamp.Site {
	return stamp.Site{Name: fmt.Sprintf("site%d.example.jp", n), UID: 1000 + int(n), KeyID: fmt.Sprintf("%08x", n), Key: bytes.Repeat([]byte{n}, 32), Root: fmt.Sprintf("/srv/www/%d", n)}
}

func open(t *testing.T, path string) *sites.File {
	t.Helper()
	f, err := sites.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func names(f *sites.File) (all []string) {
	for _, s := range f.All() {
		all = append(all, s.Name)
	}
	return all
}

func TestWhatIsRegisteredOutlivesTheProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sites.json")
	f := open(t, path)
	for _, n := range []byte{3, 1, 2} {
		if err := f.Put(site(n)); err != nil {
			t.Fatal(err)
		}
	}
	changed := site(2)
	changed.KeyID, changed.Key, changed.Content = "abcdef01", bytes.Repeat([]byte{9}, 32), "/srv/content"
	if err := f.Put(changed); err != nil {
		t.Fatal(err)
	}
	if was, err := f.Remove("site1.example.jp"); err != nil || !was {
		t.Errorf("removed %v, %v", was, err)
	}
	if was, err := f.Remove("site1.example.jp"); err != nil || was {
		t.Errorf("removed again %v, %v", was, err)
	}
	again := open(t, path)
	if got := fmt.Sprint(names(f), names(again)); got != "[site2.example.jp site3.example.jp] [site2.example.jp site3.example.jp]" {
		t.Error(got)
	}
	if s := again.All()[0]; s.KeyID != "abcdef01" || !bytes.Equal(s.Key, changed.Key) || s.UID != 1002 || s.Root != "/srv/www/2" || s.Content != "/srv/content" || sites.InfoOf(s).Content != s.Content {
		t.Errorf("%+v", s)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if _, err := stamp.NewBook(again.All(), stamp.NewReplays(10)); err != nil {
		t.Errorf("a book does not take them: %v", err)
	}
}

func TestWhatAnotherSiteHasIsRefused(t *testing.T) {
	f := open(t, filepath.Join(t.TempDir(), "sites.json"))
	if err := f.Put(site(1)); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*stamp.Site){
		"key id": func(s *stamp.Site) { s.KeyID = site(1).KeyID },
		"key":    func(s *stamp.Site) { s.Key = site(1).Key },
		"root":   func(s *stamp.Site) { s.Root = site(1).Root },
	} {
		s := site(2)
		spoil(&s)
		if err := f.Put(s); !errors.Is(err, sites.ErrTaken) || !strings.Contains(err.Error(), "site1.example.jp") || strings.Contains(err.Error(), string(s.Key)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(f.All()) != 1 {
		t.Errorf("registered: %q", names(f))
	}
}

func TestWhatIsNoSiteIsRefused(t *testing.T) {
	f := open(t, filepath.Join(t.TempDir(), "sites.json"))
	for name, c := range map[string]struct {
		spoil func(*stamp.Site)
		says  string
	}{
		"name empty":      {func(s *stamp.Site) { s.Name = "" }, "site name"},
		"name upper case": {func(s *stamp.Site) { s.Name = "Shop" }, "site name"},
		"name hostile":    {func(s *stamp.Site) { s.Name = "a\x1b[2J" }, `"a\x1b[2J"`},
		"root's":          {func(s *stamp.Site) { s.UID = 0 }, "root runs no site"},
		"uid":             {func(s *stamp.Site) { s.UID = -2 }, "uid"},
		"no login":        {func(s *stamp.Site) { s.UID = -1 }, "login"},
		"key id":          {func(s *stamp.Site) { s.KeyID = "12345" }, "key id"},
		"key short":       {func(s *stamp.Site) { s.Key = s.Key[:31] }, "32 octets"},
		"key of zeros":    {func(s *stamp.Site) { s.Key = make([]byte, 32) }, "zeros"},
		"root relative":   {func(s *stamp.Site) { s.Root = "srv" }, "root"},
		"root with dots":  {func(s *stamp.Site) { s.Root = "/srv/../etc" }, "root"},
		"content":         {func(s *stamp.Site) { s.Content = "/srv/" }, "content"},
		"root directory":  {func(s *stamp.Site) { s.Root = "/" }, "root"},
	} {
		s := site(1)
		c.spoil(&s)
		if err := f.Put(s); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
	s := site(1)
	s.UID, s.Login = -1, "shop@example.jp"
	if err := f.Put(s); err != nil {
		t.Errorf("a site that logs in: %v", err)
	}
}

func TestADamagedFileIsKeptAside(t *testing.T) {
	for name, text := range map[string]string{"cut off": `{"sites":[{"name":"a`, "empty": "", "no list": "{}", "a wrong site": `{"sites":[{"name":"a","uid":0}]}`, "null": "null"} {
		path := filepath.Join(t.TempDir(), "sites.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := sites.Open(path)
		if f == nil || err == nil || !strings.Contains(err.Error(), path+".bad") || len(f.All()) != 0 {
			t.Errorf("%s: %v, %v", name, f, err)
			continue
		}
		if err := f.Put(site(1)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if kept, err := os.ReadFile(path + ".bad"); err != nil || string(kept) != text {
			t.Errorf("%s: kept %q, %v", name, kept, err)
		}
		os.WriteFile(path, []byte(text), 0o600)
		if _, err := sites.Open(path); err == nil || !strings.Contains(err.Error(), ".bad2") {
			t.Errorf("%s again: %v", name, err)
		}
	}
}

func TestAFileThatCannotBeReadIsNotOverwritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sites.json")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if f, err := sites.Open(path); f != nil || err == nil {
		t.Errorf("%v, %v", f, err)
	}
}

func TestAFailedWriteChangesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	f := open(t, filepath.Join(dir, "sites.json"))
	if err := f.Put(site(1)); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := f.Put(site(2)); err == nil {
		t.Error("written where no directory is")
	}
	if _, err := f.Remove("site1.example.jp"); err == nil {
		t.Error("removed where no directory is")
	}
	if got := names(f); len(got) != 1 {
		t.Errorf("registered: %q", got)
	}
}

func TestManyMayRegisterAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sites.json")
	f := open(t, path)
	var all sync.WaitGroup
	for n := range byte(20) {
		all.Go(func() {
			if err := f.Put(site(n + 1)); err != nil {
				t.Error(err)
			}
			f.All()
		})
	}
	all.Wait()
	if got := names(open(t, path)); len(got) != 20 {
		t.Errorf("registered: %q", got)
	}
}

func TestKeysAreNotTold(t *testing.T) {
	s := site(7)
	r := sites.Registration{Name: s.Name, UID: s.UID, KeyID: s.KeyID, Key: s.Key, Root: s.Root}
	if text := fmt.Sprintf("%v %+v %v", r, r.Site(), sites.InfoOf(s)); strings.Contains(text, "7 7 7") {
		t.Errorf("a key is printed: %s", text)
	}
	if got := sites.Infos([]stamp.Site{s})[0]; got.Name != s.Name || got.Root != s.Root || got.KeyID != s.KeyID {
		t.Errorf("%+v", got)
	}
}

func FuzzDecode(f *testing.F) {
	seeds, err := filepath.Glob("testdata/*.json")
	if err != nil || len(seeds) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, seed := range seeds {
		text, err := os.ReadFile(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := sites.Decode(data)
		if err != nil {
			return
		}
		register, err := sites.Open(filepath.Join(t.TempDir(), "sites.json"))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range all[:min(len(all), 10)] {
			if err := register.Put(s); err != nil {
				t.Errorf("read, but not taken: %v", err)
			}
		}
	})
}
