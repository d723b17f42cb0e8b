package wire_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"reflect"
	"testing"
	"time"

	"relayguard/forward"
	"relayguard/forward/files/wire"
)

var requests = []wire.Request{
	{ID: 1, Verb: wire.Read, Paths: []string{"/home/alice/.forward"}, Max: 1 << 40, NoFollow: true, As: &forward.Account{UID: 5001, GID: 5001, Groups: []int{8, 10}}},
	{ID: 1<<32 - 1, Verb: wire.LstatAll, Paths: []string{"/a", "/not\xffutf8\n", ""}},
	{ID: 3, Verb: wire.Watch, Paths: []string{"/etc/"}, More: true}, {ID: 4, Verb: wire.Watch},
	{ID: 5, Verb: wire.ReadDir, Paths: []string{"/"}, MaxEntries: 10}, {Verb: wire.Readlink, Paths: []string{"/x"}},
}

var info = forward.Info{Name: ".forward", Size: 14, Mode: fs.ModeSymlink | 0o777, UID: 5001, GID: 1<<32 - 1, MTime: time.Unix(-1<<40, 999_999_999), CTime: time.Unix(1<<33, 1), Inode: 1<<64 - 1, Dev: 5, Links: 2}

var responses = []wire.Response{
	{ID: 1, Kind: wire.Data, Data: []byte("x\x00y")},
	{ID: 2, Kind: wire.Infos, Infos: []forward.Info{info, {}, info}},
	{ID: 3, Kind: wire.Watching, Method: "fanotify", Blind: []string{"/x: no"}},
	{ID: 4, Kind: wire.Changes, Changes: []forward.Change{{Path: "/p", Writer: forward.UnknownWriter, Time: time.Unix(5, 6)}, {Lost: true, Writer: forward.Writer{UID: 1, LoginUID: 2, PID: 3, Process: "/bin/sh"}}}},
	{ID: 5, Kind: wire.End, Code: wire.Failed, Text: "no", Info: info}, {ID: 6, Kind: wire.End},
}

func TestWhatIsSaidIsHeard(t *testing.T) {
	var all []byte
	for _, r := range requests {
		all = r.Append(all)
	}
	for _, r := range responses {
		all = r.Append(all)
	}
	from, buf := bytes.NewReader(all), []byte(nil)
	for _, want := range requests {
		b, err := wire.ReadFrame(from, &buf)
		if err != nil {
			t.Fatal(err)
		}
		got, err := wire.ParseRequest(b)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v\nwant %+v", got, err, want)
		}
	}
	for _, want := range responses {
		b, err := wire.ReadFrame(from, &buf)
		if err != nil {
			t.Fatal(err)
		}
		got, err := wire.ParseResponse(b)
		if err != nil || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
			t.Errorf("got %+v, %v\nwant %+v", got, err, want)
		}
	}
	if _, err := wire.ReadFrame(from, &buf); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

func TestErrorsKeepTheirMeaning(t *testing.T) {
	for _, is := range []error{fs.ErrNotExist, fs.ErrPermission, fs.ErrInvalid, forward.ErrTooLarge, forward.ErrNotRegular, forward.ErrOutside} {
		r := wire.Response{Kind: wire.End}
		r.Code, r.Text = wire.CodeOf(&fs.PathError{Op: "read", Path: "/x", Err: is})
		if err := r.Err(); !errors.Is(err, is) || err.Error() != "read /x: "+is.Error() {
			t.Errorf("%v became %v", is, err)
		}
	}
	if code, _ := wire.CodeOf(nil); code != wire.Fine {
		t.Error(code)
	}
	if code, _ := wire.CodeOf(io.ErrClosedPipe); code != wire.Failed {
		t.Error(code)
	}
}

func TestFrameIsBounded(t *testing.T) {
	var buf []byte
	if _, err := wire.ReadFrame(bytes.NewReader([]byte{255, 255, 255, 255}), &buf); !errors.Is(err, wire.ErrForm) || cap(buf) > 0 {
		t.Errorf("%v, %d", err, cap(buf))
	}
	if _, err := wire.ReadFrame(bytes.NewReader([]byte{0, 0, 0, 5, 1}), &buf); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
}

// Whatever the daemon sends: what comes through says the same again.
func FuzzRequest(f *testing.F) {
	for _, r := range requests {
		f.Add(r.Append(nil)[4:])
	}
	f.Add([]byte{1, 1, 4, 0, 0, 0, 0, 255, 255, 255, 255, 15})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := wire.ParseRequest(b)
		if err != nil {
			return
		}
		again, err := wire.ParseRequest(r.Append(nil)[4:])
		if err != nil || !reflect.DeepEqual(r, again) || len(r.Paths) > wire.MaxPaths {
			t.Fatalf("%+v, %+v, %v", r, again, err)
		}
	})
}

// Whatever the helper sends.
func FuzzResponse(f *testing.F) {
	for _, r := range responses {
		f.Add(r.Append(nil)[4:])
	}
	f.Add([]byte{1, 2, 255, 255, 255, 255, 15})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := wire.ParseResponse(b)
		if err != nil {
			return
		}
		if len(r.Infos) > len(b) || len(r.Changes) > len(b) || len(r.Blind) > len(b) {
			t.Fatal("more than was sent")
		}
		if _, err := wire.ParseResponse(r.Append(nil)[4:]); err != nil {
			t.Fatalf("%+v: %v", r, err)
		}
		r.Err()
	})
}
