"""Apache Airflow provider for Volubile."""

__version__ = "0.1.0"
