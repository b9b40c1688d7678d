"""Who signs in, by what, and what they changed."""
