"""Files of other people: what kind each is, by its content, and the objects in it, one at a time."""
