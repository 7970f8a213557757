"""Who can read the bucket is a broker: challenge and response over a secret that only it tells.

The secret is drawn from the write id of `meta/0/0`: 128 random bits of the cluster's birth, in an
object that is never deleted and that no client is ever told of. Each side proves it over the nonces
of both, under a label of its own, so that neither can be made to answer its own question.

Source: RFC 2104 (HMAC), RFC 5869 (extract: a key for one purpose out of a secret).
"""

from __future__ import annotations

import hashlib
import hmac

NONCE_BYTES = 16
_PURPOSE = b"headwater brokers 1"
_ASKED, _ASKING = b"the one who is asked", b"the one who asks"


def secret_of(write_id: bytes) -> bytes:
    """write_id: of `meta/0/0`."""
    return hmac.digest(_PURPOSE, write_id, hashlib.sha256)


def proof_of_asked(secret: bytes, nonce_asking: bytes, nonce_asked: bytes) -> bytes:
    return _proof(secret, _ASKED, nonce_asking, nonce_asked)


def proof_of_asking(secret: bytes, nonce_asking: bytes, nonce_asked: bytes) -> bytes:
    return _proof(secret, _ASKING, nonce_asking, nonce_asked)


def is_proof(given: bytes, expected: bytes) -> bool:
    """Takes as long for a near miss as for a far one."""
    return hmac.compare_digest(given, expected)


def _proof(secret: bytes, label: bytes, nonce_asking: bytes, nonce_asked: bytes) -> bytes:
    assert len(nonce_asking) == len(nonce_asked) == NONCE_BYTES
    return hmac.digest(secret, label + nonce_asking + nonce_asked, hashlib.sha256)
