"""The engine: predict, run, confront. It knows no image and no network; `task.py` is all that it knows of a science."""
