// Package mta has the words in which the rooms below it tell of a mail server:
// what is in its queue and what became of an act on it (QueueFile, Target,
// Result), what the red switch did (Stopped, Started), how mail leaves (Sending),
// and what is wrong with its settings (Finding). What they mean is the same for
// Postfix and Sendmail; how it is found out and done is theirs.
package mta
