package localdb

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/weir-dev/weir/internal/filelock"
)

const (
	// lockName is the file that is locked while a DB runs. It also marks the
	// folder as one that localdb made and may remove.
	lockName = "weir-localdb.lock"
	// standInRoot holds the folders of a root whose own folders the server
	// account cannot reach.
	standInRoot = "/var/lib/weir"
)

// folder is Config.Dir, locked, and the home of the servers' files.
//
//	data/            PostgreSQL's data; data.new while initdb is at work
//	password         of the user weir
//	superuser        the superuser's password
//	ports.json       of the last start
//	pgbouncer.ini, userlist.txt, pgbouncer.pid
//	postgres.log, pgbouncer.log
type folder struct {
	dir       string // Config.Dir: the lock is here, always
	home      string // the other files are here
	account   account
	lock      *os.File
	temporary bool
}

// openFolder makes, claims and locks the folder and finds a home that the
// server account can use.
func openFolder(ctx context.Context, config Config) (_ *folder, err error) {
	f := &folder{dir: config.Dir, temporary: config.Dir == ""}
	if f.account, err = serverAccount(); err != nil {
		return nil, err
	}
	if f.temporary {
		if f.dir, err = os.MkdirTemp("", "weir-localdb-"); err != nil {
			return nil, fmt.Errorf("localdb: make a temporary folder: %w", err)
		}
	}
	if f.dir, err = filepath.Abs(f.dir); err != nil {
		return nil, fmt.Errorf("localdb: folder %s: %w", f.dir, err)
	}
	if err := makePrivate(f.dir); err != nil { // for the lock
		return nil, err
	}
	if f.lock, err = claim(f.dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close())
		}
	}()

	for _, f.home = range []string{f.dir, standIn(f.dir)} {
		if err := makePrivate(f.home); err != nil {
			return nil, err
		}
		if err := f.account.chown(f.home); err != nil {
			return nil, fmt.Errorf("localdb: give %s to the server account: %w", f.home, err)
		}
		usable, err := f.account.canUse(ctx, f.home)
		if err != nil {
			return nil, err
		}
		if usable {
			if f.home != f.dir {
				config.Log.Info("the user "+systemUser+" cannot reach the folder; its files are elsewhere", "folder", f.dir, "home", f.home)
			}
			return f, nil
		}
	}
	return nil, fmt.Errorf("localdb: the user %q, whom PostgreSQL runs as because root may not, can use neither %s nor %s:"+
		" choose a folder it can reach, or run as an ordinary user", systemUser, f.dir, f.home)
}

// makePrivate makes dir with mode 0700, its parents with 0755.
func makePrivate(dir string) error {
	// The parents let the server account through; dir itself is private.
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("localdb: make the parent of %s: %w", dir, err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("localdb: make %s: %w", dir, err)
	}
	return nil
}

// claim locks dir. It refuses a folder with somebody else's files: Start
// would change its owner and Remove would empty it.
func claim(dir string) (*os.File, error) {
	path := filepath.Join(dir, lockName)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, fmt.Errorf("localdb: read %s: %w", dir, err)
		}
		if len(entries) > 0 {
			return nil, fmt.Errorf("localdb: %s has files that are not localdb's (%s, …): choose an empty folder", dir, entries[0].Name())
		}
	}
	lock, err := filelock.Acquire(path)
	if errors.Is(err, filelock.ErrHeld) {
		return nil, errors.Join(fmt.Errorf("%w: %s", ErrInUse, dir), lock.Close())
	}
	if err != nil {
		return nil, fmt.Errorf("localdb: folder %s: %w", dir, err)
	}
	return lock, nil
}

// standIn is the folder that stands in for dir when the server account cannot
// reach it. The same dir has the same one, so that its data is found again.
func standIn(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return filepath.Join(standInRoot, hex.EncodeToString(sum[:8]))
}

// close releases the lock and removes what was temporary.
func (f *folder) close() error {
	var err error
	if f.temporary {
		err = os.RemoveAll(f.dir)
		if f.home != f.dir && f.home != "" {
			err = errors.Join(err, os.RemoveAll(f.home))
		}
	}
	return errors.Join(err, f.lock.Close())
}

func (f *folder) path(name string) string { return filepath.Join(f.home, name) }
func (f *folder) data() string            { return f.path("data") }

// dataVersion is the major version of the data, "" when there is none yet.
func (f *folder) dataVersion() (string, error) {
	version, err := os.ReadFile(filepath.Join(f.data(), "PG_VERSION"))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("localdb: read the version of the data: %w", err)
	}
	return strings.TrimSpace(string(version)), nil
}

// write puts a file into the home atomically, readable only by the server account.
func (f *folder) write(path, content string) error {
	temporary := path + ".new"
	err := os.WriteFile(temporary, []byte(content), 0o600)
	if err == nil {
		err = f.account.chown(temporary)
	}
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		return fmt.Errorf("localdb: write %s: %w", path, err)
	}
	return nil
}

// openLog opens a server's log for appending.
func (f *folder) openLog(name string) (*os.File, error) {
	path := f.path(name)
	if info, err := os.Stat(path); err == nil && info.Size() > maxLogBytes {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, fmt.Errorf("localdb: set the old log aside: %w", err)
		}
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("localdb: open log: %w", err)
	}
	if err := f.account.chown(path); err != nil {
		return nil, errors.Join(fmt.Errorf("localdb: give %s to the server account: %w", path, err), file.Close())
	}
	return file, nil
}

// secrets are the two passwords.
type secrets struct {
	user      string
	superuser string
}

// loadSecrets reads the passwords, and makes missing ones unless there is data already, which has the old ones.
func (f *folder) loadSecrets() (secrets, error) {
	version, err := f.dataVersion()
	if err != nil {
		return secrets{}, err
	}
	load := func(name string) (string, error) {
		password, err := os.ReadFile(f.path(name))
		switch {
		case err == nil && len(password) > 0:
			return strings.TrimSpace(string(password)), nil
		case err != nil && !errors.Is(err, os.ErrNotExist):
			return "", fmt.Errorf("localdb: read password: %w", err)
		case version != "":
			return "", fmt.Errorf("localdb: %s is missing, and the data beside it needs it: put it back, or remove the data (make clean-data)", f.path(name))
		}
		// Letters and digits only: goes into URLs, SQL and userlist.txt as it is.
		made := rand.Text()
		return made, f.write(f.path(name), made+"\n")
	}
	var s secrets
	if s.user, err = load("password"); err != nil {
		return s, err
	}
	s.superuser, err = load("superuser")
	return s, err
}

// ports are where the servers listen, on loopback.
type ports struct {
	Postgres  int `json:"postgres"`
	PgBouncer int `json:"pgbouncer"`
}

// loadPorts reads the ports of the last start. They are a preference: a missing or broken file is no error.
func (f *folder) loadPorts() ports {
	var p ports
	content, err := os.ReadFile(f.path("ports.json"))
	if err != nil || json.Unmarshal(content, &p) != nil {
		return ports{}
	}
	return p
}

func (f *folder) savePorts(p ports) error {
	content, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("localdb: encode ports: %w", err)
	}
	return f.write(f.path("ports.json"), string(content)+"\n")
}
