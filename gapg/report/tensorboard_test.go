package report

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// parsedEvent is what the tests read back of an Event message.
type parsedEvent struct {
	wall    float64
	step    int64
	version string
	session uint64
	values  map[string]float32
}

// records takes TFRecord framing apart, checking both checksums.
func records(t *testing.T, b []byte) [][]byte {
	t.Helper()
	unmask := func(m uint32) uint32 {
		r := m - 0xa282ead8
		return r>>17 | r<<15
	}
	table := crc32.MakeTable(crc32.Castagnoli)
	var out [][]byte
	for len(b) > 0 {
		require.GreaterOrEqual(t, len(b), 16)
		n := binary.LittleEndian.Uint64(b)
		require.Equal(t, crc32.Checksum(b[:8], table), unmask(binary.LittleEndian.Uint32(b[8:])), "checksum of the length")
		require.GreaterOrEqual(t, uint64(len(b)), 16+n)
		data := b[12 : 12+n]
		require.Equal(t, crc32.Checksum(data, table), unmask(binary.LittleEndian.Uint32(b[12+n:])), "checksum of the data")
		out = append(out, data)
		b = b[16+n:]
	}
	return out
}

// fields calls f for each field of a protobuf message.
func fields(t *testing.T, b []byte, f func(field int, num uint64, data []byte)) {
	t.Helper()
	for len(b) > 0 {
		key, n := binary.Uvarint(b)
		require.Positive(t, n)
		b = b[n:]
		switch key & 7 {
		case 0:
			v, n := binary.Uvarint(b)
			require.Positive(t, n)
			f(int(key>>3), v, nil)
			b = b[n:]
		case 1:
			f(int(key>>3), binary.LittleEndian.Uint64(b), nil)
			b = b[8:]
		case 2:
			l, n := binary.Uvarint(b)
			require.Positive(t, n)
			f(int(key>>3), 0, b[n:n+int(l)])
			b = b[n+int(l):]
		case 5:
			f(int(key>>3), uint64(binary.LittleEndian.Uint32(b)), nil)
			b = b[4:]
		default:
			t.Fatalf("wire type %d", key&7)
		}
	}
}

func parseEvent(t *testing.T, b []byte) parsedEvent {
	t.Helper()
	e := parsedEvent{values: map[string]float32{}}
	fields(t, b, func(field int, num uint64, data []byte) {
		switch field {
		case 1:
			e.wall = math.Float64frombits(num)
		case 2:
			e.step = int64(num)
		case 3:
			e.version = string(data)
		case 7:
			fields(t, data, func(_ int, num uint64, _ []byte) { e.session = num })
		case 5:
			fields(t, data, func(_ int, _ uint64, value []byte) {
				var tag string
				fields(t, value, func(field int, num uint64, data []byte) {
					switch field {
					case 1:
						tag = string(data)
					case 2:
						e.values[tag] = math.Float32frombits(uint32(num))
					}
				})
			})
		default:
			t.Fatalf("event field %d", field)
		}
	})
	return e
}

func TestEventsParseBack(t *testing.T) {
	dir := t.TempDir()
	w, err := NewEventWriter(dir, EventOptions{})
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(filepath.Base(w.Path()), "events.out.tfevents."))
	before := float64(time.Now().UnixMicro()) / 1e6
	require.NoError(t, w.Scalars(3, map[string]float64{"reward": 1.5, "cloud/ratio": 0.3}))
	require.NoError(t, w.Scalars(4, nil))
	require.NoError(t, w.Scalars(1<<40, map[string]float64{"kl": math.NaN()}))
	require.NoError(t, w.Flush())
	b, err := os.ReadFile(w.Path())
	require.NoError(t, err)
	recs := records(t, b)
	require.Len(t, recs, 3, "a step without values writes nothing")
	require.Equal(t, "brain.Event:2", parseEvent(t, recs[0]).version)
	e := parseEvent(t, recs[1])
	require.Equal(t, int64(3), e.step)
	require.Equal(t, map[string]float32{"reward": 1.5, "cloud/ratio": 0.3}, e.values)
	require.InDelta(t, before, e.wall, 60)
	e = parseEvent(t, recs[2])
	require.Equal(t, int64(1<<40), e.step)
	require.True(t, math.IsNaN(float64(e.values["kl"])))

	second, err := NewEventWriter(dir, EventOptions{Resume: 7})
	require.NoError(t, err)
	require.NotEqual(t, w.Path(), second.Path())
	b, err = os.ReadFile(second.Path())
	require.NoError(t, err)
	e = parseEvent(t, records(t, b)[1])
	require.Equal(t, int64(8), e.step, "what was logged after step 7 is purged")
	require.Equal(t, uint64(1), e.session)

	for _, w := range []*EventWriter{w, second} {
		require.NoError(t, w.Close())
		require.NoError(t, w.Close())
		require.NoError(t, w.Flush())
		require.ErrorContains(t, w.Scalars(9, map[string]float64{"x": 1}), "is closed")
	}
	_, err = NewEventWriter(filepath.Join(dir, "absent"), EventOptions{})
	require.ErrorContains(t, err, "absent")
}

// The golden file was made by TensorBoard's own writer: testdata/make_events.py.
func TestEventsEqualTensorBoards(t *testing.T) {
	want, err := os.ReadFile("testdata/events.golden")
	require.NoError(t, err)
	at := time.UnixMicro(1732323600250000)
	w, err := NewEventWriter(t.TempDir(), EventOptions{Resume: 40, Now: func() time.Time { return at }, Host: "host"})
	require.NoError(t, err)
	many := map[string]float64{}
	for i := range 40 {
		many[fmt.Sprintf("t%03d", i)] = float64(i) / 7
	}
	for _, e := range []struct {
		step   int64
		values map[string]float64
	}{
		{0, map[string]float64{"reward": 0.5}},
		{41, map[string]float64{"reward": 1.25, "cloud/ratio": 0.3, "accuracy/überall": 0.912, "zero": 0}},
		{300, map[string]float64{"kl": math.NaN(), "grad_norm": math.Inf(1), "many": 1e38}},
		{1 << 40, many},
	} {
		at = at.Add(500 * time.Millisecond)
		require.NoError(t, w.Scalars(e.step, e.values))
	}
	require.NoError(t, w.Close())
	got, err := os.ReadFile(w.Path())
	require.NoError(t, err)
	require.Equal(t, want, got)
}
