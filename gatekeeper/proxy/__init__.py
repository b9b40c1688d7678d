"""A call on its way: admitted, forwarded, observed, settled."""
