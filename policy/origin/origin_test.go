package origin_test

import (
	"net/netip"
	"testing"

	"relayguard/policy/origin"
)

func TestAccountTakesTheSurestKind(t *testing.T) {
	networks, errs := origin.NewNetworks([]origin.Network{{Name: "web", Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, Reason: "web nodes", Owner: "ops"}})
	if errs != nil {
		t.Fatal(errs)
	}
	finder := origin.Finder{
		Networks:     networks,
		Certificates: []origin.Certificate{{Subject: "web1", Issuer: "House CA", Login: "Web1@example.jp"}, {Subject: "any", Login: "any"}},
		UserName: func(uid int) string {
			if uid == 33 {
				return "www-data"
			}
			return ""
		},
	}
	trusted := netip.MustParseAddr("192.0.2.7")
	for _, c := range []struct {
		name       string
		evidence   origin.Evidence
		want       string
		confidence origin.Confidence
		by         string
	}{
		{"nobody", origin.Evidence{UID: origin.NoUID}, "unknown", origin.Unknown, ""},
		{"claims make nobody", origin.Evidence{UID: origin.NoUID, Helo: "mail.example.jp", MailFrom: "taro@example.jp", HeaderFrom: "taro@example.jp", MessageID: "<1@example.jp>"}, "unknown", origin.Unknown, ""},
		{"address outside", origin.Evidence{UID: origin.NoUID, ClientIP: netip.MustParseAddr("203.0.113.7")}, "unknown", origin.Unknown, ""},
		{"network", origin.Evidence{UID: origin.NoUID, ClientIP: trusted}, "network:web", origin.Address, ""},
		{"network by mapped address", origin.Evidence{UID: origin.NoUID, ClientIP: netip.MustParseAddr("::ffff:192.0.2.7")}, "network:web", origin.Address, ""},
		{"sendmail(1) has no client", origin.Evidence{UID: origin.NoUID, ClientIP: trusted, Submitted: true}, "unknown", origin.Unknown, ""},
		{"uid with a name", origin.Evidence{UID: 33, Submitted: true}, "local_user:www-data", origin.Kernel, ""},
		{"uid without", origin.Evidence{UID: 6001}, "local_user:uid:6001", origin.Kernel, ""},
		{"root is somebody", origin.Evidence{UID: 0}, "local_user:uid:0", origin.Kernel, ""},
		{"uid before network", origin.Evidence{UID: 33, ClientIP: trusted}, "local_user:www-data", origin.Kernel, ""},
		{"login before all", origin.Evidence{UID: 33, ClientIP: trusted, Login: "Taro@Example.JP", AuthType: "PLAIN"}, "login:taro@example.jp", origin.Kernel, "PLAIN"},
		{"login by XCLIENT", origin.Evidence{UID: origin.NoUID, Login: "taro", AuthType: "XCLIENT"}, "login:taro", origin.Kernel, "XCLIENT"},
		{"certificate", origin.Evidence{UID: origin.NoUID, CertSubject: "web1", CertIssuer: "House CA", CertVerified: true}, "login:web1@example.jp", origin.Kernel, "certificate"},
		{"certificate of any issuer", origin.Evidence{UID: origin.NoUID, CertSubject: "any", CertIssuer: "Other CA", CertVerified: true}, "login:any", origin.Kernel, "certificate"},
		{"certificate of another issuer", origin.Evidence{UID: origin.NoUID, CertSubject: "web1", CertIssuer: "Other CA", CertVerified: true}, "unknown", origin.Unknown, ""},
		{"certificate not verified", origin.Evidence{UID: origin.NoUID, CertSubject: "web1", CertIssuer: "House CA"}, "unknown", origin.Unknown, ""},
		{"certificate not mapped", origin.Evidence{UID: origin.NoUID, CertSubject: "web2", CertIssuer: "House CA", CertVerified: true}, "unknown", origin.Unknown, ""},
		{"certificate without subject", origin.Evidence{UID: origin.NoUID, CertIssuer: "House CA", CertVerified: true}, "unknown", origin.Unknown, ""},
		{"login before certificate", origin.Evidence{UID: origin.NoUID, Login: "taro", AuthType: "PLAIN", CertSubject: "web1", CertIssuer: "House CA", CertVerified: true}, "login:taro", origin.Kernel, "PLAIN"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := finder.Find(&c.evidence)
			kind, key := o.Account()
			if o.Name() != c.want || key.Confidence != c.confidence || o.LoginBy != c.by {
				t.Errorf("account %q (%v, by %q), want %q (%v, by %q)", o.Name(), key.Confidence, o.LoginBy, c.want, c.confidence, c.by)
			}
			if (kind == origin.KindUnknown) != !key.Known() {
				t.Errorf("kind %q with key %+v: an unknown account has no key to share", kind, key)
			}
		})
	}
}

func TestClaimsAreRecordedAsClaims(t *testing.T) {
	e := origin.Evidence{UID: origin.NoUID, MailFrom: "a@example.jp", HeaderFrom: "b@example.jp", MessageID: "<1@x>", QueueID: "Q1", ClientIP: netip.MustParseAddr("fe80::1%eth0")}
	o := new(origin.Finder).Find(&e)
	if o.MailFrom != (origin.Key{Value: "a@example.jp", Confidence: origin.Claimed}) || o.HeaderFrom != (origin.Key{Value: "b@example.jp", Confidence: origin.Claimed}) {
		t.Errorf("MailFrom %+v, HeaderFrom %+v", o.MailFrom, o.HeaderFrom)
	}
	if o.MessageID != "<1@x>" || o.QueueID != "Q1" || o.ClientIP.Value != "fe80::1" || o.UID != origin.NoUID {
		t.Errorf("origin %+v", o)
	}
}

func TestEvidenceOfNobodyIsNotRoot(t *testing.T) {
	e := origin.NewEvidence()
	if o := new(origin.Finder).Find(&e); o.LocalUser.Known() || o.UID != origin.NoUID {
		t.Errorf("nobody is %+v", o)
	}
}

func TestConfidenceOrder(t *testing.T) {
	order := []origin.Confidence{origin.Unknown, origin.Claimed, origin.Fingerprint, origin.Address, origin.Signed, origin.Wrapper, origin.Kernel}
	names := map[string]bool{}
	for i, c := range order {
		if i > 0 && c <= order[i-1] {
			t.Errorf("%v is not surer than %v", c, order[i-1])
		}
		names[c.String()] = true
	}
	if len(names) != len(order) || origin.Confidence(99).String() != "unknown" {
		t.Errorf("names %v", names)
	}
}

// Mail of a web node: by its address alone nobody's, by its signature that of a
// Unix account there.
func TestMailOfAWebNode(t *testing.T) {
	networks, errs := origin.NewNetworks([]origin.Network{{Name: "web", Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, Reason: "web nodes", Owner: "ops"}})
	if errs != nil {
		t.Fatal(errs)
	}
	customers, errs := origin.NewCustomers([]origin.Customer{{Name: "acme", LocalUsers: []string{"site12@web3", "2000@web3"}}, {Name: "bolt", LocalUsers: []string{"site12", "2000"}}})
	if errs != nil {
		t.Fatal(errs)
	}
	finder := origin.Finder{Networks: networks, Customers: customers, UserName: func(uid int) string { return map[int]string{1001: "ours", 1002: "site12"}[uid] }}
	for _, c := range []struct {
		name           string
		be             func(*origin.Evidence)
		kind           origin.Kind
		account        string
		stable         string
		confidence     origin.Confidence
		customer, user string
	}{
		{"unsigned", func(*origin.Evidence) {}, origin.KindNode, "node:web3", "node:web3", origin.Address, "", ""},
		{"signed", func(e *origin.Evidence) { e.NodeUID, e.LocalUser, e.LocalConfidence = 1001, "site12", origin.Signed }, origin.KindLocalUser, "local_user:site12@web3", "local_user:1001@web3", origin.Signed, "acme", "site12@web3"},
		{"signed without a name", func(e *origin.Evidence) { e.NodeUID, e.LocalConfidence = 2000, origin.Signed }, origin.KindLocalUser, "local_user:uid:2000@web3", "local_user:2000@web3", origin.Signed, "acme", "uid:2000@web3"},
		{"signed without a uid", func(e *origin.Evidence) { e.LocalUser, e.LocalConfidence = "other", origin.Signed }, origin.KindLocalUser, "local_user:other@web3", "local_user:other@web3", origin.Signed, "", "other@web3"},
		{"signed with neither", func(e *origin.Evidence) { e.LocalConfidence = origin.Signed }, origin.KindNode, "node:web3", "node:web3", origin.Address, "", ""},
		{"a name that looks like another node's", func(e *origin.Evidence) { e.LocalUser, e.LocalConfidence = "site12@web4", origin.Signed }, origin.KindLocalUser, "local_user:site12_web4@web3", "local_user:site12_web4@web3", origin.Signed, "", "site12_web4@web3"},
		{"claimed", func(e *origin.Evidence) { e.NodeUID, e.LocalUser, e.LocalConfidence = 1001, "site12", origin.Claimed }, origin.KindNode, "node:web3", "node:web3", origin.Address, "", ""},
		{"with AUTH", func(e *origin.Evidence) { e.Login = "taro" }, origin.KindLogin, "login:taro", "login:taro", origin.Kernel, "", ""},
	} {
		e := origin.NewEvidence()
		e.ClientIP, e.Node = netip.MustParseAddr("192.0.2.13"), "web3"
		c.be(&e)
		o := finder.Find(&e)
		kind, key := o.Account()
		if kind != c.kind || key.Confidence != c.confidence || o.Name() != c.account || o.Stable() != c.stable || o.Customer.Value != c.customer || o.LocalUser.Value != c.user || o.Node.Value != "web3" {
			t.Errorf("%s: %v %+v, %s, %s, customer %q", c.name, kind, key, o.Name(), o.Stable(), o.Customer.Value)
		}
	}
}

// Of local mail the uid says whose it is; a name only where there is none.
func TestWhatTellsTheUnixAccount(t *testing.T) {
	finder := origin.Finder{UserName: func(uid int) string { return map[int]string{33: "www-data"}[uid] }}
	for _, c := range []struct {
		name   string
		be     func(*origin.Evidence)
		want   origin.Key
		stable string
	}{
		{"the kernel", func(e *origin.Evidence) { e.UID = 33 }, origin.Key{Value: "www-data", Confidence: origin.Kernel}, "local_user:33"},
		{"the wrapper", func(e *origin.Evidence) { e.UID, e.LocalConfidence = 33, origin.Wrapper }, origin.Key{Value: "www-data", Confidence: origin.Wrapper}, "local_user:33"},
		{"a name beside the uid", func(e *origin.Evidence) { e.UID, e.LocalUser, e.LocalConfidence = 33, "root", origin.Signed }, origin.Key{Value: "www-data", Confidence: origin.Kernel}, "local_user:33"},
		{"a name", func(e *origin.Evidence) { e.LocalUser, e.LocalConfidence = "alice", origin.Kernel }, origin.Key{Value: "alice", Confidence: origin.Kernel}, "local_user:alice"},
		{"a claimed name", func(e *origin.Evidence) { e.LocalUser, e.LocalConfidence = "alice", origin.Claimed }, origin.Key{}, "unknown"},
		{"a uid of no node", func(e *origin.Evidence) { e.NodeUID = 33 }, origin.Key{}, "unknown"},
		{"handed in here, whatever the address", func(e *origin.Evidence) { e.Submitted, e.Node, e.UID = true, "web3", 33 }, origin.Key{Value: "www-data", Confidence: origin.Kernel}, "local_user:33"},
	} {
		e := origin.NewEvidence()
		c.be(&e)
		if o := finder.Find(&e); o.LocalUser != c.want || o.Stable() != c.stable {
			t.Errorf("%s: %+v, %s", c.name, o.LocalUser, o.Stable())
		}
	}
}
