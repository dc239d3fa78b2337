package cloud

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bberrors "go.etcd.io/bbolt/errors"
)

// OpenOptions are for Open. The zero value is for use.
type OpenOptions struct {
	// LockTimeout is how long to wait for another process to let go of the file;
	// 0 means one second.
	LockTimeout time.Duration

	// NoSync leaves it to the operating system when data reach the disk: much
	// faster on slow disks, still safe against the death of the process, but not
	// against that of the machine.
	NoSync bool
}

const (
	formatKey  = "format"
	formatName = "updraft cloud ledger 1"
	sumsKey    = "sums"
)

// sums holds, by bucket, the count of its records and the sum of their checksums,
// and is written with every transaction. A record that bears the wrong checksum
// is found without it; one that has vanished is not, and bbolt does not notice
// when a page loses some.
type sums [len(allBuckets)]struct{ count, total uint64 }

func (s *sums) of(b bucket) *struct{ count, total uint64 } {
	return &s[slices.Index(allBuckets[:], b)]
}

func (s *sums) add(b bucket, value []byte) {
	p := s.of(b)
	p.count++
	p.total += uint64(binary.BigEndian.Uint32(value))
}

func (s *sums) sub(b bucket, value []byte) {
	p := s.of(b)
	p.count--
	p.total -= uint64(binary.BigEndian.Uint32(value))
}

func (s *sums) bytes() []byte {
	var out []byte
	for _, p := range s {
		out = binary.BigEndian.AppendUint64(out, p.count)
		out = binary.BigEndian.AppendUint64(out, p.total)
	}
	return out
}

var metaBucket = []byte("meta")

// Open opens the ledger file at path, or makes a new one. The whole file is read
// and checked first; one that is damaged, or something else, is left exactly as
// it is. Calls that a dead process had sent become Unanswered. All errors are
// *StoreError and wrap ErrCorrupt, ErrLocked or the system's error.
//
// The file is held until Close: one process at a time can use it.
func Open(path string, opt OpenOptions) (*Store, error) {
	if opt.LockTimeout <= 0 {
		opt.LockTimeout = time.Second
	}
	if err := create(path); err != nil {
		return nil, storeError(path, "create", err)
	}
	sum, err := check(path, opt)
	if err != nil {
		return nil, storeError(path, "open", err)
	}
	b, err := openBolt(path, opt, false)
	if err != nil {
		return nil, storeError(path, "open", err)
	}
	s := newStore(&bolt{b: b, sum: sum}, path)
	leftovers, err := s.load()
	if err == nil && leftovers {
		err = s.db.update(func(tx txn) error { return retire(tx, nil) })
	}
	if err != nil {
		b.Close()
		return nil, storeError(path, "open", err)
	}
	return s, nil
}

// openReadOnly opens an existing ledger file for reading.
func openReadOnly(path string) (*Store, error) {
	opt := OpenOptions{LockTimeout: time.Second}
	if _, err := check(path, opt); err != nil {
		return nil, storeError(path, "open", err)
	}
	b, err := openBolt(path, opt, true)
	if err != nil {
		return nil, storeError(path, "open", err)
	}
	return newStore(&bolt{b: b}, path), nil
}

// create makes an empty ledger if there is no file. It appears under its name
// complete or not at all.
func create(path string) error {
	if st, err := os.Stat(path); err == nil {
		if st.IsDir() {
			return errors.New("it is a directory")
		}
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), ".ledger-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	tmp := filepath.Join(dir, "new")
	b, err := bbolt.Open(tmp, 0o644, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		return err
	}
	err = b.Update(func(tx *bbolt.Tx) error {
		m, err := tx.CreateBucket(metaBucket)
		if err != nil {
			return err
		}
		for _, name := range allBuckets {
			if _, err := tx.CreateBucket([]byte(name)); err != nil {
				return err
			}
		}
		if err := m.Put([]byte(sumsKey), new(sums).bytes()); err != nil {
			return err
		}
		return m.Put([]byte(formatKey), []byte(formatName))
	})
	if err := errors.Join(err, b.Close()); err != nil {
		return err
	}
	// A link does not replace a file that another process made meanwhile, as a
	// rename would. Where the file system knows no links, rename.
	if err := os.Link(tmp, path); err != nil && !errors.Is(err, fs.ErrExist) {
		return os.Rename(tmp, path)
	}
	return nil
}

func openBolt(path string, opt OpenOptions, readOnly bool) (db *bbolt.DB, err error) {
	var file *os.File
	defer func() {
		if err != nil && file != nil {
			// A bbolt that panicked keeps file and lock; after an error that it handled
			// itself the file is closed already and both calls do nothing.
			unlock(file)
			file.Close()
		}
	}()
	defer guard(&err)()
	return bbolt.Open(path, 0o644, &bbolt.Options{
		Timeout:  opt.LockTimeout,
		ReadOnly: readOnly,
		NoSync:   opt.NoSync,
		// Also when only reading, so that a damaged free list is met here, under
		// guard, and not in a goroutine of bbolt's.
		PreLoadFreelist: true,
		OpenFile: func(name string, flag int, mode fs.FileMode) (*os.File, error) {
			f, err := os.OpenFile(name, flag&^os.O_CREATE, mode) // create does that
			file = f
			return f, err
		},
	})
}

// guard turns the panics and page faults that bbolt meets in a damaged file into
// ErrCorrupt. Use it as defer guard(&err)().
func guard(err *error) func() {
	old := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(old)
		if r := recover(); r != nil {
			*err = fmt.Errorf("%w: %v", ErrCorrupt, r)
		}
	}
}

// check reads a file without the right to write to it, and reports whatever
// would make bbolt stumble over it or give wrong answers.
func check(path string, opt OpenOptions) (sum sums, err error) {
	st, err := os.Stat(path)
	if err != nil {
		return sum, err
	}
	if st.Size() == 0 {
		return sum, fmt.Errorf("%w: it is empty", ErrCorrupt)
	}
	db, err := openBolt(path, opt, true)
	if err != nil {
		var sys *fs.PathError
		if !errors.Is(err, bberrors.ErrTimeout) && !errors.As(err, &sys) && !errors.Is(err, ErrCorrupt) {
			err = fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		return sum, err
	}
	defer db.Close()
	defer guard(&err)()
	err = db.View(func(tx *bbolt.Tx) error {
		if tx.Size() > st.Size() {
			return fmt.Errorf("%w: it is cut off: %d bytes of %d are there", ErrCorrupt, st.Size(), tx.Size())
		}
		m := tx.Bucket(metaBucket)
		if m == nil || !bytes.Equal(m.Get([]byte(formatKey)), []byte(formatName)) {
			return fmt.Errorf("%w: it does not name the format %q", ErrCorrupt, formatName)
		}
		for _, name := range allBuckets {
			b := tx.Bucket([]byte(name))
			if b == nil {
				return fmt.Errorf("%w: bucket %q is missing", ErrCorrupt, name)
			}
			// Read every byte in this goroutine, where a fault can be caught.
			if err := b.ForEach(func(k, v []byte) error {
				if !intact(k, v) {
					return errBadRecord
				}
				sum.add(name, v)
				return nil
			}); err != nil {
				return err
			}
		}
		if !bytes.Equal(m.Get([]byte(sumsKey)), sum.bytes()) {
			return fmt.Errorf("%w: records are missing", ErrCorrupt)
		}
		var first error
		for err := range tx.Check() { // drain it: its goroutine ends with the channel
			if first == nil {
				first = fmt.Errorf("%w: %w", ErrCorrupt, err)
			}
		}
		return first
	})
	return sum, err
}

// storeError explains err to a user.
func storeError(path, op string, err error) error {
	if err == nil {
		return nil
	}
	e := &StoreError{Path: path, Op: op, Err: err}
	switch {
	case errors.Is(err, bberrors.ErrTimeout):
		e.Err = ErrLocked
		e.Remedy = "wait for the other run to end, or give this one a ledger of its own"
	case errors.Is(err, errBadRecord), errors.Is(err, bberrors.ErrInvalid), errors.Is(err, bberrors.ErrChecksum), errors.Is(err, bberrors.ErrVersionMismatch):
		e.Err = fmt.Errorf("%w: %w", ErrCorrupt, err)
		fallthrough
	case errors.Is(err, ErrCorrupt):
		e.Remedy = "it was left untouched: restore it from a backup, or move it away to start a new one, which asks for its answers again"
	case errors.Is(err, fs.ErrPermission):
		e.Remedy = "choose a place that you may write to"
	case errors.Is(err, fs.ErrNotExist):
		e.Remedy = "make the directory first"
	}
	return e
}

// fail explains an error of a transaction.
func (s *Store) fail(op string, err error) error {
	if err == nil {
		return nil
	}
	e := storeError(s.path, op, err).(*StoreError)
	if e.Remedy == "" {
		e.Remedy = "what was recorded before is safe; see that the disk has room and can be written to, then resume"
	}
	return e
}

// bolt is a db in a bbolt file.
type bolt struct {
	b   *bbolt.DB
	mu  sync.Mutex // held by the one writer
	sum sums       // after the last transaction
}

func (d *bolt) update(f func(txn) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	sum := d.sum
	err := d.b.Update(func(tx *bbolt.Tx) error {
		if err := f(boltTxn{tx, &sum}); err != nil {
			return err
		}
		return tx.Bucket(metaBucket).Put([]byte(sumsKey), sum.bytes())
	})
	if err == nil {
		d.sum = sum
	}
	return err
}

func (d *bolt) view(f func(txn) error) error {
	return d.b.View(func(tx *bbolt.Tx) error { return f(boltTxn{tx, nil}) })
}

func (d *bolt) close() error { return d.b.Close() }

type boltTxn struct {
	tx  *bbolt.Tx
	sum *sums
}

func (t boltTxn) get(b bucket, key []byte) []byte { return t.tx.Bucket([]byte(b)).Get(key) }

func (t boltTxn) put(b bucket, key, value []byte) error {
	in := t.tx.Bucket([]byte(b))
	if old := in.Get(key); old != nil {
		t.sum.sub(b, old)
	}
	t.sum.add(b, value)
	return in.Put(key, value)
}

func (t boltTxn) del(b bucket, key []byte) error {
	in := t.tx.Bucket([]byte(b))
	if old := in.Get(key); old != nil {
		t.sum.sub(b, old)
	}
	return in.Delete(key)
}

func (t boltTxn) each(b bucket, prefix []byte, f func(key, value []byte) error) error {
	c := t.tx.Bucket([]byte(b)).Cursor()
	for k, v := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
		if err := f(k, v); err != nil {
			return err
		}
	}
	return nil
}
