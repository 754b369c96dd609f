"""What Airflow asks every provider for. Called in all its components: imports nothing."""


def get_provider_info() -> dict[str, object]:
    """Return the provider's metadata (``provider_info.schema.json`` of Airflow)."""
    return {
        "package-name": "airflow-provider-volubile",
        "name": "Volubile",
        "description": "Telephone campaigns with the AI voice agents of `Volubile <https://docs.volubile.ai/>`__.",
        "integrations": [
            {
                "integration-name": "Volubile",
                "external-doc-url": "https://docs.volubile.ai/api-reference",
                "tags": ["service"],
            }
        ],
        "operators": [
            {
                "integration-name": "Volubile",
                "python-modules": [
                    "airflow_provider_volubile.operators.agents",
                    "airflow_provider_volubile.operators.calls",
                    "airflow_provider_volubile.operators.campaigns",
                    "airflow_provider_volubile.operators.exports",
                ],
            }
        ],
        "sensors": [
            {
                "integration-name": "Volubile",
                "python-modules": [
                    "airflow_provider_volubile.sensors.calls",
                    "airflow_provider_volubile.sensors.campaigns",
                ],
            }
        ],
        "triggers": [
            {
                "integration-name": "Volubile",
                "python-modules": [
                    "airflow_provider_volubile.triggers.calls",
                    "airflow_provider_volubile.triggers.campaigns",
                    "airflow_provider_volubile.triggers.finished",
                ],
            }
        ],
        "hooks": [
            {
                "integration-name": "Volubile",
                "python-modules": ["airflow_provider_volubile.hooks.volubile"],
            }
        ],
        "notifications": ["airflow_provider_volubile.notifications.call.VolubileCallNotifier"],
        "connection-types": [
            {
                "connection-type": "volubile",
                "hook-class-name": "airflow_provider_volubile.hooks.volubile.VolubileHook",
                "hook-name": "Volubile",
                "ui-field-behaviour": {
                    # Not the port: up to Airflow 3.3.2 the test button refuses a connection without one.
                    "hidden-fields": ["login", "schema", "extra"],
                    "relabeling": {"host": "API address", "password": "Primary API key"},
                    "placeholders": {
                        "host": "https://api.eu.volubile.ai",
                        "port": "443",
                        "password": "From eu.volubile.ai/integrations/api",
                    },
                },
                "conn-fields": {
                    "secondary_api_key": {
                        "label": "Secondary API key",
                        "description": (
                            "The account's other key. It takes over when the primary one is refused, "
                            "so that keys can be replaced without downtime."
                        ),
                        "schema": {"type": ["string", "null"], "format": "password"},
                    },
                    "auth": {
                        "label": "Authentication",
                        "description": (
                            "api_key sends a key with every request. bearer exchanges it for short-lived tokens, "
                            "each with no more than the scope that its operation needs."
                        ),
                        "schema": {
                            "type": ["string", "null"],
                            "enum": ["api_key", "bearer"],
                            "default": "api_key",
                        },
                    },
                    "timeout": {
                        "label": "Timeout (seconds)",
                        "description": (
                            "How long to wait for a connection, for an answer to begin, and for each next part of it."
                        ),
                        "schema": {"type": ["number", "null"], "default": 30, "exclusiveMinimum": 0, "maximum": 600},
                    },
                    "private_storage": {
                        "label": "Private storage",
                        "description": (
                            "Recordings may be on private addresses, such as a store in your own network. Otherwise "
                            "links to such addresses are refused."
                        ),
                        "schema": {"type": ["boolean", "null"], "default": False},
                    },
                },
            }
        ],
    }
