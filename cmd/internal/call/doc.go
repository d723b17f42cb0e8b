// Package call is the conversation between the sendmail wrapper, which runs as
// whoever sends, and the daemon. The wrapper tells of a call of sendmail(1)
// before the MTA gets the message; the daemon answers with a token that the
// wrapper puts into the message, or says that the mail is not wanted now. By the
// token the guard knows again, when the MTA shows it the message, what the
// wrapper told.
//
// What is how sure: the uid is the kernel's word. The pool of php-fpm is the
// word of a process of that uid which root's php-fpm started: who shares the uid
// of several pools can name another of them. Directory, script, addresses and
// header are what the caller says. So a Call stands for its uid and for nobody
// else; all else of it must be believed within that uid only.
//
// The trap: every account may connect, and the daemon must live through what it
// sends. And the wrapper must live without the daemon: no answer, or none in
// time, is no reason to keep mail.
package call
