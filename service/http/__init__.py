"""HTTP: routes, negotiation, problems and what every answer carries."""
