"""One module per table or figure of the papers; `plateau` is the main job."""
