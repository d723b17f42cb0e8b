package policy

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
)

// Sites on a disk: a line that names the format and the SHA-256 of the rest, which
// is JSON.
const (
	sitesHead    = "relayguard sites 1 "
	maxSitesFile = 128 << 20
)

type savedPlugin struct {
	Site   string `json:"site"`
	Plugin string `json:"plugin"`
	First  int64  `json:"first"`
	Last   int64  `json:"last"`
	Shut   bool   `json:"shut,omitempty"`
}

// atATime is of how many names the lock is held, to copy them.
const atATime = 1000

// copied is what is remembered: each site as it was at one moment. Who waits for
// the lock has it in between. A site that goes and comes again meanwhile may be told
// twice.
func (s *Sites) copied() []savedPlugin {
	s.mu.Lock()
	defer s.mu.Unlock()
	saved := []savedPlugin{}
	some := make([]savedPlugin, 0, atATime)
	for site, plugins := range s.sites {
		for name, p := range plugins {
			some = append(some, savedPlugin{site, name, p.first, p.last, p.shut})
		}
		if len(some) >= atATime {
			s.mu.Unlock()
			saved, some = append(saved, some...), some[:0]
			runtime.Gosched()
			s.mu.Lock()
		}
	}
	return append(saved, some...)
}

// Save writes what is remembered. It holds up others only while it copies some.
func (s *Sites) Save(w io.Writer) error {
	saved := s.copied()
	slices.SortFunc(saved, func(a, b savedPlugin) int {
		return cmp.Or(strings.Compare(a.Site, b.Site), strings.Compare(a.Plugin, b.Plugin))
	})
	saved = slices.CompactFunc(saved, func(a, b savedPlugin) bool { return a.Site == b.Site && a.Plugin == b.Plugin })
	body, err := json.Marshal(saved)
	if err != nil {
		return fmt.Errorf("save plugins of sites: %w", err)
	}
	sum := sha256.Sum256(body)
	if _, err := w.Write(slices.Concat([]byte(sitesHead), []byte(hex.EncodeToString(sum[:])), []byte{'\n'}, body)); err != nil {
		return fmt.Errorf("save plugins of sites: %w", err)
	}
	return nil
}

// Load reads what Save wrote, in place of what is remembered. After an error
// nothing has changed.
func (s *Sites) Load(r io.Reader) error {
	data, err := io.ReadAll(io.LimitReader(r, maxSitesFile+1))
	if err != nil {
		return fmt.Errorf("load plugins of sites: %w", err)
	}
	head, body, _ := bytes.Cut(data, []byte{'\n'})
	found, ok := bytes.CutPrefix(head, []byte(sitesHead))
	sum := sha256.Sum256(body)
	switch {
	case len(data) > maxSitesFile:
		return fmt.Errorf("load plugins of sites: got more than %d octets", maxSitesFile)
	case !ok:
		return errors.New("load plugins of sites: got a file of another kind or version; remove it, and they are learnt anew")
	case hex.EncodeToString(sum[:]) != string(found):
		return errors.New("load plugins of sites: the checksum is another; remove the file, and they are learnt anew")
	}
	var saved []savedPlugin
	if err := json.Unmarshal(body, &saved); err != nil {
		return fmt.Errorf("load plugins of sites: %w; remove the file, and they are learnt anew", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sites, s.names = map[string]map[string]*seenPlugin{}, 0
	for _, p := range saved {
		plugins := s.sites[p.Site]
		if s.names >= s.most || plugins[p.Plugin] != nil || p.Plugin != Unlabelled && labels(plugins) >= s.perSite {
			continue
		}
		if plugins == nil {
			plugins = map[string]*seenPlugin{}
			s.sites[p.Site] = plugins
		}
		plugins[p.Plugin] = &seenPlugin{first: p.First, last: p.Last, shut: p.Shut}
		s.names++
	}
	return nil
}
