"""Raw columns to the network's inputs: learned from the train window, saved as a Transform graph."""
