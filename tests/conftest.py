"""Settings for every test."""

import hypothesis
import jax
import pytest

# The models here are tiny: compiling them takes most of the time, and this a fifth of it.
jax.config.update("jax_disable_most_optimizations", True)
# The first example of a property compiles, which takes longer than any deadline that would help.
hypothesis.settings.register_profile("vcmjax", deadline=None)
hypothesis.settings.load_profile("vcmjax")


@pytest.fixture
def full_speed():
    """For tests that train: compiled as for users, ten times as fast to run."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
