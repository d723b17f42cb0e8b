package sendmailtest

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// listening tells whether somebody listens on 127.0.0.1 at each of the ports.
// No connection is made: a milter would be told of it, and may not be up yet.
func listening(ports map[string]string) (bool, error) {
	file, err := os.Open("/proc/net/tcp")
	if err != nil {
		return false, fmt.Errorf("look for listening ports: %w", err)
	}
	defer file.Close()
	open := make(map[string]bool)
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Fields(lines.Text()) // N: LOCAL REMOTE STATE; 0A is LISTEN
		if len(fields) > 3 && fields[3] == "0A" {
			open[fields[1]] = true
		}
	}
	for _, port := range ports {
		number, err := strconv.Atoi(port)
		if err != nil {
			return false, fmt.Errorf("port %q: %w", port, err)
		}
		if !open[fmt.Sprintf("0100007F:%04X", number)] {
			return false, nil
		}
	}
	return true, nil
}
