"""A type for every tensor: what loses least within a size, measured on the model itself."""
