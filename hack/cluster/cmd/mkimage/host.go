package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// merge makes /bin, /lib and so on links, if they are on this machine: paths are copied with their links resolved.
func (t *tree) merge() error {
	for _, name := range []string{"/bin", "/sbin", "/lib", "/lib64"} {
		target, err := os.Readlink(name)
		if err != nil {
			continue // a folder of its own here, or not there
		}
		t.folder(filepath.Join("/", target), 0o755)
		t.symlink(name, target)
	}
	return nil
}

// copy takes a file of this machine, at its path there. A link becomes the file it leads to.
func (t *tree) copy(name string) error {
	folder, err := filepath.EvalSymlinks(filepath.Dir(name))
	if err != nil {
		return err
	}
	name = filepath.Join(folder, filepath.Base(name))
	if t.has(name) {
		return nil
	}
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	content, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	// Readable by any uid; the bits that give rights (setuid) are left behind.
	t.file(name, int64(info.Mode().Perm()|0o444), content)
	return nil
}

// copyAll takes the files below a folder of this machine. Links stay links if they lead nowhere else.
func (t *tree) copyAll(root string) error {
	root, err := filepath.EvalSymlinks(root)
	if err != nil {
		return err
	}
	return filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			t.folder(name, 0o755)
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(name)
			if err != nil {
				return err
			}
			if resolved := filepath.Join(filepath.Dir(name), target); !filepath.IsAbs(target) &&
				strings.HasPrefix(resolved, root+"/") {
				t.symlink(name, target)
				return nil
			}
			if err := t.copy(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		case d.Type().IsRegular():
			return t.copy(name)
		}
		return nil
	})
}

// program takes a program or a shared library of this machine and all the libraries that it loads.
func (t *tree) program(name string) error {
	if err := t.copy(name); err != nil {
		return err
	}
	output, err := exec.Command("ldd", name).CombinedOutput()
	if err != nil {
		if strings.Contains(string(output), "not a dynamic executable") || strings.Contains(string(output), "statically linked") {
			return nil
		}
		return fmt.Errorf("ldd %s: %w: %s", name, err, output)
	}
	for line := range strings.Lines(string(output)) {
		library, err := parseLibrary(line)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if library == "" {
			continue
		}
		if err := t.copy(library); err != nil {
			return err
		}
	}
	return nil
}

// parseLibrary reads a line of ldd: "libz.so.1 => /lib/libz.so.1 (0x7f…)", "/lib64/ld-linux.so (0x7f…)", or the
// kernel's own, which has no file.
func parseLibrary(line string) (string, error) {
	line = strings.TrimSpace(line)
	soname, found, ok := strings.Cut(line, " => ")
	if !ok {
		found = line
	}
	if strings.HasPrefix(found, "not found") {
		return "", fmt.Errorf("its library %s is not installed", soname)
	}
	file, _, _ := strings.Cut(found, " (")
	if !strings.HasPrefix(file, "/") {
		return "", nil
	}
	return file, nil
}
