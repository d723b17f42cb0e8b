package sieve

import "fmt"

// needs are the extensions that have a command or test, any of them; nil: the
// base language has it. What is not here is not known.
var needs = map[string][]string{
	"require": nil, "if": nil, "elsif": nil, "else": nil, "stop": nil, "keep": nil, "discard": nil, "redirect": nil,
	"true": nil, "false": nil, "not": nil, "allof": nil, "anyof": nil, "header": nil, "address": nil, "exists": nil, "size": nil,
	"fileinto": {"fileinto"}, "envelope": {"envelope"}, "reject": {"reject"}, "ereject": {"ereject"},
	"set": {"variables"}, "string": {"variables"},
	"include": {"include"}, "return": {"include"}, "global": {"include"}, "import": {"include"}, "export": {"include"},
	"notify": {"enotify", "notify"}, "denotify": {"notify"}, "valid_notify_method": {"enotify"}, "notify_method_capability": {"enotify"},
	"pipe": {"vnd.dovecot.pipe"}, "filter": {"vnd.dovecot.filter"}, "execute": {"vnd.dovecot.execute"},
	"report": {"vnd.dovecot.report"}, "debug_log": {"vnd.dovecot.debug"}, "environment": {"environment"},
	"vacation": {"vacation"}, "body": {"body"}, "date": {"date"}, "currentdate": {"date"}, "duplicate": {"duplicate", "vnd.dovecot.duplicate"},
	"addheader": {"editheader"}, "deleteheader": {"editheader"}, "ihave": {"ihave"}, "error": {"ihave"},
	"setflag": {"imap4flags", "imapflags"}, "addflag": {"imap4flags", "imapflags"}, "removeflag": {"imap4flags", "imapflags"},
	"hasflag": {"imap4flags"}, "mark": {"imapflags"}, "unmark": {"imapflags"},
	"mailboxexists": {"mailbox"}, "specialuse_exists": {"special-use"},
	"metadata": {"mboxmetadata"}, "metadataexists": {"mboxmetadata"}, "servermetadata": {"servermetadata"}, "servermetadataexists": {"servermetadata"},
	"foreverypart": {"foreverypart"}, "break": {"foreverypart"}, "extracttext": {"extracttext"},
	"spamtest": {"spamtest", "spamtestplus"}, "virustest": {"virustest"}, "valid_ext_list": {"extlists"},
}

// knownExtensions are Pigeonhole's.
var knownExtensions = func() map[string]bool {
	out := map[string]bool{}
	for _, name := range []string{"encoded-character", "copy", "relational", "subaddress", "regex", "index", "mime", "imapsieve",
		"vnd.dovecot.imapsieve", "vnd.dovecot.environment", "vacation-seconds"} {
		out[name] = true
	}
	for _, names := range needs {
		for _, name := range names {
			out[name] = true
		}
	}
	return out
}()

// available notes a command or test that Pigeonhole would not know in this
// script. With ihave, or an extension that is not known here, nothing is said.
func (r *textRun) available(n *node) {
	if r.ihave || r.strange {
		return
	}
	extensions, ok := needs[n.name]
	if ok && extensions == nil {
		return
	}
	for _, name := range extensions {
		if r.known[name] {
			return
		}
	}
	r.fail(r.name, fmt.Sprintf("line %d: %q is not known, or its extension is not required", n.line, n.name))
}
