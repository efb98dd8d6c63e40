"""Arrow IPC streams to requests, and scores to Arrow."""

MEDIA_TYPE = "application/vnd.apache.arrow.stream"
