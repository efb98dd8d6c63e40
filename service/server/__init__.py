"""The HTTP/1.1 server: uvicorn, with bounds and deadlines."""
