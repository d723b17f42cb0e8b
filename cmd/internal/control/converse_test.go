package control_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"relayguard/cmd/internal/control"
)

type count struct {
	N int `json:"n"`
}

// conversing serves one operation.
func conversing(t *testing.T, do func(ctx context.Context, in count, send func(count) error) error) *control.Client {
	t.Helper()
	dir, err := os.MkdirTemp("", "rgc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := control.Listen(filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	m := &control.Mux{}
	control.Converse(m, "POST /count", control.Read, func(ctx context.Context, _ control.Peer, in count, send func(count) error) error {
		return do(ctx, in, send)
	})
	s := control.NewServer(l, m, func() control.Groups { return control.Groups{} }, slog.New(slog.DiscardHandler))
	t.Cleanup(func() { s.Close() })
	return control.NewClient(filepath.Join(dir, "s"))
}

func TestConverseHandsOverEveryLine(t *testing.T) {
	c := conversing(t, func(_ context.Context, in count, send func(count) error) error {
		for i := range in.N {
			if err := send(count{i}); err != nil {
				return err
			}
		}
		return nil
	})
	for _, n := range []int{0, 1, 50_000} {
		next := 0
		err := control.Exchange(t.Context(), c, "/count", count{n}, func(got count) error {
			if got.N != next {
				t.Fatalf("got %d, want %d", got.N, next)
			}
			next++
			return nil
		})
		if err != nil || next != n {
			t.Errorf("%d lines of %d: %v", next, n, err)
		}
	}
}

// Each line comes though the operation goes on: here it waits until the line before
// was seen.
func TestConverseKeepsNoLineBack(t *testing.T) {
	seen := make(chan int, 10)
	c := conversing(t, func(ctx context.Context, in count, send func(count) error) error {
		for i := range in.N {
			if err := send(count{i}); err != nil {
				return err
			}
			select {
			case <-seen:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	if err := control.Exchange(t.Context(), c, "/count", count{5}, func(got count) error { seen <- got.N; return nil }); err != nil {
		t.Error(err)
	}
}

func TestConverseTellsErrorsApart(t *testing.T) {
	c := conversing(t, func(_ context.Context, in count, send func(count) error) error {
		for i := range in.N {
			if err := send(count{i}); err != nil {
				return err
			}
		}
		return control.Errorf(http.StatusServiceUnavailable, "the queue is away")
	})
	for _, n := range []int{0, 3} { // before the first line, and after
		var answer *control.Error
		err := control.Exchange(t.Context(), c, "/count", count{n}, func(count) error { return nil })
		if !errors.As(err, &answer) || answer.Status != http.StatusServiceUnavailable || !strings.Contains(answer.Text, "the queue is away") {
			t.Errorf("after %d lines: %v", n, err)
		}
	}
	cut := conversing(t, func(_ context.Context, _ count, send func(count) error) error {
		_ = send(count{1})
		panic(http.ErrAbortHandler)
	})
	if err := control.Exchange(t.Context(), cut, "/count", count{}, func(count) error { return nil }); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut off: %v", err)
	}
}

func TestConverseEndsWhenNobodyListens(t *testing.T) {
	ended := make(chan error, 1)
	c := conversing(t, func(ctx context.Context, _ count, send func(count) error) error {
		if err := send(count{1}); err != nil {
			return err
		}
		<-ctx.Done()
		ended <- ctx.Err()
		return ctx.Err()
	})
	enough := errors.New("enough")
	if err := control.Exchange(t.Context(), c, "/count", count{}, func(count) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("got %v", err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the operation: %v", err)
	}
}
