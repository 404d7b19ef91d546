"""Images in: which there are, their bytes, their pixels, and the order in which training sees them."""
