"""HTTP/1.1 towards others: engines and witnesses."""
