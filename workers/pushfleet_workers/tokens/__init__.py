"""The token state: every user's devices, their push tokens, whether the app is in front, and what was muted."""
