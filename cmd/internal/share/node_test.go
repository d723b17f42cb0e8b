package share_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"relayguard/cmd/internal/share"
	"relayguard/limitstore/redis/redistest"
	"relayguard/policy"
)

// A user of Redis that may no more than a web node needs.
const nodeUser = "user web-node on >secret resetkeys %R~{test}:switches* resetchannels &{test}:switches -@all +@connection +eval_ro +evalsha_ro +get +hscan +time +subscribe +unsubscribe"

// A web node takes the orders of relays, and gives none: it needs no right to write.
func TestAWebNodeObeys(t *testing.T) {
	server := redistest.Server(t, nodeUser)
	db := client(t, server.Addr)
	a := join(t, db, "mx1", nil)
	reader := goredis.NewClient(&goredis.Options{Addr: server.Addr, Username: "web-node", Password: "secret", MaxRetries: -1, DialTimeout: 2 * time.Second, ReadTimeout: 5 * time.Second})
	t.Cleanup(func() { reader.Close() })
	web := join(t, reader, "web3", func(o *share.Options) { o.Node = true })
	web.run()

	shut := policy.Switch{Kind: policy.Shut, Subject: policy.SubjectKey, Value: "plugin:share@shop.example.jp", Rule: "plugin-first-time"}
	a.set(shut)
	a.set(policy.Switch{Kind: policy.Suspend, Subject: policy.SubjectLocalUser, Value: "1001@web3"})
	a.set(policy.Switch{Kind: policy.Suspend, Subject: policy.SubjectLocalUser, Value: "1001"}) // of that relay
	a.set(policy.Switch{Kind: policy.Shut, Subject: policy.SubjectKey, Value: "site:shop.example.jp local_user:1001", Rule: "x"})
	if err := a.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	heard := []string{<-web.told, <-web.told}
	slices.Sort(heard)
	if want := []string{"arrived shut key:plugin:share@shop.example.jp", "arrived suspend local_user:1001@web3"}; !slices.Equal(heard, want) {
		t.Errorf("%q, want %q", heard, want)
	}

	web.suspend("taro") // there alone
	if err := web.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if h := web.Health(); h.Away || h.Waiting != 0 || web.Remark(t.Context()) != "" {
		t.Errorf("%+v, %q", h, web.Remark(t.Context()))
	}
	if err := a.Sync(t.Context()); err != nil || strings.Contains(a.abouts(), "taro") {
		t.Errorf("in force on the relay: %s, %v", a.abouts(), err)
	}

	if _, err := a.file.Remove(func(s policy.Switch) bool { return s.Kind == policy.Shut && s.Value == shut.Value }); err != nil {
		t.Fatal(err)
	}
	if err := a.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	web.hears("left shut key:plugin:share@shop.example.jp")
	if got := web.abouts(); got != "suspend local_user:1001@web3,suspend login:taro" {
		t.Errorf("in force on the node: %s", got)
	}
}

// What relays share of Unix accounts: those of web nodes, which are the same for all.
func TestAccountsOfWebNodesAreSharedByAllRelays(t *testing.T) {
	server := redistest.Server(t)
	a, b := join(t, client(t, server.Addr), "mx1", nil), join(t, client(t, server.Addr), "mx2", nil)
	a.set(policy.Switch{Kind: policy.Suspend, Subject: policy.SubjectLocalUser, Value: "33@web1"})
	a.set(policy.Switch{Kind: policy.Suspend, Subject: policy.SubjectLocalUser, Value: "33"})
	a.set(policy.Switch{Kind: policy.Set, Subject: policy.SubjectKey, Value: "local_user:33@web1 recipient_domain:example.net", Rule: "x", Windows: perDay})
	a.set(policy.Switch{Kind: policy.Set, Subject: policy.SubjectKey, Value: "local_user:33 recipient_domain:example.net", Rule: "x", Windows: perDay})
	if err := a.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := b.abouts(), "set key:local_user:33@web1 recipient_domain:example.net,suspend local_user:33@web1"; got != want {
		t.Errorf("in force on the other: %s, want %s", got, want)
	}
}
