"""Tests of iqa_core/duplicates/content_hash.py."""

from __future__ import annotations

import hashlib

from iqa_core.duplicates.content_hash import content_hash


def test_the_hash_is_blake2b_of_128_bits():
    # RFC 7693 puts the length of the digest into the parameters: it is no prefix of a longer one.
    assert content_hash(b"abc") == hashlib.blake2b(b"abc", digest_size=16).hexdigest()
    assert content_hash(b"abc") == "cf4ab791c62b8d2b2109c90275287816"
    assert content_hash(b"abc\n") != content_hash(b"abc")
