// Package sendmail finds the forwarding rules of Sendmail by its sendmail.cf:
// aliases, .forward, virtusertable, mailertable, genericstable, the user
// database, smart host, mail hub and the place of unknown users. What the
// rewriting rules themselves (S and R lines) do is not followed: they are
// hashed, and a change of them shows.
//
// The trap: the compiled .db is what counts, and makemap needs no text. Both are
// read, and what is in one of them only is said to differ.
package sendmail
