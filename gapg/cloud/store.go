package cloud

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// Status says how a recorded call ended.
type Status string

// The statuses. A call that was sent and whose end nobody saw has none: it is
// an Intent among Store.Unanswered.
const (
	Answered   Status = "answered"
	Unresolved Status = "unresolved" // a passing failure: asking again later may help
	Failed     Status = "failed"     // a final failure
)

// Entry is one use of a question by a run at a step: a line of the ledger.
type Entry struct {
	Run    string `json:"run"`
	Step   int    `json:"step"`
	ID     string `json:"id"`
	Cloud  string `json:"cloud"`
	Status Status `json:"status"`
	// Cached is true if the outcome was known already, or on its way for another
	// step or run: this entry sent nothing and cost nothing.
	Cached  bool    `json:"cached"`
	CostUSD float64 `json:"cost_usd"`
	Usage   Usage   `json:"usage"`
	// CostUnknown says that CostUSD is 0 for want of a price.
	CostUnknown bool `json:"cost_unknown,omitempty"`
	// Bound is what a call without an answer may have used.
	Bound Bound  `json:"bound,omitzero"`
	Err   string `json:"error,omitempty"`
}

// Intent is a call that is about to be sent.
type Intent struct {
	Run   string `json:"run"`
	Step  int    `json:"step"`
	ID    string `json:"id"`
	Cloud string `json:"cloud"`
	Bound Bound  `json:"bound,omitzero"` // what it may use at most
}

// Totals counts the entries of a run.
type Totals struct {
	Questions  int     `json:"questions"`  // entries: distinct (step, question)
	Calls      int     `json:"calls"`      // those that were sent
	Hits       int     `json:"hits"`       // those answered without sending
	Unresolved int     `json:"unresolved"` // those without an outcome; if sent, possibly billed
	Failed     int     `json:"failed"`     // those that failed for good
	CostUSD    float64 `json:"cost_usd"`   // of the answered calls with a known price
	Unpriced   int     `json:"unpriced"`   // answered calls whose price is not known
	Usage      Usage   `json:"usage"`      // of the answered calls
}

// Store is what ledgers remember: answers by (cloud, question), intents, and
// each run's entries. It is safe for concurrent use. Make one with NewMemory or
// Open, and Close it.
//
// Two records are made of a call, each in one transaction: the intent before it
// is sent; the answer, the run's entry and the intent's removal before the
// answer is used. So at any instant a call is known to be unsent, possibly sent,
// or answered.
type Store struct {
	db   db
	path string

	mu       sync.Mutex
	inflight map[string]*flight
	steps    map[string]map[int]tally // by run and step
	next     map[string]int           // by run: a step after all that are used

	purse purse
}

// tally is Totals in integers, so that its sums do not depend on their order.
type tally struct {
	t        Totals
	picoUSDs int64
}

func (t *tally) add(e *Entry) {
	t.t.Questions++
	if !e.Cached {
		t.t.Calls++
	}
	switch e.Status {
	case Answered:
		if e.Cached {
			t.t.Hits++
			return
		}
		t.picoUSDs += int64(math.Round(e.CostUSD * 1e12))
		t.t.Usage.PromptTokens += e.Usage.PromptTokens
		t.t.Usage.CompletionTokens += e.Usage.CompletionTokens
		if e.CostUnknown {
			t.t.Unpriced++
		}
	case Unresolved:
		t.t.Unresolved++
	case Failed:
		t.t.Failed++
	}
}

// db is the ordered key-value store under a Store: memory or a file. A value
// got in a transaction is valid until it ends. If f fails nothing is kept.
type db interface {
	update(f func(txn) error) error
	view(f func(txn) error) error
	close() error
}

type txn interface {
	get(b bucket, key []byte) []byte
	put(b bucket, key, value []byte) error
	del(b bucket, key []byte) error
	// each visits the keys that begin with prefix in ascending order.
	each(b bucket, prefix []byte, f func(key, value []byte) error) error
}

type bucket string

const (
	answersBucket    bucket = "answers"    // question key → answerRecord
	intentsBucket    bucket = "intents"    // question key → Intent
	unansweredBucket bucket = "unanswered" // running number → Intent
	entriesBucket    bucket = "entries"    // run, 0, step, question key → Entry
)

var allBuckets = [...]bucket{answersBucket, intentsBucket, unansweredBucket, entriesBucket}

type answerRecord struct {
	Cloud  string `json:"cloud"`
	ID     string `json:"id"`
	Answer Answer `json:"answer"`
}

// NewMemory returns a Store that forgets everything at its end.
func NewMemory() *Store {
	s := newStore(&memory{m: make(map[bucket]map[string][]byte)}, "(memory)")
	return s
}

func newStore(d db, path string) *Store {
	return &Store{db: d, path: path, inflight: make(map[string]*flight), steps: make(map[string]map[int]tally), next: make(map[string]int)}
}

// Close ends the use of the store. Ledgers on it must be at rest.
func (s *Store) Close() error { return s.db.close() }

// Entries returns a run's entries by step, and within a step in a fixed order
// that does not depend on when the answers came.
func (s *Store) Entries(run string) ([]Entry, error) {
	var out []Entry
	err := s.db.view(func(tx txn) error {
		return tx.each(entriesBucket, runPrefix(run), func(k, v []byte) error {
			var e Entry
			if err := unseal(k, v, &e); err != nil {
				return err
			}
			out = append(out, e)
			return nil
		})
	})
	return out, s.fail("read", err)
}

// Unanswered returns the calls that were sent and whose outcome was never
// recorded, because the process or its patience ended: they may have been
// billed. Such a question is asked again when it is next needed.
func (s *Store) Unanswered() ([]Intent, error) {
	var out []Intent
	err := s.db.view(func(tx txn) error {
		return tx.each(unansweredBucket, nil, func(k, v []byte) error {
			var in Intent
			if err := unseal(k, v, &in); err != nil {
				return err
			}
			out = append(out, in)
			return nil
		})
	})
	return out, s.fail("read", err)
}

// Totals sums a run's entries up to and with the given step. It is a function of
// those entries alone: after a resume it gives at each step what the run without
// an interruption gave, although later steps may be on record already.
func (s *Store) Totals(run string, throughStep int) Totals {
	s.mu.Lock()
	defer s.mu.Unlock()
	var sum Totals
	var pico int64
	for step, t := range s.steps[run] {
		if step > throughStep {
			continue
		}
		sum.Questions += t.t.Questions
		sum.Calls += t.t.Calls
		sum.Hits += t.t.Hits
		sum.Unresolved += t.t.Unresolved
		sum.Failed += t.t.Failed
		sum.Unpriced += t.t.Unpriced
		sum.Usage.PromptTokens += t.t.Usage.PromptTokens
		sum.Usage.CompletionTokens += t.t.Usage.CompletionTokens
		pico += t.picoUSDs
	}
	sum.CostUSD = float64(pico) / 1e12
	return sum
}

// count adds a new entry to the sums. It is called after its transaction.
func (s *Store) count(e *Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	run := s.steps[e.Run]
	if run == nil {
		run = make(map[int]tally)
		s.steps[e.Run] = run
	}
	s.next[e.Run] = max(s.next[e.Run], e.Step+1)
	t := run[e.Step]
	t.add(e)
	run[e.Step] = t
}

// nextStep returns a step after all that the run has used.
func (s *Store) nextStep(run string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.next[run]
	s.next[run] = next + 1
	return next
}

// load reads everything once: it proves each record whole, counts the entries
// and returns whether intents were left behind by a process that ended.
func (s *Store) load() (leftovers bool, err error) {
	err = s.db.view(func(tx txn) error {
		for _, b := range allBuckets {
			err := tx.each(b, nil, func(k, v []byte) error {
				switch b {
				case answersBucket:
					return unseal(k, v, new(answerRecord))
				case entriesBucket:
					e := new(Entry)
					if err := unseal(k, v, e); err != nil {
						return err
					}
					s.count(e)
					if !e.Cached {
						s.purse.spent(e.used())
					}
					return nil
				default:
					leftovers = leftovers || b == intentsBucket
					in := new(Intent)
					if err := unseal(k, v, in); err != nil {
						return err
					}
					s.purse.spent(in.Bound)
					return nil
				}
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	return leftovers, err
}

// retire moves the intents with the given keys, or all if keys is nil, to the
// unanswered calls.
func retire(tx txn, keys []string) error {
	type kv struct{ k, v []byte }
	var moved []kv
	if keys == nil {
		err := tx.each(intentsBucket, nil, func(k, v []byte) error {
			moved = append(moved, kv{bytes.Clone(k), bytes.Clone(v)})
			return nil
		})
		if err != nil {
			return err
		}
	}
	for _, k := range keys {
		if v := tx.get(intentsBucket, []byte(k)); v != nil {
			moved = append(moved, kv{[]byte(k), bytes.Clone(v)})
		}
	}
	if len(moved) == 0 {
		return nil
	}
	next := uint64(0)
	err := tx.each(unansweredBucket, nil, func(k, _ []byte) error {
		next = binary.BigEndian.Uint64(k) + 1
		return nil
	})
	if err != nil {
		return err
	}
	for i, m := range moved {
		var in Intent
		if err := unseal(m.k, m.v, &in); err != nil {
			return err
		}
		if err := put(tx, unansweredBucket, binary.BigEndian.AppendUint64(nil, next+uint64(i)), &in); err != nil {
			return err
		}
		if err := tx.del(intentsBucket, m.k); err != nil {
			return err
		}
	}
	return nil
}

// questionKey names a question to a cloud in the store: 32 bytes.
func questionKey(cloud string, q Question) string {
	h := sha256.New()
	for _, s := range []string{cloud, q.ID, q.Text} {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(s))))
		h.Write([]byte(s))
	}
	return string(h.Sum(nil))
}

func runPrefix(run string) []byte { return append([]byte(run), 0) }

func entryKey(run string, step int, key string) []byte {
	return append(binary.BigEndian.AppendUint64(runPrefix(run), uint64(step)), key...)
}

// checkRun refuses what entryKey could not keep apart.
func checkRun(run string, step int) error {
	if run == "" || strings.ContainsRune(run, 0) || len(run) > 1024 || !utf8.ValidString(run) {
		return fmt.Errorf("cloud ledger: %q is no name for a run: it must be UTF-8 of 1 to 1024 bytes without NUL", run)
	}
	if step < 0 {
		return fmt.Errorf("cloud ledger: step %d is negative", step)
	}
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errBadRecord = errors.New("a record does not match its checksum")

// seal writes v as JSON behind a CRC-32C of key and JSON. bbolt guards only its
// meta pages; this guards the rest.
func seal(key []byte, v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	sum := crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, body)
	return append(binary.BigEndian.AppendUint32(nil, sum), body...), nil
}

// intact reports whether a sealed record matches its checksum.
func intact(key, value []byte) bool {
	return len(value) >= 4 &&
		binary.BigEndian.Uint32(value) == crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value[4:])
}

func unseal(key, value []byte, to any) error {
	if !intact(key, value) {
		return errBadRecord
	}
	if err := json.Unmarshal(value[4:], to); err != nil {
		return fmt.Errorf("%w: %w", errBadRecord, err)
	}
	return nil
}

func put(tx txn, b bucket, key []byte, v any) error {
	value, err := seal(key, v)
	if err != nil {
		return err
	}
	return tx.put(b, key, value)
}

// memory is a db in maps. A failed update is undone.
type memory struct {
	mu sync.RWMutex
	m  map[bucket]map[string][]byte
}

func (m *memory) update(f func(txn) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := make(map[bucket]map[string][]byte, len(m.m))
	t := &memoryTxn{m.m, before}
	if err := f(t); err != nil {
		for b, keys := range before { // undo
			for k, v := range keys {
				if v == nil {
					delete(m.m[b], k)
				} else {
					m.m[b][k] = v
				}
			}
		}
		return err
	}
	return nil
}

func (m *memory) view(f func(txn) error) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return f(&memoryTxn{m.m, nil})
}

func (m *memory) close() error { return nil }

type memoryTxn struct {
	m      map[bucket]map[string][]byte
	before map[bucket]map[string][]byte // what update replaced; nil: it was absent
}

func (t *memoryTxn) get(b bucket, key []byte) []byte { return t.m[b][string(key)] }

func (t *memoryTxn) remember(b bucket, key string) {
	if t.before[b] == nil {
		t.before[b] = make(map[string][]byte)
	}
	if _, ok := t.before[b][key]; !ok {
		t.before[b][key] = t.m[b][key]
	}
}

func (t *memoryTxn) put(b bucket, key, value []byte) error {
	t.remember(b, string(key))
	if t.m[b] == nil {
		t.m[b] = make(map[string][]byte)
	}
	t.m[b][string(key)] = value
	return nil
}

func (t *memoryTxn) del(b bucket, key []byte) error {
	t.remember(b, string(key))
	delete(t.m[b], string(key))
	return nil
}

func (t *memoryTxn) each(b bucket, prefix []byte, f func(key, value []byte) error) error {
	for _, k := range slices.Sorted(maps.Keys(t.m[b])) {
		if strings.HasPrefix(k, string(prefix)) {
			if err := f([]byte(k), t.m[b][k]); err != nil {
				return err
			}
		}
	}
	return nil
}
