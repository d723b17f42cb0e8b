// Package wrapper is sendmail(1) for programs that hand in mail, PHP above all:
// it tells the daemon of each message before the MTA gets it, and puts the
// daemon's token in front of the header. The daemon may also have it refuse, with
// an exit status that PHP's mail() understands.
//
// It runs as whoever sends, with no rights of its own, and never keeps mail: if
// the daemon is away, slow or strange, the message goes to the MTA as it came.
// Every octet behind the token goes through unchanged, and no more than the
// header is ever in memory. Who goes round it, by calling the MTA's sendmail
// itself, gains nothing: then the mail has no token, and counts for its account
// alone.
package wrapper
