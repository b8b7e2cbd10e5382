"""Each type of collection: what its rows are, and how they are read and changed."""
