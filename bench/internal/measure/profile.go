package measure

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
)

// kind is a profile, and what go tool pprof is asked for in a table of it.
type kind struct {
	name string
	how  []string
}

// kinds are the profiles that are written.
func kinds() []kind {
	return []kind{{"cpu", nil}, {"allocs", []string{"-sample_index=alloc_objects"}}, {"block", []string{"-cum"}}, {"mutex", []string{"-cum"}}}
}

// before is the profile of what the process has allocated before the work begins: the peers that are linked make much as they are
// initialised.
const before = "allocs-before"

// profiled runs f and writes its profiles (cpu, allocs, block, mutex) into dir.
func profiled(dir string, f func() error) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	runtime.MemProfileRate = 64 << 10   // bytes: eight times as fine as Go's own
	runtime.SetBlockProfileRate(10_000) // nanoseconds
	runtime.SetMutexProfileFraction(10)
	if err := writeProfile("allocs", filepath.Join(dir, before+".pprof")); err != nil {
		return err
	}
	cpu, err := os.Create(filepath.Join(dir, "cpu.pprof"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cpu.Close()) }()
	if err := pprof.StartCPUProfile(cpu); err != nil {
		return err
	}
	err = f()
	pprof.StopCPUProfile()
	for _, k := range kinds()[1:] {
		err = errors.Join(err, writeProfile(k.name, filepath.Join(dir, k.name+".pprof")))
	}
	return err
}

func writeProfile(name, path string) (err error) {
	if name == "allocs" {
		runtime.GC() // it tells of what was allocated until the last collection
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return pprof.Lookup(name).WriteTo(file, 0)
}

// describe writes beside the profiles in dir what the round reached with them on (round.json), and of each profile the 40 functions with
// most (cpu.txt, …): of cpu, time within themselves; of allocs, objects; of block and mutex, time that they and what they call waited.
func describe(ctx context.Context, dir string, r Round) error {
	about, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "round.json"), append(about, '\n'), 0o644); err != nil {
		return err
	}
	for _, k := range kinds() {
		args := append([]string{"tool", "pprof", "-top", "-nodecount=40"}, k.how...)
		if k.name == "allocs" {
			args = append(args, "-base="+filepath.Join(dir, before+".pprof"))
		}
		top, err := exec.CommandContext(ctx, "go", append(args, filepath.Join(dir, k.name+".pprof"))...).Output()
		if err != nil {
			return fmt.Errorf("go tool pprof, %s: %w", k.name, err)
		}
		if err := os.WriteFile(filepath.Join(dir, k.name+".txt"), top, 0o644); err != nil {
			return err
		}
	}
	return nil
}
