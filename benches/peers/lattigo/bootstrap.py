"""Lattigo's default bootstrap of full slots: `bootstrap.py LIBRARY levels_9 ROUNDS THREADS` prints a
report (README.md of the folder above)."""

import ctypes
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import bootstraps  # noqa: E402

# N16QP1546H192H32: 9 levels at 2^40. The library adds the primes of the circuit to these: 39 * 3 for
# SlotToCoeff, 60 * 8 for EvalMod, 56 * 4 for CoeffToSlot, which with the special ones are 1546 bits.
LOG_N = 16
SCALE = 40
PRIMES = [60] + [SCALE] * 9
SPECIAL = [61] * 5
CIRCUIT_BITS = 39 * 3 + 60 * 8 + 56 * 4
SECRET_WEIGHT = 192
EPHEMERAL_WEIGHT = 32  # the library's default
SLOTS = 1 << (LOG_N - 1)

floats = ctypes.POINTER(ctypes.c_float)


class FloatArray(ctypes.Structure):
    _fields_ = [("data", floats), ("length", ctypes.c_ulong)]


def ints(values):
    return (ctypes.c_int * len(values))(*values)


class Scheme:
    def __init__(self, path):
        self.go = go = ctypes.CDLL(path)
        go.Encode.argtypes = [floats, ctypes.c_int, ctypes.c_int, ctypes.c_ulong]
        go.Decode.restype = FloatArray
        go.GetCiphertextScale.restype = ctypes.c_ulong
        go.FreeCArray.argtypes = [ctypes.c_void_p]
        go.NewScheme(
            LOG_N,
            ints(PRIMES),
            len(PRIMES),
            ints(SPECIAL),
            len(SPECIAL),
            SCALE,
            SECRET_WEIGHT,
            b"standard",
            b"",
            b"none",
        )
        go.NewKeyGenerator()
        go.GenerateSecretKey()
        go.GeneratePublicKey()
        go.GenerateRelinearizationKey()
        go.GenerateEvaluationKeys()
        go.NewEncoder()
        go.NewEncryptor()
        go.NewDecryptor()
        go.NewEvaluator()

    def make_keys(self):
        self.go.NewBootstrapper(ints(SPECIAL), len(SPECIAL), SLOTS)

    def encode(self, values, level, scale):
        return self.go.Encode((ctypes.c_float * len(values))(*values), len(values), level, scale)

    def encrypt(self, values):
        plain = self.encode(values, 0, 1 << SCALE)
        ciphertext = self.go.Encrypt(plain)
        self.go.DeletePlaintext(plain)
        return ciphertext

    def bootstrap(self, ciphertext):
        result = self.go.Bootstrap(ciphertext, SLOTS)
        self.go.DeleteCiphertext(ciphertext)
        return result

    def level(self, ciphertext):
        return self.go.GetCiphertextLevel(ctypes.c_long(ciphertext))

    def errors(self, result, values):
        """The expected values are subtracted before decryption: results are 32-bit floats, which
        hold 24 bits of a value but 24 bits of its error, too."""
        self.levels = self.level(result)
        expected = self.encode(values, self.levels, self.go.GetCiphertextScale(result))
        difference = self.go.SubPlaintextNew(result, expected)
        plain = self.go.Decrypt(difference)
        decoded = self.go.Decode(plain)
        errors = [abs(decoded.data[i]) for i in range(len(values))]
        self.go.FreeCArray(ctypes.cast(decoded.data, ctypes.c_void_p))
        for ciphertext in (result, difference):
            self.go.DeleteCiphertext(ciphertext)
        for made in (expected, plain):
            self.go.DeletePlaintext(made)
        return errors


def main():
    # Half of the garbage that Go's collector leaves by default, or 20 GiB would not do. It looks at what
    # the process was started with.
    if "GOGC" not in os.environ:
        os.environ["GOGC"] = "50"
        os.execv(sys.executable, sys.orig_argv)
    library, preset, rounds, _threads = sys.argv[1:]
    if preset != "levels_9":
        sys.exit(f"there is no preset {preset}")
    with bootstraps.Timed() as setup:
        scheme = Scheme(library)
    bootstraps.say("lattigo: making keys ..")
    with bootstraps.Timed() as keys:
        scheme.make_keys()
    bootstraps.say(f"lattigo: {keys.wall:.1f} s; bootstrapping ..")
    times, precision = bootstraps.measure("lattigo", SLOTS, int(rounds), scheme)
    bootstraps.report(
        preset="N16QP1546H192H32",
        log_n=LOG_N,
        slots=SLOTS,
        complex=False,
        levels=scheme.levels,
        scale_bits=SCALE,
        keys=[
            {"secret_weight": SECRET_WEIGHT, "log_qp": sum(PRIMES) + CIRCUIT_BITS + sum(SPECIAL)},
            {"secret_weight": EPHEMERAL_WEIGHT, "log_qp": PRIMES[0] + SPECIAL[0]},
        ],
        key_bytes=None,
        keygen_s=keys.cpu,
        setup_s=setup.cpu,
        times=times,
        precision=precision,
        note="bootstraps complex slots, but its interface takes real ones; making keys includes encoding "
        "the matrices; the size of the keys is not to be had",
    )


main()
