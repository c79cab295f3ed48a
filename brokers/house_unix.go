//go:build unix

package brokers

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

//go:embed keeper.sh
var keeperScript string

// A house is the private directory in which the native brokers of one user of this machine live, one directory per instance.
//
//	kafka.lock            held while an instance is looked for, started or set up
//	kafka-<random>/       an instance
//	  users               a fifo: whoever holds its writing end open uses the broker, so a killed process lets go as well
//	  joined              touched by each user, removed by the keeper: whether somebody came while it lingered
//	  ready               the instance's state; it goes first when the instance ends
//	  pid, helpers        the broker's process, and others that end with it
//	  exited, broker.log  how the broker ended, and what it logged
//	  keep                the owner of an exclusive instance will start it again
//	ports/<port>          the lock of a port that a process has chosen, or found taken; the file stays
type house struct {
	root string
}

// openHouse makes sure of the directory. One that belongs to somebody else, or that others may write to, is refused: whoever can
// write there chooses what we run.
func openHouse() (house, error) {
	root := os.Getenv("BROADWAY_BROKERS_DIR")
	if root == "" {
		root = filepath.Join(os.TempDir(), "gobroadway-brokers-"+strconv.Itoa(os.Getuid()))
	}
	if err := os.MkdirAll(root, 0o700); err != nil {
		return house{}, err
	}
	info, err := os.Lstat(root)
	if err != nil {
		return house{}, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || int(stat.Uid) != os.Getuid() || info.Mode().Perm()&0o022 != 0 {
		return house{}, fmt.Errorf("%s must be a directory of this user that nobody else can write to", root)
	}
	root, err = filepath.EvalSymlinks(root)
	return house{root}, err
}

// lock takes the lock of that name, which a process that dies gives back.
func (h house) lock(name string) (unlock func(), err error) {
	fd, err := lockFile(filepath.Join(h.root, name+".lock"), syscall.LOCK_EX)
	if err != nil {
		return nil, err
	}
	return func() { _ = syscall.Close(fd) }, nil // closing gives the lock back, and nothing was written
}

// lockFile opens a file, which it creates where there is none, and takes its lock, which ends with the descriptor.
func lockFile(name string, how int) (fd int, err error) {
	fd, err = syscall.Open(name, syscall.O_CREAT|syscall.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", name, err)
	}
	for {
		err = syscall.Flock(fd, how)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		return -1, errors.Join(fmt.Errorf("lock %s: %w", name, err), syscall.Close(fd))
	}
	return fd, nil
}

// share joins the running instance, or starts it.
func (h house) share(ctx context.Context, l launcher) (*instance, error) {
	unlock, err := h.lock(l.kind())
	if err != nil {
		return nil, err
	}
	defer unlock()
	h.sweep(l.kind())
	for _, dir := range h.instances(l.kind()) {
		if in := join(ctx, l, dir); in != nil {
			return in, nil
		}
	}
	return h.start(ctx, l)
}

// instances lists the directories of one kind.
func (h house) instances(kind string) []string {
	dirs, err := filepath.Glob(filepath.Join(h.root, kind+"-*"))
	if err != nil {
		return nil // only a malformed pattern, which this is not
	}
	return dirs
}

// sweep removes what a keeper that was killed itself left behind. It is called with the lock held, so that an instance that is
// only being set up is not taken for a dead one.
func (h house) sweep(kind string) {
	for _, dir := range h.instances(kind) {
		users, err := openUsers(dir)
		if err == nil {
			_ = syscall.Close(users)
			continue
		}
		if errors.Is(err, syscall.ENXIO) || errors.Is(err, syscall.ENOENT) {
			killLeftovers(dir)
			_ = os.RemoveAll(dir) // the next sweep tries again
		}
	}
}

// openUsers opens the writing end of an instance's fifo. ENXIO means that nobody reads it: the keeper is dead.
func openUsers(dir string) (int, error) {
	return syscall.Open(filepath.Join(dir, "users"), syscall.O_WRONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
}

// killLeftovers ends the processes of an instance whose keeper is dead. A process id may have been given to somebody else since:
// only one whose working directory is the instance's is killed (where /proc does not tell, none).
func killLeftovers(dir string) {
	for _, name := range []string{"pid", "helpers"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			continue
		}
		for _, field := range strings.Fields(string(text)) {
			cwd, err := os.Readlink("/proc/" + field + "/cwd")
			if pid, convErr := strconv.Atoi(field); err == nil && convErr == nil && strings.HasPrefix(cwd, dir) {
				_ = syscall.Kill(pid, syscall.SIGKILL) // gone already is as good
			}
		}
	}
}

// join becomes a user of a running instance, or returns nil if it is not one that can be used. The order matters, see keeper.sh.
func join(ctx context.Context, l launcher, dir string) *instance {
	users, err := openUsers(dir)
	if err != nil {
		return nil
	}
	in := &instance{dir: dir, hold: os.NewFile(uintptr(users), "users")}
	if in.adopt(ctx, l) {
		return in
	}
	_ = in.hold.Close() // it was never written to
	return nil
}

// adopt finishes a join whose fifo is open: says so, and then looks whether the instance is still to be had.
func (in *instance) adopt(ctx context.Context, l launcher) bool {
	var err error
	if in.state, err = readState(in.dir); err != nil || in.state.Key != l.key() {
		return false
	}
	if err := os.WriteFile(filepath.Join(in.dir, "joined"), nil, 0o600); err != nil {
		return false
	}
	if _, err := readState(in.dir); err != nil {
		return false
	}
	if _, exited := exitStatus(in.dir); exited {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return l.probe(ctx, in.dir, in.state) == nil
}

// start starts a shared instance. A port can be taken by a program that claims none between being chosen and being used, hence the second try.
func (h house) start(ctx context.Context, l launcher) (*instance, error) {
	for try := 1; ; try++ {
		in, err := h.create(l)
		if err != nil {
			return nil, err
		}
		if err = in.run(l, linger); err == nil {
			err = awaitReady(ctx, l, in.dir, in.state)
		}
		if err == nil {
			err = writeState(in.dir, in.state)
		}
		if err == nil {
			return in, errors.Join(drop(&in.alive), drop(&in.done))
		}
		err = errors.Join(err, in.leave())
		if try == 2 || ctx.Err() != nil {
			return nil, err
		}
	}
}

// createLocked is create for an instance that is not shared.
func (h house) createLocked(l launcher) (*instance, error) {
	unlock, err := h.lock(l.kind())
	if err != nil {
		return nil, err
	}
	defer unlock()
	h.sweep(l.kind())
	return h.create(l)
}

// finish ends an exclusive instance, running or not, and returns when nothing of it is left.
func (in *instance) finish() error {
	var err error
	if in.hold != nil {
		err = drop(&in.hold)
		if in.done != nil {
			err = errors.Join(err, in.awaitKeeper())
		}
	}
	return errors.Join(err, in.leave(), os.RemoveAll(in.dir))
}

// create makes and prepares the directory of a new instance. The lock is held.
func (h house) create(l launcher) (*instance, error) {
	dir, err := os.MkdirTemp(h.root, l.kind()+"-")
	if err != nil {
		return nil, err
	}
	in := &instance{dir: dir}
	if in.state, err = l.prepare(dir); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "users"), 0o600); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	alive, err := syscall.Open(filepath.Join(dir, "users"), syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	in.alive = os.NewFile(uintptr(alive), "users")
	return in, nil
}

// run starts the broker of a created or stopped instance under a keeper. It does not wait until the broker answers.
func (in *instance) run(l launcher, linger time.Duration) error {
	users, err := openUsers(in.dir)
	if err != nil {
		return err
	}
	in.hold = os.NewFile(uintptr(users), "users")
	for _, trace := range []string{"exited", "pid", "helpers", "keep"} { // of an earlier run
		if err := os.Remove(filepath.Join(in.dir, trace)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	// A second opening of the same end: cat must block, and whether it does belongs to the opening. It cannot block here, for
	// the writing end is open.
	reader, err := os.OpenFile(filepath.Join(in.dir, "users"), os.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer reader.Close()
	done, over, err := os.Pipe()
	if err != nil {
		return err
	}
	defer over.Close()
	in.done = done
	return in.keeper(l, linger, reader, over)
}

// keeper starts keeper.sh. The shell forks and returns at once: the keeper has a session of its own, so that neither the death of
// this process nor an interrupt of its terminal reaches it, and it is nobody's child here.
func (in *instance) keeper(l launcher, linger time.Duration, reader, over *os.File) error {
	until := os.Getenv("BROADWAY_BROKERS_UNTIL")
	if _, err := strconv.Atoi(until); err != nil || linger == 0 {
		until = "0"
	}
	argv, env := l.command(in.dir, in.state)
	args := append([]string{"-c", keeperScript, "keeper", strconv.Itoa(int(linger / time.Second)), until}, argv...)
	cmd := exec.Command("sh", args...)
	cmd.Dir = in.dir
	cmd.Env = append(os.Environ(), env...)
	cmd.ExtraFiles = []*os.File{reader, over}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("start the keeper: %w", err)
	}
	return nil
}
