package ledger

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// record is one line of the file: "HASH JSON", where HASH is SHA-256 of the hash
// before it and of the JSON. Seq goes on over files.
type record struct {
	Seq   int64     `json:"seq"`
	Time  time.Time `json:"time,omitzero"`
	Kind  string    `json:"kind"`
	ID    string    `json:"id,omitempty"`
	By    string    `json:"by,omitempty"`
	Count int       `json:"count,omitempty"`
	Prev  string    `json:"prev,omitempty"` // in a file's first record: the last hash of the file before
	Entry *Entry    `json:"entry,omitempty"`
	Ours  []string  `json:"ours,omitempty"`
	Unit  string    `json:"unit,omitempty"` // of the entry, which does not show it
}

// chain is the file, open for appending.
type chain struct {
	path   string
	lock   *os.File
	file   *os.File
	seq    int64
	lines  int64
	last   string // hash of the last record
	broken string
}

const (
	chainName = "ledger"
	maxRecord = 16 << 20 // octets of a line: a hoster's domains are one
)

// ErrInUse: another process has the ledger.
var ErrInUse = errors.New("another process has it open")

// openChain reads all records and leaves the file open for more.
func openChain(dir string, each func(*record)) (*chain, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("open the ledger of forwarding rules: %w", err)
	}
	c := &chain{path: filepath.Join(dir, chainName)}
	lock, err := os.OpenFile(c.path+".lock", os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return nil, fmt.Errorf("open the ledger of forwarding rules: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("open the ledger of forwarding rules %s: %w", c.path, ErrInUse)
	}
	c.lock = lock
	if err := c.read(each); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func (c *chain) read(each func(*record)) error {
	file, err := os.OpenFile(c.path, os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return fmt.Errorf("open the ledger of forwarding rules: %w", err)
	}
	c.file = file
	end, err := c.scan(each)
	if err != nil || c.broken != "" {
		return err
	}
	if err := file.Truncate(end); err != nil {
		return fmt.Errorf("cut an unfinished record off the ledger %s: %w", c.path, err)
	}
	_, err = file.Seek(end, io.SeekStart)
	return err
}

// scan hands over the records from the start of the file, and returns where the
// last whole one ends. It stops where the chain is broken.
func (c *chain) scan(each func(*record)) (end int64, err error) {
	r := bufio.NewReaderSize(c.file, 1<<16)
	for {
		line, err := readLine(r)
		if errors.Is(err, io.EOF) {
			return end, nil // what has no line feed is being written, or was when the machine stopped
		}
		if err != nil {
			return end, fmt.Errorf("read the ledger of forwarding rules %s: %w", c.path, err)
		}
		rec, hash, why := c.check(line)
		if why != "" {
			c.broken = fmt.Sprintf("record %d: %s", c.seq+1, why)
			return end, nil
		}
		c.seq, c.last = rec.Seq, hash
		c.lines++
		end += int64(len(line)) + 1
		each(rec)
	}
}

// readLine reads one line; io.EOF also for one without its end.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			return line[:len(line)-1], nil
		case errors.Is(err, bufio.ErrBufferFull) && len(line) <= maxRecord:
		case errors.Is(err, bufio.ErrBufferFull):
			return line, nil // its hash will not be right
		default:
			return nil, err
		}
	}
}

func (c *chain) check(line []byte) (rec *record, hash, why string) {
	head, data, found := bytes.Cut(line, []byte(" "))
	rec = &record{}
	if !found || json.Unmarshal(data, rec) != nil {
		return nil, "", "cannot be read"
	}
	last := c.last
	if c.lines == 0 { // the first of a file goes on from another file
		last = rec.Prev
		c.seq = rec.Seq - 1
	}
	if hash = link(last, data); hash != string(head) {
		return nil, "", "its hash is not that of its content and of the record before"
	}
	if rec.Seq != c.seq+1 {
		return nil, "", fmt.Sprintf("it says that it is record %d", rec.Seq)
	}
	if rec.Entry != nil {
		rec.Entry.Unit = rec.Unit
	}
	return rec, hash, ""
}

func link(last string, data []byte) string {
	h := sha256.New()
	io.WriteString(h, last)
	h.Write(data)
	return hex.EncodeToString(h.Sum(nil))
}

// append writes records with one write, and waits until they are on the disk.
// After an error the file is as before, or the chain is not written any more.
func (c *chain) append(records []*record) error {
	var out bytes.Buffer
	seq, last := c.seq, c.last
	for _, r := range records {
		seq++
		r.Seq = seq
		if r.Entry != nil {
			r.Unit = r.Entry.Unit
		}
		data, err := json.Marshal(r)
		if err != nil {
			return fmt.Errorf("write the ledger of forwarding rules: %w", err)
		}
		last = link(last, data)
		out.WriteString(last)
		out.WriteByte(' ')
		out.Write(data)
		out.WriteByte('\n')
	}
	start, err := c.file.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = c.file.Write(out.Bytes())
	}
	if err == nil {
		err = c.file.Sync()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write the ledger of forwarding rules: %w", err), c.file.Truncate(start))
	}
	c.seq, c.last = seq, last
	c.lines += int64(len(records))
	return nil
}

// begin puts the present file aside and goes on in a new one that begins with
// records.
func (c *chain) begin(records []*record) error {
	aside := fmt.Sprintf("%s-%d", c.path, c.seq)
	if c.broken != "" {
		aside += "-broken"
	}
	next, err := os.OpenFile(c.path+".new", os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o640)
	if err != nil {
		return fmt.Errorf("begin a new ledger of forwarding rules: %w", err)
	}
	fresh := &chain{path: c.path, lock: c.lock, file: next, seq: c.seq, last: c.last}
	if len(records) == 0 {
		records = []*record{{Kind: "begun"}}
	}
	records[0].Prev = c.last
	if err := fresh.append(records); err != nil {
		return errors.Join(err, next.Close())
	}
	if err := os.Link(c.path, aside); err != nil && !errors.Is(err, fs.ErrExist) {
		return errors.Join(fmt.Errorf("put the old ledger of forwarding rules aside: %w", err), next.Close())
	}
	if err := os.Rename(c.path+".new", c.path); err != nil {
		return errors.Join(fmt.Errorf("begin a new ledger of forwarding rules: %w", err), next.Close())
	}
	old := c.file
	*c = chain{path: c.path, lock: c.lock, file: next, seq: fresh.seq, last: fresh.last, lines: fresh.lines, broken: c.broken}
	return errors.Join(old.Close(), syncDir(filepath.Dir(c.path)), c.thin())
}

// maxAside is how many files of the past are kept: whoever changes his rules all the
// time is not to fill the disk. What they had in force is in the present one.
const maxAside = 5

// thin removes the oldest files that were put aside.
func (c *chain) thin() error {
	aside, err := filepath.Glob(c.path + "-[0-9]*")
	if err != nil || len(aside) <= maxAside {
		return err
	}
	number := func(file string) int64 {
		digits, _, _ := strings.Cut(strings.TrimPrefix(file, c.path+"-"), "-")
		n, _ := strconv.ParseInt(digits, 10, 64)
		return n
	}
	slices.SortFunc(aside, func(a, b string) int { return cmp.Compare(number(a), number(b)) })
	for _, file := range aside[:len(aside)-maxAside] {
		err = errors.Join(err, os.Remove(file))
	}
	return err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func (c *chain) close() error {
	var err error
	if c.file != nil {
		err = c.file.Close()
	}
	return errors.Join(err, c.lock.Close())
}
