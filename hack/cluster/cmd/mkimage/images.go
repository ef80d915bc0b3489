package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const (
	certificates = "/etc/ssl/certs/ca-certificates.crt"
	nonroot      = "65532:65532"
)

// users writes the users that an image knows; each is NAME:UID.
func (t *tree) users(users ...string) error {
	var passwd, group strings.Builder
	for _, user := range append([]string{"root:0", "nonroot:65532", "nobody:65534"}, users...) {
		name, id, ok := strings.Cut(user, ":")
		if !ok {
			return fmt.Errorf("user %q: want NAME:UID", user)
		}
		fmt.Fprintf(&passwd, "%s:x:%s:%s:%s:/:/sbin/nologin\n", name, id, id, name)
		fmt.Fprintf(&group, "%s:x:%s:\n", name, id)
	}
	t.file("/etc/passwd", 0o644, []byte(passwd.String()))
	t.file("/etc/group", 0o644, []byte(group.String()))
	return nil
}

// base is what a static binary may look for. No shell, no libraries.
func base() (*contents, error) {
	files := newTree()
	files.folder("/tmp", 0o1777)
	files.folder("/var/run/ko", 0o755)
	if err := files.users(); err != nil {
		return nil, err
	}
	// A machine without the package has none, and nothing in the cluster can reach a host that would need them.
	if content, err := os.ReadFile(certificates); err == nil {
		files.file(certificates, 0o644, content)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return &contents{files: files, config: v1.Config{
		User:       nonroot,
		WorkingDir: "/",
		Env:        []string{"PATH=/ko-app", "SSL_CERT_FILE=" + certificates, "KO_DATA_PATH=/var/run/ko"},
	}}, nil
}

// staticBinary is the base with a static binary as entrypoint.
func staticBinary(binary string) (*contents, error) {
	c, err := base()
	if err != nil {
		return nil, err
	}
	content, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	entrypoint := "/ko-app/" + filepath.Base(binary)
	c.files.file(entrypoint, 0o755, content)
	c.config.Entrypoint = []string{entrypoint}
	return c, nil
}

// postgres has the interface of the Docker official image; see images/postgres/entrypoint.sh.
func postgres(script string) (*contents, error) {
	version, err := newestPostgres()
	if err != nil {
		return nil, err
	}
	programs := filepath.Join("/usr/lib/postgresql", version, "bin")
	libraries := filepath.Join("/usr/lib/postgresql", version, "lib")
	files := newTree()
	if err := files.merge(); err != nil {
		return nil, err
	}
	if err := files.users("postgres:999", "postgres70:70"); err != nil {
		return nil, err
	}
	for _, name := range []string{"postgres", "initdb", "pg_ctl", "psql", "pg_isready"} {
		if err := files.program(filepath.Join(programs, name)); err != nil {
			return nil, err
		}
	}
	// initdb runs programs through the shell; the entrypoint is a script.
	for _, name := range []string{"dash", "cat", "chmod", "id", "ls", "mkdir", "rm", "sleep"} {
		if err := files.program(filepath.Join("/usr/bin", name)); err != nil {
			return nil, err
		}
	}
	files.symlink("/usr/bin/sh", "dash")
	modules, err := filepath.Glob(filepath.Join(libraries, "*.so"))
	if err != nil {
		return nil, err
	}
	for _, module := range modules {
		// JIT compilation of queries would bring 100 MB of LLVM; without its module PostgreSQL runs without it.
		if strings.HasPrefix(filepath.Base(module), "llvmjit") {
			continue
		}
		if err := files.program(module); err != nil {
			return nil, err
		}
	}
	for _, folder := range []string{filepath.Join("/usr/share/postgresql", version), "/usr/share/zoneinfo", "/usr/lib/locale/C.utf8"} {
		if err := files.copyAll(folder); err != nil {
			return nil, err
		}
	}
	if err := files.nssWrapper(); err != nil {
		return nil, err
	}
	content, err := os.ReadFile(script)
	if err != nil {
		return nil, err
	}
	files.file("/usr/local/bin/docker-entrypoint.sh", 0o755, content)
	files.folder("/docker-entrypoint-initdb.d", 0o755)
	files.folder("/tmp", 0o1777)
	files.folder("/var/run/postgresql", 0o1777)
	files.folder("/var/lib/postgresql/data", 0o1777)
	return &contents{files: files, config: v1.Config{
		User:       "999:999",
		WorkingDir: "/",
		Entrypoint: []string{"/usr/local/bin/docker-entrypoint.sh"},
		Cmd:        []string{"postgres"},
		Env:        []string{"PATH=" + programs + ":/usr/local/bin:/usr/bin", "LANG=C.UTF-8", "PGDATA=/var/lib/postgresql/data"},
		StopSignal: "SIGINT", // PostgreSQL's fast shutdown; its SIGTERM would wait for the clients to leave
	}}, nil
}

// nssWrapper lets initdb run as a uid that /etc/passwd does not have.
func (t *tree) nssWrapper() error {
	found, err := filepath.Glob("/usr/lib/*/libnss_wrapper.so")
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return errors.New("libnss_wrapper.so is not here; to fix: apt-get install libnss-wrapper")
	}
	if err := t.program(found[0]); err != nil {
		return err
	}
	t.symlink("/usr/lib/libnss_wrapper.so", found[0])
	return nil
}

func newestPostgres() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil {
		return "", err
	}
	if len(found) == 0 {
		return "", errors.New("no PostgreSQL in /usr/lib/postgresql; to fix: hack/install-deps.sh")
	}
	version := func(program string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(program)))) // a strange name sorts first
		return n
	}
	newest := slices.MaxFunc(found, func(a, b string) int { return cmp.Compare(version(a), version(b)) })
	return filepath.Base(filepath.Dir(filepath.Dir(newest))), nil
}

func pgbouncer() (*contents, error) {
	files := newTree()
	if err := files.merge(); err != nil {
		return nil, err
	}
	if err := files.users("pgbouncer:70"); err != nil {
		return nil, err
	}
	if err := files.program("/usr/sbin/pgbouncer"); err != nil {
		return nil, err
	}
	files.folder("/etc/pgbouncer", 0o755)
	files.folder("/tmp", 0o1777)
	return &contents{files: files, config: v1.Config{
		User:       "70:70",
		WorkingDir: "/",
		Entrypoint: []string{"/usr/sbin/pgbouncer"},
		Env:        []string{"PATH=/usr/sbin", "LANG=C.UTF-8"},
	}}, nil
}
