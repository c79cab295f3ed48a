package rig

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Wrapped returns what runs a program with a small tmpfs at dir/disk, which only that program and its children see: it has a mount
// namespace of its own. The error is unshare's when that is not permitted.
func Wrapped(dir string, bytes int64) (prefix []string, disk string, err error) {
	disk = filepath.Join(dir, "disk")
	if err := os.MkdirAll(disk, 0o700); err != nil {
		return nil, "", err
	}
	mount := fmt.Sprintf(`mount -t tmpfs -o size=%d tmpfs "$0" || exit 125; exec "$@"`, bytes)
	prefix = []string{"unshare", "-m", "sh", "-c", mount, disk}
	if text, err := exec.Command(prefix[0], append(prefix[1:], "true")...).CombinedOutput(); err != nil {
		return nil, "", fmt.Errorf("no private mount namespace with a tmpfs here: %w: %s", err, text)
	}
	return prefix, disk, nil
}
