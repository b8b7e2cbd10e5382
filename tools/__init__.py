"""Programs for those who work on kvserver. They aren't installed with it."""
