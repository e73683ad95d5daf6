"""Lattigo through the shared library of the orion-fhe wheel, whose path is the argument."""

import ctypes
import math
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import protocol  # noqa: E402

DIAGONALS = 128
SECRET_WEIGHT = 192

floats = ctypes.POINTER(ctypes.c_float)
integers = ctypes.POINTER(ctypes.c_int)


class FloatArray(ctypes.Structure):
    _fields_ = [("data", floats), ("length", ctypes.c_ulong)]


class IntArray(ctypes.Structure):
    _fields_ = [("data", integers), ("length", ctypes.c_ulong)]


def load(path):
    library = ctypes.CDLL(path)
    library.Encode.argtypes = [floats, ctypes.c_int, ctypes.c_int, ctypes.c_ulong]
    library.Decode.restype = FloatArray
    library.FreeCArray.argtypes = [ctypes.c_void_p]
    library.GetLinearTransformRotationKeys.restype = IntArray
    library.GenerateLinearTransform.argtypes = [
        integers,
        ctypes.c_int,
        floats,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_float,
        ctypes.c_char_p,
    ]
    return library


def int_array(values):
    return (ctypes.c_int * len(values))(*values)


def float_array(count, size):
    return (ctypes.c_float * count)(*(random.uniform(-size, size) for _ in range(count)))


class Scheme:
    def __init__(self, library, log_n, limbs, dnum, scale):
        self.go = library
        self.level = limbs - 1
        self.slots = 1 << (log_n - 1)
        self.scale = 1 << scale
        primes = int_array([60] + [scale] * (limbs - 1))
        special = int_array([60] * math.ceil(limbs / dnum))
        self.go.NewScheme(
            log_n, primes, len(primes), special, len(special), scale, SECRET_WEIGHT, b"standard", b"", b"none"
        )
        self.go.NewKeyGenerator()
        self.go.GenerateSecretKey()
        self.go.GeneratePublicKey()
        self.go.GenerateRelinearizationKey()
        self.go.GenerateEvaluationKeys()
        self.go.NewEncoder()
        self.go.NewEncryptor()
        self.go.NewDecryptor()
        self.go.NewEvaluator()  # makes the keys of rotations by powers of two
        self.values = float_array(self.slots, 1.0)
        self.plain = self.encode()
        self.a, self.b = self.go.Encrypt(self.plain), self.go.Encrypt(self.plain)
        self.transform = None

    def encode(self):
        return self.go.Encode(self.values, self.slots, self.level, self.scale)

    def multiply_rescale(self):
        product = self.go.MulRelinCiphertextNew(self.a, self.b)
        self.go.Rescale(product)
        return product

    def decrypt_decode(self):
        plain = self.go.Decrypt(self.a)
        return plain, self.go.Decode(plain)

    def free_decoded(self, result):
        plain, slots = result
        self.go.FreeCArray(ctypes.cast(slots.data, ctypes.c_void_p))
        self.go.DeletePlaintext(plain)

    def linear_transform(self):
        if self.transform is None:
            self.go.NewLinearTransformEvaluator()
            entries = float_array(DIAGONALS * self.slots, 1.0 / DIAGONALS)
            # The last number is the library's ratio of baby to giant steps: 2 in logarithms, with
            # which it was fastest.
            self.transform = self.go.GenerateLinearTransform(
                int_array(range(DIAGONALS)),
                DIAGONALS,
                entries,
                DIAGONALS * self.slots,
                self.level,
                ctypes.c_float(math.exp(2.01)),
                b"none",
            )
            keys = self.go.GetLinearTransformRotationKeys(self.transform)
            for i in range(keys.length):
                self.go.GenerateLinearTransformRotationKey(keys.data[i])
        return self.go.EvaluateLinearTransform(self.transform, self.a)

    def operations(self):
        go, ct, pt = self.go, self.go.DeleteCiphertext, self.go.DeletePlaintext
        return {
            "add": (lambda: go.AddCiphertextNew(self.a, self.b), ct),
            "plaintext_multiply": (lambda: go.MulPlaintextNew(self.a, self.plain), ct),
            "multiply_relinearize": (lambda: go.MulRelinCiphertextNew(self.a, self.b), ct),
            "multiply_relinearize_rescale": (self.multiply_rescale, ct),
            "rotate": (lambda: go.RotateNew(self.a, 1), ct),
            "linear_transform_128": (self.linear_transform, ct),
            "encode": (self.encode, pt),
            # The interface encrypts under a public key only.
            "encrypt": (lambda: go.Encrypt(self.plain), ct),
            "encrypt_public": (lambda: go.Encrypt(self.plain), ct),
            "decrypt": (lambda: go.Decrypt(self.a), pt),
            "decrypt_decode": (self.decrypt_decode, self.free_decoded),
            "keygen_relinearization": go.GenerateRelinearizationKey,
        }


def setup(parameters):
    scheme = Scheme(load(sys.argv[1]), *(parameters[key] for key in ("log_n", "limbs", "dnum", "scale")))
    note = "first and special primes 60 bits; secret of weight 192; 32-bit floats; encrypts an encoded plaintext"
    return note, scheme.operations()


protocol.serve(setup)
