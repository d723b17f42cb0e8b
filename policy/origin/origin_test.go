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
