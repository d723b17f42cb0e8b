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

// streaming serves a stream of n numbers that ends with err.
func streaming(t *testing.T, n int, ends error) *control.Client {
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
	control.Stream(m, "GET /numbers", control.Read, func(_ context.Context, _ *http.Request, send func(int) error) error {
		for i := range n {
			if err := send(i); err != nil {
				return err
			}
		}
		return ends
	})
	control.Stream(m, "GET /cut", control.Read, func(_ context.Context, r *http.Request, send func(string) error) error {
		for range 100_000 {
			if err := send("more than one buffer holds"); err != nil {
				return err
			}
		}
		panic(http.ErrAbortHandler)
	})
	s := control.NewServer(l, m, func() control.Groups { return control.Groups{} }, slog.New(slog.DiscardHandler))
	t.Cleanup(func() { s.Close() })
	return control.NewClient(filepath.Join(dir, "s"))
}

func TestStreamHandsOverEveryLine(t *testing.T) {
	for _, n := range []int{0, 1, 100_000} {
		got := 0
		err := streaming(t, n, nil).Lines(t.Context(), "/numbers", nil, func([]byte) error { got++; return nil })
		if err != nil || got != n {
			t.Errorf("%d lines of %d: %v", got, n, err)
		}
	}
}

func TestStreamThatFailsOrIsCutOffIsAnError(t *testing.T) {
	c := streaming(t, 10, errors.New("the store is away"))
	if err := c.Lines(t.Context(), "/numbers", nil, func([]byte) error { return nil }); err == nil || !strings.Contains(err.Error(), "the store is away") {
		t.Errorf("got %v", err)
	}
	if err := c.Lines(t.Context(), "/cut", nil, func([]byte) error { return nil }); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
	enough := errors.New("enough")
	if err := c.Lines(t.Context(), "/numbers", nil, func([]byte) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("got %v", err)
	}
	var answer *control.Error
	if err := c.Lines(t.Context(), "/nothing", nil, func([]byte) error { return nil }); !errors.As(err, &answer) || answer.Status != http.StatusNotFound {
		t.Errorf("got %v", err)
	}
}
