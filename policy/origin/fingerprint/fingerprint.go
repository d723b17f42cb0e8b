// Package fingerprint recognises software by the form of its mail: fields that
// only it writes, a subject, a sentence. It is a guess, for people to read: who
// knows the form can imitate it, so that no budget may hang on it.
//
// What is recognised is a text of one fingerprint a line:
//
//	# comment
//	wp-mail-smtp  X-Mailer: starts "WPMailSMTP/"
//	wp-email      subject starts "Recommended Article By " and subject has ": "
//	mailpoet      body has "mailpoet_router&endpoint="
//	phpmailer     Message-ID: alnum 37-43
//	wordfence     never
//
// First the name: lower-case letters, digits, "-", ".", "_"; for a plugin of
// WordPress the name of its directory. Then what the mail must have, of several
// joined by "and" all:
//
//   - FIELD: present - the header field
//   - FIELD: is, starts, ends or has "TEXT" - in the first field of that name,
//     unfolded, as it arrived
//   - FIELD: alnum MIN-MAX - its value is, but for angle brackets, so many ASCII
//     letters and digits, some of them capitals, small letters and digits, and an
//     "@" and a domain: the form of a Message-ID
//   - subject is, starts, ends or has "TEXT" - in the decoded subject
//   - body has "TEXT" - in the first 8 KiB of the body as it arrived, of which
//     only the soft line breaks of quoted-printable are taken out: at least 8 octets
//
// Texts are in double quotes, with \" and \\; upper and lower case differ, but in
// names of fields. Lines of one name are alternatives. A message of several forms
// has that of the last line: the general comes before the particular, and what an
// admin adds before neither. "never" takes away the lines of that name above it.
//
// What the package does not see: a body in base64, and translations that no line
// tells.
package fingerprint
