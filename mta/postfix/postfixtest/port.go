package postfixtest

import (
	"fmt"
	"net"
)

// freePorts takes n loopback ports from the kernel, all different, and lets
// go of them. Somebody else may take one before Postfix does: Start then
// tries with others.
func freePorts(n int) ([]string, error) {
	var addrs []string
	for range n {
		listener, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a free loopback port: %w", err)
		}
		defer listener.Close() // together, so that none is given twice
		addrs = append(addrs, listener.Addr().String())
	}
	return addrs, nil
}

// firstTaken returns an address that cannot be listened on, "" if all can.
func firstTaken(addrs map[string]string) string {
	for _, addr := range addrs {
		listener, err := net.Listen("tcp4", addr)
		if err != nil {
			return addr
		}
		listener.Close()
	}
	return ""
}
