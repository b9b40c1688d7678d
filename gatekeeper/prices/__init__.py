"""Adapters for public price lists. They only read what is installed: none ever asks the network."""
