package main

import (
	"strings"
	"testing"

	"relayguard/cmd/internal/desk"
)

// Review 1, finding 21: "suspend www-data" suspended the login www-data, and the
// Unix account went on sending.
func TestAPlainNameOfAUnixAccountIsAskedBack(t *testing.T) {
	for name, want := range map[string]string{
		"root":       "", // a Unix account everywhere
		"login:root": `"account":"login:root"`, "local_user:root": `"account":"local_user:root"`,
		"taro@example.jp": `"account":"taro@example.jp"`, "no-such-unix-account": `"account":"no-such-unix-account"`,
	} {
		for _, line := range []string{"suspend " + name + " --reason r", "resume " + name + " --cause c"} {
			d := newFakeDaemon(t)
			d.always("POST /v1/suspend", desk.Suspended{Account: name})
			d.always("POST /v1/resume", desk.Resumed{Account: name, Was: true})
			code, _, stderr := d.run(strings.Fields(line)...)
			asked := d.lastAsked("POST")
			if want != "" && (code != exitFine || !strings.Contains(asked, want)) {
				t.Errorf("%s: exit %d (%s), asked %s", line, code, stderr, asked)
			}
			if want == "" && (code != exitUsage || asked != "" || !strings.Contains(stderr, "local_user:root") || !strings.Contains(stderr, "login:root")) {
				t.Errorf("%s: exit %d (%s), asked %s", line, code, stderr, asked)
			}
		}
	}
}
