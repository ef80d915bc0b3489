package main

import (
	"errors"
	"syscall"
)

// poll waits for many files at once (epoll(7)): a goroutine for each connection would cost the client more than its
// message does.
type poll struct {
	fd     int
	events []syscall.EpollEvent
	ready  []int
}

func newPoll() (*poll, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	return &poll{fd: fd, events: make([]syscall.EpollEvent, 256)}, err
}

func (p *poll) add(fd int) error {
	return syscall.EpollCtl(p.fd, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP, Fd: int32(fd)})
}

// wait returns files that can be read, until its next call. Without block it returns none rather than wait.
func (p *poll) wait(block bool) ([]int, error) {
	timeout := 0
	if block {
		timeout = -1
	}
	n, err := syscall.EpollWait(p.fd, p.events, timeout)
	if err != nil && !errors.Is(err, syscall.EINTR) {
		return nil, err
	}
	p.ready = p.ready[:0]
	for i := range n {
		p.ready = append(p.ready, int(p.events[i].Fd))
	}
	return p.ready, nil
}
