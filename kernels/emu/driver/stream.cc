// stream.cc: streams, events, graphs, and the copies and fills that run in them.
#include <chrono>
#include <cstring>

#include "driver.h"

namespace emu {

static double now() {
  using namespace std::chrono;
  return duration<double, std::milli>(steady_clock::now().time_since_epoch()).count();
}

bool bad_stream(const Stream* s) { return s == nullptr || driver.streams.count(const_cast<Stream*>(s)) == 0; }
static bool bad_event(Event* e) { return driver.events.count(e) == 0; }

// step runs the oldest work of a stream.
static int step(Stream* s) {
  Work w = std::move(s->queue.front());
  s->queue.pop_front();
  int code = w();
  return code != kSuccess ? code : s->context->error;
}

static int drain(Stream* s) {
  while (!s->queue.empty()) {
    if (int code = step(s)) return code;
  }
  return kSuccess;
}

int drain_all(Context* c) {
  for (Stream* s : driver.streams) {
    if (s->context != c) continue;
    if (int code = drain(s)) return code;
  }
  return kSuccess;
}

// forget_in deletes those of a set's objects that belong to a context.
template <typename T>
static void forget_in(std::set<T*>& all, Context* c) {
  for (auto i = all.begin(); i != all.end();) {
    if ((*i)->context != c) {
      ++i;
      continue;
    }
    delete *i;
    i = all.erase(i);
  }
}

void forget(Context* c) {
  forget_in(driver.graphs, c);
  forget_in(driver.events, c);
  forget_in(driver.streams, c);
  forget_in(driver.modules, c);
  release_all(c);
}

int submit(Stream* s, Work w) {
  if (s->capture != nullptr) {
    s->capture->nodes.push_back(std::move(w));
    s->captured++;
    return kSuccess;
  }
  s->queue.push_back(std::move(w));
  return s->context->settings.late_streams ? kSuccess : drain(s);
}

// reach runs what an event's record number n waits for. Work that was issued
// before it is in its stream's queue, so this ends.
static int reach(Event* e, uint64_t n) {
  while (!bad_event(e) && e->reached < n && !bad_stream(e->stream) && !e->stream->queue.empty()) {
    if (int code = step(e->stream)) return code;
  }
  return kSuccess;
}

}  // namespace emu

using namespace emu;

// --- Copies and fills -------------------------------------------------------

UD_API cuMemcpyHtoDAsync_v2(uint64_t d, const void* s, size_t n, Stream* stream) {
  UD_ENTER;
  if (bad_stream(stream)) return kInvalidHandle;
  if (!in_allocation(context, d, n)) return kInvalidValue;
  if (in_host_allocation(s, n)) {
    return submit(stream, [=] {
      std::memcpy((void*)d, s, n);
      return kSuccess;
    });
  }
  // Memory that is not page-locked is read before the call returns.
  std::string copy((const char*)s, n);
  return submit(stream, [=] {
    std::memcpy((void*)d, copy.data(), n);
    return kSuccess;
  });
}

UD_API cuMemcpyDtoHAsync_v2(void* d, uint64_t s, size_t n, Stream* stream) {
  UD_ENTER;
  if (bad_stream(stream)) return kInvalidHandle;
  if (!in_allocation(context, s, n)) return kInvalidValue;
  int code = submit(stream, [=] {
    std::memcpy(d, (const void*)s, n);
    return kSuccess;
  });
  // Into memory that is not page-locked, the copy is done when the call returns.
  return code == kSuccess && stream->capture == nullptr && !in_host_allocation(d, n) ? drain(stream) : code;
}

UD_API cuMemcpyDtoDAsync_v2(uint64_t d, uint64_t s, size_t n, Stream* stream) {
  UD_ENTER;
  if (bad_stream(stream)) return kInvalidHandle;
  if (!in_allocation(context, d, n) || !in_allocation(context, s, n)) return kInvalidValue;
  return submit(stream, [=] {
    std::memmove((void*)d, (const void*)s, n);
    return kSuccess;
  });
}

UD_API cuMemsetD8Async(uint64_t d, unsigned char v, size_t n, Stream* stream) {
  UD_ENTER;
  if (bad_stream(stream)) return kInvalidHandle;
  if (!in_allocation(context, d, n)) return kInvalidValue;
  return submit(stream, [=] {
    std::memset((void*)d, v, n);
    return kSuccess;
  });
}

UD_API cuMemsetD32Async(uint64_t d, unsigned v, size_t words, Stream* stream) {
  UD_ENTER;
  if (bad_stream(stream)) return kInvalidHandle;
  if (d % 4 != 0 || words > SIZE_MAX / 4 || !in_allocation(context, d, 4 * words)) return kInvalidValue;
  return submit(stream, [=] {
    for (size_t i = 0; i < words; i++) ((unsigned*)d)[i] = v;
    return kSuccess;
  });
}

// --- Streams ----------------------------------------------------------------

UD_API cuCtxGetStreamPriorityRange(int* least, int* greatest) {
  UD_ENTER;
  *least = 0;
  *greatest = -5;
  return kSuccess;
}

UD_API cuStreamCreateWithPriority(Stream** s, unsigned flags, int priority) {
  UD_ENTER;
  if (flags > 1 || priority > 0) return kInvalidValue;
  *s = new Stream{context, std::max(priority, -5)};
  driver.streams.insert(*s);
  return kSuccess;
}

UD_API cuStreamCreate(Stream** s, unsigned flags) { return cuStreamCreateWithPriority(s, flags, 0); }

UD_API cuStreamDestroy_v2(Stream* s) {
  UD_ENTER;
  if (bad_stream(s)) return kInvalidHandle;
  int code = drain(s);
  driver.streams.erase(s);
  delete s;
  return code;
}

UD_API cuStreamSynchronize(Stream* s) {
  UD_ENTER;
  if (bad_stream(s)) return kInvalidHandle;
  return s->capture != nullptr ? kCaptureUnsupported : drain(s);
}

// --- Events -----------------------------------------------------------------

UD_API cuEventCreate(Event** e, unsigned) {
  UD_ENTER;
  *e = new Event{context};
  driver.events.insert(*e);
  return kSuccess;
}

UD_API cuEventDestroy_v2(Event* e) {
  UD_ENTER;
  if (driver.events.erase(e) == 0) return kInvalidHandle;
  delete e;
  return kSuccess;
}

UD_API cuEventRecord(Event* e, Stream* s) {
  UD_ENTER;
  if (bad_stream(s) || bad_event(e)) return kInvalidHandle;
  e->capture = s->capture;
  e->captured = s->captured;
  e->stream = s;
  if (s->capture != nullptr) return kSuccess;
  uint64_t n = ++e->issued;
  return submit(s, [=] {
    if (!bad_event(e)) {
      e->reached = n;
      e->milliseconds = now();
    }
    return kSuccess;
  });
}

UD_API cuStreamWaitEvent(Stream* s, Event* e, unsigned flags) {
  UD_ENTER;
  if (bad_stream(s) || bad_event(e)) return kInvalidHandle;
  if (flags != 0) return kInvalidValue;
  if (e->capture != nullptr) {
    // The stream joins the capture; its work then follows in the order of issue.
    if (s->capture != nullptr && s->capture != e->capture) return kCaptureUnsupported;
    if (s->capture == nullptr) s->captured = s->joined = 0;
    s->capture = e->capture;
    if (s != e->stream && !bad_stream(e->stream)) e->stream->joined = std::max(e->stream->joined, e->captured);
    return kSuccess;
  }
  if (s->capture != nullptr) return kCaptureUnsupported;  // on work outside of the capture
  uint64_t n = e->issued;
  return n == 0 ? (int)kSuccess : submit(s, [=] { return reach(e, n); });
}

UD_API cuEventQuery(Event* e) {
  UD_ENTER;
  if (bad_event(e)) return kInvalidHandle;
  if (e->capture != nullptr) return kCapturedEvent;
  if (e->reached == e->issued) return kSuccess;
  // Work goes on while the host asks.
  if (bad_stream(e->stream) || e->stream->queue.empty()) return kSuccess;
  if (int code = step(e->stream)) return code;
  return e->reached == e->issued ? kSuccess : kNotReady;
}

UD_API cuEventSynchronize(Event* e) {
  UD_ENTER;
  if (bad_event(e)) return kInvalidHandle;
  return e->capture != nullptr ? kCapturedEvent : reach(e, e->issued);
}

UD_API cuEventElapsedTime(float* ms, Event* a, Event* b) {
  UD_ENTER;
  if (bad_event(a) || bad_event(b) || a->issued == 0 || b->issued == 0) return kInvalidHandle;
  if (a->reached < a->issued || b->reached < b->issued) return kNotReady;
  *ms = (float)(b->milliseconds - a->milliseconds);
  return kSuccess;
}

// --- Graphs -----------------------------------------------------------------

UD_API cuStreamBeginCapture_v2(Stream* s, int mode) {
  UD_ENTER;
  if (bad_stream(s)) return kInvalidHandle;
  if (s->capture != nullptr) return kInvalidState;
  if (mode < 0 || mode > 2) return kInvalidValue;
  s->capture = new Graph{context, s, {}};
  s->captured = s->joined = 0;
  return kSuccess;
}

UD_API cuStreamEndCapture(Stream* s, Graph** graph) {
  UD_ENTER;
  if (bad_stream(s)) return kInvalidHandle;
  Graph* g = s->capture;
  if (g == nullptr || g->origin != s) return kInvalidState;
  int code = kSuccess;
  for (Stream* other : driver.streams) {
    if (other->capture != g) continue;
    if (other != s && other->joined < other->captured) code = kCaptureUnjoined;
    other->capture = nullptr;
  }
  for (Event* e : driver.events) {
    if (e->capture == g) {
      e->capture = nullptr;
      e->issued = e->reached = 0;  // as if it had never been recorded
    }
  }
  if (code != kSuccess) {
    delete g;
    return code;
  }
  driver.graphs.insert(g);
  *graph = g;
  return kSuccess;
}

UD_API cuGraphGetNodes(Graph* g, void** nodes, size_t* n) {
  UD_ENTER;
  if (driver.graphs.count(g) == 0) return kInvalidHandle;
  if (nodes != nullptr) return kInvalidValue;
  *n = g->nodes.size();
  return kSuccess;
}

UD_API cuGraphInstantiateWithFlags(Graph** executable, Graph* g, unsigned long long flags) {
  UD_ENTER;
  if (driver.graphs.count(g) == 0) return kInvalidHandle;
  if (flags != 0) return kInvalidValue;
  *executable = new Graph(*g);
  driver.graphs.insert(*executable);
  return kSuccess;
}

UD_API cuGraphLaunch(Graph* executable, Stream* s) {
  UD_ENTER;
  if (driver.graphs.count(executable) == 0 || bad_stream(s)) return kInvalidHandle;
  if (s->capture != nullptr) return kCaptureUnsupported;
  for (const Work& w : executable->nodes) {
    if (int code = submit(s, w)) return code;
  }
  return kSuccess;
}

static int destroy_graph(Graph* g) {
  if (driver.graphs.erase(g) == 0) return kInvalidHandle;
  delete g;
  return kSuccess;
}

UD_API cuGraphExecDestroy(Graph* executable) {
  UD_ENTER;
  return destroy_graph(executable);
}

UD_API cuGraphDestroy(Graph* g) {
  UD_ENTER;
  return destroy_graph(g);
}
