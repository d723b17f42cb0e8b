// Package servertest is what the private Postfix and the private Sendmail of tests
// have in common: a directory of their own, accounts, ports, and an end with the
// program that started them.
package servertest
