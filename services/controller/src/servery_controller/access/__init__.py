"""Who may call: the directory of principals and groups, their credentials, and what gateways are told of them."""
