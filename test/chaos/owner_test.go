package chaos_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/testkit"
	"github.com/weir-dev/weir/internal/testkit/processes"
)

// jobCluster is a cluster with one gateway, and dispatchers of which one owns the queue.
type jobCluster struct {
	*cluster
	l           *jobLoad
	gatewayAddr string
	dispatchers []*processes.Child
}

func newJobCluster(t *testing.T, nats natsServer, l *jobLoad) *jobCluster {
	t.Helper()
	c := &jobCluster{cluster: newCluster(t, nats, l.serve(), ""), l: l, gatewayAddr: fmt.Sprintf("127.0.0.1:%d", processes.FreePort(t))}
	c.bin = parts.raceBin
	realtime := fmt.Sprintf("127.0.0.1:%d", processes.FreePort(t))
	c.service("realtime", "realtime", "WEIR_LISTEN="+realtime)
	c.gatewayAt(c.gatewayAddr, "gateway", "WEIR_REALTIME_URL=http://"+realtime)
	c.dispatchers = append(c.dispatchers, c.begin(0))
	return c
}

func (c *jobCluster) begin(i int) *processes.Child {
	return c.dispatcher(fmt.Sprintf("dispatcher-%d", i), "WEIR_CALLBACK_URL=http://"+c.gatewayAddr)
}

const working = "working for this mapping"

// works waits until a dispatcher has begun to work.
func (c *jobCluster) works(i int) {
	c.t.Helper()
	testkit.Eventually(c.t, "a dispatcher works", func() bool { return c.dispatchers[i].Logs(working) })
}

func (c *jobCluster) restart(i int) {
	c.dispatchers[i].Kill()
	checkRaces(c.l.t, c.dispatchers[i])
	c.dispatchers[i] = c.begin(i)
}

// TestJobsAndOwners kills the owner of a queue's states a few milliseconds after calls were answered, when it writes
// their outcomes, shows them, settles the records; and it puts the owner to sleep, amid its calls and writes, until another
// one works: then it goes on. All the while jobs are submitted, cancelled and listened to.
func TestJobsAndOwners(t *testing.T) {
	l := newJobLoad(t)
	nats := newNATSServer(t)
	nats.start()
	c := newJobCluster(t, nats, l)
	l.patient = true
	l.start("http://" + c.gatewayAddr)
	for range 8 {
		l.clients.Go(func() { l.hear((*listener).events) })
	}
	kills, sleeps := size(1, 3, 40), size(1, 1, 6)
	for range kills {
		c.works(0)
		l.waitProgress(true)
		l.waitCall()
		hold(t, time.Duration(rand.Int64N(int64(25*time.Millisecond))))
		c.restart(0) // it works once the lease of the one before has expired
	}
	for i := range sleeps {
		c.works(i)
		c.dispatchers = append(c.dispatchers, c.begin(i+1))
		l.waitProgress(true)
		l.waitCall()
		c.dispatchers[i].Signal(syscall.SIGSTOP)
		c.works(i + 1)
		l.waitProgress(true)
		c.dispatchers[i].Signal(syscall.SIGCONT)
		l.waitProgress(true)
		c.dispatchers[i].Terminate() // the next one to sleep owns the queue
	}
	l.waitProgress(true)
	l.finish()
	l.verify(func() { c.restart(sleeps) })
	t.Logf("the owner was killed %d times, and slept past its lease %d times", kills+1, sleeps)
	for _, d := range c.dispatchers {
		d.Terminate()
		checkRaces(t, d)
	}
}

// waitCall waits until the function is called.
func (l *jobLoad) waitCall() {
	l.t.Helper()
	calls := l.called.Load()
	testkit.Eventually(l.t, "the function is called", func() bool { return l.called.Load() > calls })
}

// disk is a file system in an image. What was not synced isn't in the image.
type disk struct {
	t          *testing.T
	image, dir string
}

// newDisk mounts one, or skips the test.
func newDisk(t *testing.T, megabytes int64) *disk {
	t.Helper()
	if runtime.GOOS != "linux" || os.Getuid() != 0 {
		t.Skip("SKIPPED: NOTHING was shown about a power cut: mounting an image takes root on Linux")
	}
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		t.Skip("SKIPPED: NOTHING was shown about a power cut: there is no mkfs.ext4")
	}
	d := &disk{t: t, image: filepath.Join(t.TempDir(), "image"), dir: t.TempDir()}
	f, err := os.Create(d.image)
	if err == nil {
		err = errors.Join(f.Truncate(megabytes<<20), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	run(t, "mkfs.ext4", "-q", d.image)
	if out, err := d.mount().CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: NOTHING was shown about a power cut: an image can't be mounted here: %v: %s", err, out)
	}
	t.Cleanup(func() { run(t, "umount", "-l", d.dir) })
	return d
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
}

// mount mounts the image: nothing but a sync commits its journal.
func (d *disk) mount() *exec.Cmd {
	return exec.Command("mount", "-o", "loop,noatime,commit=300", d.image, d.dir)
}

// cut does to the disk, and to the process that writes to it, what a power cut does.
func (d *disk) cut(p *processes.Child) {
	d.t.Helper()
	synced := filepath.Join(d.dir, "synced")
	if err := writeSynced(synced); err != nil {
		d.t.Fatal(err)
	}
	p.Signal(syscall.SIGSTOP) // else the copy were of many moments
	run(d.t, "cp", "--sparse=always", d.image, d.image+".cut")
	p.Kill()
	run(d.t, "umount", "-l", d.dir)
	if err := os.Rename(d.image+".cut", d.image); err != nil {
		d.t.Fatal(err)
	}
	if out, err := d.mount().CombinedOutput(); err != nil {
		d.t.Fatalf("mount after the cut: %v: %s", err, out)
	}
	if err := os.Remove(synced); err != nil {
		d.t.Errorf("what was synced is gone: %v", err)
	}
}

func writeSynced(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// TestJobsAndPowerCuts cuts NATS' power under load: what it had not synced is lost, and with it states that everybody could
// look up. No outcome that anybody was told is lost or another one, and no job is called after its cancellation.
func TestJobsAndPowerCuts(t *testing.T) {
	d := newDisk(t, 512)
	l := newJobLoad(t)
	nats := newNATSServer(t)
	nats.cfg.Dir = filepath.Join(d.dir, "nats")
	server := nats.startChild()
	c := newJobCluster(t, nats, l)
	run(t, "sync", "-f", d.dir) // the queue is not so new
	l.patient = true
	l.start("http://" + c.gatewayAddr)
	for range 8 {
		l.clients.Go(func() { l.hear((*listener).events) })
	}
	cuts := size(1, 3, 20)
	for range cuts {
		l.waitProgress(true)
		hold(t, time.Duration(rand.Int64N(int64(2*time.Second))))
		d.cut(server)
		server = nats.startChild()
	}
	l.waitProgress(true)
	l.finish()
	l.verify(func() {
		d.cut(server)
		server = nats.startChild()
	})
	restored := 0
	for i := range c.dispatchers {
		c.dispatchers[i].Terminate()
		checkRaces(t, c.dispatchers[i])
		restored += strings.Count(c.dispatchers[i].Log(), "states that it had lost were restored")
	}
	if restored == 0 {
		t.Error("no cut lost a state: nothing was shown")
	}
	t.Logf("%d power cuts; after %d of them states were restored", cuts+1, restored)
}
