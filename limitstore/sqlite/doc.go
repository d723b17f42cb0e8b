// Package sqlite keeps buckets in memory and, behind them, in an SQLite file of
// their own: the store of a relay that counts for itself alone.
//
// Every answer is limit.Memory's, and costs no more: what changed is only
// marked. A goroutine writes it to the file, 20 times a second, each batch in
// one transaction; of what changes often only the last is written. So kill -9
// loses at most 100 ms of charges: a commit is in the kernel's hands. Another
// goroutine has the kernel write SQLite's log (WAL) to the disk each second, so
// power loss loses at most one second. Over some ten thousand different buckets a
// second the file falls behind; Health says so.
//
// Nothing that is wrong with the file stops mail. On a full or read-only disk the
// store goes on from memory, where what is not written waits: a bucket at most
// once. A file that is broken, of another program or of a later version is put
// aside as NAME.broken-TIME, what can be read of it is taken over, and memory is
// written to a new one. Until that is done, some seconds, the file put aside is
// read again by who opens the store.
//
// The trap: the file is behind. Who reads it while the daemon runs sees counts of
// a moment ago; who writes it is not heard.
package sqlite
