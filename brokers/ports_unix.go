//go:build unix

package brokers

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
)

// claims are the locks of the ports that this process has chosen. They are held until it ends, however it ends.
var claims struct {
	mu    sync.Mutex
	files []*os.File
}

// claimPort reports whether port is now this process's to use: whoever has the lock of its file has the port.
func claimPort(port int) (bool, error) {
	h, err := openHouse()
	if err != nil {
		return false, err
	}
	dir := filepath.Join(h.root, "ports")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return false, err
	}
	file, err := lockFile(filepath.Join(dir, strconv.Itoa(port)), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	claims.mu.Lock()
	defer claims.mu.Unlock()
	claims.files = append(claims.files, file)
	return true, nil
}
