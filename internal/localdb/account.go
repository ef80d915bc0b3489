package localdb

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
)

// account is the user that the servers run as. The zero account is the caller's own.
type account struct {
	credential *syscall.Credential
}

// systemUser is the account that distributions' PostgreSQL packages make.
const systemUser = "postgres"

// serverAccount picks the account: PostgreSQL and PgBouncer both refuse root.
func serverAccount() (account, error) {
	if os.Geteuid() != 0 {
		return account{}, nil
	}
	u, err := user.Lookup(systemUser)
	if err != nil {
		return account{}, fmt.Errorf("localdb: PostgreSQL does not run as root, and the system user %q it would run as is not there"+
			" (run as an ordinary user, or create it): %w", systemUser, err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return account{}, fmt.Errorf("localdb: uid of %s: %w", systemUser, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return account{}, fmt.Errorf("localdb: gid of %s: %w", systemUser, err)
	}
	return account{credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
}

// chown gives a file or folder to the account.
func (a account) chown(path string) error {
	if a.credential == nil {
		return nil
	}
	return os.Chown(path, int(a.credential.Uid), int(a.credential.Gid))
}

// canUse reports whether the account can get to the folder and write in it. It asks the kernel as that account: mode
// bits are not enough, there may be access lists and mounts.
func (a account) canUse(ctx context.Context, dir string) (bool, error) {
	if a.credential == nil {
		return true, nil // the caller made it
	}
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", `cd "$0" && test -w .`, dir)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: a.credential}
	err := cmd.Run()
	if ctx.Err() != nil { // no answer, and "no" would move the data elsewhere
		return false, context.Cause(ctx)
	}
	var refused *exec.ExitError
	if err != nil && !errors.As(err, &refused) {
		return false, fmt.Errorf("localdb: ask whether %s can use %s: %w", systemUser, dir, err)
	}
	return err == nil, nil
}
