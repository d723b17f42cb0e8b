// Package sendmail reads and changes the settings and the queues of Sendmail 8:
// what sendmail.cf and submit.cf say is in force, what lets mail round the guard
// (Inspect), the settings that attach it (Setup), its queue files, and the red
// switch.
//
// Trap: sendmail.cf is made of sendmail.mc by m4. What is changed in the one alone
// is gone the next time that somebody runs make in /etc/mail.
package sendmail
