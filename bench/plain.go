package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"os"

	gomilter "github.com/emersion/go-milter"
)

// servePlain is the library as it comes: one server, its own no-op milter.
func servePlain(socket string) error {
	l, err := listen(socket)
	if err != nil {
		return err
	}
	log.SetOutput(io.Discard) // it logs each connection that ends without a quit
	s := gomilter.Server{NewMilter: func() gomilter.Milter { return gomilter.NoOpMilter{} }}
	return s.Serve(l)
}

// listen opens a socket that Postfix's own account may use.
func listen(socket string) (net.Listener, error) {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", socket, err)
	}
	return l, os.Chmod(socket, 0o666)
}
