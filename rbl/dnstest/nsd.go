package dnstest

import (
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// StartNSD starts a real NSD, over UDP and TCP. zones are the bodies of zone files
// by the zones' names: SOA and NS are added, names without a final dot are below
// the zone, "*" is a wildcard.
//
//	StartNSD(t, map[string]string{"bl.example": "* A 127.0.0.2\n* TXT \"why\"\n"})
func StartNSD(t testing.TB, zones map[string]string) *Server {
	t.Helper()
	need(t, available(nsdProgram))
	if len(zones) == 0 {
		t.Fatal("NSD: want at least one zone")
	}
	names := slices.Sorted(maps.Keys(zones))
	return start(t, names[0], func(dir string, port int) (*exec.Cmd, error) {
		files := map[string]string{}
		var config strings.Builder
		fmt.Fprintf(&config, nsdConf, dir, port)
		for i, name := range names {
			file := fmt.Sprintf("zone%d", i)
			files[file] = fmt.Sprintf(zoneHead, strings.TrimSuffix(name, ".")) + zones[name] + "\n"
			fmt.Fprintf(&config, "zone:\n  name: %q\n  zonefile: %q\n", name, filepath.Join(dir, file))
		}
		files["nsd.conf"] = config.String()
		return exec.Command(nsdProgram, "-d", "-c", filepath.Join(dir, "nsd.conf")), writeFiles(dir, files)
	})
}

// nsdConf takes the directory and the port. It never holds answers back: the
// limit that Debian's NSD has by default drops those of a test that asks fast.
const nsdConf = `server:
  server-count: 1
  ip-address: 127.0.0.1@%[2]d
  do-ip6: no
  username: ""
  chroot: ""
  zonesdir: "%[1]s"
  database: ""
  zonelistfile: "%[1]s/zone.list"
  xfrdfile: "%[1]s/xfrd.state"
  xfrdir: "%[1]s"
  pidfile: "%[1]s/nsd.pid"
  rrl-ratelimit: 0
  rrl-whitelist-ratelimit: 0
  verbosity: 1
remote-control:
  control-enable: no
`

const zoneHead = `$ORIGIN %[1]s.
$TTL 60
@ SOA ns.invalid. hostmaster.invalid. 1 600 300 86400 60
@ NS ns.invalid.
`
