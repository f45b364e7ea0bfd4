"""What every experiment's tests share."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Features and networks are kept apart from the user's, and from those of other workers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VCMJAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def finished(request, tmp_path_factory):
    """(config, folder, results) of the module's EXPERIMENT, run as quickly as it can be."""
    experiment = request.module.EXPERIMENT
    config = experiment.Config(**experiment.QUICK)
    out = tmp_path_factory.mktemp("out")
    return config, out, experiment.run(config, out)
