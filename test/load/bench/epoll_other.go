//go:build !linux

package main

import "errors"

// poll is only on Linux.
type poll struct{}

func newPoll() (*poll, error) { return nil, errors.ErrUnsupported }

func (*poll) add(int) error { return errors.ErrUnsupported }

func (*poll) wait(bool) ([]int, error) { return nil, errors.ErrUnsupported }
