"""The ASGI edge: routes, and the loop that performs the exchange's commands."""
