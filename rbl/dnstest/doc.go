// Package dnstest runs name servers on loopback for tests: the real rbldnsd, NSD
// and unbound, and a Fake in the test's own process for what real ones do not do.
//
// Every port is a free one of 127.0.0.1, every file lies below a directory of the
// test, and every server ends with the test. Nothing of the host's own name
// service is read or changed, and no question leaves the machine: what unbound
// knows no stub for, it asks a root of ours, where no name exists.
//
// Traps. rbldnsd speaks UDP only and answers REFUSED for a zone that it does not
// have; unbound makes SERVFAIL of that. rbldnsd has no wildcards: what lists
// everybody there is ip4set with 0/1 and 128/1. Its ip4set answers for 4-in-6
// addresses, too: ::FFFF:7F00:2 is 127.0.0.2 to it, whatever an ip6trie of the
// same zone says. Unbound by itself says
// that names below "test" and "invalid" do not exist; the kit lifts that for "test"
// only if a stub lies below it.
package dnstest
