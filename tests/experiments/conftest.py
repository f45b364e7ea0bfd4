"""What every experiment's tests share."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Features and networks are kept apart from the user's, and from those of other workers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VCMJAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
