"""The routes of the service and what stands around them."""
