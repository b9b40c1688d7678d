"""Where what is owed goes: Stripe, or paper."""
