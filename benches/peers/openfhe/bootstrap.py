"""OpenFHE's bootstrap of full slots: `bootstrap.py levels_7 ROUNDS THREADS` prints a report (README.md
of the folder above)."""

import os
import sys
import tempfile

import openfhe

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import bootstraps  # noqa: E402

LOG_N = 16
SCALE, FIRST = 55, 60
DNUM = 4
LEVELS = 7
BUDGET = [3, 3]
SECRET_WEIGHT = 192  # the library's, of sparse secrets
EPHEMERAL_WEIGHT = 32
SLOTS = 1 << (LOG_N - 1)
SPECIAL_BITS = 60


class Scheme:
    def __init__(self):
        distribution = openfhe.SPARSE_ENCAPSULATED
        self.depth = LEVELS + openfhe.CryptoContext.GetBootstrapDepth(BUDGET, distribution)
        p = openfhe.CCParamsCKKSRNS()
        p.SetSecretKeyDist(distribution)
        p.SetSecurityLevel(openfhe.HEStd_128_classic)
        p.SetRingDim(1 << LOG_N)
        p.SetScalingModSize(SCALE)
        p.SetFirstModSize(FIRST)
        p.SetScalingTechnique(openfhe.FLEXIBLEAUTO)
        p.SetNumLargeDigits(DNUM)
        p.SetMultiplicativeDepth(self.depth)
        self.context = openfhe.GenCryptoContext(p)
        for feature in ("PKE", "KEYSWITCH", "LEVELEDSHE", "ADVANCEDSHE", "FHE"):
            self.context.Enable(getattr(openfhe, feature))
        self.context.EvalBootstrapSetup(BUDGET, [0, 0], SLOTS)

    def make_keys(self):
        self.keys = self.context.KeyGen()
        self.context.EvalMultKeyGen(self.keys.secretKey)
        self.context.EvalBootstrapKeyGen(self.keys.secretKey, SLOTS)

    def key_bytes(self):
        """All keys are as large as the one for products, which is written to a file."""
        tag = self.keys.secretKey.GetKeyTag()
        rotations = len(self.context.GetExistingEvalAutomorphismKeyIndices(tag))
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "key")
            self.context.SerializeEvalMultKey(path, openfhe.BINARY)
            return (rotations + 1) * os.path.getsize(path)

    def encrypt(self, values):
        plain = self.context.MakeCKKSPackedPlaintext(values, 1, self.depth - 1, None, SLOTS)
        return self.context.Encrypt(self.keys.publicKey, plain)

    def bootstrap(self, ciphertext):
        return self.context.EvalBootstrap(ciphertext)

    def errors(self, result, values):
        # A result whose last product is not yet divided by its prime has a level less.
        self.levels = self.depth - result.GetLevel() - (result.GetNoiseScaleDeg() - 1)
        plain = self.context.Decrypt(result, self.keys.secretKey)
        plain.SetLength(SLOTS)
        return [abs(a - b) for a, b in zip(plain.GetRealPackedValue(), values)]


def log_qp(depth):
    """As many special primes as the largest digit has bits for."""
    digit = -(-(depth + 1) // DNUM)
    special = -(-(FIRST + SCALE * (digit - 1)) // SPECIAL_BITS)
    return FIRST + SCALE * depth + SPECIAL_BITS * special


def main():
    preset, rounds, _threads = sys.argv[1:]
    if preset != "levels_7":
        sys.exit(f"there is no preset {preset}")
    with bootstraps.Timed() as setup:
        scheme = Scheme()
    bootstraps.say(f"openfhe: {setup.wall:.1f} s of setup; making keys ..")
    with bootstraps.Timed() as keys:
        scheme.make_keys()
    bootstraps.say(f"openfhe: {keys.wall:.1f} s; bootstrapping ..")
    times, precision = bootstraps.measure("openfhe", SLOTS, int(rounds), scheme)
    bootstraps.report(
        preset=f"SPARSE_ENCAPSULATED, budget {BUDGET[0]} and {BUDGET[1]}, scale 2^{SCALE}",
        log_n=LOG_N,
        slots=SLOTS,
        complex=False,
        levels=scheme.levels,
        scale_bits=SCALE,
        keys=[{"secret_weight": SECRET_WEIGHT, "log_qp": log_qp(scheme.depth)}],
        key_bytes=scheme.key_bytes(),
        keygen_s=keys.cpu,
        setup_s=setup.cpu,
        times=times,
        precision=precision,
        note="real slots; its own check of security, which takes the bound of a dense secret, passes",
    )


main()
