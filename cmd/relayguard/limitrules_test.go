package main

import (
	"testing"
	"time"

	"relayguard/cmd/internal/config"
	"relayguard/policy"
)

// What is set for a customer counts for the buckets of what belongs to it, also
// of a Unix account that the configuration names and a bucket numbers.
func TestBucketsOfACustomer(t *testing.T) {
	c := stateConfig(t)
	c.Customers = []config.Customer{{Name: "acme", Domains: []string{"example.jp"}, LocalUsers: []string{"web"}}}
	for _, l := range c.Limits {
		if len(l.Windows) > 0 {
			c.Overrides = append(c.Overrides, config.Override{Limit: l.Name, For: "customer:acme", Windows: []config.Window{{Count: 3, Length: time.Hour}}})
		}
	}
	p, errs := newPolicy(c, policy.Enforce, func(uid int) string { return map[int]string{1000: "web"}[uid] }, nothingCounted().parts())
	if errs != nil {
		t.Fatal(errs)
	}
	for value, want := range map[string]bool{"login:taro@example.jp": true, "local_user:1000": true, "login:taro@example.org": false, "local_user:1001": false} {
		in := p.Limits.InForce(time.Now(), nil, c.Limits[0].Name, value)
		if got := len(in.Windows) == 1 && in.Windows[0].Count == 3; got != want {
			t.Errorf("%s: %+v, the customer's: %t", value, in.Windows, got)
		}
	}
}
