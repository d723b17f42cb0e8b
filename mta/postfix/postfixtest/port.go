package postfixtest

import (
	"net"
)

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
