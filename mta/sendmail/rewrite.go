package sendmail

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// What is beside the control files for a moment. Sendmail looks at neither; its own
// tfID would hold it up for minutes if we left one (queueup in queue.c).
const (
	halfSuffix = ".rg"      // a control file that is being written
	goneSuffix = ".deleted" // one whose message is deleted, until its other files are
)

// change is what becomes of a control file.
type change struct {
	hold   bool      // a q line with reason; else none
	reason string    // as it can stand in a q line: see Reason
	renew  time.Time // not zero: created now, never tried, nobody warned
	due    bool      // forget when it was tried, or MinQueueAge would have it wait
	moved  bool      // the body is beside it, and has another inode
}

const maxReason = 500 // octets; Sendmail cuts at 2,048

// Reason is the text as it can stand in a q line: one line, of printable
// characters, not too long.
func Reason(text string) string {
	text = strings.Join(strings.Fields(printable([]byte(text))), " ")
	if len(text) > maxReason {
		end := maxReason
		for end > 0 && !utf8.RuneStart(text[end]) {
			end--
		}
		text = text[:end]
	}
	if text == "" {
		return "held"
	}
	return text
}

// apply makes the new control file. What it does not know it leaves as it is.
func (c change) apply(data []byte) []byte {
	out := make([]byte, 0, len(data)+len(c.reason)+2)
	for line := range rawLines(data) {
		switch line[0] {
		case 'q':
			continue
		case 'S':
			if c.hold {
				out = fmt.Appendf(out, "q%s\n", c.reason)
			}
		case 'T':
			if !c.renew.IsZero() {
				line = fmt.Appendf(nil, "T%d\n", c.renew.Unix())
			}
		case 'K':
			if !c.renew.IsZero() || c.due {
				line = []byte("K0\n")
			}
		case 'N':
			if !c.renew.IsZero() {
				line = []byte("N0\n")
			}
		case 'F':
			if !c.renew.IsZero() {
				line = bytes.ReplaceAll(line, []byte("w"), nil)
			}
		case 'I', 'd':
			if c.moved {
				continue
			}
		}
		out = append(out, line...)
	}
	return out
}

// write makes the changed control file beside the old one, on disk and locked. Close
// it when it has its name.
func (e *entry) write(c change) (*os.File, error) {
	half := "tf" + e.id + halfSuffix
	if err := unix.Unlinkat(e.dir.qf, half, 0); err != nil && !errors.Is(err, unix.ENOENT) { // of one who died
		return nil, &os.PathError{Op: "remove", Path: e.dir.Qf + "/" + half, Err: err}
	}
	f, err := e.dir.create(half, e.stat.Mode&0o777, int(e.stat.Uid), int(e.stat.Gid))
	if err != nil {
		return nil, err
	}
	if _, err = f.Write(c.apply(e.data)); err == nil {
		err = f.Sync() // before it replaces what is there
	}
	if err != nil {
		f.Close()
		return nil, errors.Join(err, unix.Unlinkat(e.dir.qf, half, 0))
	}
	return f, nil
}

// create makes a file in the directory of control files, locked.
func (d *dir) create(name string, mode uint32, uid, gid int) (*os.File, error) {
	path := d.Qf + "/" + name
	fd, err := unix.Openat(d.qf, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &os.PathError{Op: "create", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	err = lock(fd)
	if err == nil {
		err = f.Chown(uid, gid)
	}
	if err == nil {
		err = f.Chmod(os.FileMode(mode & 0o777))
	}
	if err != nil {
		f.Close()
		return nil, errors.Join(err, unix.Unlinkat(d.qf, name, 0))
	}
	return f, nil
}

func (d *dir) rename(from, to string) error {
	if err := unix.Renameat(d.qf, from, d.qf, to); err != nil {
		return &os.LinkError{Op: "rename", Old: d.Qf + "/" + from, New: d.Qf + "/" + to, Err: err}
	}
	return nil
}

// remove is no error if it is not there.
func remove(fd int, dir, name string) error {
	if err := unix.Unlinkat(fd, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "remove", Path: dir + "/" + name, Err: err}
	}
	return nil
}

// hold quarantines a message. Sendmail makes the hf file and then removes the qf
// file; whoever is killed in between leaves both, and so mail that is delivered
// though it is held. Here the qf file gets the q line first, which Sendmail
// respects, and then its other name: there is one file at any time, locked all
// along.
func (e *entry) hold(reason string) error {
	f, err := e.write(change{hold: true, reason: reason})
	if err != nil {
		return err
	}
	defer f.Close()
	if err := e.dir.rename("tf"+e.id+halfSuffix, "qf"+e.id); err != nil {
		return errors.Join(err, remove(e.dir.qf, e.dir.Qf, "tf"+e.id+halfSuffix))
	}
	return e.dir.rename("qf"+e.id, "hf"+e.id)
}

// release is the same backwards.
func (e *entry) release(c change) error {
	f, err := e.write(c)
	if err != nil {
		return err
	}
	defer f.Close()
	if e.letter == 'h' {
		err = e.dir.rename("hf"+e.id, "qf"+e.id)
	}
	if err == nil {
		err = e.dir.rename("tf"+e.id+halfSuffix, "qf"+e.id)
	}
	if err != nil {
		return errors.Join(err, remove(e.dir.qf, e.dir.Qf, "tf"+e.id+halfSuffix))
	}
	return nil
}

// delete removes a message: first its control file from the queue, so that no
// Sendmail sees one without a body. Whoever is killed in between, or has an error,
// leaves a file that says what is left to do: see finishDelete. begun: the message
// is out of the queue, whatever the error.
func (s *spool) delete(e *entry) (begun bool, err error) {
	data, err := s.dataDir(e.dir, e.control)
	if err != nil {
		return false, err
	}
	if err := e.dir.rename(e.name(), "tf"+e.id+goneSuffix); err != nil {
		return false, err
	}
	return true, s.deleteRest(e.dir, data, e.id)
}

// deleteRest removes the file that says what is left to do last, and only if
// nothing is.
func (s *spool) deleteRest(d, data *dir, id string) error {
	err := errors.Join(remove(data.df, data.Df, "df"+id), remove(d.xf, d.Xf, "xf"+id), remove(d.qf, d.Qf, "tf"+id+halfSuffix))
	if err != nil {
		return err
	}
	return remove(d.qf, d.Qf, "tf"+id+goneSuffix)
}
