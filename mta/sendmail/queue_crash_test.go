package sendmail_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"relayguard/mta"
	"relayguard/mta/grace"
	"relayguard/mta/sendmail"

	"golang.org/x/sys/unix"
)

const (
	idA = "6AN18P39020437"
	idB = "6AN18P3a020437"
)

func TestAnotherMessageIsNeverActedOn(t *testing.T) {
	i, queue := tree(t)
	plant(t, queue, idA, "")
	plant(t, queue, idB, "somebody's")
	before := names(t, queue)
	for what, change := range map[string]func(*mta.Target){
		"sender":         func(t *mta.Target) { t.Sender = "other@example.jp" },
		"arrival":        func(t *mta.Target) { t.Arrival = t.Arrival.Add(time.Second) },
		"decided before": func(t *mta.Target) { t.Exact, t.Arrival = false, t.Arrival.Add(-time.Hour) },
	} {
		a, b := target(idA), target(idB)
		change(&a)
		change(&b)
		results, err := i.HoldMail(t.Context(), []mta.Target{a}, "why")
		all(t, what, mta.Changed, results, err)
		for verb, act := range acts(i, nil) {
			results, err := act(t.Context(), []mta.Target{b})
			all(t, what+" "+verb, mta.Changed, results, err)
		}
	}
	for _, id := range []string{"", "-", "../" + idA, idA + "/..", idA[:13], strings.ToLower(idA) + "x", "ALL"} {
		for verb, act := range acts(i, &grace.Folder{Dir: filepath.Join(t.TempDir(), "grace")}) {
			results, err := act(t.Context(), []mta.Target{target(id)})
			if err != nil || results[0].Fate != mta.Failed || results[0].Err == nil {
				t.Errorf("%s of %q: %+v, %v", verb, id, results, err)
			}
		}
	}
	for verb, act := range acts(i, nil) { // only what is held, and under its exact id
		results, err := act(t.Context(), []mta.Target{target(idA), target("6AN18P3A020437")})
		all(t, verb, mta.Gone, results, err)
	}
	if after := names(t, queue); !slices.Equal(before, after) {
		t.Errorf("%v became %v", before, after)
	}
}

// acts are those on held mail.
func acts(i *sendmail.Instance, keep *grace.Folder) map[string]func(context.Context, []mta.Target) ([]mta.Result, error) {
	return map[string]func(context.Context, []mta.Target) ([]mta.Result, error){
		"release": func(ctx context.Context, targets []mta.Target) ([]mta.Result, error) {
			return i.ReleaseMail(ctx, targets, mta.Release{Now: time.Unix(1795396105, 0)})
		},
		"requeue": i.RequeueMail,
		"delete": func(ctx context.Context, targets []mta.Target) ([]mta.Result, error) {
			return i.DeleteMail(ctx, targets, keep)
		},
	}
}

func TestLockedMailIsLeftAlone(t *testing.T) {
	for how, lock := range map[string]func(fd int) error{
		"flock": func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) },
		"fcntl": func(fd int) error {
			return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart})
		},
	} {
		i, queue := tree(t)
		plant(t, queue, idA, "")
		plant(t, queue, idB, "why")
		for _, name := range []string{"qf" + idA, "hf" + idB} {
			f, err := os.OpenFile(filepath.Join(queue, name), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := lock(int(f.Fd())); err != nil {
				t.Fatal(err)
			}
		}
		found, err := scanAll(t.Context(), i)
		if err != nil || found[idA].Queue != "active" || found[idB].Queue != "hold" {
			t.Errorf("%s: %+v, %v", how, found, err)
		}
		results, err := i.HoldMail(t.Context(), []mta.Target{target(idA)}, "why")
		if err != nil || results[0].Fate != mta.Failed || !strings.Contains(fmt.Sprint(results[0].Err), "being delivered") {
			t.Errorf("%s: %+v, %v", how, results, err)
		}
		for verb, act := range acts(i, &grace.Folder{Dir: filepath.Join(t.TempDir(), "grace")}) {
			results, err := act(t.Context(), []mta.Target{target(idB)})
			if err != nil || results[0].Fate != mta.Failed {
				t.Errorf("%s %s: %+v, %v", how, verb, results, err)
			}
		}
		if got, want := names(t, queue), []string{"df" + idA, "df" + idB, "hf" + idB, "qf" + idA}; !slices.Equal(got, want) {
			t.Errorf("%s: %v", how, got)
		}
	}
}

// Sendmail removes the body of what it has delivered, waits for the disk, and then
// removes the control file, which it has locked.
func TestMailThatIsJustDeliveredIsNoDamage(t *testing.T) {
	i, queue := tree(t)
	plant(t, queue, idA, "")
	if err := os.Remove(filepath.Join(queue, "df"+idA)); err != nil {
		t.Fatal(err)
	}
	var skipped *mta.SkippedError
	if found, err := scanAll(t.Context(), i); !errors.As(err, &skipped) {
		t.Errorf("without a lock: %v, %v", found, err)
	}
	f, err := os.Open(filepath.Join(queue, "qf"+idA))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if found, err := scanAll(t.Context(), i); err != nil || len(found) > 0 {
		t.Errorf("with one: %v, %v", found, err)
	}
}

// Each state is one in which a kill -9, ours or Sendmail's, may leave a message.
func TestEveryStateOfAKillIsMended(t *testing.T) {
	held := func(t *testing.T, queue string) { plant(t, queue, idA, "relayguard: why") }
	const leftover = "V8\nT1\nhalf"
	for name, c := range map[string]struct {
		make             func(t *testing.T, queue string)
		queue            string // as which a scan tells it; "": only as skipped
		release, deletes mta.Fate
		after            []string // files after a release
	}{
		"half a control file of ours": {func(t *testing.T, queue string) {
			held(t, queue)
			write(t, filepath.Join(queue, "tf"+idA+".rg"), []byte(leftover))
		}, "hold", mta.Done, mta.Done, []string{"df", "qf"}},
		"half a control file of Sendmail's": {func(t *testing.T, queue string) {
			held(t, queue)
			write(t, filepath.Join(queue, "tf"+idA), []byte(leftover))
		}, "hold", mta.Done, mta.Done, []string{"df", "qf", "tf"}},
		"between our renames": {func(t *testing.T, queue string) {
			held(t, queue)
			os.Rename(filepath.Join(queue, "hf"+idA), filepath.Join(queue, "qf"+idA))
		}, "hold", mta.Done, mta.Done, []string{"df", "qf"}},
		"both of Sendmail's": {func(t *testing.T, queue string) {
			held(t, queue)
			plant(t, queue, idA, "")
		}, "both", mta.Done, mta.Done, []string{"df", "qf"}},
		"held, but delivered by the other file": {func(t *testing.T, queue string) {
			held(t, queue)
			os.Remove(filepath.Join(queue, "df"+idA))
		}, "", mta.Failed, mta.Done, []string{"hf"}},
		"deleted, but for the rest": {func(t *testing.T, queue string) {
			held(t, queue)
			os.Rename(filepath.Join(queue, "hf"+idA), filepath.Join(queue, "tf"+idA+".deleted"))
		}, "gone", mta.Gone, mta.Done, nil},
		"deleted, but for the last file": {func(t *testing.T, queue string) {
			held(t, queue)
			os.Rename(filepath.Join(queue, "hf"+idA), filepath.Join(queue, "tf"+idA+".deleted"))
			os.Remove(filepath.Join(queue, "df"+idA))
		}, "gone", mta.Gone, mta.Done, nil},
		"a body that is being received": {func(t *testing.T, queue string) {
			write(t, filepath.Join(queue, "df"+idA), []byte("body"))
		}, "gone", mta.Gone, mta.Gone, []string{"df"}},
		"cut": {func(t *testing.T, queue string) {
			held(t, queue)
			os.Truncate(filepath.Join(queue, "hf"+idA), 200)
		}, "", mta.Failed, mta.Failed, []string{"df", "hf"}},
		"lost by Sendmail": {func(t *testing.T, queue string) {
			held(t, queue)
			os.Rename(filepath.Join(queue, "hf"+idA), filepath.Join(queue, "Qf"+idA))
		}, "", mta.Gone, mta.Gone, []string{"Qf", "df"}},
	} {
		t.Run(name, func(t *testing.T) {
			i, queue := tree(t)
			c.make(t, queue)
			var told []string
			err := i.ScanQueue(t.Context(), func(f mta.QueueFile) error { told = append(told, f.Queue); return nil })
			var skipped *mta.SkippedError
			slices.Sort(told)
			got := strings.Join(told, " ")
			if errors.As(err, &skipped) {
				got = ""
			} else if got == "" {
				got = "gone"
			} else if got == "hold incoming" {
				got = "both"
			}
			if got != c.queue || err != nil && skipped == nil {
				t.Errorf("scan tells %q, %v", told, err)
			}
			for range 2 { // whoever repeats it does no harm
				results, err := acts(i, nil)["release"](t.Context(), []mta.Target{target(idA)})
				all(t, "release", c.release, results, err)
				if c.release == mta.Done {
					c.release = mta.Gone
				}
			}
			want := slices.Clone(c.after)
			for n := range want {
				want[n] += idA
			}
			if got := names(t, queue); !slices.Equal(got, want) {
				t.Errorf("released: %v, want %v", got, want)
			}
			if data, err := os.ReadFile(filepath.Join(queue, "qf"+idA)); err == nil && string(data) != control {
				t.Errorf("released as\n%s", data)
			}
			for _, keep := range []*grace.Folder{nil, {Dir: filepath.Join(t.TempDir(), "grace")}} {
				i, queue := tree(t)
				c.make(t, queue)
				results, err := i.DeleteMail(t.Context(), []mta.Target{target(idA)}, keep)
				all(t, "delete", c.deletes, results, err)
				for _, name := range names(t, queue) {
					if c.deletes == mta.Done && name != "tf"+idA {
						t.Errorf("%s is left", name)
					}
				}
			}
		})
	}
}

// A held message that Sendmail's crash left deliverable, too, keeps to its file that
// knows who has it already.
func TestOfTwoFilesTheOneThatIsDeliveredCounts(t *testing.T) {
	i, queue := tree(t)
	plant(t, queue, idA, "why")
	fewer := strings.Replace(control, "RPFD:<x@example.net>\n", "RPFD:<left@example.net>\n", 1)
	write(t, filepath.Join(queue, "qf"+idA), []byte(fewer))
	results, err := acts(i, nil)["release"](t.Context(), []mta.Target{target(idA)})
	all(t, "release", mta.Done, results, err)
	if got := readFile(t, filepath.Join(queue, "qf"+idA)); string(got) != fewer {
		t.Errorf("released as\n%s", got)
	}
	plant(t, queue, idA, "why")
	write(t, filepath.Join(queue, "qf"+idA), []byte(fewer))
	results, err = i.HoldMail(t.Context(), []mta.Target{target(idA)}, "why")
	all(t, "hold", mta.Done, results, err)
	if got := names(t, queue); !slices.Equal(got, []string{"df" + idA, "hf" + idA}) {
		t.Errorf("held: %v", got)
	}
	if got := readFile(t, filepath.Join(queue, "hf"+idA)); !bytes.Contains(got, []byte("left@")) || !bytes.Contains(got, []byte("\nqwhy\n")) {
		t.Errorf("held as\n%s", got)
	}
	plant(t, queue, idB, "why")
	write(t, filepath.Join(queue, "qf"+idB), []byte(strings.Replace(control, "sender@", "other@", 1)))
	results, err = acts(i, nil)["release"](t.Context(), []mta.Target{target(idB)})
	all(t, "release beside another message", mta.Failed, results, err)
}

func TestStrangeFilesAreLeftAlone(t *testing.T) {
	i, queue := tree(t)
	secret := filepath.Join(t.TempDir(), "secret")
	write(t, secret, []byte(strings.Replace(control, "\nS<", "\nqwhy\nS<", 1)))
	for what, put := range map[string]func(path string) error{
		"link":     func(path string) error { return os.Symlink(secret, path) },
		"pipe":     func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"folder":   func(path string) error { return os.Mkdir(path, 0o700) },
		"anybody":  func(path string) error { return errors.Join(os.Link(secret, path), os.Chmod(path, 0o666)) },
		"version":  func(path string) error { return os.WriteFile(path, []byte("V9\nT1\nS<>\n.\n"), 0o600) },
		"appendix": func(path string) error { return os.WriteFile(path, []byte(control+"S<>\n"), 0o600) },
	} {
		path := filepath.Join(queue, "hf"+idA)
		if err := put(path); err != nil {
			t.Fatal(err)
		}
		var skipped *mta.SkippedError
		if found, err := scanAll(t.Context(), i); !errors.As(err, &skipped) || skipped.Lines != 1 || len(found) > 0 {
			t.Errorf("%s: found %v, %v", what, found, err)
		}
		for verb, act := range acts(i, nil) {
			if results, err := act(t.Context(), []mta.Target{target(idA)}); err != nil || results[0].Fate != mta.Failed {
				t.Errorf("%s of a %s: %+v, %v", verb, what, results, err)
			}
		}
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
}

// The environment variable has a process of this test act instead of testing.
const actVariable = "RELAYGUARD_TEST_ACT"

func TestActAsProcess(t *testing.T) {
	if verb := os.Getenv(actVariable); verb != "" {
		actForever(verb)
	}
}

// actForever does one act on all that it can, until it is killed or all is done.
func actForever(verb string) {
	i, err := sendmail.Load(context.Background(), sendmail.Tools{Dir: "/nowhere"}, os.Getenv("RELAYGUARD_TEST_CONFIG"))
	if err != nil {
		panic(err)
	}
	var targets []mta.Target
	i.ScanQueue(context.Background(), func(f mta.QueueFile) error { targets = append(targets, f.Target()); return nil })
	switch keep := (&grace.Folder{Dir: os.Getenv("RELAYGUARD_TEST_GRACE")}); verb {
	case "hold":
		i.HoldMail(context.Background(), targets, "why")
	case "delete":
		i.DeleteMail(context.Background(), targets, keep)
	default:
		acts(i, keep)[verb](context.Background(), targets)
	}
	os.Exit(0)
}

// letters counts the files of a queue by their first letter.
func letters(t *testing.T, queue string) map[byte]int {
	t.Helper()
	counts := map[byte]int{}
	for _, name := range names(t, queue) {
		counts[name[0]]++
	}
	return counts
}

// change is how many messages have become something else.
func change(before, now map[byte]int) int {
	return max(now['h']-before['h'], now['q']-before['q'], before['d']-now['d'])
}

func TestKilledActsLoseNothing(t *testing.T) {
	const messages, kills = 100, 5
	i, queue := tree(t)
	keep := &grace.Folder{Dir: filepath.Join(t.TempDir(), "grace")}
	for n := range messages {
		plant(t, queue, fmt.Sprintf("6AN18P39%06d", n), "")
	}
	run := func(verb string, kill bool) {
		cmd := exec.Command(os.Args[0], "-test.run=^TestActAsProcess$")
		cmd.Env = append(os.Environ(), actVariable+"="+verb, "RELAYGUARD_TEST_CONFIG="+i.ConfigDir, "RELAYGUARD_TEST_GRACE="+keep.Dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { cmd.Wait(); close(ended) }()
		before, some := letters(t, queue), 1+rand.IntN(9)
		for kill && change(before, letters(t, queue)) < some {
			select {
			case <-ended:
				return
			default:
			}
		}
		if kill {
			cmd.Process.Kill()
		}
		<-ended
	}
	count := func(what, queue string) {
		t.Helper()
		found, err := scanAll(t.Context(), i)
		if err != nil || len(found) != messages {
			t.Fatalf("after %s: %d messages, %v", what, len(found), err)
		}
		for id, f := range found {
			if queue != "" && f.Queue != queue {
				t.Fatalf("after %s: %s is %s", what, id, f.Queue)
			}
		}
	}
	for _, step := range []struct{ verb, queue string }{{"hold", "hold"}, {"release", "incoming"}, {"hold", "hold"}} {
		for range kills {
			run(step.verb, true)
			count("a killed "+step.verb, "")
		}
		run(step.verb, false)
		count(step.verb, step.queue)
	}
	for range kills {
		run("delete", true)
	}
	run("delete", false)
	found, err := scanAll(t.Context(), i) // which removes what was left over
	if err != nil || len(found) > 0 {
		t.Fatalf("after delete: %v, %v", found, err)
	}
	if left := names(t, queue); len(left) > 0 {
		t.Errorf("left in the queue: %v", left)
	}
	kept, err := keep.List()
	seen := map[string]bool{}
	for _, k := range kept {
		seen[k.ID] = true
	}
	if err != nil || len(seen) != messages || len(kept) != messages {
		t.Fatalf("kept %d copies of %d messages, %v", len(kept), len(seen), err)
	}
	// Each restore is broken off once: after the message is back, before its copy goes.
	for n, k := range kept {
		if n%10 == 0 {
			again := &grace.Folder{Dir: filepath.Join(t.TempDir(), "grace")}
			if err := os.CopyFS(filepath.Join(again.Dir, k.Name), os.DirFS(filepath.Join(keep.Dir, k.Name))); err != nil {
				t.Fatal(err)
			}
			os.Chmod(again.Dir, 0o700)
			if _, err := i.Restore(t.Context(), again, k.Name); err != nil {
				t.Fatal(err)
			}
			os.Rename(filepath.Join(keep.Dir, k.Name), filepath.Join(keep.Dir, k.Name+"~back"))
		}
		if _, err := i.Restore(t.Context(), keep, k.Name); err != nil {
			t.Fatal(err)
		}
	}
	count("the restore", "hold")
}
