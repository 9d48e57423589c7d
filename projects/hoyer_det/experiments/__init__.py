"""Named sets of trainings that are compared: what they are, how they run, what came out."""
