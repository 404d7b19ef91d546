"""Image bytes to pixels: formats, damage, colour, and the fitting to a square."""
