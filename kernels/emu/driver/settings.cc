// settings.cc: reads UPDRAFT_EMULATOR.
#include <cstdio>
#include <cstdlib>

#include "driver.h"

namespace emu {

// number reads a whole non-negative number.
static bool number(const std::string& text, uint64_t most, uint64_t* v) {
  if (text.empty() || text.find_first_not_of("0123456789") != std::string::npos) return false;
  *v = std::strtoull(text.c_str(), nullptr, 10);
  return *v <= most;
}

// set changes one setting and reports whether it knows name and value.
static bool set(Settings& s, const std::string& name, const std::string& value) {
  const struct {
    const char* name;
    int* to;
  } integers[] = {
      {"devices", &s.devices},       {"version", &s.version},           {"multiprocessors", &s.multiprocessors},
      {"init", &s.init},             {"retain", &s.retain},             {"compute-mode", &s.compute_mode},
      {"fail-launch", &s.fail_launch}, {"fail-allocation", &s.fail_allocation},
  };
  uint64_t v = 0;
  for (const auto& i : integers) {
    if (name == i.name) {
      if (!number(value, 1 << 30, &v)) return false;
      *i.to = (int)v;
      return true;
    }
  }
  const struct {
    const char *name, *value;
    int* to;
    int means;
  } words[] = {
      {"landing", "late", &s.options.landing, Options::kLate},
      {"landing", "at-once", &s.options.landing, Options::kAtOnce},
      {"landing", "random", &s.options.landing, Options::kRandomly},
      {"bank-conflicts", "fail", &s.options.conflicts_fail, 1},
      {"bank-conflicts", "allow", &s.options.conflicts_fail, 0},
      {"mma", "cut", &s.options.mma_cuts, 1},
      {"mma", "round", &s.options.mma_cuts, 0},
      {"streams", "late", &s.late_streams, 1},
      {"streams", "at-once", &s.late_streams, 0},
  };
  for (const auto& w : words) {
    if (name == w.name && value == w.value) {
      *w.to = w.means;
      return true;
    }
  }
  if (name == "capability") return std::sscanf(value.c_str(), "%d.%d", &s.major, &s.minor) == 2;
  if (name == "memory") {
    if (!number(value, UINT64_MAX, &v)) return false;
    s.memory = v;
    return true;
  }
  if (name == "resident") {
    if (!number(value, 8, &v) || v == 0) return false;
    s.options.resident = (u32)v;
    return true;
  }
  if (name == "seed") {
    if (!number(value, UINT32_MAX, &v)) return false;
    s.options.seed = (u32)v;
    return true;
  }
  return false;
}

Settings Settings::read() {
  Settings s;
  const char* text = std::getenv("UPDRAFT_EMULATOR");
  std::string all = text != nullptr ? text : "";
  for (size_t at = 0; at < all.size();) {
    size_t end = std::min(all.find(',', at), all.size());
    std::string item = all.substr(at, end - at);
    at = end + 1;
    size_t equals = std::min(item.find('='), item.size());
    std::string value = equals < item.size() ? item.substr(equals + 1) : "";
    if (!item.empty() && !set(s, item.substr(0, equals), value)) {
      // A misspelt setting would silently test something else.
      s.fault = "invalid setting in UPDRAFT_EMULATOR: " + item;
    }
  }
  return s;
}

}  // namespace emu
