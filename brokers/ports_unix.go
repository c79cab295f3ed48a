//go:build unix

package brokers

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// claimPort reports whether port is now this process's to use: whoever has the lock of its file has the port. Nothing gives it back but
// the end of the process, however it ends.
func claimPort(port int) (bool, error) {
	h, err := openHouse()
	if err != nil {
		return false, err
	}
	dir := filepath.Join(h.root, "ports")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return false, err
	}
	_, err = lockFile(filepath.Join(dir, strconv.Itoa(port)), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}
