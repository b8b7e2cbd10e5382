"""INFO: what the server tells of itself, section by section."""
