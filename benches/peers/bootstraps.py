"""What the bootstrapping drivers in Python share: inputs, clocks, precision and the report (README.md)."""

import json
import math
import random
import sys
import time

# What the slots hold; magnitudes up to 1, multiples of 2^-20, which 32-bit floats hold exactly.
KINDS = ("random", "constant", "signs", "replicated")
PERIOD = 128


def values(kind, slots, source):
    def one():
        uniform = (source.getrandbits(21) - (1 << 20)) / (1 << 20)
        if kind == "constant":
            return 1.0
        if kind == "signs":
            return math.copysign(1.0, uniform)
        return uniform

    block = [one() for _ in range(PERIOD if kind == "replicated" else slots)]
    return (block * (slots // len(block)))[:slots]


def say(text):
    print(text, file=sys.stderr, flush=True)


def resident_bytes():
    """The most memory that was resident."""
    with open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None


class Timed:
    """Wall-clock and processor seconds of a block; the latter of all threads."""

    def __enter__(self):
        self.start = (time.perf_counter(), time.process_time())
        return self

    def __exit__(self, *_):
        self.wall = time.perf_counter() - self.start[0]
        self.cpu = time.process_time() - self.start[1]


def precision(errors):
    """Bits of the largest and of the mean absolute error."""
    worst, mean = max(errors), sum(errors) / len(errors)
    return {"worst": -math.log2(worst), "mean": -math.log2(mean)}


def measure(name, slots, rounds, scheme):
    """Every kind of input `rounds` times: times, and the precision of the first round. `scheme` has
    `encrypt(values)`, `bootstrap(ciphertext)`, and `errors(result, values)`, absolute."""
    source = random.Random(11)
    times, found = [], {}
    for _ in range(rounds):
        for kind in KINDS:
            expected = values(kind, slots, source)
            ciphertext = scheme.encrypt(expected)
            with Timed() as timed:
                result = scheme.bootstrap(ciphertext)
            times.append({"wall_ms": timed.wall * 1e3, "cpu_ms": timed.cpu * 1e3})
            bits = precision(scheme.errors(result, expected))
            found.setdefault(kind, bits)
            say(f"{name}: {kind} {timed.wall:.2f} s, worst {bits['worst']:.1f} bits, mean {bits['mean']:.1f}")
            del ciphertext, result
    return times, found


def report(**fields):
    print(json.dumps({**fields, "resident_bytes": resident_bytes()}), flush=True)
