"""The embedded servers and what supervises them."""
