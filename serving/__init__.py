<<<<<<< HEAD
"""The server: raw transactions in, decisions out, with the features of training."""
=======
"""Serving: the server, the scorer, and the state that it computes features from."""
>>>>>>> main
