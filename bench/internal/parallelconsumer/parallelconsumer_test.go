package parallelconsumer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSetupSaysWhatIsMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	t.Setenv("JAVA_HOME", "")
	err := Setup(t.Context(), t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "no javac found: install a JDK") {
		t.Errorf("without Java: %v", err)
	}
	jdk := t.TempDir()
	if err := os.Mkdir(filepath.Join(jdk, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(jdk, "bin", "javac"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("JAVA_HOME", jdk)
	err = Setup(t.Context(), t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "no mvn found: install a JDK (17 or newer) and Maven") {
		t.Errorf("without Maven: %v", err)
	}
}

func TestSetupBuildsAgainWhatIsNotWhole(t *testing.T) {
	dir := t.TempDir()
	jar := filepath.Join(dir, "a.jar")
	for name, text := range map[string]string{"pom.xml": pom, stamp: source, "Drain.class": "", classpath: jar + "\n", "a.jar": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if !isBuilt(dir) {
		t.Fatal("what is whole would be built again")
	}
	for name, text := range map[string]string{"pom.xml": pom, stamp: source, "Drain.class": "", classpath: jar, "a.jar": ""} {
		file := filepath.Join(dir, name)
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		if isBuilt(dir) {
			t.Errorf("without %s nothing would be built", name)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, stamp), []byte(source+"\n// changed"), 0o644); err != nil {
		t.Fatal(err)
	}
	if isBuilt(dir) {
		t.Error("with another source nothing would be built")
	}
}

func TestVersionIsThatOfThePOM(t *testing.T) {
	library, client, _ := strings.Cut(Version, ", kafka-clients ")
	for artifact, version := range map[string]string{"parallel-consumer-core": library, "kafka-clients": client} {
		after := pom[strings.Index(pom, "<artifactId>"+artifact+"</artifactId>"):]
		if _, rest, _ := strings.Cut(after, "<version>"); !strings.HasPrefix(rest, version+"</version>") {
			t.Errorf("pom.xml does not take %s %s", artifact, version)
		}
	}
}
