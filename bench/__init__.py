"""What the gateway costs, measured: the whole data path beside proxies that do less (``python -m bench``)."""
