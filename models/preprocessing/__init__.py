"""From raw columns to the network's inputs, learned from the train window."""
