"""How each provider writes its answers: one module a dialect, each turning an ``Ask`` into JSON or into frames.

The rule: a dialect decides shapes only. What is said and billed stands in the Ask; when it is sent is ``provider``'s.
"""
