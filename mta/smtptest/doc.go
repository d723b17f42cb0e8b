// Package smtptest has both ends of an SMTP dialogue for tests, the demo and
// the benchmark: a Client that says exactly what it is told and shows each
// reply, and a Sink that accepts mail and can be asked what arrived.
//
// Neither is fit for real mail: the client obeys no rule of RFC 5321 that the
// caller does not obey, and the sink keeps everything in memory.
package smtptest
