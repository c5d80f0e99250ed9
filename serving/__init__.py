"""The server: raw transactions in, decisions out, with the features of training."""
