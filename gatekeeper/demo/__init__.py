"""A realistic fake provider that speaks the dialects of OpenAI, Anthropic and Gemini, and the demo around it.

The rule: the same request is always answered with the same text and billed with the same tokens, so that a charge can
be foretold (``bill.expected_usage``) before the call is made.
"""
