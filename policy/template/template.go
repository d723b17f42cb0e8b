// Package template recognises mail that is made from one form: the same page
// recommended to many strangers, whatever the names in it. It reads the text,
// takes apart what is the same in all copies (the subject's skeleton, links,
// lines), and remembers per sender how many different recipients each part went
// to, and on how many days.
//
// It decides nothing: a part that goes to many is a key, which limits count.
//
// # What is never a key
//
// Boilerplate: a part that was sent on Options.Days earlier days, as footers and
// the sentences of a form are, and that goes to no more than growth times as many
// today as it went to on that many of those days. The second half is against slow
// abuse: a page that was recommended to 39 strangers on each of three days is
// known, but only as one that 39 get. Only what was sent counts, not what was
// held: refused mail can neither make itself boilerplate, nor a part none that
// somebody copied into it. A part that went over that, and that mail was held by
// the name of, is no boilerplate on the next days.
//
// A steady form: mail with a subject that is boilerplate and went to manyADay
// recipients and more on each of those days, and of which half of the lines at
// least are boilerplate. It may have parts that are new, a shop's product of the
// day, and has no key until the form as a whole grows.
//
// The trap: hashes are worth something only with the key that they were made
// with. Keep Options.Key, or Load refuses what was saved.
package template
