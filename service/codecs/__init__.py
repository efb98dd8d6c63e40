"""JSON and Arrow bytes to and from the types of ``core``."""
