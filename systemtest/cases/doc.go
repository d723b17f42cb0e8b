// Package cases reads whole-system cases from files. Its test plays each of
// testdata/relay/*.case beside a real Postfix and beside a real Sendmail, with
// a real relayguard.
//
// How a case is written stands in testdata/relay/README.md. Reading checks all
// of a file; that it makes sense to a mail server shows when it is played.
package cases
