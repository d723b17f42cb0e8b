package aliases

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"relayguard/forward"
)

// Bounds of what is hashed behind one command.
const (
	maxProgramFiles = 4
	maxProgramFile  = 16 << 20
)

type digest struct {
	sum  string
	uses []string
}

// programDigest hashes a command line and the files that it names: the program
// or script, so that a change of it shows. What as may not read counts by its
// name alone. The files are used by the reading.
func (e *expansion) programDigest(ctx context.Context, command string, as *forward.Account) string {
	d, have := e.digests[command]
	if !have {
		d.sum, d.uses = ProgramDigest(ctx, e.host.Files, command, as)
		if e.digests == nil {
			e.digests = map[string]digest{}
		}
		e.digests[command] = d
		e.reading.Uses = append(e.reading.Uses, d.uses...)
	}
	return d.sum
}

// ProgramDigest hashes a command line and the content of up to four files that
// it names by absolute path, read as the account (nil: root). It returns the
// hash in hex, and the paths that it looked at.
func ProgramDigest(ctx context.Context, files forward.Files, command string, as *forward.Account) (string, []string) {
	sum := sha256.New()
	sum.Write([]byte(command))
	var uses []string
	words := strings.FieldsFunc(command, func(r rune) bool { return strings.ContainsRune(" \t\r\n'\"`;|&<>()=$", r) })
	for _, word := range words {
		if !strings.HasPrefix(word, "/") || strings.HasPrefix(word, "/dev/") || len(uses) == maxProgramFiles {
			continue
		}
		uses = append(uses, word)
		data, _, err := files.Read(ctx, word, forward.ReadOptions{Max: maxProgramFile, As: as})
		if err != nil {
			continue
		}
		content := sha256.Sum256(data)
		sum.Write(content[:])
	}
	return hex.EncodeToString(sum.Sum(nil)), uses
}
