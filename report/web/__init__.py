"""The web page over a root: it reads what runs recorded, and only rolls back if told to."""
