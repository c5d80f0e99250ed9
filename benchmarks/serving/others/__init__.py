"""The same SavedModel in other servers, each in an environment of its own."""
