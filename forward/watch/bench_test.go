package watch_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"relayguard/forward"
	"relayguard/forward/watch"
)

// homes makes many and names what is watched in them.
func homes(b *testing.B, many int) (dir string, paths []string) {
	dir = b.TempDir()
	for n := range many {
		home := fmt.Sprintf("%s/home/u%05d", dir, n)
		if err := os.MkdirAll(home, 0o755); err != nil {
			b.Fatal(err)
		}
		paths = append(paths, home+"/.forward", home+"/.procmailrc", home+"/.dovecot.sieve")
	}
	return dir, paths
}

// BenchmarkWatch puts 50,000 homes under watch at once, and again with one more.
func BenchmarkWatch(b *testing.B) {
	for _, method := range []string{watch.Fanotify, watch.Inotify} {
		dir, paths := homes(b, 50_000)
		b.Run(method+"/first", func(b *testing.B) {
			for b.Loop() {
				w, err := watch.New(watch.Options{Method: method})
				if err != nil {
					b.Skip(err)
				}
				if err := w.Watch(paths); err != nil {
					b.Fatal(err)
				}
				w.Close()
			}
		})
		b.Run(method+"/again", func(b *testing.B) {
			w, err := watch.New(watch.Options{Method: method})
			if err != nil {
				b.Skip(err)
			}
			defer w.Close()
			w.Watch(paths)
			for n := 0; b.Loop(); n++ {
				if err := w.Watch(append(paths, fmt.Sprintf("%s/more%d/x", dir, n))); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkTold is from before a write to the telling of it.
func BenchmarkTold(b *testing.B) {
	for _, method := range []string{watch.Fanotify, watch.Inotify} {
		b.Run(method, func(b *testing.B) {
			w, err := watch.New(watch.Options{Method: method})
			if err != nil {
				b.Skip(err)
			}
			dir := b.TempDir()
			w.Watch([]string{dir + "/"})
			ctx, cancel := context.WithCancel(b.Context())
			heard, done := make(chan string, 100), make(chan bool)
			go func() {
				w.Run(ctx, func(c forward.Change) { heard <- c.Path })
				close(done)
			}()
			for n := 0; b.Loop(); n++ {
				name := fmt.Sprintf("%s/%d", dir, n)
				if err := os.WriteFile(name, []byte("x"), 0o644); err != nil {
					b.Fatal(err)
				}
				for <-heard != name {
				}
			}
			cancel()
			for {
				select {
				case <-heard:
					continue
				case <-done:
				}
				break
			}
		})
	}
}

// BenchmarkOthersWrites is what a write costs that nobody wants to know of.
func BenchmarkOthersWrites(b *testing.B) {
	for _, method := range []string{watch.None, watch.Fanotify} {
		b.Run(method, func(b *testing.B) {
			w, err := watch.New(watch.Options{Method: method})
			if err != nil {
				b.Skip(err)
			}
			dir := b.TempDir()
			w.Watch([]string{dir + "/home/x/.forward"})
			ctx, cancel := context.WithCancel(b.Context())
			done := make(chan bool)
			lost := 0
			go func() {
				w.Run(ctx, func(forward.Change) { lost++ })
				close(done)
			}()
			f, err := os.Create(dir + "/log")
			if err != nil {
				b.Fatal(err)
			}
			line := []byte("a line of a log\n")
			for b.Loop() {
				f.Write(line)
			}
			f.Close()
			cancel()
			<-done
			b.ReportMetric(float64(lost), "lost")
		})
	}
}
