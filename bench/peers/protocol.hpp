// The protocol of README.md for peers in C++: JSON lines on stdin and stdout.
//
// A peer defines a Work and gives serve() a function that makes one of a "prepare" request. A request is one flat object
// of strings and numbers; nothing deeper is read.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace peer {

using Error = std::runtime_error;

// A request: text by key, numbers as they stood in the line.
class Request {
public:
    explicit Request(const std::string &line) : at(line.c_str()) {
        expect('{');
        if (next() == '}')
            return;
        do {
            std::string key = text();
            expect(':');
            fields[key] = next() == '"' ? text() : number();
        } while (take(','));
        expect('}');
    }

    std::string str(const std::string &key) const {
        auto f = fields.find(key);
        if (f == fields.end())
            throw Error("the request has no \"" + key + "\"");
        return f->second;
    }

    long num(const std::string &key) const {
        char *end;
        std::string s = str(key);
        long n = std::strtol(s.c_str(), &end, 10);
        if (s.empty() || *end)
            throw Error("\"" + key + "\" is no whole number");
        return n;
    }

private:
    char next() {
        while (*at == ' ' || *at == '\t')
            at++;
        return *at;
    }
    bool take(char c) { return next() == c && at++; }
    void expect(char c) {
        if (!take(c))
            throw Error(std::string("the request is no flat JSON object: expected ") + c);
    }
    std::string number() {
        const char *from = at;
        while (*at && *at != ',' && *at != '}' && *at != ' ')
            at++;
        return std::string(from, at);
    }
    std::string text() {
        expect('"');
        std::string s;
        for (; *at && *at != '"'; at++) {
            if (*at != '\\') {
                s += *at;
                continue;
            }
            switch (*++at) {
            case '"': case '\\': case '/': s += *at; break;
            case 'n': s += '\n'; break;
            case 't': s += '\t'; break;
            default: throw Error("an escape that this peer does not read");
            }
        }
        expect('"');
        return s;
    }

    const char *at;
    std::map<std::string, std::string> fields;
};

// The elements of a file, which must hold exactly n.
template <class T> std::vector<T> read(const std::string &path, size_t n) {
    std::vector<T> v(n);
    std::ifstream in(path, std::ios::binary | std::ios::ate);
    if (!in || size_t(in.tellg()) != n * sizeof(T))
        throw Error(path + " does not hold " + std::to_string(n) + " elements");
    in.seekg(0);
    in.read(reinterpret_cast<char *>(v.data()), n * sizeof(T));
    if (!in)
        throw Error("cannot read " + path);
    return v;
}

inline std::string quote(const std::string &s) {
    std::string out = "\"";
    for (char c : s) {
        if (c == '"' || c == '\\')
            out += '\\';
        out += c < ' ' ? ' ' : c;
    }
    return out + "\"";
}

inline std::string list(const std::vector<std::string> &words) {
    std::string out;
    for (auto &w : words)
        out += (out.empty() ? "" : ",") + quote(w);
    return "[" + out + "]";
}

// The threads that the harness asks for.
inline int threads() {
    const char *s = std::getenv("UPDRAFT_THREADS");
    int n = s ? std::atoi(s) : 0;
    return n > 0 ? n : int(std::thread::hardware_concurrency());
}

// What a "prepare" request made.
struct Work {
    virtual ~Work() = default;
    virtual std::vector<std::string> variants() const = 0;
    virtual void begin(const std::string &) {} // before the clock starts
    virtual void repeat(const std::string &variant) = 0;
    virtual void end(const std::string &) {} // after it stops; workers are idle when it returns
    virtual std::vector<float> output(const std::string &variant) = 0;
};

using Prepare = std::function<std::unique_ptr<Work>(const Request &)>;

inline std::string answer(const Request &r, std::unique_ptr<Work> &work, const Prepare &prepare) {
    using Clock = std::chrono::steady_clock;
    std::string op = r.str("op");
    if (op == "prepare") {
        work.reset(); // two works at once may not fit into memory
        work = prepare(r);
        return "{\"ok\":true,\"variants\":" + list(work->variants()) + "}";
    }
    if (op == "close") {
        work.reset();
        return "{\"ok\":true}";
    }
    if (!work)
        throw Error(op + ": nothing is prepared");
    std::string variant = r.str("variant");
    if (op == "run") {
        long n = r.num("repeat");
        work->begin(variant);
        auto from = Clock::now();
        for (long i = 0; i < n; i++)
            work->repeat(variant);
        double seconds = std::chrono::duration<double>(Clock::now() - from).count();
        work->end(variant);
        char reply[64];
        std::snprintf(reply, sizeof reply, "{\"seconds\":%.9f}", seconds);
        return reply;
    }
    if (op == "output") {
        auto v = work->output(variant);
        std::ofstream out(r.str("file"), std::ios::binary);
        out.write(reinterpret_cast<const char *>(v.data()), v.size() * sizeof(float));
        if (!out.flush())
            throw Error("cannot write " + r.str("file"));
        return "{\"ok\":true}";
    }
    throw Error("unknown op " + op);
}

inline int serve(const std::string &name, const std::string &version, const std::string &detail, const std::vector<std::string> &works, const Prepare &prepare) {
    std::cout << "{\"peer\":" << quote(name) << ",\"version\":" << quote(version) << ",\"detail\":" << quote(detail) << ",\"works\":" << list(works) << "}" << std::endl;
    std::unique_ptr<Work> work;
    for (std::string line; std::getline(std::cin, line);) {
        try {
            Request r(line);
            if (r.str("op") == "quit")
                break;
            std::cout << answer(r, work, prepare) << std::endl;
        } catch (const std::exception &e) {
            std::cout << "{\"error\":" << quote(e.what()) << "}" << std::endl;
        }
    }
    return 0;
}

} // namespace peer
