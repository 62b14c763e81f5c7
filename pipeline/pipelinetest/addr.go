package pipelinetest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// Ports that no system gives to connections by itself: Linux takes those from
// 32768, others those from 49152 on. Each test process has a block of its own.
const (
	firstPort = 10_000
	blocks    = 40
	blockSize = 500
)

// FreeAddr returns an address of this machine that nobody listens on, for what
// a test starts, ends and starts again there. Its port is not one that the
// system gives away by itself: while nobody listens there, a connection of
// anybody could get such a port, and then nobody can listen on it.
func FreeAddr(t testing.TB) string {
	t.Helper()
	addr, err := freeAddr(t.Context())
	if err != nil {
		t.Fatalf("looking for a free port: %v", err)
	}
	return addr
}

func freeAddr(ctx context.Context) (string, error) {
	l, err := listen(ctx)
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// listen listens on the next port of our block that nobody has.
func listen(ctx context.Context) (net.Listener, error) {
	b, err := ownBlock()
	if err != nil {
		return nil, err
	}
	for range blockSize {
		port := b.first + 1 + int(b.given.Add(1))%(blockSize-1)
		if l, err := listenOn(ctx, port); !errors.Is(err, syscall.EADDRINUSE) {
			return l, err
		}
	}
	return nil, fmt.Errorf("of the ports from %d on, %d are taken", b.first, blockSize)
}

func listenOn(ctx context.Context, port int) (net.Listener, error) {
	var config net.ListenConfig
	return config.Listen(ctx, "tcp", fmt.Sprint("127.0.0.1:", port))
}

// block is the ports of a process, given one after the other, so that one that
// was given and is not in use yet comes again late.
type block struct {
	first int
	given atomic.Int32
	mark  net.Listener // on the first port as long as the process lives
}

var ownBlock = sync.OnceValues(func() (*block, error) {
	for i := range blocks {
		first := firstPort + i*blockSize
		if mark, err := listenOn(context.Background(), first); err == nil {
			return &block{first: first, mark: mark}, nil
		}
	}
	return nil, errors.New("every block of ports is taken")
})
