"""Time and memory of a rule's step, next to backprop's, and how near that is to the arithmetic's limit."""
