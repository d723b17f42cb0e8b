package main

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/config"
	"relayguard/policy/limit"
)

// reopened is what a daemon begins with, and what it logs of that.
func reopened(c *config.Config) (*recognition, string) {
	var log bytes.Buffer
	r := openRecognition(c, bytes.Repeat([]byte{7}, 32), slog.New(slog.NewTextHandler(&log, nil)))
	return r, log.String()
}

func TestRecognitionOutlivesARestart(t *testing.T) {
	c := stateConfig(t)
	r, logged := reopened(c)
	if logged != "" {
		t.Errorf("the first start says %s", logged)
	}
	now := time.Now()
	r.grant(now, "site:shop.example.jp")
	r.plugins.Admit(now, "shop.example.jp", "cart")
	r.save()
	again, logged := reopened(c)
	if _, granted := again.peaks.Met("site:shop.example.jp"); !granted || len(again.plugins.Names("shop.example.jp")) != 1 || logged != "" {
		t.Errorf("it begins with %v, and says %s", again.plugins.All(), logged)
	}
}

// A file that cannot be read is not lost by the next one.
func TestRecognitionFileThatCannotBeReadIsPutAside(t *testing.T) {
	for _, name := range []string{"peaks.bin", "templates.bin", "plugins.txt", "nodes.txt"} {
		t.Run(name, func(t *testing.T) {
			c := stateConfig(t)
			path := filepath.Join(filepath.Dir(c.Journal.Directory), name)
			for i, aside := range []string{".bad", ".bad2"} {
				damaged := strings.Repeat("damaged ", i+1)
				if err := os.WriteFile(path, []byte(damaged), 0o600); err != nil {
					t.Fatal(err)
				}
				r, logged := reopened(c)
				if !strings.Contains(logged, "what was learnt about mail begins anew") || !strings.Contains(logged, "it is kept as "+path+aside) {
					t.Errorf("it says %s", logged)
				}
				r.save()
				if kept, err := os.ReadFile(path + aside); err != nil || string(kept) != damaged {
					t.Errorf("%s has %q, %v", aside, kept, err)
				}
				if _, logged := reopened(c); logged != "" {
					t.Errorf("the next start says %s", logged)
				}
			}
		})
	}
}

// What stands where a file should be and cannot be moved is not written over.
func TestRecognitionFileThatCannotBePutAsideStays(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x")
	for _, name := range []string{path, path + ".bad", path + ".bad2", path + ".bad3", path + ".bad4", path + ".bad5", path + ".bad6", path + ".bad7", path + ".bad8", path + ".bad9"} {
		if err := os.WriteFile(name, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f := learntFile{path: path, load: func(io.Reader) error { return errors.New("it is damaged") }, save: func(w io.Writer) error {
		_, err := io.WriteString(w, "new")
		return err
	}}
	if err := f.read(); err == nil || !strings.Contains(err.Error(), "it is damaged") || !strings.Contains(err.Error(), "nothing is written") {
		t.Error(err)
	}
	if err := f.write(); err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != path {
		t.Errorf("it has %q, %v", got, err)
	}
}

func TestRecognitionFileIsWrittenWhenItChanges(t *testing.T) {
	path, content := filepath.Join(t.TempDir(), "x"), "first"
	fails := error(nil)
	f := learntFile{path: path, save: func(w io.Writer) error {
		_, err := io.WriteString(w, content)
		return errors.Join(err, fails)
	}}
	write := func() os.FileInfo {
		t.Helper()
		if err := f.write(); !errors.Is(err, fails) {
			t.Fatal(err)
		}
		if _, err := os.Stat(path + ".new"); err == nil {
			t.Error("half a file is left")
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	first := write()
	if !os.SameFile(first, write()) {
		t.Error("the same is written again")
	}
	content, fails = "second", errors.New("the disk is full")
	if !os.SameFile(first, write()) {
		t.Error("half a file is in the place of a whole one")
	}
	fails = nil
	if second := write(); os.SameFile(first, second) {
		t.Error("a change is not written")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	write() // what an admin has removed is there again
	if got, err := os.ReadFile(path); err != nil || string(got) != "second" {
		t.Errorf("it has %q, %v", got, err)
	}
}

// A daemon that nothing happens to writes nothing.
func TestRecognitionIdleWritesNothing(t *testing.T) {
	c := stateConfig(t)
	r, _ := reopened(c)
	now := time.Now()
	for _, site := range []string{"a", "b", "c", "d", "e"} {
		r.plugins.Admit(now, site, "share")
		r.plugins.Admit(now, site, "cart")
		r.peaks.Note(now, limit.Key{Limit: "plugin-first-time", Value: "plugin:share@" + site}, 24*time.Hour, 0, 1)
		r.peaks.Meet(now, "site:"+site)
	}
	r.save()
	before := map[string]os.FileInfo{}
	for _, f := range r.files {
		before[f.path], _ = os.Stat(f.path)
	}
	for range 10 {
		r.save()
		for path, info := range before {
			if after, err := os.Stat(path); err != nil || !os.SameFile(info, after) {
				t.Errorf("%s is another, %v", path, err)
			}
		}
	}
}

// A daemon that is killed after a site was registered knows to be patient with it.
func TestSiteRegisteredIsOnDiskAtOnce(t *testing.T) {
	s := serveCallers(t)
	until(t, "peaks.bin tells of the site", learntEvery/10, func() bool {
		data, err := os.ReadFile(filepath.Join(s.dir, "peaks.bin"))
		p := limit.NewPeaks(0)
		if err != nil || p.Load(bytes.NewReader(data)) != nil {
			return false
		}
		_, granted := p.Met("site:" + s.site.Name)
		return granted
	})
}
