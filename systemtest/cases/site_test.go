package cases

import (
	"errors"
	"fmt"
	"net/mail"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"relayguard/policy/origin/stamp"
	"relayguard/wordpress"
)

// makeSite makes what a WordPress is known by, and has relayguard install its part.
func (p *play) makeSite(s Site) {
	p.t.Helper()
	uid := p.uidOf(s.Account)
	root := filepath.Join(filepath.Dir(p.server.guard().ConfigPath), s.Name)
	content, config := filepath.Join(root, "wp-content"), filepath.Join(root, "wp-config.php")
	err := errors.Join(os.Mkdir(root, 0o755), os.Mkdir(content, 0o755), os.WriteFile(config, []byte("<?php // of a test\n"), 0o640))
	p.t.Cleanup(func() { os.RemoveAll(root) })
	for _, path := range []string{root, content, config} {
		err = errors.Join(err, os.Chown(path, uid, uid))
	}
	p.check(err)
	if r := p.relayguard("wordpress", "install", root); r.ExitCode != 0 {
		p.fatalf("wordpress install: status %d\n%s%s", r.ExitCode, r.Stdout, r.Stderr)
	}
	text, err := os.ReadFile(filepath.Join(content, wordpress.KeyPath))
	p.check(err)
	key, ok := wordpress.ParseKey(text)
	if !ok {
		p.fatalf("site %s has no key", s.Name)
	}
	p.sites[s.Name] = &stamp.Site{Name: s.Name, UID: uid, KeyID: key.ID, Key: key.Secret}
}

var stampOf = regexp.MustCompile(`\{stamp ([^{} ]+) ([^{} ]+)\}`)

// stamped puts a site's stamp into a message, as its plugin would.
func (p *play) stamped(message string) string {
	p.t.Helper()
	return stampOf.ReplaceAllStringFunc(message, func(s string) string {
		match := stampOf.FindStringSubmatch(s)
		site := p.sites[match[1]]
		if site == nil {
			p.fatalf("site %s is not made", match[1])
		}
		m, err := mail.ReadMessage(strings.NewReader(message))
		p.check(err)
		to, err := m.Header.AddressList("To")
		p.check(err)
		var all []string
		for _, a := range to {
			all = append(all, a.Address)
		}
		p.stamps++
		return stamp.Make(time.Now(), site, &stamp.Stamp{Plugin: match[2], Entry: "ajax"}, all, m.Header.Get("Subject"), fmt.Sprintf("%016d", p.stamps))
	})
}
