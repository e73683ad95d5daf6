"""OpenFHE through its Python wheel."""

import os
import random
import sys

import openfhe

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import protocol  # noqa: E402

HOISTED = range(1, 9)
BABIES, GIANTS = 16, 8


class Scheme:
    """Context, keys and operands. What only some operations need is made when it is first asked for."""

    def __init__(self, log_n, limbs, dnum, scale):
        p = openfhe.CCParamsCKKSRNS()
        p.SetSecurityLevel(openfhe.HEStd_NotSet)  # the ring and the modulus are given
        p.SetSecretKeyDist(openfhe.UNIFORM_TERNARY)
        p.SetScalingTechnique(openfhe.FIXEDMANUAL)
        p.SetRingDim(1 << log_n)
        p.SetBatchSize(1 << (log_n - 1))
        p.SetMultiplicativeDepth(limbs - 1)
        p.SetScalingModSize(scale)
        p.SetFirstModSize(60)
        p.SetNumLargeDigits(dnum)
        self.context = openfhe.GenCryptoContext(p)
        for feature in (openfhe.PKE, openfhe.KEYSWITCH, openfhe.LEVELEDSHE, openfhe.ADVANCEDSHE):
            self.context.Enable(feature)
        self.keys = self.context.KeyGen()
        self.order = 2 << log_n
        self.slots = 1 << (log_n - 1)
        self.values = self.vector(1.0)
        self.plain = self.encode(self.values)
        self.a, self.b = self.encrypt(), self.encrypt()
        self.rotations = set()
        self.made = {}

    def vector(self, size):
        return [random.uniform(-size, size) for _ in range(self.slots)]

    def encode(self, values):
        return self.context.MakeCKKSPackedPlaintext(values)

    def encrypt(self):
        return self.context.Encrypt(self.keys.secretKey, self.plain)

    def encrypt_public(self):
        return self.context.Encrypt(self.keys.publicKey, self.plain)

    def once(self, name, make):
        if name not in self.made:
            self.made[name] = make()
        return self.made[name]

    def relinearization(self):
        return self.once("relinearization", self.new_relinearization)

    def new_relinearization(self):
        # The library keeps keys by the secret's tag and does not make one twice.
        openfhe.ClearEvalMultKeys()
        self.context.EvalMultKeyGen(self.keys.secretKey)
        return True

    def rotation_keys(self, steps):
        missing = [step for step in steps if step not in self.rotations]
        if missing:
            self.context.EvalRotateKeyGen(self.keys.secretKey, missing)
            self.rotations.update(missing)

    def multiply(self):
        self.relinearization()
        return self.context.EvalMult(self.a, self.b)

    def rotate(self):
        self.rotation_keys([1])
        return self.context.EvalRotate(self.a, 1)

    def hoisted(self):
        self.rotation_keys(HOISTED)
        digits = self.context.EvalFastRotationPrecompute(self.a)
        return [self.context.EvalFastRotation(self.a, by, self.order, digits) for by in HOISTED]

    def rescale(self):
        product = self.once("product", lambda: self.context.EvalMult(self.a, self.plain))
        return self.context.Rescale(product)

    def decrypt_decode(self):
        plain = self.context.Decrypt(self.a, self.keys.secretKey)
        plain.SetLength(self.slots)
        return plain

    def linear_transform(self):
        """128 diagonals by baby and giant steps; the babies share their decomposition."""
        cc = self.context
        self.rotation_keys([*range(1, BABIES), *(BABIES * g for g in range(1, GIANTS))])
        diagonals = self.once(
            "diagonals",
            lambda: [self.encode(self.vector(1.0 / (BABIES * GIANTS))) for _ in range(BABIES * GIANTS)],
        )
        digits = cc.EvalFastRotationPrecompute(self.a)
        babies = [self.a]
        for by in range(1, BABIES):
            babies.append(cc.EvalFastRotation(self.a, by, self.order, digits))
        total = None
        for giant in range(GIANTS):
            row = diagonals[BABIES * giant : BABIES * (giant + 1)]
            part = cc.EvalMult(babies[0], row[0])
            for baby, diagonal in zip(babies[1:], row[1:]):
                cc.EvalAddInPlace(part, cc.EvalMult(baby, diagonal))
            if giant:
                part = cc.EvalRotate(part, BABIES * giant)
                cc.EvalAddInPlace(total, part)
            else:
                total = part
        return cc.Rescale(total)

    def operations(self):
        cc = self.context
        return {
            "add": lambda: cc.EvalAdd(self.a, self.b),
            "plaintext_multiply": lambda: cc.EvalMult(self.a, self.plain),
            "multiply_relinearize": self.multiply,
            "multiply_relinearize_rescale": lambda: cc.Rescale(self.multiply()),
            "rotate": self.rotate,
            "rotate_hoisted": self.hoisted,
            "rescale": self.rescale,
            "linear_transform_128": self.linear_transform,
            "encode": lambda: self.encode(self.values),
            "encrypt": self.encrypt,
            "encrypt_public": self.encrypt_public,
            "decrypt_decode": self.decrypt_decode,
            "keygen_relinearization": self.new_relinearization,
        }


def setup(parameters):
    scheme = Scheme(*(parameters[key] for key in ("log_n", "limbs", "dnum", "scale")))
    note = "first prime 60 bits; encrypts an encoded plaintext; encodes a Python list"
    return note, scheme.operations()


protocol.serve(setup)
