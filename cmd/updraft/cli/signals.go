package cli

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// interrupts turns the first interrupt or termination into a request to stop;
// after it the signals have their usual effect, so that a second one ends the
// process at once.
type interrupts struct {
	stop   chan struct{} // closed by the first signal
	cancel context.CancelFunc
	done   chan struct{}
	got    chan os.Signal

	mu       sync.Mutex
	signal   os.Signal
	graceful bool // the command itself watches stop
}

type interruptsKey struct{}

// watchSignals returns a context that ends at the first signal, unless the
// command has called stopChannel.
func watchSignals(ctx context.Context) (context.Context, *interrupts) {
	in := &interrupts{stop: make(chan struct{}), done: make(chan struct{}), got: make(chan os.Signal, 2)}
	ctx, in.cancel = context.WithCancel(ctx)
	signal.Notify(in.got, os.Interrupt, syscall.SIGTERM)
	go in.watch()
	return context.WithValue(ctx, interruptsKey{}, in), in
}

func (in *interrupts) watch() {
	select {
	case <-in.done:
	case s := <-in.got:
		in.mu.Lock()
		in.signal = s
		graceful := in.graceful
		in.mu.Unlock()
		signal.Stop(in.got)
		close(in.stop)
		if !graceful {
			in.cancel()
		}
	}
}

func (in *interrupts) close() {
	signal.Stop(in.got)
	close(in.done)
	in.cancel()
}

// stopChannel returns the channel that the first signal closes; from now on
// that signal does not end the context. Without Main the channel never closes.
func stopChannel(ctx context.Context) <-chan struct{} {
	in, ok := ctx.Value(interruptsKey{}).(*interrupts)
	if !ok {
		return nil
	}
	in.mu.Lock()
	in.graceful = true
	in.mu.Unlock()
	return in.stop
}

// exitCode returns 128 plus the signal that was received, 0 without one.
func (in *interrupts) exitCode() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	switch in.signal {
	case nil:
		return exitOK
	case syscall.SIGTERM:
		return exitTerminate
	}
	return exitInterrupt
}

func (in *interrupts) name() string {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.signal == syscall.SIGTERM {
		return "a termination signal"
	}
	return "an interrupt"
}
