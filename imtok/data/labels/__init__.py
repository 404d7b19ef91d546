"""Class labels of images: where they stand, how they are found, and how they are read."""
