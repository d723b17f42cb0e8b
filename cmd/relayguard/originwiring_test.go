package main

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/config"
	"relayguard/policy"
	"relayguard/policy/origin"
	"relayguard/policy/origin/stamp"
)

func TestWhoeverBeginsToLearnIsPatient(t *testing.T) {
	r, _ := reopened(stateConfig(t))
	if _, granted := r.peaks.Met(policy.Everybody); !granted {
		t.Error("a guard that begins to learn grants nobody patience")
	}
}

func TestSendmailsSubmissionAccountIsKnown(t *testing.T) {
	accounts := map[string]int{"smmsp": 120, "news": 9, "root": 0, "www-data": 33, "33": 33}
	for name, c := range map[string]struct {
		kind, submit string
		want         int
	}{
		"the usual one":     {config.KindSendmail, "V10\n", 120},
		"another":           {config.KindSendmail, "O RunAsUser=news:mail\n", 9},
		"not there":         {config.KindSendmail, "O RunAsUser=nosuch\n", origin.NoUID},
		"root":              {config.KindSendmail, "O RunAsUser=root\n", origin.NoUID},
		"another, by a dot": {config.KindSendmail, "O RunAsUser=news.mail\n", 9},
		"shared":            {config.KindSendmail, "O RunAsUser=www-data:mail\n", origin.NoUID},
		"shared, by number": {config.KindSendmail, "O RunAsUser=33\n", origin.NoUID},
		"no submit.cf":      {config.KindSendmail, "", 120},
		"beside Postfix":    {config.KindPostfix, "O RunAsUser=news\n", origin.NoUID},
	} {
		conf := config.Default()
		conf.MTA.Kind, conf.MTA.ConfigDirectory = c.kind, t.TempDir()
		if c.submit != "" {
			if err := os.WriteFile(filepath.Join(conf.MTA.ConfigDirectory, "submit.cf"), []byte(c.submit), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		var said strings.Builder
		r := freshRecognition(conf, [16]byte{})
		r.log = slog.New(slog.NewTextHandler(&said, nil))
		a, errs := r.attribution(conf, func(name string) (int, error) {
			if uid, known := accounts[name]; known {
				return uid, nil
			}
			return 0, errors.New("there is none")
		})
		if len(errs) > 0 || a.SubmitUID != c.want {
			t.Errorf("%s: uid %d, %v", name, a.SubmitUID, errs)
		}
		if warned := strings.Contains(said.String(), "confRUN_AS_USER"); warned != (c.kind == config.KindSendmail && c.want == origin.NoUID) {
			t.Errorf("%s: logged %q", name, said.String())
		}
	}
}

// A reload changes how many plugins a site may have.
func TestBoundsFollowTheConfiguration(t *testing.T) {
	c := stateConfig(t)
	c.Origin.MaxPlugins = 1
	s := aState(t, c)
	defer s.close(nil)
	admits := func(plugin string) bool { return s.learnt.plugins.Admit(time.Now(), "shop.example.jp", plugin) }
	if !admits("cart") || admits("form") {
		t.Error("origin.max_plugins does not count")
	}
	more := *c
	more.Origin.MaxPlugins = 2
	s.bound(&more)
	if !admits("form") || admits("share") {
		t.Error("origin.max_plugins does not count after a reload")
	}
}

func TestOriginIsKeptUntilARestart(t *testing.T) {
	now, next := config.Default().Origin, config.Default().Origin
	next.MaxPlugins, next.Fingerprints = 7, "/etc/fingerprints"
	if keepOrigin(&next, &now) || next.MaxPlugins != 7 || next.Fingerprints != "/etc/fingerprints" {
		t.Errorf("what a reload may change: %+v", next)
	}
	next.CallSocket, next.TemplateParts = "/run/other", 10_000
	if !keepOrigin(&next, &now) || next.CallSocket != now.CallSocket || next.TemplateParts != now.TemplateParts || next.MaxPlugins != 7 {
		t.Errorf("what needs a restart: %+v", next)
	}
}

// Bodies are read where a limit is about texts, and nowhere else.
func TestBodiesAreReadForTextsOnly(t *testing.T) {
	c := config.Default()
	roles := []policy.Role{policy.Submission, policy.Local, policy.Relay, policy.Inbound, policy.Egress}
	read := func() (all []policy.Role) {
		for _, role := range roles {
			if bodyBytes(c)(role) == c.Milter.MaxBodyBytes {
				all = append(all, role)
			} else if bodyBytes(c)(role) != 0 {
				t.Errorf("%s: %d", role, bodyBytes(c)(role))
			}
		}
		return all
	}
	if got := read(); !slices.Equal(got, []policy.Role{policy.Local, policy.Relay}) {
		t.Errorf("as shipped: %v", got)
	}
	for i := range c.Limits {
		c.Limits[i].When.Origins = nil
	}
	if got := read(); !slices.Equal(got, []policy.Role{policy.Submission, policy.Local, policy.Relay}) {
		t.Errorf("with a limit on everybody's texts: %v", got)
	}
	c.Limits = slices.DeleteFunc(c.Limits, func(l config.Limit) bool { return slices.Contains(l.Per, "template") })
	if got := read(); got != nil {
		t.Errorf("without one: %v", got)
	}
}

func TestListenersReadBodies(t *testing.T) {
	open, err := listen([]config.Listener{{Name: "local", Role: policy.Local, Endpoint: config.Endpoint{Path: filepath.Join(t.TempDir(), "s")}, Mode: 0o600}}, false, func(r policy.Role) int { return 100 + int(r) })
	if err != nil {
		t.Fatal(err)
	}
	defer open[0].Close()
	if got := open[0].BodyBytes; got != 100+int(policy.Local) {
		t.Errorf("%d octets", got)
	}
}

// What a web node has signed is for the relay to read; on the way out of a relay
// nothing of ours is left.
func TestNodesSignatureLeavesTheNodeAlone(t *testing.T) {
	c := config.Default()
	if all := localMail(c).Strip; !slices.Contains(all, stamp.NodeHeader) || !slices.Contains(all, stamp.Header) || !slices.Contains(all, stamp.CallHeader) {
		t.Errorf("a relay strips %q", all)
	}
	c.Sign = config.Sign{Node: "web3", KeyFile: "/etc/relayguard/web3.key"}
	if all := localMail(c).Strip; slices.Contains(all, stamp.NodeHeader) || !slices.Contains(all, stamp.Header) {
		t.Errorf("a web node strips %q", all)
	}
}

func TestWhoComesNearALimit(t *testing.T) {
	for bucket, want := range map[string]string{
		"plugin:cart@shop.example.jp": "plugin:cart@shop.example.jp", "site:shop.example.jp": "site:shop.example.jp", "template:ab": "template:ab",
		"local_user:33": "local_user:www-data", "login:taro@example.jp": "local_user:www-data", "": "local_user:www-data",
	} {
		if got := nearing("local_user:www-data", bucket); got != want {
			t.Errorf("%s: %s", bucket, got)
		}
	}
}

// Unix accounts that many share are shared on web nodes, too.
func TestSharedUsersAreSharedOnNodes(t *testing.T) {
	c := config.Default()
	c.Local.SharedUsers = []string{"hosting"}
	on := nothingCounted().parts()
	on.uid = func(string) (int, error) { return 0, errors.New("there is no such account here") }
	limits, errs := policyLimits(c, policy.Enforce, on)
	if len(errs) > 0 || !limits.SharedAccount("local_user:hosting@web3") || limits.SharedAccount("local_user:taro@web3") {
		t.Errorf("shared users on a node: %v", errs)
	}
}
