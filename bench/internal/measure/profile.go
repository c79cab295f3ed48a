package measure

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
)

// profiled runs f and writes its profiles (cpu, allocs, block, mutex) into dir.
func profiled(dir string, f func() error) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	runtime.SetBlockProfileRate(10_000) // nanoseconds
	runtime.SetMutexProfileFraction(10)
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
	for _, name := range []string{"allocs", "block", "mutex"} {
		err = errors.Join(err, writeProfile(name, filepath.Join(dir, name+".pprof")))
	}
	return err
}

func writeProfile(name, path string) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return pprof.Lookup(name).WriteTo(file, 0)
}
