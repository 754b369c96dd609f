"""Generated recordings: a tone in a WAV file of any size, produced piece by piece."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator

from airflow_provider_volubile.simulator import chance

_RATE = 8000
_HEADER_SIZE = 44
_PIECE = 64 * 1024


def wav(seed: int, call_id: str, size: int, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
    """Yield bytes ``start`` (included) to ``stop`` (excluded) of the recording of a call.

    :param size: bytes of the whole file, header included; 8 kHz, 8 bits, one channel.
    """
    stop = size if stop is None else min(stop, size)
    header = _header(size - _HEADER_SIZE)
    pitch = chance.between(200, 600, seed, call_id, "pitch")
    second = bytes(128 + round(60 * math.sin(2 * math.pi * pitch * n / _RATE)) for n in range(_RATE))
    sound = second * (_PIECE // _RATE + 2)
    if start < _HEADER_SIZE:
        yield header[start : min(stop, _HEADER_SIZE)]
        start = _HEADER_SIZE
    while start < stop:
        phase = (start - _HEADER_SIZE) % _RATE
        length = min(_PIECE, stop - start)
        yield sound[phase : phase + length]
        start += length


def _header(samples: int) -> bytes:
    samples = min(samples, 2**32 - 37)
    form = struct.pack("<HHIIHH", 1, 1, _RATE, _RATE, 1, 8)
    chunks = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", samples)
    return b"RIFF" + struct.pack("<I", samples + 36) + chunks
