"""Learned compression of visual features for machines, in JAX.

The module path is the API: ``from vcmjax.codecs import feature``. Nothing heavy is imported here.
"""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vcmjax.codecs.frozen import FrozenCodec

__version__ = "0.1.0"


def load(directory: str | os.PathLike[str]) -> "FrozenCodec":
    """The trained codec saved in `directory`; see `vcmjax.codecs.frozen`."""
    from vcmjax.codecs import frozen  # JAX is imported here, not by `import vcmjax`

    return frozen.load(directory)
