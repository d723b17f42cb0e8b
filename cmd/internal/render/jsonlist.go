package render

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// JSONList writes one JSON object with a list in it, as the list comes, a line for
// each of its values: any number of them in bounded memory. What Escape would not
// show is written \uNNNN, as by JSON. Not safe for concurrent use; a list without
// End is no JSON, so that nobody takes the half for the whole.
type JSONList struct {
	out   *bufio.Writer
	name  string
	begun bool
	seen  time.Time // when it was flushed last
}

// NewJSONList begins an object whose list has that name; without one it is the list
// alone. Nothing is written before
// its first value is.
func NewJSONList(w io.Writer, name string) *JSONList {
	return &JSONList{out: bufio.NewWriterSize(w, 64<<10), name: name}
}

// Add writes a value of the list: the first at once, later ones when
// 200 ms have passed.
func (l *JSONList) Add(v any) error {
	text, err := oneLine(v)
	if err != nil {
		return err
	}
	between := ","
	if !l.begun {
		between, l.begun = l.beginning(), true
	}
	if _, err := l.out.WriteString(between + "\n    "); err != nil {
		return err
	}
	if _, err = l.out.Write(text); err != nil || time.Since(l.seen) < streamWait {
		return err
	}
	l.seen = time.Now()
	return l.out.Flush()
}

// beginning is what comes before the first value.
func (l *JSONList) beginning() string {
	if l.name == "" {
		return "["
	}
	return "{\n  " + fmt.Sprintf("%q", l.name) + ": ["
}

// End ends the list and writes the other fields of the object: those of rest, a
// struct or a map that has at least one; nil of a list alone.
func (l *JSONList) End(rest any) error {
	if l.name == "" {
		end := "\n]\n"
		if !l.begun {
			end = "[]\n"
		}
		if _, err := l.out.WriteString(end); err != nil {
			return err
		}
		return l.out.Flush()
	}
	var b bytes.Buffer
	if err := JSON(&b, rest); err != nil {
		return err
	}
	fields, found := bytes.CutPrefix(b.Bytes(), []byte("{\n"))
	if !found {
		return fmt.Errorf("write JSON: %T has no fields", rest)
	}
	end := "\n  ],\n"
	if !l.begun {
		end = l.beginning() + "],\n"
	}
	if _, err := l.out.WriteString(end); err != nil {
		return err
	}
	if _, err := l.out.Write(fields); err != nil {
		return err
	}
	return l.out.Flush()
}

// Flush writes what waits.
func (l *JSONList) Flush() error { return l.out.Flush() }

// oneLine is v as JSON without a line end.
func oneLine(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("write JSON: %w", err)
	}
	return visibleJSON(string(bytes.TrimSuffix(b.Bytes(), []byte("\n")))), nil
}
