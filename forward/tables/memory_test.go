package tables_test

import (
	"context"
	"encoding/binary"
	"io/fs"
	"path"
	"strings"

	"relayguard/forward"
)

// memory is a machine's files, held in memory. A value "-> PATH" is a symbolic
// link, "!" a file that may not be read.
type memory map[string]string

func (m memory) Lstat(_ context.Context, name string) (forward.Info, error) {
	text, found := m[name]
	switch {
	case !found:
		return forward.Info{}, &fs.PathError{Op: "lstat", Path: name, Err: fs.ErrNotExist}
	case strings.HasPrefix(text, "-> "):
		return forward.Info{Name: path.Base(name), Mode: fs.ModeSymlink | 0o777}, nil
	}
	return forward.Info{Name: path.Base(name), Mode: 0o644, Size: int64(len(text)), UID: 7}, nil
}

func (m memory) Read(ctx context.Context, name string, _ forward.ReadOptions) ([]byte, forward.Info, error) {
	for to, link := strings.CutPrefix(m[name], "-> "); link; to, link = strings.CutPrefix(m[name], "-> ") {
		name = to
	}
	info, err := m.Lstat(ctx, name)
	if err == nil && m[name] == "!" {
		err = &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	if err != nil {
		return nil, forward.Info{}, err
	}
	return []byte(m[name]), info, nil
}

func (m memory) ReadDir(context.Context, string, forward.ReadOptions) ([]forward.Info, error) {
	return nil, fs.ErrNotExist
}

func (m memory) Readlink(_ context.Context, name string) (string, error) {
	return strings.TrimPrefix(m[name], "-> "), nil
}

func (m memory) LstatAll(ctx context.Context, names []string) ([]forward.Info, error) {
	infos := make([]forward.Info, len(names))
	for i, name := range names {
		infos[i], _ = m.Lstat(ctx, name)
	}
	return infos, nil
}

// compile makes a CDB of lines "key TAB value": the simplest of the formats, told
// by its content whatever its name.
func compile(lines string) string {
	type slot struct{ hash, at uint32 }
	tables := make([][]slot, 256)
	u32 := func(n int) []byte { return binary.LittleEndian.AppendUint32(nil, uint32(n)) }
	records := []byte{}
	for line := range strings.Lines(lines) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		hash := uint32(5381)
		for _, c := range []byte(key) {
			hash = hash<<5 + hash ^ uint32(c)
		}
		tables[hash&255] = append(tables[hash&255], slot{hash, uint32(2048 + len(records))})
		records = append(append(append(append(records, u32(len(key))...), u32(len(value))...), key...), value...)
	}
	header, tail := []byte{}, []byte{}
	for _, t := range tables {
		header = append(append(header, u32(2048+len(records)+len(tail))...), u32(2*len(t))...)
		for _, s := range t {
			tail = append(append(tail, u32(int(s.hash))...), u32(int(s.at))...)
		}
		tail = append(tail, make([]byte, 8*len(t))...) // half of the slots stay empty
	}
	return string(header) + string(records) + string(tail)
}
