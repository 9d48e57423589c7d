"""The paths of the spike engine: those of this processor, and AVX-512 by an emulation in C."""

import zlib
from pathlib import Path

from hoyer_det_runtime.spikes.native import INSTRUCTIONS

_HEADER = Path(__file__).parent / 'emulated_avx512' / 'immintrin.h'
# The version tells compiled files of other emulations apart.
_AVX512 = (
    *('-I', str(_HEADER.parent), f'-DEMULATION={zlib.crc32(_HEADER.read_bytes())}'),
    *('-D__AVX2__', '-D__AVX512BW__', '-D__AVX512VBMI2__'),
)
INSTRUCTIONS |= {'avx512': _AVX512, 'avx512_vnni': (*_AVX512, '-D__AVX512VNNI__')}
PATHS = [*INSTRUCTIONS]
