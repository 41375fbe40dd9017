"""What is done to stored values between the codec and the store: compression, encryption, and
external storage.

A :class:`Pipeline` goes to the :class:`~orchestra.Runtime` and to the :class:`~orchestra.Client`.
It stands at the port of the store: code, engine and clients see plain values, and a provider sees
sealed ones.
"""

from orchestra.payloads.compression import Compress
from orchestra.payloads.encryption import Encrypt, Keys
from orchestra.payloads.pipeline import Pipeline
from orchestra.payloads.provider import SealingProvider, with_payloads
from orchestra.payloads.s3 import S3Storage
from orchestra.payloads.storage import DirectoryStorage, External, Storage

__all__ = [
    "Compress",
    "DirectoryStorage",
    "Encrypt",
    "External",
    "Keys",
    "Pipeline",
    "S3Storage",
    "SealingProvider",
    "Storage",
    "with_payloads",
]
