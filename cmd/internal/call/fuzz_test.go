package call

import (
	"reflect"
	"testing"
)

// Whatever an account sends: what comes through is within the bounds, and reads
// the same again.
func FuzzQuestion(f *testing.F) {
	for _, seed := range []string{
		`{"version":1}`,
		`{"version":1,"dir":"/var/www//shop/","mail_from":"a@example.jp","rcpt_to":["b@example.net"],"from_header":true,"header":"VG86IGI="}`,
		`{"version":1,"dir":"../../etc","rcpt_more":true,"header_more":true}`,
		`{"version":1,"rcpt_to":["\u0000","\n"]}`, `{"Version":1}`, `{"version":1} {}`, `null`, `{`, `{"version":1,"dir":"/\ud800"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		q, err := decodeQuestion(line)
		if err != nil {
			return
		}
		if len(q.Header) > MaxHeader || len(q.RcptTo) > MaxRcpts || q.Dir != cleanDir(q.Dir) || q.MailFrom != cleanAddress(q.MailFrom) {
			t.Fatalf("got %+v", q)
		}
		again, err := encodeQuestion(q)
		if err != nil || len(again) > MaxQuestion {
			t.Fatalf("%d octets, %v", len(again), err)
		}
		back, err := decodeQuestion(again)
		if len(q.Header) == 0 {
			q.Header, back.Header = nil, nil
		}
		if len(q.RcptTo) == 0 {
			q.RcptTo, back.RcptTo = nil, nil
		}
		if err != nil || !reflect.DeepEqual(back, q) {
			t.Fatalf("got %+v, %v, want %+v", back, err, q)
		}
	})
}

// Whatever has the daemon's socket says: the wrapper exits with a status of its
// own, and prints one line.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{
		`{"verdict":"accept","token":"00112233445566778899aabbccddeeff"}`,
		`{"verdict":"defer","text":"suspended\r\nX: y"}`, `{"verdict":"reject"}`, `{"verdict":"accept"}`,
		`{"verdict":"hold"}`, `{}`, `null`, "\x00",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		a, err := decodeAnswer(line)
		if err != nil {
			return
		}
		_, ok := parseToken(a.Token)
		if ok != (a.Verdict == Accept) || a.Verdict.Exit() == 0 && a.Verdict != Accept || len(a.Text) > maxText || !plain(a.Text) {
			t.Fatalf("got %+v", a)
		}
	})
}

// Whatever a header holds: a script's name is one line.
func FuzzScript(f *testing.F) {
	f.Add([]byte("To: a@example.net\nX-PHP-Originating-Script: 6001:PHPMailer.php\n"))
	f.Add([]byte("X-PHP-Originating-Script: \xff\x00:\n"))
	f.Fuzz(func(t *testing.T, header []byte) {
		if s := scriptOf(header); len(s) > maxScript || !plain(s) {
			t.Fatalf("got %q", s)
		}
	})
}
