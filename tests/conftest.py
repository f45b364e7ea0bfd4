"""Settings for every test."""

import hypothesis

# The first example of a property compiles, which takes longer than any deadline that would help.
hypothesis.settings.register_profile("vcmjax", deadline=None)
hypothesis.settings.load_profile("vcmjax")
