"""The pages of ``/portal``, where a customer's people serve themselves. The rule: every page is about the customer of
whoever is signed in, and takes no other one's id from anywhere."""

from gatekeeper.web.portal.routes import Portal

__all__ = ["Portal"]
