package servertest

import (
	"fmt"
	"net"
	"strconv"
)

// FreePorts takes n loopback ports from the kernel, all different, and lets go of
// them. Somebody else may take one before the server does: it is then started with
// others.
func FreePorts(n int) ([]string, error) {
	var ports []string
	for range n {
		listener, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a free loopback port: %w", err)
		}
		defer listener.Close() // together, so that none is given twice
		ports = append(ports, strconv.Itoa(listener.Addr().(*net.TCPAddr).Port))
	}
	return ports, nil
}
