package template_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"relayguard/policy/template"
)

// FuzzRead: whatever the message is, it is read the same twice, within bounds,
// and the memory takes it.
func FuzzRead(f *testing.F) {
	files, _ := filepath.Glob(filepath.Join("testdata", "mail", "*.eml"))
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		head, body, _ := strings.Cut(string(data), "\r\n\r\n")
		field := func(name string) string {
			_, after, _ := strings.Cut("\r\n"+head, "\r\n"+name+": ")
			value, _, _ := strings.Cut(after, "\r\n")
			return value
		}
		f.Add(field("Subject"), field("Content-Type"), field("Content-Transfer-Encoding"), []byte(body))
	}
	m := template.New(template.Options{Parts: 64})
	f.Fuzz(func(t *testing.T, subject, contentType, encoding string, body []byte) {
		fields := header{"Subject": subject, "Content-Type": contentType, "Content-Transfer-Encoding": encoding}
		before := bytes.Clone(body)
		a, b := m.Read(fields, body), m.Read(fields, body)
		if a.Skeleton != b.Skeleton || !slices.Equal(a.Links, b.Links) || !slices.Equal(a.Lines, b.Lines) || !slices.Equal(a.Shape, b.Shape) {
			t.Errorf("read twice: %+v and %+v", a, b)
		}
		if !bytes.Equal(body, before) {
			t.Error("the body was changed")
		}
		if len(a.Links) > 6 || len(a.Lines) > 32 || len(a.Shape) > 8 {
			t.Errorf("%d links, %d lines, %d of the shape; want at most 6, 32, 8", len(a.Links), len(a.Lines), len(a.Shape))
		}
		match := m.Find(day(0), "a", &a, strangers(0, 1))
		if some := a.Skeleton != 0 || len(a.Links)+len(a.Lines)+len(a.Shape) > 0; (match.Name != "") != some {
			t.Errorf("%+v of %+v", match, a)
		}
	})
}

// FuzzLoad: what is not whole is an error, and what is taken can be saved and
// used. Framed data is given a right beginning and a right checksum.
func FuzzLoad(f *testing.F) {
	m := template.New(template.Options{Parts: 1000})
	saved := func(m *template.Memory) []byte {
		var file bytes.Buffer
		if err := m.Save(&file); err != nil {
			f.Fatal(err)
		}
		return file.Bytes()
	}
	empty := saved(m)
	text := template.Text{Skeleton: 1, Lines: []uint64{2, 3}}
	for d := range 4 {
		m.Find(day(d), "a", &text, strangers(d, 3))
		m.Sent(day(d), "a", &text)
	}
	full := saved(m)
	const head, sum = 31, 4
	f.Add(full, false)
	f.Add(full[head:len(full)-sum], true)
	f.Add(empty, false)
	f.Fuzz(func(t *testing.T, data []byte, framed bool) {
		if framed {
			data = append(bytes.Clone(empty[:head]), data...)
			data = binary.LittleEndian.AppendUint32(data, crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)))
		}
		m := template.New(template.Options{Parts: 64})
		if err := m.Load(bytes.NewReader(data)); err != nil {
			return
		}
		var file bytes.Buffer
		if err := m.Save(&file); err != nil {
			t.Fatal(err)
		}
		if err := m.Load(&file); err != nil {
			t.Errorf("what was loaded and saved: %v", err)
		}
		m.Find(day(0), "a", &text, strangers(0, 3))
		m.Sent(day(9), "a", &text)
	})
}
