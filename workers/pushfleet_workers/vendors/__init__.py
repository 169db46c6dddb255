"""The vendors: one small module each. Which there are is data: the entry-point group ``pushfleet.vendors``."""
