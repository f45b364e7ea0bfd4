"""Settings for every test."""

import os

import hypothesis
import jax
import pytest

# The models here are tiny: compiling them takes most of the time, and this a fifth of it.
jax.config.update("jax_disable_most_optimizations", True)
# XLA's older code generator halves what is left of it (a codec's step: 1.8 s, not 4); subprocesses
# inherit that. An XLA that does not know a flag ends the process, hence the version.
if jax.__version_info__ >= (0, 10):
    os.environ["XLA_FLAGS"] = (
        f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false"
    )
# The first example of a property compiles, which takes longer than any deadline that would help.
# The same examples every time: what a commit is judged by must not depend on luck. To look for new
# ones, as a change to the mathematics deserves: pytest --hypothesis-profile=search.
hypothesis.settings.register_profile("vcmjax", deadline=None, derandomize=True)
hypothesis.settings.register_profile("search", deadline=None, max_examples=1000)
hypothesis.settings.load_profile("vcmjax")


@pytest.fixture
def full_speed():
    """For tests that train: compiled as for users, ten times as fast to run."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
