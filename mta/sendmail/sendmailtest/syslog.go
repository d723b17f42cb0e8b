package sendmailtest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"sync"
)

// syslogServer writes what comes to a socket like /dev/log into a file, in the
// form of syslogd: "Jan  2 15:04:05 HOST TAG[PID]: TEXT".
type syslogServer struct {
	conn *net.UnixConn
	file *os.File
	host string
	done sync.WaitGroup
}

// longestRecord is far above what Sendmail writes: it splits at some 1 kB.
const longestRecord = 64 << 10

// record is how libc writes to /dev/log: priority, time without year or host.
var record = regexp.MustCompile(`(?s)^<\d{1,3}>([A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d) (.*)$`)

func startSyslog(socket, path, host string) (*syslogServer, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return nil, fmt.Errorf("make Sendmail's log: %w", err)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err == nil {
		err = os.Chmod(socket, 0o666) // sendmail(1) logs as anybody
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make Sendmail's log socket: %w", err), file.Close())
	}
	s := &syslogServer{conn: conn, file: file, host: host}
	s.done.Go(s.serve)
	return s, nil
}

func (s *syslogServer) serve() {
	buffer := make([]byte, longestRecord)
	for {
		n, err := s.conn.Read(buffer)
		if err != nil {
			return // closed
		}
		text := strings.TrimRight(string(buffer[:n]), "\n\x00")
		text = strings.NewReplacer("\n", " ", "\x00", " ").Replace(text)
		if match := record.FindStringSubmatch(text); match != nil {
			text = match[1] + " " + s.host + " " + match[2]
		}
		// A full disk fails whoever waits for the line.
		_, _ = io.WriteString(s.file, text+"\n")
	}
}

func (s *syslogServer) close() error {
	err := s.conn.Close()
	s.done.Wait()
	return errors.Join(err, s.file.Close())
}
