"""Settings for every test."""

import hypothesis
import jax
import pytest

# The models here are tiny: compiling them takes most of the time, and this a fifth of it.
jax.config.update("jax_disable_most_optimizations", True)
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
