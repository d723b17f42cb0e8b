package tables

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"path/filepath"

	"relayguard/forward"
)

const maxLinks = 8

// read returns a file and notes its paths: itself, and what a symbolic link
// leads to.
func (r *Reader) read(ctx context.Context, path string, out *table) ([]byte, forward.Info, error) {
	out.Paths = append(out.Paths, path)
	at := path
	for range maxLinks {
		info, err := r.Host.Files.Lstat(ctx, at)
		if err != nil || info.Mode&fs.ModeSymlink == 0 {
			break
		}
		to, err := r.Host.Files.Readlink(ctx, at)
		if err != nil || to == "" {
			break
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(at), to)
		}
		at = filepath.Clean(to)
		out.Paths = append(out.Paths, at)
	}
	return r.Host.Files.Read(ctx, path, forward.ReadOptions{Max: maxTable})
}

func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
