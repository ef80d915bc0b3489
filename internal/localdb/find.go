package localdb

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// programs are the absolute paths of what is run.
type programs struct {
	initdb    string
	postgres  string
	pgbouncer string
}

const installHint = "run hack/install-deps.sh, or install it: " +
	"apt-get install postgresql pgbouncer (Debian, Ubuntu), brew install postgresql@16 pgbouncer (macOS)"

// findPrograms looks in the known places first and in PATH last: a PATH may
// hold wrappers. hack/install-deps.sh looks in the same places.
func findPrograms(ctx context.Context, f *folder) (programs, error) {
	var found programs
	bin, err := findPostgres(ctx, f)
	if err != nil {
		return found, err
	}
	found.initdb = filepath.Join(bin, "initdb")
	found.postgres = filepath.Join(bin, "postgres")

	places := append([]string{
		"/usr/sbin", "/opt/homebrew/opt/pgbouncer/bin", "/opt/homebrew/bin", "/usr/local/opt/pgbouncer/bin", "/usr/local/bin",
	}, filepath.SplitList(os.Getenv("PATH"))...)
	for _, place := range places {
		if path := filepath.Join(place, "pgbouncer"); executable(path) {
			found.pgbouncer = path
			return found, nil
		}
	}
	return found, &MissingError{Program: "pgbouncer", Searched: places, Install: installHint}
}

// findPostgres returns the folder of initdb and postgres: the newest, unless
// there is data already, which only its own major version can read.
func findPostgres(ctx context.Context, f *folder) (string, error) {
	var candidates, searched []string
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin",
		"/opt/homebrew/opt/postgresql@*/bin", "/usr/local/opt/postgresql@*/bin",
	} {
		searched = append(searched, pattern)
		places, err := filepath.Glob(pattern)
		if err != nil {
			return "", fmt.Errorf("localdb: look for PostgreSQL in %s: %w", pattern, err)
		}
		slices.SortStableFunc(places, func(a, b string) int { return cmp.Compare(versionInPath(b), versionInPath(a)) })
		candidates = append(candidates, places...)
	}
	fromPath := filepath.SplitList(os.Getenv("PATH"))
	searched = append(searched, fromPath...)
	candidates = slices.DeleteFunc(append(candidates, fromPath...), func(place string) bool {
		return !executable(filepath.Join(place, "postgres")) || !executable(filepath.Join(place, "initdb"))
	})
	if len(candidates) == 0 {
		return "", &MissingError{Program: "postgres and initdb", Searched: searched, Install: installHint}
	}

	wanted, err := f.dataVersion()
	if err != nil || wanted == "" {
		return candidates[0], err
	}
	for _, place := range candidates {
		out, err := exec.CommandContext(ctx, filepath.Join(place, "postgres"), "--version").Output()
		if err != nil {
			continue // cannot even say its version: no candidate
		}
		// "postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)"
		if _, version, _ := strings.Cut(string(out), ") "); strings.HasPrefix(version, wanted+".") {
			return place, nil
		}
	}
	return "", fmt.Errorf("localdb: the data in %s is PostgreSQL %s's, found only %v: install version %s, or remove the data (make clean-data)",
		f.data(), wanted, candidates, wanted)
}

func versionInPath(path string) int {
	number := regexp.MustCompile(`\d+`).FindString(path)
	version, _ := strconv.Atoi(number) // no number: 0, sorts last
	return version
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}
