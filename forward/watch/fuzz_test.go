package watch

import (
	"encoding/binary"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// realFan is what the kernel says of some changes.
func realFan(f *testing.F) []byte {
	dir := f.TempDir()
	fan, err := openFanotify()
	if err != nil {
		return nil
	}
	defer unix.Close(fan.fd)
	var st unix.Stat_t
	if unix.Lstat(dir, &st) != nil {
		f.Fatal("no directory")
	}
	if _, err := fan.mark(dir, &st); err != nil {
		f.Fatal(err)
	}
	if err := os.WriteFile(dir+"/.forward", []byte("x"), 0o600); err != nil {
		f.Fatal(err)
	}
	if err := os.Mkdir(dir+"/sieve", 0o700); err != nil {
		f.Fatal(err)
	}
	n, err := unix.Read(fan.fd, fan.buf)
	if err != nil {
		f.Fatal(err)
	}
	return fan.buf[:n]
}

// Whatever stands in the buffer: nothing is read beyond it, and an event's parts
// lie in it.
func FuzzFanotifyEvents(f *testing.F) {
	f.Add(realFan(f))
	f.Add([]byte{24, 0, 0, 0, 3, 0, 24, 0, 0, 64, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0})
	f.Add([]byte{44, 0, 0, 0, 3, 0, 24, 0, 8, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 1, 0, 0, 0, 2, 0, 20, 0, 1, 2, 3, 4, 5, 6, 7, 8, 255, 255, 255, 255, 1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		total := 0
		err := parseFan(b, func(e fanEvent) { total += len(e.dir) + len(e.name) + len(e.self) })
		if total > len(b) || err == nil && len(b) > 0 && len(b) < unix.FAN_EVENT_METADATA_LEN {
			t.Fatal(total, len(b), err)
		}
	})
}

func FuzzInotifyEvents(f *testing.F) {
	one := binary.NativeEndian.AppendUint32(nil, 1)
	one = binary.NativeEndian.AppendUint32(one, unix.IN_CREATE)
	one = append(one, 0, 0, 0, 0, 16, 0, 0, 0)
	f.Add(append(one, ".forward\x00\x00\x00\x00\x00\x00\x00\x00"...))
	f.Add(append(one, 1))
	f.Add([]byte{1, 0, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		total := 0
		parseIno(b, func(e inoEvent) { total += unix.SizeofInotifyEvent + len(e.name) })
		if total > len(b) {
			t.Fatal(total, len(b))
		}
	})
}

func FuzzMounts(f *testing.F) {
	if text, err := os.ReadFile("/proc/self/mountinfo"); err == nil {
		f.Add(text)
	}
	f.Add([]byte("36 35 98:0 /mnt1 /mnt2\\040x rw,noatime master:1 - fuse.sshfs /dev/root rw\n36 35 98:0 / /mnt2\\0 rw - ext4\n - \n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		all, slow := parseMounts(text)
		for place := range slow {
			if _, there := all[place]; !there {
				t.Fatalf("%q", place)
			}
		}
	})
}

func FuzzStatus(f *testing.F) {
	if text, err := os.ReadFile("/proc/self/status"); err == nil {
		f.Add(text)
	}
	f.Add([]byte("Name:\t\xff\nUid:\t1\t2\t3\t4294967295\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if fileUID(text) < -1 {
			t.Fatal(fileUID(text))
		}
		processName(text)
	})
}
