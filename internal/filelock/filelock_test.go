package filelock

import (
	"errors"
	"io"
	"path/filepath"
	"testing"
)

func TestOneHolderAtATime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := Acquire(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.WriteString("me"); err != nil {
		t.Fatal(err)
	}
	second, err := Acquire(path)
	if !errors.Is(err, ErrHeld) {
		t.Fatalf("got %v, want ErrHeld", err)
	}
	if note, err := io.ReadAll(second); err != nil || string(note) != "me" {
		t.Errorf("the holder's note reads %q (%v)", note, err)
	}
	if err := errors.Join(second.Close(), first.Close()); err != nil {
		t.Fatal(err)
	}
	third, err := Acquire(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := third.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Acquire(filepath.Join(path, "below", "a file")); err == nil || errors.Is(err, ErrHeld) {
		t.Errorf("got %v", err)
	}
}
