package call

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// Ask tells the daemon on that socket of a call, and returns its answer. It
// returns by ctx's deadline. An error means that nobody answered in time, or not
// in this language: the mail goes on as if there were no daemon.
func Ask(ctx context.Context, socket string, q Question) (Answer, error) {
	line, err := encodeQuestion(q)
	if err != nil {
		return Answer{}, err
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return Answer{}, fmt.Errorf("ask the daemon: %w", err)
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := conn.Write(line); err != nil {
		return Answer{}, fmt.Errorf("ask the daemon: %w", err)
	}
	line, err = bufio.NewReader(io.LimitReader(conn, maxAnswer)).ReadBytes('\n')
	if errors.Is(err, io.EOF) {
		err = errors.New("it hung up")
	}
	if err != nil {
		return Answer{}, fmt.Errorf("read the daemon's answer: %w", err)
	}
	return decodeAnswer(line)
}
