package files

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"time"
)

// ErrHangs says that a file system gave no answer.
var ErrHangs = errors.New("the file system gives no answer")

const (
	// answerWait is how long one step may take: a disk that wakes up answers
	// within it.
	answerWait = 10 * time.Second
	// maxHanging bounds the steps that have been given up and have not come
	// back: each holds a thread.
	maxHanging = 256
)

// guard gives up what does not come back, and does not ask again for as long.
type guard struct {
	mu      sync.Mutex
	hanging map[string]bool // by path
}

func newGuard() *guard { return &guard{hanging: map[string]bool{}} }

// enter reports whether a path may be asked for.
func (g *guard) enter(path string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.hanging[path] && len(g.hanging) < maxHanging
}

func (g *guard) set(path string, hangs bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if hangs {
		g.hanging[path] = true
	} else {
		delete(g.hanging, path)
	}
}

// await runs one step. It returns by ctx's end, or when the step takes too long;
// then drop gets what comes of it later.
func await[T any](ctx context.Context, g *guard, op, path string, step func() (T, error), drop func(T)) (T, error) {
	type outcome struct {
		value T
		err   error
	}
	var none T
	if err := ctx.Err(); err != nil {
		return none, &fs.PathError{Op: op, Path: path, Err: err}
	}
	if !g.enter(path) {
		return none, &fs.PathError{Op: op, Path: path, Err: ErrHangs}
	}
	done := make(chan outcome, 1)
	go func() {
		value, err := step()
		done <- outcome{value, err}
	}()
	timer := time.NewTimer(answerWait)
	defer timer.Stop()
	var why error
	select {
	case o := <-done:
		return o.value, o.err
	case <-timer.C:
		why = ErrHangs
	case <-ctx.Done():
		why = ctx.Err()
	}
	g.set(path, true)
	go func() {
		o := <-done
		g.set(path, false)
		if drop != nil {
			drop(o.value)
		}
	}()
	return none, &fs.PathError{Op: op, Path: path, Err: why}
}
