"""Golden vectors for the ckks crate, from an independent model.

Everything here is schoolbook arithmetic on Python integers: no number-theoretic transform, no
residue number system, no floating point except for the scale table (which the format defines in
IEEE doubles). Prints the JSON that tests/golden.rs compares with, bit for bit:

    python3 make.py > vectors.json
"""

import json
import struct
from fractions import Fraction

LOG_N, N = 3, 8
SPEC = dict(
    log_n=LOG_N,
    first_bits=40,
    scale_bits=30,
    levels=3,
    special_bits=40,
    special_count=2,
    digit_limbs=2,
    security="Bits128",
)


# --- numbers -----------------------------------------------------------------------------------
def is_prime(n):
    if n < 2:
        return False
    for p in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37):
        if n % p == 0:
            return n == p
    d, r = n - 1, 0
    while d % 2 == 0:
        d, r = d // 2, r + 1
    for a in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37):
        x = pow(a, d, n)
        if x in (1, n - 1):
            continue
        for _ in range(r - 1):
            x = x * x % n
            if x == n - 1:
                break
        else:
            return False
    return True


def product(values):
    out = 1
    for v in values:
        out *= v
    return out


def centred(x, m):
    """The representative of x modulo an odd m in (-m/2, m/2)."""
    x %= m
    return x - m if 2 * x > m else x


def nearest_primes(target, used, count):
    """The free primes = 1 mod 2N nearest to a (float) target."""
    step = 2 * N
    base = int(target) // step * step + 1
    around = [base + k * step for k in range(-4000, 4000)]
    around.sort(key=lambda q: abs(Fraction(q) - Fraction(target)))
    found = []
    for q in around:
        if q not in used and q not in found and is_prime(q):
            found.append(q)
            if len(found) == count:
                return found
    raise ValueError("too few primes")


def largest_primes(limit, used, count):
    """The largest free primes = 1 mod 2N below a limit."""
    step = 2 * N
    candidates = (k * step + 1 for k in range((limit - 2) // step, 0, -1))
    free = (q for q in candidates if q not in used and is_prime(q))
    return [next(free) for _ in range(count)]


def choose_primes():
    """The chain q0, q1..qL, special primes and the scale of every level (design/crypto.md)."""
    top = float(2 ** SPEC["scale_bits"])
    scales, ladder, used = [top], [], []
    for _ in range(SPEC["levels"]):
        s = scales[-1]
        (q,) = nearest_primes(s * s / top, used, 1)
        used.append(q)
        ladder.append(q)
        scales.append(s * s / float(q))
    (q0,) = nearest_primes(float(2 ** SPEC["first_bits"]), used, 1)
    used.append(q0)
    special = largest_primes(2 ** SPEC["special_bits"], used, SPEC["special_count"])
    return [q0] + ladder[::-1], special, scales[::-1]


# --- trigonometry in fixed point ---------------------------------------------------------------
BITS = 256
ONE = 1 << BITS


def arctan_inverse(k):
    total, term, i = 0, ONE // k, 0
    while term:
        total += (-term if i % 2 else term) // (2 * i + 1)
        term //= k * k
        i += 1
    return total


PI = 4 * (4 * arctan_inverse(5) - arctan_inverse(239))


def cos_sin(k, order):
    """cos and sin of 2 pi k / order, times 2^BITS."""
    angle = 2 * PI * (k % order) // order
    cos = sin = 0
    term, i = ONE, 0
    while abs(term) > 1 or i < 4:
        value = -term if i % 4 >= 2 else term
        if i % 2:
            sin += value
        else:
            cos += value
        i += 1
        term = (term * angle >> BITS) // i
    return cos, sin


# --- polynomials: lists of N integers, X^N = -1 -------------------------------------------------
def multiply(a, b):
    out = [0] * N
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            if i + j < N:
                out[i + j] += x * y
            else:
                out[i + j - N] -= x * y
    return out


def add(a, b):
    return [x + y for x, y in zip(a, b)]


def automorphism(a, g):
    out = [0] * N
    for i, x in enumerate(a):
        e = i * g % (2 * N)
        if e < N:
            out[e] += x
        else:
            out[e - N] -= x
    return out


def divide_round(a, modulus, divisor):
    """round(x / divisor) for the class of x modulo `modulus`, a multiple of `divisor`."""
    return [(x - centred(x, divisor)) // divisor % (modulus // divisor) for x in a]


def residues(a, primes):
    return [[x % q for x in a] for q in primes]


def encode(slots, scale):
    """round(scale * embedding^-1(slots)): c_k = 2/N sum_j Re(slot_j conj(zeta_j)^k)."""
    out = []
    for k in range(N):
        total = Fraction(0)
        for j, (re, im) in enumerate(slots):
            cos, sin = cos_sin(pow(5, j, 2 * N) * k, 2 * N)
            total += Fraction(re) * Fraction(cos, ONE) + Fraction(im) * Fraction(sin, ONE)
        value = total * Fraction(2, N) * Fraction(scale)
        out.append(round(value))
    return out


def ntt_order(a, q):
    """Values at psi^(2 rev(j) + 1), psi = g^((q-1)/2N) for the smallest g with psi^N = -1."""
    g = 2
    while pow(g, (q - 1) // 2, q) != q - 1:
        g += 1
    psi = pow(g, (q - 1) // (2 * N), q)
    out = []
    for j in range(N):
        rev = int(format(j, f"0{LOG_N}b")[::-1], 2)
        root = pow(psi, 2 * rev + 1, q)
        out.append(sum(x * pow(root, k, q) for k, x in enumerate(a)) % q)
    return out


# --- key switching -------------------------------------------------------------------------------
def key_switch(poly, key, chain, special, galois):
    """sum_d sigma(digit_d(poly)) * key_d modulo QP, digits centred; not yet divided by P."""
    modulus = product(chain) * product(special)
    sums = [[0] * N, [0] * N]
    width = SPEC["digit_limbs"]
    for d in range(0, len(chain), width):
        size = product(chain[d : d + width])
        digit = automorphism([centred(x, size) for x in poly], galois)
        for half in (0, 1):
            sums[half] = add(sums[half], multiply(digit, key[d // width][half]))
    return [[x % modulus for x in half] for half in sums]


class Random:
    """A linear congruential generator: any fixed numbers will do."""

    def __init__(self, state):
        self.state = state

    def below(self, bound):
        out = 0
        for _ in range(bound.bit_length() // 32 + 3):
            self.state = (self.state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
            out = out << 32 | self.state >> 32
        return out % bound

    def poly(self, modulus):
        return [self.below(modulus) for _ in range(N)]


def main():
    random = Random(2024)
    chain, special, scales = choose_primes()
    level = SPEC["levels"]
    big_q, big_p = product(chain), product(special)
    all_primes = chain + special

    encodings = []
    for at in (level, level - 1, 0):
        slots = [
            (random.below(4096) / 1024 - 2, random.below(4096) / 1024 - 2) for _ in range(N // 2)
        ]
        coefficients = encode(slots, scales[at])
        encodings.append(
            dict(
                level=at,
                slots=slots,
                coefficients=coefficients,
                ntt=[ntt_order(coefficients, q) for q in chain[: at + 1]],
            )
        )

    a = [random.poly(big_q), random.poly(big_q)]
    b = [random.poly(big_q), random.poly(big_q)]
    digits = -(-len(chain) // SPEC["digit_limbs"])
    keys = [
        [[random.poly(big_q * big_p) for _ in range(2)] for _ in range(digits)] for _ in range(2)
    ]

    # (a0 + a1 s)(b0 + b1 s), relinearized with keys[0] and rescaled in one division.
    d0 = multiply(a[0], b[0])
    d1 = add(multiply(a[0], b[1]), multiply(a[1], b[0]))
    d2 = multiply(a[1], b[1])
    switched = key_switch(d2, keys[0], chain, special, 1)
    divisor = big_p * chain[-1]
    multiplied = [
        divide_round(add([big_p * x for x in d], s), big_q * big_p, divisor)
        for d, s in zip((d0, d1), switched)
    ]

    # a rotated by one slot with keys[1].
    switched = key_switch(a[1], keys[1], chain, special, 5)
    rotated = [divide_round(s, big_q * big_p, big_p) for s in switched]
    rotated[0] = [x % big_q for x in add(automorphism(a[0], 5), rotated[0])]

    rescaled = [divide_round(half, big_q, chain[-1]) for half in a]

    print(
        json.dumps(
            dict(
                spec=SPEC,
                primes=all_primes,
                scale_words=[struct.unpack("<Q", struct.pack("<d", s))[0] for s in scales],
                encodings=encodings,
                a=[residues(x, chain) for x in a],
                b=[residues(x, chain) for x in b],
                keys=[[[residues(x, all_primes) for x in part] for part in key] for key in keys],
                multiplied=[residues(x, chain[:-1]) for x in multiplied],
                rotated=[residues(x, chain) for x in rotated],
                rescaled=[residues(x, chain[:-1]) for x in rescaled],
            ),
            separators=(",", ":"),
        )
    )


if __name__ == "__main__":
    main()
