// Package redistest starts real Redis servers for tests: one alone, a master
// with replica and Sentinels, a Cluster; and a proxy that breaks the network
// between a client and any of them.
//
// Everything listens on loopback and on Unix sockets only, lives in a directory
// of its own and ends with the test, by its process id. Where redis-server is
// missing a test is skipped; with RELAYGUARD_REQUIRE=1 it fails.
package redistest
