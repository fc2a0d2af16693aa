"""How long a rule's step takes beside backprop's, how near that is to the limit, and what memory it needs."""
