"""From what is owed to what is invoiced."""
