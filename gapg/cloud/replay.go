package cloud

import (
	"bytes"
	"context"
	"errors"
	"fmt"
)

// Replay is a cloud of which only what a Store has on record can be had: under
// a Ledger it answers from there and sends nothing.
type Replay struct {
	Of Cloud // whose answers are meant
}

// Name is that of the cloud whose answers are replayed.
func (r Replay) Name() string { return r.Of.Name() }

// Answer implements Cloud by an error: the question is not on record.
func (r Replay) Answer(_ context.Context, q Question) (Answer, error) {
	return Answer{}, NotSent(Transient(errors.New("replay: the answer is not on record, and nothing is sent")))
}

// Import copies the answers of the ledger file at path, which another run may
// have left, into s: what they answer is then not asked again. It returns how
// many were new. The file is not changed.
func (s *Store) Import(path string) (int, error) {
	from, err := openReadOnly(path)
	if err != nil {
		return 0, err
	}
	defer from.Close()
	fresh := 0
	err = s.db.update(func(to txn) error {
		fresh = 0
		return from.db.view(func(tx txn) error {
			return tx.each(answersBucket, nil, func(k, v []byte) error {
				if !intact(k, v) {
					return fmt.Errorf("%s: %w", path, errBadRecord)
				}
				if to.get(answersBucket, k) != nil {
					return nil
				}
				fresh++
				return to.put(answersBucket, bytes.Clone(k), bytes.Clone(v)) // both outlive this view
			})
		})
	})
	return fresh, s.fail("import answers", err)
}

// Answers reports which of the questions have an answer of c on record.
func (s *Store) Answers(c Cloud, qs []Question) ([]bool, error) {
	out := make([]bool, len(qs))
	err := s.db.view(func(tx txn) error {
		for i, q := range qs {
			out[i] = tx.get(answersBucket, []byte(questionKey(c.Name(), q))) != nil
		}
		return nil
	})
	return out, s.fail("read", err)
}
