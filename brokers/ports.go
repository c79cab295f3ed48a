package brokers

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
)

// freePorts returns n loopback ports that nobody listens on, and that no other process with the same directory of brokers is given before this one ends.
// That nobody listens is not enough: a broker that starts opens its ports seconds after they were chosen, one that was killed wants them
// back, and tests that run beside it choose ports meanwhile. They lie below the range that Linux and macOS use for outgoing connections: a client
// that dials a dead port of that range can be given the same port as its own and so connect to itself, and then the broker cannot come
// back.
func freePorts(n int) ([]int, error) {
	const low, high = 17000, 25000
	var ports []int
	for range 100 * n {
		if len(ports) == n {
			return ports, nil
		}
		port := low + rand.IntN(high-low)
		claimed, err := claimPort(port)
		if err != nil {
			return nil, err
		}
		if !claimed {
			continue
		}
		probe, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue // somebody else's: it stays claimed, for nobody can use it
		}
		if err := probe.Close(); err != nil {
			return nil, err
		}
		ports = append(ports, port)
	}
	return nil, errors.New("no free loopback port between 17000 and 25000")
}

// namedPorts returns a free port for each name.
func namedPorts(names ...string) (map[string]int, error) {
	ports, err := freePorts(len(names))
	if err != nil {
		return nil, err
	}
	named := make(map[string]int, len(names))
	for i, name := range names {
		named[name] = ports[i]
	}
	return named, nil
}
