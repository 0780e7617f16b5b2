"""How every kernel is compiled: cached on disk, without the GIL, and never with fast maths.

Fast maths would let LLVM reorder sums and fuse multiply-adds, so that the same events could score
differently by batch size or code path; scores are promised to be equal to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])


def kernel(function: F) -> F:
    """Compile `function` on first use; the disk cache follows NUMBA_CACHE_DIR.

    The cache looks at files that hold kernels (``config.kernels``): keep the constants that a
    kernel reads in one of them.
    """
    compiled = numba.njit(cache=True, nogil=True, fastmath=False, error_model="numpy")(function)
    return cast(F, compiled)
