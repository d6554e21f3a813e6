"""How well a detector does, and how sure that is."""
