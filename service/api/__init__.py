"""The routes of the service, and the middleware around them."""
