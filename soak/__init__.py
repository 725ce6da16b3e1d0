"""Hours of everything at once, and attacks: see ``docs/soak.rst`` and ``docs/attacks.rst``."""
