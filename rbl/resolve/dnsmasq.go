package resolve

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
)

// readDnsmasq finds out whom it asks: it cannot but ask others.
func readDnsmasq(t *tree, config string) (setup, bool, error) {
	d := dnsmasqReader{tree: t}
	if err := d.file(config, 0); err != nil {
		return setup{}, false, err
	}
	if d.off {
		return setup{}, false, nil
	}
	s := setup{how: Forwards, to: addresses(strings.Join(d.servers, " "))}
	if len(s.to) > 0 || d.noResolv {
		return s, true, nil
	}
	// Those that others hand it. /etc/resolv.conf names itself by now.
	for _, file := range append(d.resolv, "/run/dnsmasq/resolv.conf", "/run/NetworkManager/no-stub-resolv.conf") {
		if to, err := nameservers(t.root, file); err == nil && len(to) > 0 {
			return setup{how: Forwards, to: to, file: file}, true, nil
		}
	}
	return s, true, nil
}

type dnsmasqReader struct {
	tree          *tree
	servers       []string
	resolv        []string
	noResolv, off bool
}

func (d *dnsmasqReader) file(path string, depth int) error {
	if depth > mostDepth {
		return errors.New("files include each other")
	}
	text, err := d.tree.read(path)
	if err != nil {
		return err
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, _ := strings.Cut(line, "=")
		// A comment begins at a "#" after a space only: one within stands before a port.
		value, _, _ = strings.Cut(strings.TrimSpace(value), " #")
		if err := d.setting(strings.TrimSpace(key), strings.TrimSpace(value), path, depth); err != nil {
			return err
		}
	}
	return nil
}

func (d *dnsmasqReader) setting(key, value, path string, depth int) error {
	switch key {
	case "server":
		if !strings.HasPrefix(value, "/") { // else of one domain
			d.servers = append(d.servers, value)
		}
	case "resolv-file":
		d.resolv = append(d.resolv, value)
	case "no-resolv":
		d.noResolv = true
	case "port":
		d.off = value == "0" // DHCP only
	case "conf-file", "conf-dir":
		for _, name := range d.more(key, value, path) {
			if err := d.file(name, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// more are the files that a setting includes. In a directory, "*.conf" after its
// name means those alone, ".bak" all but those.
func (d *dnsmasqReader) more(key, value, path string) []string {
	if key == "conf-file" {
		return d.tree.glob(filepath.Dir(path), value)
	}
	parts := strings.Split(value, ",")
	names := d.tree.glob(filepath.Dir(path), filepath.Join(parts[0], "*"))
	return slices.DeleteFunc(names, func(name string) bool {
		only, is := false, false
		for _, end := range parts[1:] {
			if end, ok := strings.CutPrefix(end, "*"); ok {
				only = true
				is = is || strings.HasSuffix(name, end)
			} else if end != "" && strings.HasSuffix(name, end) {
				return true
			}
		}
		base := filepath.Base(name)
		return only && !is || strings.HasSuffix(base, "~") || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "#")
	})
}
