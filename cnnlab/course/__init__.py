"""The course: its studies at three sizes, the example and reference predictions, the search, the champion."""
