package check

import (
	"context"
	"crypto/rand"
	"sync"

	"relayguard/rbl"
)

// elsewhere is what a resolver makes of names that do not exist, outside of all
// blocklists: asked once a pass, and only if there is a suspicion.
type elsewhere struct {
	asking  chan struct{} // taken by who asks; no Mutex: answers are waited for
	known   bool
	rewrite bool // one got an address
	honest  bool // one got NXDOMAIN
}

// beyond are the domains below which nobody has a random name of 20 characters. Of
// "invalid" (RFC 6761) many resolvers know by themselves that it is empty, so that
// one that rewrites shows itself below an ordinary one only.
func beyond() []string { return []string{"invalid", "com", "net"} }

func (p *pass) lookElsewhere(ctx context.Context, i int) (rewrite, honest bool) {
	e := p.elsewhere[i]
	e.asking <- struct{}{}
	defer func() { <-e.asking }()
	if e.known {
		return e.rewrite, e.honest
	}
	domains := beyond()
	responses := make([]rbl.Response, len(domains))
	var wait sync.WaitGroup
	for k, domain := range domains {
		wait.Go(func() {
			responses[k] = p.ask(ctx, nil, 0, p.resolvers[i], canary()+"."+domain, rbl.TypeA)
		})
	}
	wait.Wait()
	for _, r := range responses {
		e.rewrite = e.rewrite || r.Outcome == rbl.Answered
		e.honest = e.honest || r.Outcome == rbl.NoName
	}
	e.known = true
	return e.rewrite, e.honest
}

// canary is a label that nobody lists and nobody has: 20 letters and digits, a letter
// first. No underscore: some name servers treat such names apart.
func canary() string {
	const letters, all = "abcdefghijklmnopqrstuvwxyz", "abcdefghijklmnopqrstuvwxyz234567"
	var random [20]byte
	rand.Read(random[:]) // never fails
	for i, b := range random {
		random[i] = all[int(b)%len(all)]
	}
	random[0] = letters[int(random[0])%len(letters)]
	return string(random[:])
}
